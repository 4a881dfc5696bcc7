"""The settings window: every setting is in force at once, there is nothing to confirm."""

from __future__ import annotations

import os
from collections.abc import Callable

from PySide6.QtCore import QSignalBlocker, QSize, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QFrame,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QScrollArea,
    QSpinBox,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from desktop_app.inference.sampling import PRESETS
from desktop_app.session import Session
from desktop_app.ui import icons, theme
from desktop_app.ui.choices import preset_name, weights_name
from desktop_app.ui.controls import (
    ElidedLabel,
    Switch,
    bare_number,
    label,
    line,
    name_control,
    push_button,
)
from desktop_app.ui.weights_card import size_text
from desktop_app.ui.words import tr

_SCALES = (0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
_CONTEXTS = (0, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_RELOAD_AFTER_MS = 900


class SettingsWindow(QDialog):
    """Pages at the left, rows at the right.  Changes of the engine load the weights again."""

    weights_wanted = Signal()
    trash_wanted = Signal()
    connections_wanted = Signal()
    language_changed = Signal()

    def __init__(self, parent: QWidget, session: Session) -> None:
        super().__init__(parent)
        self._session = session
        self._settings = session.settings
        self.setWindowTitle(tr("settings.title"))
        name_control(self, "settings", tr("settings.title"))
        self.resize(760, 560)
        self._reload = QTimer(self, interval=_RELOAD_AFTER_MS, singleShot=True)
        self._reload.timeout.connect(self._load_again)
        self.pages = QListWidget()
        self.pages.setFixedWidth(190)
        name_control(self.pages, "settings.pages", tr("settings.pages"))
        self.stack = QStackedWidget()
        for key, icon, build in (
            ("weights", "cpu", self._weights_page),
            ("answers", "sliders-horizontal", self._answers_page),
            ("look", "sun", self._look_page),
            ("privacy", "shield", self._privacy_page),
        ):
            item = QListWidgetItem(icons.icon(icon), tr(f"settings.{key}"))
            item.setData(Qt.ItemDataRole.UserRole, icon)
            item.setSizeHint(QSize(150, 34))
            self.pages.addItem(item)
            self.stack.addWidget(_page(tr(f"settings.{key}"), build()))
        self.pages.currentRowChanged.connect(self.stack.setCurrentIndex)
        self.pages.setCurrentRow(0)
        side = QWidget()
        side.setProperty("surface", "window")
        side_column = QVBoxLayout(side)
        side_column.setContentsMargins(10, 16, 10, 16)
        side_column.addWidget(self.pages)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(side)
        row.addWidget(line("vline"))
        row.addWidget(self.stack, 1)
        theme.current().changed.connect(self._recolour)
        session.add_listener(self)
        self.finished.connect(lambda _code: self._leave())

    # ---- pages -------------------------------------------------------------------------------

    def _weights_page(self) -> list[QWidget]:
        self._weights = ElidedLabel(weights_name(self._session), "secondary")
        choose = push_button(
            tr("settings.choose"), "settings.weights", on_click=self.weights_wanted.emit
        )
        self._facts = label("", "small", wrap=True)
        contexts = [
            (tr("settings.automatic") if n == 0 else tr("settings.n_tokens", count=n), n)
            for n in sorted({*_CONTEXTS, self._settings.context_length})
        ]
        context = self._combo("context_length", contexts, reload=True)
        threads = self._spin("threads", 0, max(64, os.cpu_count() or 1), tr("settings.automatic"))
        layers = self._spin("gpu_layers", -1, 999, tr("settings.automatic"))
        automatic = (tr("settings.automatic"), "auto")
        kinds = [(tr(f"settings.kv_{kind}"), kind) for kind in ("f16", "q8_0")]
        kv = self._combo("kv_type", [automatic, *kinds], reload=True)
        switch = [(tr(f"settings.flash_{way}"), way) for way in ("on", "off")]
        flash = self._combo("flash_attention", [automatic, *switch], reload=True)
        self._show_facts()
        return [
            _row(tr("settings.weights_file"), _pair(self._weights, choose)),
            self._facts,
            _row(tr("settings.context_length"), context, tr("settings.context_length_hint")),
            _row(tr("settings.threads"), threads, tr("settings.threads_hint")),
            _row(tr("settings.gpu_layers"), layers, tr("settings.gpu_layers_hint")),
            _row(tr("settings.kv_type"), kv, tr("settings.kv_type_hint")),
            _row(tr("settings.flash_attention"), flash, tr("settings.flash_attention_hint")),
        ]

    def _answers_page(self) -> list[QWidget]:
        keys = [*PRESETS, *(str(k) for k in self._settings.presets if k not in PRESETS)]
        preset = self._combo("preset", [(preset_name(key), key) for key in keys])
        drafts = self._spin("drafts", 2, 8, "")
        choices = ("plugged_in", "always", "never")
        ahead = self._combo("read_ahead", [(tr(f"settings.ahead_{key}"), key) for key in choices])
        return [
            _row(tr("settings.preset"), preset, tr("settings.preset_hint")),
            _row(tr("settings.drafts"), drafts, tr("settings.drafts_hint")),
            _row(tr("settings.read_ahead"), ahead, tr("settings.read_ahead_hint")),
        ]

    def _look_page(self) -> list[QWidget]:
        language = self._combo(
            "language",
            [(tr("settings.system"), "auto"), ("English", "en"), ("한국어", "ko")],
            then=self._language_chosen,
        )
        look = self._combo(
            "theme",
            [
                (tr("settings.system"), "auto"),
                (tr("settings.light"), "light"),
                (tr("settings.dark"), "dark"),
            ],
            then=lambda: theme.current().set_mode(self._settings.theme),  # type: ignore[arg-type]  # settings check the choice
        )
        scale = self._combo(
            "text_scale",
            [(f"{round(factor * 100)} %", factor) for factor in _SCALES],
            then=lambda: theme.current().set_text_scale(self._settings.text_scale),
        )
        self._language_note = label(tr("settings.language_note"), "small", wrap=True)
        self._language_note.hide()
        return [
            _row(tr("settings.theme"), look),
            _row(tr("settings.text_scale"), scale),
            _row(tr("settings.language"), language),
            self._language_note,
        ]

    def _privacy_page(self) -> list[QWidget]:
        offline = Switch("settings.offline", tr("settings.offline"))
        offline.setChecked(self._settings.offline)
        offline.toggled.connect(lambda on: self._set("offline", on))
        folder = ElidedLabel(str(self._session.profile.root), "secondary")
        show = push_button(
            tr("settings.show_folder"), "settings.folder", on_click=self._show_folder
        )
        trash = push_button(tr("trash.open"), "settings.trash", on_click=self.trash_wanted.emit)
        log = push_button(tr("connections.show"), "settings.connections", on_click=self._show_log)
        return [
            label(tr("settings.privacy_text"), "secondary", wrap=True),
            _row(tr("settings.offline"), offline, tr("settings.offline_hint")),
            _row(tr("connections.title"), log, tr("connections.settings_hint")),
            _row(tr("settings.folder"), _pair(folder, show), tr("settings.folder_hint")),
            _row(tr("trash.title"), trash, tr("settings.trash_hint")),
        ]

    # ---- rows --------------------------------------------------------------------------------

    def _combo(
        self,
        key: str,
        choices: list[tuple[str, object]]
        | list[tuple[str, int]]
        | list[tuple[str, str]]
        | list[tuple[str, float]],
        *,
        reload: bool = False,
        then: Callable[[], object] | None = None,
    ) -> QComboBox:
        made = QComboBox()
        made.setMinimumWidth(190)
        name_control(made, f"settings.{key}", tr(f"settings.{key}"))
        for text, value in choices:
            made.addItem(text, value)
        with QSignalBlocker(made):
            made.setCurrentIndex(made.findData(getattr(self._settings, key)))

        def chosen(row: int) -> None:
            self._set(key, made.itemData(row), reload=reload)
            if then is not None:
                then()

        made.activated.connect(chosen)
        return made

    def _spin(self, key: str, low: int, high: int, lowest: str) -> QSpinBox:
        made = QSpinBox()
        made.setRange(low, high)
        made.setSpecialValueText(lowest)
        made.setFixedWidth(190)
        made.setAlignment(Qt.AlignmentFlag.AlignLeft)
        bare_number(made, buttons=True)
        made.setKeyboardTracking(False)
        made.setValue(getattr(self._settings, key))
        name_control(made, f"settings.{key}", tr(f"settings.{key}"))
        engine = key in ("threads", "gpu_layers")
        made.valueChanged.connect(lambda value: self._set(key, value, reload=engine))
        return made

    def _set(self, key: str, value: object, *, reload: bool = False) -> None:
        setattr(self._settings, key, value)
        self._session.keep_settings()
        if reload and (self._session.engine.loaded is not None or self._session.is_loading):
            self._reload.start()

    def _load_again(self) -> None:
        path = self._session.default_weights()
        if path is not None:
            self._session.load_weights(path)

    def _language_chosen(self) -> None:
        self._language_note.show()
        self.language_changed.emit()

    def _show_log(self) -> None:
        self.accept()
        self.connections_wanted.emit()

    def _show_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._session.profile.root)))

    # ---- told by the session -----------------------------------------------------------------

    def loaded(self, _info: object) -> None:
        """Other weights are in force."""
        self._show_facts()

    def unloaded(self) -> None:
        """No weights are in force."""
        self._show_facts()

    def _show_facts(self) -> None:
        self._weights.set_full_text(weights_name(self._session))
        loaded = self._session.engine.loaded
        if loaded is None:
            self._facts.setText("")
            return
        facts = [
            loaded.architecture,
            loaded.quantisation,
            size_text(loaded.size_bytes),
            tr(
                "settings.fact_context", count=loaded.context_length, trained=loaded.trained_context
            ),
            tr("settings.fact_threads", count=loaded.threads) + _why(loaded.threads_choice),
            loaded.offload_reason,
        ]
        self._facts.setText(" · ".join(fact for fact in facts if fact))

    def _recolour(self) -> None:
        for row in range(self.pages.count()):
            item = self.pages.item(row)
            item.setIcon(icons.icon(item.data(Qt.ItemDataRole.UserRole)))

    def _leave(self) -> None:
        if self._reload.isActive():
            self._reload.stop()
            self._load_again()
        self._session.remove_listener(self)
        self.deleteLater()


