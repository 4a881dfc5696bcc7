"""`Keeper`: the store of every open conversation (see `conversation.store.Store`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import count
from typing import TypeVar

from desktop_app.conversation.node import ChatInfo, Json, Parts, Revision, now_ms
from desktop_app.conversation.store import Commit, Entry, Side, StreamEnd
from desktop_app.storage import rows, steps
from desktop_app.storage.failures import read_only
from desktop_app.storage.threads import Reader, Writer, after

T = TypeVar("T")
Post = Callable[[Callable[[], None]], None]


class Keeper:
    """Passes what a conversation asks on to the two threads."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer | None,
        message_ids: count[int],
        post: Post,
        on_chat: Callable[[int], None],
    ) -> None:
        """`on_chat(chat_id)` is called on the writing thread when a chat's own facts changed."""
        self._reader = reader
        self._writer = writer
        self._message_ids = message_ids
        self._on_chat = on_chat
        self.post = post

    def lease_message_id(self) -> int:
        """A message id that was never used in this library."""
        return next(self._message_ids)

    def commit(self, commit: Commit) -> Future[None]:
        """Write a step."""
        return self._refused() if self._writer is None else self._writer.commit(commit)

    def write_stream(self, chat_id: int, node_id: int, parts: Parts) -> None:
        """Take in a growing reply."""
        if self._writer is not None:
            self._writer.stream(chat_id, node_id, parts)

    def end_stream(self, end: StreamEnd) -> Future[None]:
        """Write the end of a reply."""
        return self._refused() if self._writer is None else self._writer.end(end)

    def update_chat(self, chat: ChatInfo, *, undoable: bool) -> Future[None]:
        """Write a chat's own facts."""
        if self._writer is None:
            return self._refused()
        at = now_ms()
        written = self._writer.submit(
            lambda db: steps.update_chat(db, chat, undoable=undoable, at_ms=at)
        )
        written.add_done_callback(lambda future: future.exception() or self._on_chat(chat.id))
        return written

    def read_parts(self, chat_id: int, node_ids: Sequence[int]) -> Future[Mapping[int, Parts]]:  # noqa: ARG002 -- ids are unique in the library; the protocol names the chat
        """Parts of messages; memory has whatever is not written yet, so this need not wait."""
        wanted = tuple(node_ids)
        return self._reader.submit(lambda db: rows.read_parts(db, wanted), priority=0)

    def read_entries(self, chat_id: int, side: Side, below: int, limit: int) -> Future[list[Entry]]:
        """Deeper entries of a stack."""
        return self._reader.submit(
            lambda db: rows.read_entries(db, chat_id, side, below, limit), priority=0
        )

    def read_revisions(self, node_id: int) -> Future[list[Revision]]:
        """What stood in a message before."""
        return self.after_writes(
            lambda: self._reader.submit(lambda db: rows.read_revisions(db, node_id))
        )

    def read_turns(self, node_id: int) -> Future[list[dict[str, Json]]]:
        """How a reply was made."""
        return self.after_writes(
            lambda: self._reader.submit(lambda db: rows.read_turns(db, node_id))
        )

    def after_writes(self, ask: Callable[[], Future[T]]) -> Future[T]:
        """Ask once everything that was given to the writer is on disk (or has failed)."""
        return ask() if self._writer is None else after(self._writer.barrier(), ask)

    @staticmethod
    def _refused() -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(read_only())
        return future
