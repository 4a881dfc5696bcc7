"""What a conversation asks of the place where it is kept (storage implements it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from desktop_app.conversation.edits import Edit, Step
from desktop_app.conversation.node import ChatInfo, Json, Node, Parts, Revision

_T = TypeVar("_T")


class Side(StrEnum):
    """The two stacks of a conversation's history."""

    UNDO = "undo"
    REDO = "redo"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored entry of a stack; the highest `seq` is its top.  `step` holds what to apply."""

    seq: int
    step: Step


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: edits, and what they do to the history.

    `chat` is written first where the chat has no row yet.  All commits of an `epoch` fail after one
    of them failed, because each builds on those before it.  `soft` commits are navigation: they
    fail alone and leave no trace in the history.
    """

    chat: ChatInfo
    edits: tuple[Edit, ...]
    epoch: int
    at_ms: int
    push: tuple[Side, Entry] | None = None
    pop: tuple[Side, int] | None = None
    clear_redo: bool = False
    soft: bool = False


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The final state of a reply that was being written; `turn` tells how it was made."""

    chat_id: int
    node: Node
    parts: Parts
    turn: Mapping[str, Json] | None


class Store(Protocol):
    """Called on the main thread; answers by futures, which resolve on any thread."""

    def lease_message_id(self) -> int:
        """A message id that was never used in this library."""

    def post(self, call: Callable[[], None]) -> None:
        """Run this on the main thread soon."""

    def commit(self, commit: Commit) -> Future[None]:
        """Write a step; resolves when it is on disk."""

    def write_stream(self, chat_id: int, node_id: int, parts: Parts) -> None:
        """Write a growing reply within half a second; later calls replace earlier ones."""

    def end_stream(self, end: StreamEnd) -> Future[None]:
        """Write the end of a reply; the future fails with the first try, and more tries follow."""

    def read_parts(self, chat_id: int, node_ids: Sequence[int]) -> Future[Mapping[int, Parts]]:
        """Parts of messages, removed ones too; a message that is not there has none."""

    def read_entries(self, chat_id: int, side: Side, below: int, limit: int) -> Future[list[Entry]]:
        """Up to `limit` entries with `seq` under `below`, the highest first."""

    def read_revisions(self, node_id: int) -> Future[list[Revision]]:
        """What stood in a message before, oldest first."""

    def read_turns(self, node_id: int) -> Future[list[dict[str, Json]]]:
        """How a reply was made, oldest first."""

    def update_chat(self, chat: ChatInfo, *, undoable: bool) -> Future[None]:
        """Write a chat's title, pin, weights, preset and extra; undoable on the library's stack."""


def done(value: _T) -> Future[_T]:
    """A future that has its result already."""
    future: Future[_T] = Future()
    future.set_result(value)
    return future
