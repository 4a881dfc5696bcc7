"""The transcript: the messages of the active path, only those on screen as real widgets."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QAbstractScrollArea, QWidget

from desktop_app.ui.row_view import RowView


class Transcript(QAbstractScrollArea):
    """Shows `RowView`s and asks for everything else by signal; it changes no message itself."""

    again_requested = Signal(int)
    continue_requested = Signal(int)
    copy_requested = Signal(int)
    copy_to_chat_requested = Signal(int)
    delete_requested = Signal(int)
    edit_saved = Signal(int, str, str)  # message id, text, EditMode value
    elsewhere_requested = Signal(int, int)  # message id, version (from 1): Show
    failure_action = Signal(int, str)  # message id, RowAction.key
    keep_path_requested = Signal(int)
    link_activated = Signal(str)  # http, https and mailto only
    retry_requested = Signal(int)
    show_prompt_requested = Signal(int)
    star_requested = Signal(int, bool)
    stop_requested = Signal(int)
    version_requested = Signal(int, int)  # message id, version (from 1)

    current_changed = Signal(int)  # message id with the focus
    editing_changed = Signal(bool)  # an editor opened or the last one closed
    position_changed = Signal()  # scrolled by the user: ask position()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[RowView] = []

    def set_rows(self, rows: Sequence[RowView], *, keep: int = 0) -> None:
        """Show these messages.

        Rows of the same message keep their layout and editor.  What stands at the top of the view
        stays there; with `keep` (a message id, such as the one whose version was switched) the
        first row that changed at or after it keeps its place on screen.
        """
        raise NotImplementedError

    def update_row(self, row: RowView) -> None:
        """Show another state of one message; a message that is not shown is ignored."""
        raise NotImplementedError

    def stream(self, message_id: int, text: str, reasoning: str = "") -> None:
        """The whole text so far of a reply being written; only its end is laid out again."""
        raise NotImplementedError

    def position(self) -> tuple[int, int]:
        """What stands at the top of the view: message id (0 when empty) and px into it."""
        raise NotImplementedError

    def set_position(self, message_id: int, offset: int) -> None:
        """Scroll so that this message stands `offset` px above the top."""
        raise NotImplementedError

    def reveal(self, message_id: int) -> None:
        """Scroll a message into view, make it current and let it stand out for a moment."""
        raise NotImplementedError

    def scroll_to_end(self) -> None:
        """Scroll to the last message and stay at the end while it grows."""
        raise NotImplementedError

    def start_editing(self, message_id: int) -> None:
        """Open the editor in a row."""
        raise NotImplementedError

    def editing(self) -> dict[int, str]:
        """Unsaved texts of open editors, by message id."""
        raise NotImplementedError

    def current(self) -> int:
        """The id of the message with the focus, else of the last one; 0 when empty."""
        raise NotImplementedError

    def selected_text(self) -> str:
        """The selected text over all messages, also those off screen."""
        raise NotImplementedError
