"""The settings of the open chat: its system prompt, its sampler, its weights and template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QInputDialog,
    QPlainTextEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from desktop_app.conversation.document import Conversation
from desktop_app.errors import KnownError
from desktop_app.inference.sampling import PRESETS, Sampling
from desktop_app.session import Session
from desktop_app.ui.choices import preset_name, preset_of, weights_name
from desktop_app.ui.controls import ChoiceButton, IconButton, label, name_control
from desktop_app.ui.sampling_form import SamplingForm
from desktop_app.ui.words import tr

TEMPLATES = ("auto", "chatml", "llama2", "llama3", "oasst", "plain")


class _SystemText(QPlainTextEdit):
    """Kept when the focus leaves it, or by Ctrl+Enter."""

    kept = Signal()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self.kept.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.kept.emit()
        else:
            super().keyPressEvent(event)


class ChatSettings(QScrollArea):
    """A change is in force at once.  Sliders moved on a built-in preset make the preset "Custom".

    `with_chat` runs an action on the open chat and makes one first where there is none yet.
    """

    weights_menu_wanted = Signal(object)
    """The button at which the menu opens."""

    def __init__(
        self,
        session: Session,
        with_chat: Callable[[Callable[[Conversation], object]], None],
        choose_preset: Callable[[str], object],
    ) -> None:
        super().__init__()
        self._session = session
        self._with_chat = with_chat
        self._use_preset = choose_preset
        self._conversation: Conversation | None = None
        self._shown_system = ""
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        name_control(self, "chat_settings", tr("dock.settings"))
        self.system = _SystemText()
        self.system.setTabChangesFocus(True)
        self.system.setPlaceholderText(tr("chat_settings.system_placeholder"))
        self.system.setFixedHeight(108)
        self.system.document().setDocumentMargin(8)
        name_control(self.system, "chat_settings.system", tr("chat_settings.system"))
        self.system.kept.connect(self._keep_system)
        self.preset = QComboBox()
        self.preset.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        name_control(self.preset, "chat_settings.preset", tr("composer.preset"))
        self.preset.activated.connect(self._choose_preset)
        self.save_button = IconButton(
            "save", "chat_settings.save", tr("chat_settings.save_preset"), on_click=self._save_as
        )
        self.remove_button = IconButton(
            "trash-2",
            "chat_settings.remove",
            tr("chat_settings.remove_preset"),
            on_click=self._remove_preset,
        )
        self.form = SamplingForm()
        self.form.changed.connect(self._sampled)
        self.weights = ChoiceButton("chat_settings.weights", tr("composer.weights"))
        self.weights.clicked.connect(lambda: self.weights_menu_wanted.emit(self.weights))
        self.template = QComboBox()
        self.template.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        name_control(self.template, "chat_settings.template", tr("chat_settings.template"))
        self.template.activated.connect(self._choose_template)
        self._lay_out()

    def _lay_out(self) -> None:
        body = QWidget()
        body.setProperty("surface", "window")
        column = QVBoxLayout(body)
        column.setContentsMargins(18, 16, 18, 20)
        column.setSpacing(8)
        column.addWidget(_section("chat_settings.system", self.system))
        column.addWidget(self.system)
        column.addWidget(label(tr("chat_settings.system_hint"), "small", wrap=True))
        column.addSpacing(12)
        column.addWidget(_section("composer.preset", self.preset))
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.preset, 1)
        row.addWidget(self.save_button)
        row.addWidget(self.remove_button)
        column.addLayout(row)
        column.addSpacing(4)
        column.addWidget(self.form)
        column.addSpacing(12)
        column.addWidget(_section("composer.weights", self.weights))
        column.addWidget(self.weights)
        column.addSpacing(12)
        column.addWidget(_section("chat_settings.template", self.template))
        column.addWidget(self.template)
        column.addWidget(label(tr("chat_settings.template_hint"), "small", wrap=True))
        column.addStretch(1)
        self.setWidget(body)

    # ---- showing -----------------------------------------------------------------------------

    def show_chat(self, conversation: Conversation | None) -> None:
        """Show another chat's settings; unsaved words of the old one are kept first."""
        self._keep_system()
        self._conversation = conversation
        self._shown_system = ""
        with QSignalBlocker(self.system):
            self.system.clear()
        self.refresh()

    def refresh(self) -> None:
        """Show what stands now; a text that is being edited is left alone."""
        conversation = self._conversation
        system = conversation.system_text if conversation is not None else ""
        if system != self._shown_system:
            untouched = self.system.toPlainText() == self._shown_system
            self._shown_system = system
            if untouched or not self.system.hasFocus():
                self.system.setPlainText(system)
        key = preset_of(self._session.settings, conversation)
        self._fill_presets(key)
        self.form.show_sampling(self._sampling_of(key))
        self.remove_button.setEnabled(key not in PRESETS)
        self.weights.set_choice(weights_name(self._session))
        self._fill_templates()

    def _sampling_of(self, key: str) -> Sampling:
        try:
            return self._session.preset(key)
        except KnownError:
            return Sampling()

    def _fill_presets(self, current: str) -> None:
        own = [str(key) for key in self._session.settings.presets if key not in PRESETS]
        keys = [*PRESETS, *own]
        with QSignalBlocker(self.preset):
            if [self.preset.itemData(row) for row in range(self.preset.count())] != keys:
                self.preset.clear()
                for key in keys:
                    self.preset.addItem(preset_name(key), key)
            self.preset.setCurrentIndex(self.preset.findData(current))

    def _fill_templates(self) -> None:
        loaded = self._session.engine.loaded
        chosen = "auto"
        family = ""
        if loaded is not None:
            kept = self._session.settings.templates.get(Path(loaded.path).name)
            chosen = kept if kept in TEMPLATES else "auto"
            family = loaded.template_family
        with QSignalBlocker(self.template):
            self.template.clear()
            for key in TEMPLATES:
                text = tr(f"chat_settings.template_{key}")
                if key == "auto" and family:
                    text = tr("chat_settings.template_found", family=family)
                self.template.addItem(text, key)
            self.template.setCurrentIndex(self.template.findData(chosen))
        self.template.setEnabled(loaded is not None)

    # ---- changing ----------------------------------------------------------------------------

    def _keep_system(self) -> None:
        text = self.system.toPlainText().strip()
        if text == self._shown_system:
            return
        self._shown_system = text
        conversation = self._conversation
        if conversation is not None:
            conversation.set_system(text)
        elif text:
            self._with_chat(lambda made: made.set_system(text))

    def _choose_preset(self, row: int) -> None:
        self.choose_preset(str(self.preset.itemData(row)))

    def choose_preset(self, key: str) -> None:
        """Use a preset in this chat, and in new chats from now on."""
        self._use_preset(key)
        self.refresh()

    def _sampled(self, sampling: Sampling) -> None:
        key = preset_of(self._session.settings, self._conversation)
        self._keep_preset(tr("chat_settings.custom") if key in PRESETS else key, sampling)

    def _keep_preset(self, name: str, sampling: Sampling) -> None:
        fields = asdict(sampling)
        fields["stops"] = list(sampling.stops)
        settings = self._session.settings
        settings.presets = {**settings.presets, name: fields}
        self.choose_preset(name)

    def _save_as(self) -> None:
        name, accepted = QInputDialog.getText(
            self, tr("chat_settings.save_preset"), tr("chat_settings.preset_name")
        )
        name = " ".join(name.split())[:60]
        if accepted and name and name not in PRESETS:
            key = preset_of(self._session.settings, self._conversation)
            self._keep_preset(name, self._sampling_of(key))

    def _remove_preset(self) -> None:
        key = preset_of(self._session.settings, self._conversation)
        settings = self._session.settings
        settings.presets = {name: kept for name, kept in settings.presets.items() if name != key}
        self.choose_preset("balanced")

    def _choose_template(self, row: int) -> None:
        loaded = self._session.engine.loaded
        if loaded is None:
            return
        settings = self._session.settings
        kept = dict(settings.templates)
        key, name = str(self.template.itemData(row)), Path(loaded.path).name
        if key == "auto":
            kept.pop(name, None)
        else:
            kept[name] = key
        settings.templates = kept
        self._session.keep_settings()


def _section(key: str, field: QWidget) -> QWidget:
    caption = label(tr(key), "name")
    caption.setBuddy(field)
    return caption
