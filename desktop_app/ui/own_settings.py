"""Settings of one weights file, where they differ from those of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QDialog, QFormLayout, QHBoxLayout, QVBoxLayout, QWidget

from desktop_app.settings import Settings
from desktop_app.ui.controls import label, name_control, push_button
from desktop_app.ui.words import tr
from desktop_app.weights.shelf import Entry

_CONTEXTS: Final = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_TEMPLATES: Final = ("oasst", "chatml", "llama2", "llama3", "plain")
_THREADS: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32)
_LAYERS: Final = (-1, 0, 4, 8, 16, 24, 32, 48, 64, 999)


class OwnSettings(QDialog):
    """Changes count at once for the next load; `changed` tells what stands now."""

    changed = Signal(object)

    def __init__(
        self, parent: QWidget, entry: Entry, own: dict[str, Any], settings: Settings
    ) -> None:
        """`own`: what differs already, by the keys of `Settings`."""
        super().__init__(parent)
        self._entry = entry
        self._own = dict(own)
        self._settings = settings
        self.was_changed = False
        self.changed.connect(self._note)
        self.setWindowTitle(tr("weights.own_settings"))
        name_control(self, "own", tr("weights.own_settings"))
        form = QFormLayout()
        form.setHorizontalSpacing(24)
        form.setVerticalSpacing(10)
        contexts = [n for n in _CONTEXTS if not entry.context_length or n <= entry.context_length]
        form.addRow(
            tr("settings.context_length"),
            self._combo("context_length", contexts, lambda n: tr("settings.n_tokens", count=n)),
        )
        form.addRow(tr("settings.threads"), self._combo("threads", _THREADS, str))
        form.addRow(tr("settings.gpu_layers"), self._combo("gpu_layers", _LAYERS, _layers))
        form.addRow(
            tr("settings.kv_type"),
            self._combo("kv_type", ("f16", "q8_0"), lambda k: tr(f"settings.kv_{k}")),
        )
        form.addRow(
            tr("settings.flash_attention"),
            self._combo("flash_attention", ("on", "off"), lambda k: tr(f"settings.flash_{k}")),
        )
        form.addRow(tr("chat_settings.template"), self._template())
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(push_button(tr("app.close"), "own.close", on_click=self.accept))
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 20, 24, 20)
        column.setSpacing(14)
        column.addWidget(label(entry.title, "heading"))
        column.addWidget(label(tr("weights.own_hint"), "secondary", wrap=True))
        column.addLayout(form)
        column.addLayout(buttons)
        self.setMinimumWidth(460)

    def _combo(self, key: str, values: Any, words: Callable[[Any], str]) -> QComboBox:
        made = QComboBox()
        name_control(made, f"own.{key}", tr(f"settings.{key}"))
        made.addItem(tr("weights.own_as_all"), None)
        shown = list(values)
        if key in self._own and self._own[key] not in shown:
            shown.append(self._own[key])
        for value in shown:
            made.addItem(words(value), value)
        made.setCurrentIndex(max(0, made.findData(self._own.get(key))))
        made.activated.connect(lambda row: self._chosen(key, made.itemData(row)))
        return made

    def _note(self, _own: object) -> None:
        self.was_changed = True

    def _template(self) -> QComboBox:
        made = QComboBox()
        name_control(made, "own.template", tr("chat_settings.template"))
        made.addItem(tr("chat_settings.template_auto"), "")
        for family in _TEMPLATES:
            made.addItem(tr(f"chat_settings.template_{family}"), family)
        current = self._settings.templates.get(self._entry.path.name, "")
        made.setCurrentIndex(max(0, made.findData(current)))
        made.activated.connect(lambda row: self._template_chosen(made.itemData(row)))
        return made

    def _chosen(self, key: str, value: object) -> None:
        if value is None:
            self._own.pop(key, None)
        else:
            self._own[key] = value
        self.changed.emit(dict(self._own))

    def _template_chosen(self, family: str) -> None:
        templates = self._settings.templates
        if family:
            templates[self._entry.path.name] = family
        else:
            templates.pop(self._entry.path.name, None)
        self._settings.templates = templates
        self.changed.emit(dict(self._own))


def _layers(count: int) -> str:
    if count < 0:
        return tr("settings.automatic")
    return tr("weights.all_layers") if count > 900 else str(count)
