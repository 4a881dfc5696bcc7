"""What a transcript asks of its owner, and the mouse, which it leaves to its `Pointer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtGui import QContextMenuEvent, QMouseEvent
from PySide6.QtWidgets import QAbstractScrollArea

if TYPE_CHECKING:
    from desktop_app.ui.transcript_pointer import Pointer


class TranscriptFrame(QAbstractScrollArea):
    """The signals of a `Transcript`; the first number is always the message."""

    pointer: Pointer

    again_requested = Signal(int)
    continue_requested = Signal(int)
    copy_requested = Signal(int)
    copy_to_chat_requested = Signal(int)
    delete_requested = Signal(int)
    details_requested = Signal(int)
    drafts_requested = Signal(int, int)  # message id, how many drafts; 0: as many as last time
    edit_saved = Signal(int, str, str)  # message id, text, EditMode value
    elsewhere_requested = Signal(int, int)  # message id, version (from 1): Show
    failure_action = Signal(int, str)  # message id, RowAction.key
    keep_draft_requested = Signal(int)
    keep_path_requested = Signal(int)
    link_activated = Signal(str)  # http, https and mailto only
    retry_requested = Signal(int)
    show_draft_requested = Signal(int)  # another of the compared drafts is the open path
    show_prompt_requested = Signal(int)
    star_requested = Signal(int, bool)
    stop_drafts_requested = Signal(int)
    stop_requested = Signal(int)
    version_requested = Signal(int, int)  # message id, version (from 1)

    again_pointed = Signal(int)
    """Pointer or keyboard is at Ask again of this message; 0: it left."""
    current_changed = Signal(int)  # message id with the focus
    editing_changed = Signal(bool)  # an editor opened or the last one closed
    position_changed = Signal()  # scrolled by the user: ask position()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.pointer.press(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self.pointer.move(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self.pointer.release(event)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.pointer.double_click(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        self.pointer.open_menu(event)
