"""Ctrl+Z after a chat was moved to the trash, for as long as that was the last thing done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from desktop_app.conversation import Conversation
from desktop_app.conversation.node import now_ms
from desktop_app.errors import KnownError
from desktop_app.session import Session
from desktop_app.storage import LibraryStep
from desktop_app.ui.bridge import Bridge

_DELETE = "delete-chat"


@dataclass(frozen=True, slots=True)
class _Deletion:
    chat_id: int
    was_open: bool
    at_ms: int


class ChatUndo:
    """The library's newest step beside those of the open chat.  Main thread only.

    Steps of a chat are on its own stack and deletions on the library's; what the person did last
    is undone first.  Only deletions of this run count.
    """

    def __init__(
        self,
        session: Session,
        bridge: Bridge,
        open_chat: Callable[[int], object],
        failed: Callable[[KnownError], None],
    ) -> None:
        self.changed: Callable[[], object] = lambda: None
        """A chat went or came back: the list of chats and the commands look again."""
        self._session = session
        self._bridge = bridge
        self._open_chat = open_chat
        self._failed = failed
        self._done: list[_Deletion] = []
        self._undone: list[_Deletion] = []

    def deleted(self, chat_id: int, *, was_open: bool) -> None:
        """A chat was moved to the trash."""
        self._done.append(_Deletion(chat_id, was_open, now_ms()))
        self._undone.clear()
        self.changed()

    def restored(self, chat_id: int) -> None:
        """It came back some other way."""
        self._done = [one for one in self._done if one.chat_id != chat_id]
        self._undone.clear()
        self.changed()

    def can_undo(self, conversation: Conversation | None) -> bool:
        """Whether a deletion is what was done last, seen from the open chat."""
        step_at = conversation.undo_at_ms if conversation is not None else 0
        return bool(self._done) and self._done[-1].at_ms > step_at

    def can_redo(self, conversation: Conversation | None) -> bool:
        """Whether bringing a chat back is what was done last."""
        step_at = conversation.undo_at_ms if conversation is not None else 0
        return bool(self._undone) and self._undone[-1].at_ms > step_at

    def undo(self, otherwise: Callable[[], object]) -> None:
        """Bring the chat back; `otherwise` runs when the library has done something since."""
        library, deletion = self._session.library, self._done.pop()

        def looked(names: tuple[str, str]) -> None:
            if names[0] != _DELETE:
                otherwise()
                return
            self._bridge.when_done(library.undo(), brought_back, self._failed)

        def brought_back(step: LibraryStep | None) -> None:
            if step is None or deletion.chat_id not in step.chat_ids:
                self.changed()
                return
            self._undone.append(_Deletion(deletion.chat_id, deletion.was_open, now_ms()))
            self.changed()
            if deletion.was_open:
                self._open_chat(deletion.chat_id)

        self._bridge.when_done(library.history(), looked, self._failed)

    def redo(self, leave: Callable[[int], bool]) -> None:
        """Move it to the trash again; `leave` leaves the chat if it is open, and says whether."""
        library, deletion = self._session.library, self._undone.pop()

        def looked(names: tuple[str, str]) -> None:
            if names[1] != _DELETE:
                return
            was_open = leave(deletion.chat_id)
            conversation = self._session.conversation(deletion.chat_id)
            if conversation is not None:
                self._session.stop_chat(deletion.chat_id)

            def gone(_step: object) -> None:
                self._done.append(_Deletion(deletion.chat_id, was_open, now_ms()))
                self.changed()

            self._bridge.when_done(library.redo(), gone, self._failed)

        self._bridge.when_done(library.history(), looked, self._failed)
