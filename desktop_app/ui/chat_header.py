"""The line above the transcript: the chat's title, and what one can do with the chat."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QMenu, QWidget

from desktop_app.ui import theme
from desktop_app.ui.controls import ElidedLabel, IconButton, name_control, tip
from desktop_app.ui.safe_text import visible
from desktop_app.ui.words import tr

HEIGHT_PX = 48


class _TitleField(QLineEdit):
    """Enter and leaving keep the new title, Escape the old one."""

    kept = Signal(str)
    left = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.left.emit()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.kept.emit(self.text())
        else:
            super().keyPressEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason and self.isVisible():
            self.kept.emit(self.text())


class _Title(ElidedLabel):
    clicked = Signal()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self.clicked.emit()


class ChatHeader(QWidget):
    """Emits what is wanted; holds no chat."""

    renamed = Signal(str)
    undo_wanted = Signal()
    redo_wanted = Signal()
    find_wanted = Signal()
    sidebar_wanted = Signal()
    dock_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(HEIGHT_PX)
        self.make_menu: Callable[[], QMenu] | None = None
        self._title_text = ""
        self.title = _Title("", "heading")
        name_control(self.title, "header.title", "")
        self.title.setCursor(Qt.CursorShape.IBeamCursor)
        self.title.clicked.connect(self.start_rename)
        self.field = _TitleField()
        self.field.setMaxLength(200)
        name_control(self.field, "header.rename", tr("chat.rename"))
        self.field.kept.connect(self._keep)
        self.field.left.connect(self._leave)
        self.field.hide()
        self.sidebar_button = self._button("panel-left", "sidebar", "Ctrl+B", self.sidebar_wanted)
        self.undo_button = self._button("undo-2", "undo", "Ctrl+Z", self.undo_wanted)
        self.redo_button = self._button("redo-2", "redo", "Ctrl+Shift+Z", self.redo_wanted)
        self.find_button = self._button("search", "find", "Ctrl+F", self.find_wanted)
        self.more_button = IconButton(
            "ellipsis", "header.more", tr("header.more"), on_click=self._open_menu
        )
        self.dock_button = self._button("panel-right", "dock", "Ctrl+Shift+B", self.dock_wanted)
        row = QHBoxLayout(self)
        row.setContentsMargins(24, 0, 12, 0)
        row.setSpacing(4)
        row.addWidget(self.sidebar_button)
        row.addWidget(self.title, 1)
        row.addWidget(self.field, 1)
        row.addSpacing(12)
        row.addWidget(self.undo_button)
        row.addWidget(self.redo_button)
        row.addSpacing(12)
        row.addWidget(self.find_button)
        row.addWidget(self.more_button)
        row.addWidget(self.dock_button)
        self.show_history("", "")

    def _button(self, icon: str, key: str, shortcut: str, signal: object) -> IconButton:
        emit = getattr(signal, "emit")  # noqa: B009 - PySide's Signal stubs lack `emit` on the bound type
        return IconButton(
            icon, f"header.{key}", tr(f"header.{key}"), shortcut=shortcut, on_click=emit
        )

    def show_title(self, title: str) -> None:
        """The chat's title; empty for a new chat."""
        self._title_text = title
        shown = visible(title) or tr("chat.untitled")
        self.title.set_full_text(shown)
        self.title.setToolTip(tr("header.title_tip"))

    def show_history(self, undo: str, redo: str) -> None:
        """Wordings of the steps that undo and redo would take back; empty disables."""
        for button, key, step, keys in (
            (self.undo_button, "undo", undo, "Ctrl+Z"),
            (self.redo_button, "redo", redo, "Ctrl+Shift+Z"),
        ):
            button.setEnabled(bool(step))
            name = tr(f"header.{key}_step", step=step) if step else tr(f"header.no_{key}")
            button.setToolTip(tip(name, keys) if step else name)

    def set_chat_tools(self, enabled: bool) -> None:
        """Whether there is a chat to find in and to act upon."""
        self.find_button.setEnabled(enabled)
        self.title.setEnabled(enabled)

    def start_rename(self) -> None:
        """Open the title's field."""
        if not self.title.isEnabled():
            return
        self.field.setText(self._title_text)
        self.field.setFont(theme.current().font("heading"))
        self.title.hide()
        self.field.show()
        self.field.setFocus(Qt.FocusReason.OtherFocusReason)
        self.field.selectAll()

    def _keep(self, text: str) -> None:
        self._leave()
        title = " ".join(text.split())
        if title and title != self._title_text:
            self.renamed.emit(title)

    def _leave(self) -> None:
        self.field.hide()
        self.title.show()

    def _open_menu(self) -> None:
        if self.make_menu is None:
            return
        menu = self.make_menu()
        corner = self.more_button.mapToGlobal(self.more_button.rect().bottomRight())
        corner.setX(corner.x() - menu.sizeHint().width())
        corner.setY(corner.y() + 4)
        menu.exec(corner)
        menu.deleteLater()

    def sizeHint(self) -> QSize:
        return QSize(400, HEIGHT_PX)