def _why(threads_choice: str) -> str:
    """Why it is so many threads, behind their number; empty where the user fixed it."""
    if threads_choice not in ("small", "measured", "remembered", "busy"):
        return ""
    return f" ({tr(f'settings.threads_{threads_choice}')})"


def _page(title: str, rows: list[QWidget]) -> QScrollArea:
    body = QWidget()
    body.setProperty("surface", "canvas")
    column = QVBoxLayout(body)
    column.setContentsMargins(28, 20, 28, 24)
    column.setSpacing(14)
    column.addWidget(label(title, "heading"))
    for row in rows:
        column.addWidget(row)
    column.addStretch(1)
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.setWidget(body)
    return area


def _row(name: str, field: QWidget, hint: str = "") -> QWidget:
    """Name and hint at the left, the control at the right."""
    made = QWidget()
    texts = QVBoxLayout()
    texts.setSpacing(2)
    caption = label(name, "name")
    caption.setBuddy(field)
    texts.addWidget(caption)
    if hint:
        texts.addWidget(label(hint, "small", wrap=True))
        field.setAccessibleDescription(hint)
    row = QHBoxLayout(made)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(24)
    row.addLayout(texts, 1)
    row.addWidget(field, 0, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight)
    return made


def _pair(left: ElidedLabel, right: QWidget) -> QWidget:
    made = QWidget()
    left.setMinimumWidth(150)
    left.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    row = QHBoxLayout(made)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(left, 1)
    row.addWidget(right)
    return made
