"""A store that keeps nothing: for a conversation that is never written (previews, tools, tests)."""

# ruff: noqa: ARG002 -- the Store protocol names the arguments; this store needs none of them.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import count

from desktop_app.conversation.node import ChatInfo, Json, Parts, Revision
from desktop_app.conversation.store import Commit, Entry, Side, StreamEnd, done


class MemoryStore:
    """Implements `Store`; every write is done at once, and everything read is in memory already."""

    def __init__(self) -> None:
        self._ids = count(1)

    def lease_message_id(self) -> int:
        """The next id."""
        return next(self._ids)

    def post(self, call: Callable[[], None]) -> None:
        """There is one thread: run it now."""
        call()

    def commit(self, commit: Commit) -> Future[None]:
        """Done."""
        return done(None)

    def write_stream(self, chat_id: int, node_id: int, parts: Parts) -> None:
        """Nothing to write."""

    def end_stream(self, end: StreamEnd) -> Future[None]:
        """Done."""
        return done(None)

    def read_parts(self, chat_id: int, node_ids: Sequence[int]) -> Future[Mapping[int, Parts]]:
        """Everything is in the tree already."""
        return done({})

    def read_entries(self, chat_id: int, side: Side, below: int, limit: int) -> Future[list[Entry]]:
        """Everything is in the history already."""
        return done([])

    def read_revisions(self, node_id: int) -> Future[list[Revision]]:
        """Not kept."""
        return done([])

    def read_turns(self, node_id: int) -> Future[list[dict[str, Json]]]:
        """Not kept."""
        return done([])

    def update_chat(self, chat: ChatInfo, *, undoable: bool) -> Future[None]:
        """Done."""
        return done(None)
