"""Editing a message where it stands: the text, two ways to keep it, and what each of them does."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QPushButton, QWidget

from desktop_app.ui import theme
from desktop_app.ui.controls import name_control, push_button
from desktop_app.ui.message_edit import MessageEdit
from desktop_app.ui.row_view import EditMode, RowView
from desktop_app.ui.words import tr

_PAD_X, _PAD_Y = 14, 9


class _EditArea(MessageEdit):
    """Ctrl+Enter saves, Escape leaves; Enter saves a prompt and breaks the line of a reply."""

    cancelled = Signal()

    def __init__(self, parent: QWidget, *, enter_saves: bool) -> None:
        super().__init__(parent, lines_min=1, lines_max=18)
        self._enter_saves = enter_saves

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        if event.key() == Qt.Key.Key_Escape and not self.composing:
            event.accept()
            self.cancelled.emit()
        elif enter and control:
            event.accept()
            self.when_composed(self.submitted.emit)
        elif enter and not self._enter_saves:
            event.accept()
            self.when_composed(lambda: self.insertPlainText("\n"))
        else:
            super().keyPressEvent(event)


class RowEditor(QWidget):
    """The editor of one row.  Everything it holds goes out by `saved`; it changes nothing."""

    saved = Signal(str, str)  # text, EditMode value
    cancelled = Signal()
    resized = Signal()

    def __init__(self, parent: QWidget, view: RowView, text: str) -> None:
        super().__init__(parent)
        self._view = view
        self._width = 0
        self.edit = _EditArea(self, enter_saves=view.is_user)
        name_control(self.edit, "message.editor", tr("row.edit_label"))
        self.edit.setProperty("kind", "bare")
        self.edit.setStyleSheet("QPlainTextEdit { background: transparent; border: 0; }")
        self.edit.setFont(theme.current().font("reading"))
        self.edit.set_text(text)
        main, second = self._modes()
        self._main = self._button(main, "main", "message.editor.main")
        self._second = self._button(second, "", "message.editor.second")
        self._cancel = push_button(
            tr("row.cancel"), "message.editor.cancel", kind="plain", small=True
        )
        self._cancel.setParent(self)
        self._cancel.clicked.connect(self._leave)
        self.edit.submitted.connect(lambda: self._save(main))
        self.edit.cancelled.connect(self._leave)
        self.edit.grown.connect(self._grown)
        self.edit.focused.connect(lambda _on: self.update())

    @property
    def text(self) -> str:
        """The text as it stands."""
        return self.edit.toPlainText()

    @property
    def changed(self) -> bool:
        """Whether it differs from the message."""
        return self.text != self._view.text

    def _modes(self) -> tuple[EditMode, EditMode]:
        if self._view.is_user:
            return EditMode.ASK_AGAIN, EditMode.IN_PLACE
        return EditMode.IN_PLACE, EditMode.AS_VERSION

    def _button(self, mode: EditMode, kind: str, identifier: str) -> QPushButton:
        words = {
            EditMode.ASK_AGAIN: "row.save_ask_again",
            EditMode.IN_PLACE: "row.save",
            EditMode.AS_VERSION: "row.save_version",
        }
        text = tr(words[mode])
        made = push_button(text.replace("&", "&&"), identifier, kind=kind, small=True)
        made.setAccessibleName(text)
        made.setParent(self)
        made.clicked.connect(lambda: self._save(mode))
        return made

    def _hint(self) -> str:
        view = self._view
        if not view.is_user:
            return tr("row.edit_reply_hint", version=view.version)
        if view.versions == 1:
            return tr("row.edit_prompt_hint_first")
        return tr("row.edit_prompt_hint", next=view.versions + 1, version=view.version)

    def _save(self, mode: EditMode) -> None:
        self.edit.when_composed(lambda: self.saved.emit(self.text, mode.value))

    def _leave(self) -> None:
        self.cancelled.emit()

    def _grown(self) -> None:
        if self._width:
            self.resized.emit()

    def arrange(self, width: int) -> int:
        """Take a width; returns the height that this needs."""
        self._width = width
        self.edit.setGeometry(_PAD_X, _PAD_Y, width - 2 * _PAD_X, self.edit.height())
        y = self.edit.height() + 2 * _PAD_Y + 8
        x = 0
        for button in (self._main, self._second, self._cancel):
            size = button.sizeHint()
            button.setGeometry(x, y, size.width(), 28)
            x += size.width() + 8
        height = y + 28 + 4 + round(theme.current().px(20))
        self.resize(width, height)
        self.update()
        return height

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(0.5, 0.5, self.width() - 1, self.edit.height() + 2 * _PAD_Y - 1)
        focused = self.edit.hasFocus()
        if focused:
            painter.setPen(QPen(look.color("soft2"), 2))
            painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 8, 8)
        painter.setPen(QPen(look.color("accent" if focused else "ctl"), 1))
        painter.setBrush(look.color("raised"))
        painter.drawRoundedRect(box, 8, 8)
        painter.setFont(look.font("small"))
        painter.setPen(look.color("text3"))
        top = self._main.geometry().bottom() + 4
        room = QRectF(0, top, self.width(), self.height() - top)
        middle = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.drawText(room, int(middle | Qt.TextFlag.TextWordWrap), self._hint())
