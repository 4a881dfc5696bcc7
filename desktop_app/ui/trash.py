"""The trash: deleted chats and messages, to restore or to erase for good."""

from __future__ import annotations

import functools

from PySide6.QtCore import QDateTime, QSize, Qt, Signal
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import ChatInfo
from desktop_app.errors import KnownError
from desktop_app.session import Session
from desktop_app.storage.trash import Removal, Trash
from desktop_app.ui import icons
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.controls import label, name_control, push_button
from desktop_app.ui.path_rows import time_text
from desktop_app.ui.safe_text import visible
from desktop_app.ui.words import tr


class TrashWindow(QDialog):
    """A list, Restore, and Empty, which asks: it is the one thing that cannot be undone."""

    changed = Signal()
    chat_restored = Signal(int)

    def __init__(self, parent: QWidget, session: Session, bridge: Bridge) -> None:
        super().__init__(parent)
        self._session = session
        self._library = session.library
        self._bridge = bridge
        self.setWindowTitle(tr("trash.title"))
        name_control(self, "trash", tr("trash.title"))
        self.resize(560, 460)
        self.list = QListWidget()
        name_control(self.list, "trash.chats", tr("trash.chats"))
        self.list.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        self.list.itemSelectionChanged.connect(self._show_buttons)
        self.list.itemActivated.connect(lambda _item: self.restore())
        self._note = label("", "secondary", wrap=True)
        name_control(self._note, "trash.note", "")
        self.restore_button = push_button(
            tr("trash.restore"), "trash.restore", on_click=self.restore
        )
        self.empty_button = push_button(
            tr("trash.empty"), "trash.empty", kind="danger", on_click=self.ask_and_empty
        )
        close = push_button(tr("app.close"), "trash.close", on_click=self.close)
        buttons = QHBoxLayout()
        buttons.addWidget(self.empty_button)
        buttons.addStretch(1)
        buttons.addWidget(self.restore_button)
        buttons.addWidget(close)
        column = QVBoxLayout(self)
        column.setContentsMargins(20, 18, 20, 16)
        column.setSpacing(12)
        column.addWidget(label(tr("trash.title"), "heading"))
        column.addWidget(self._note)
        column.addWidget(self.list, 1)
        column.addLayout(buttons)
        self._show_buttons()
        self.reload()

    def reload(self) -> None:
        """Read the list again."""
        self._bridge.when_done(self._library.trash(), self._show, self._failed)

    def restore(self) -> None:
        """Bring the selected chats and messages back."""
        for item in self.list.selectedItems():
            thrown: ChatInfo | Removal = item.data(Qt.ItemDataRole.UserRole)
            if isinstance(thrown, ChatInfo):
                self._bridge.when_done(
                    self._library.restore_chat(thrown.id),
                    functools.partial(self._restored, thrown.id),
                    self._failed,
                )
            else:
                self._bridge.when_done(
                    self._session.open_chat(thrown.chat_id),
                    functools.partial(self._restore_messages, thrown),
                    self._failed,
                )

    def _restore_messages(self, removal: Removal, conversation: Conversation) -> None:
        conversation.restore(removal.node_ids, removal.removal)
        shown = [i for i in removal.node_ids if i in conversation.tree]
        if shown:
            conversation.choose_version(shown[0])
        self._bridge.when_done(
            conversation.saved(),
            functools.partial(self._restored, removal.chat_id),
            self._failed,
        )

    def ask_and_empty(self) -> None:
        """Erase everything in the trash after a yes."""
        box = QMessageBox(self)
        box.setIcon(QMessageBox.Icon.NoIcon)
        name_control(box, "trash.question", tr("trash.question"))
        box.setText(tr("trash.question"))
        box.setInformativeText(tr("trash.question_text"))
        erase = box.addButton(tr("trash.erase"), QMessageBox.ButtonRole.DestructiveRole)
        name_control(erase, "trash.erase", tr("trash.erase"))
        keep = box.addButton(tr("trash.keep"), QMessageBox.ButtonRole.RejectRole)
        name_control(keep, "trash.keep", tr("trash.keep"))
        box.setDefaultButton(keep)
        box.exec()
        if box.clickedButton() is erase:
            self._bridge.when_done(self._session.empty_trash(), self._emptied, self._failed)

    def _show(self, trash: Trash) -> None:
        self.list.clear()
        rows: list[tuple[int, str, ChatInfo | Removal]] = [
            (chat.deleted_at, chat.title or tr("chat.untitled"), chat) for chat in trash.chats
        ]
        rows += [(removal.at_ms, _words_of(removal), removal) for removal in trash.removals]
        now = QDateTime.currentDateTime()
        for at_ms, title, thrown in sorted(rows, key=lambda row: -row[0]):
            when = tr("trash.deleted_at", time=time_text(at_ms, now))
            item = QListWidgetItem(f"{visible(title)}   ·   {when}")
            item.setIcon(
                icons.icon(
                    "message-square" if isinstance(thrown, ChatInfo) else "corner-down-right"
                )
            )
            item.setSizeHint(QSize(100, 34))
            item.setData(Qt.ItemDataRole.UserRole, thrown)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{title}, {when}")
            self.list.addItem(item)
        self._note.setText(tr("trash.hint" if rows else "trash.nothing"))
        self.empty_button.setEnabled(bool(rows))
        self._show_buttons()

    def _restored(self, chat_id: int, _done: object = None) -> None:
        self.chat_restored.emit(chat_id)
        self.changed.emit()
        self.reload()

    def _emptied(self, _result: object) -> None:
        self.changed.emit()
        self.reload()

    def _failed(self, error: KnownError) -> None:
        self._note.setText(error.sentence)

    def _show_buttons(self) -> None:
        self.restore_button.setEnabled(bool(self.list.selectedItems()))


def _words_of(removal: Removal) -> str:
    words = " ".join(removal.text.split()) or tr("outline.empty")
    below = len(removal.node_ids) - 1
    title = removal.chat_title or tr("chat.untitled")
    key = "trash.messages_below" if below else "trash.message"
    return tr(key, words=words, title=title, count=below)
