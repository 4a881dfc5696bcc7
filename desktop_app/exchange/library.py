"""What the exchange asks of a library, and the shape of a chat on its way in or out.

The shape of a dump is described in `desktop_app.storage.dump`; the exchange does not import it,
because storage and exchange know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from desktop_app.conversation.node import ChatInfo

Dump = dict[str, Any]


class Chats(Protocol):
    """A library, seen from here.  Any thread."""

    def chats(self, *, deleted: bool = False) -> Future[list[ChatInfo]]:
        """The chats (those in the trash with `deleted`)."""

    def export_chat(self, chat_id: int, *, removed: bool = False) -> Future[Dump]:
        """One chat as plain values, with what is in the trash where `removed`."""

    def import_chats(self, dumps: Iterable[Dump]) -> Future[list[int]]:
        """Add chats, all or none; uids that are taken are replaced.  Gives their ids."""


def text_of(message: Mapping[str, Any], kind: str = "text") -> str:
    """The parts of one kind, joined."""
    parts: Sequence[Mapping[str, Any]] = message.get("parts") or ()
    return "".join(part.get("text", "") for part in parts if part.get("kind") == kind)


def canonical(dump: Mapping[str, Any]) -> Any:
    """What a chat says, without what differs between two imports of the same file: its uids, and
    where one looks at the moment (head, chosen children, pin, times of change)."""
    messages = dump.get("messages") or ()
    number = {message["uid"]: n for n, message in enumerate(messages)}
    chat = dump.get("chat") or {}
    extra = {key: value for key, value in (chat.get("extra") or {}).items() if key != "copy_of"}
    return (
        chat.get("title") or "",
        chat.get("weights") or "",
        chat.get("preset") or "",
        extra,
        [tuple(_canonical_message(message, number)) for message in messages],
    )


def _canonical_message(message: Mapping[str, Any], number: Mapping[str, int]) -> Iterator[Any]:
    yield number.get(message.get("parent") or "")
    yield message["role"]
    yield message.get("state") or "done"
    for name in ("author", "finish", "failure", "failure_text"):
        yield message.get(name) or ""
    for name in ("created_at", "edited_at", "deleted_at"):
        yield message.get(name) or 0
    yield bool(message.get("starred"))
    for name in ("marks", "extra"):
        yield message.get(name) or {}
    for name in ("parts", "revisions", "turns"):
        yield list(message.get(name) or ())
