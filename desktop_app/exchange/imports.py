"""Files into the library: Grove's own JSON, and Open-Assistant's trees, messages and threads.

What a file is, is told by its content, not by its name.  The whole file is read and understood
before the first chat is added, so that a broken file adds nothing.

A chat that is in the library already, word for word, is skipped: importing a file twice changes
nothing.  Where the library's chat has another content (it was continued since, or edited), the
file's chat is added beside it as a copy with ids of its own, and neither is changed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from desktop_app.conversation.node import ChatInfo, now_ms
from desktop_app.errors import KnownError
from desktop_app.exchange import export, oasst
from desktop_app.exchange.files import parse_json, parse_lines, read_text
from desktop_app.exchange.library import Chats, Dump, canonical

BATCH_MESSAGES: Final = 2_000
"""Messages that are written in one transaction, in about a second."""
_NAMES: Final = uuid.UUID("5f0f4f5a-7c3b-5b52-9d3c-6f61736f7661")
"""Name space of the uids that imported chats get from their ids (RFC 9562, version 5)."""


@dataclass(slots=True)
class Report:
    """What an import did."""

    format: str
    added: int = 0
    skipped: int = 0
    copies: int = 0
    messages: int = 0
    chat_ids: list[int] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """One sentence for the person."""
        if not self.added:
            return "Everything in this file is in your library already."
        were = "was" if self.added == 1 else "were"
        said = f"{many(self.added, 'chat')} with {many(self.messages, 'message')} {were} added."
        if self.skipped:
            said += f" {self.skipped} in this file you had already."
        if self.copies:
            said += f" {self.copies} of these differ from what you have and stand beside it."
        return said


def many(count: int, noun: str) -> str:
    """ "1 chat", "2 chats"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def read_into(
    library: Chats, path: Path, *, progress: Callable[[float], None] | None = None
) -> Report:
    """Add the chats of a file as a step of the library's undo.

    KnownError says why the file cannot be read (nothing is added then) or the library not be
    written.  Up to `BATCH_MESSAGES` messages go in all or none; a bigger file goes in by several
    such steps, because replies that are being written wait for the disk meanwhile.  After a failure
    in the middle, importing the file again adds the rest.
    Any thread but the one that resolves the library's futures.
    """
    form, dumps = understand(path)
    report = Report(form)
    known = _Known(library)
    wanted: list[Dump] = []
    for dump in dumps:
        copy_of = known.copy_of(dump)
        if copy_of == _SAME:
            report.skipped += 1
            continue
        if copy_of is None:
            wanted.append(dump)
            continue
        report.copies += 1
        chat = dump.get("chat") or {}
        chat = {**chat, "extra": {**(chat.get("extra") or {}), "copy_of": copy_of}}
        wanted.append({**dump, "chat": chat})
    for batch in _batches(wanted):
        if progress is not None:
            progress(report.added / len(wanted))
        report.chat_ids += library.import_chats(batch).result()
        report.added += len(batch)
        report.messages += sum(len(dump["messages"]) for dump in batch)
    return report


def _batches(dumps: Sequence[Dump]) -> Iterator[list[Dump]]:
    """Neighbours of at most `BATCH_MESSAGES` messages together."""
    batch: list[Dump] = []
    size = 0
    for dump in dumps:
        count = len(dump["messages"])
        if batch and size + count > BATCH_MESSAGES:
            yield batch
            batch, size = [], 0
        batch.append(dump)
        size += count
    if batch:
        yield batch


_SAME: Final = "="


class _Known:
    """The chats of the library, by the uid that a file may name them with."""

    def __init__(self, library: Chats) -> None:
        self._library = library
        self._by_uid: dict[str, list[ChatInfo]] = {}
        for info in library.chats().result():
            for uid in (info.uid, info.extra.get("copy_of")):
                if isinstance(uid, str):
                    self._by_uid.setdefault(uid, []).append(info)

    def copy_of(self, dump: Dump) -> str | None:
        """None: new here; `_SAME`: here already; else the uid whose chat says something else."""
        uid = (dump.get("chat") or {}).get("uid")
        if not isinstance(uid, str) or uid not in self._by_uid:
            return None
        wanted = canonical(dump)
        for info in self._by_uid[uid]:
            if canonical(self._library.export_chat(info.id, removed=True).result()) == wanted:
                return _SAME
            if canonical(self._library.export_chat(info.id).result()) == wanted:
                return _SAME
        return uid


# ---- what is it? -------------------------------------------------------------------------------


def understand(path: Path) -> tuple[str, list[Dump]]:
    """("grove" | "oasst", the chats of a file as dumps), or KnownError."""
    text = read_text(path)
    if not text.strip():
        raise KnownError("import-empty", f"{path.name} is empty. There is nothing to import.")
    first = _first_line(text)
    if isinstance(first, dict) and oasst.looks_like(first):
        return "oasst", [_dump(chat) for chat in oasst.read(parse_lines(text, path.name))]
    whole = parse_json(text, path.name)
    if isinstance(whole, dict):
        if whole.get("format") == export.FORMAT:
            return "grove", _grove(whole, path.name)
        if whole.get("format") == "grove-chat":
            return "grove", [_checked(whole, path.name)]
        if oasst.looks_like(whole):
            return "oasst", [_dump(chat) for chat in oasst.read([(1, whole)])]
    first = whole[0] if isinstance(whole, list) and whole else None
    if isinstance(first, dict) and oasst.looks_like(first):
        return "oasst", [_dump(chat) for chat in oasst.read(enumerate(whole, 1))]
    raise KnownError(
        "import-unknown",
        f"{path.name} is none of the formats that Grove can import. "
        "It reads its own exports and Open-Assistant's trees, messages and threads.",
    )


def _first_line(text: str) -> Any:
    try:
        return json.loads(text.lstrip().partition("\n")[0])
    except (ValueError, RecursionError):
        return None


def _grove(whole: Mapping[str, Any], name: str) -> list[Dump]:
    version = whole.get("version")
    if isinstance(version, int) and version > export.VERSION:
        raise KnownError(
            "import-newer", f"{name} was made by a newer Grove. Install the newest one to open it."
        )
    chats = whole.get("chats")
    if not isinstance(chats, list):
        raise _damaged(name)
    return [_checked(chat, name) for chat in chats]


def _checked(dump: Any, name: str) -> Dump:
    """A dump whose outline is right; the rest is checked by the library, chat by chat."""
    messages = dump.get("messages") if isinstance(dump, dict) else None
    if not isinstance(messages, list) or not isinstance(dump.get("chat", {}), dict):
        raise _damaged(name)
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("uid"), str):
            raise _damaged(name)
        if message.get("role") not in ("system", "user", "assistant", "tool"):
            raise _damaged(name)
        parts = message.get("parts") or ()
        if not isinstance(parts, list | tuple) or not all(_is_part(part) for part in parts):
            raise _damaged(name)
    assert isinstance(dump, dict)
    return dump


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text", ""), str) and "kind" in part


def _damaged(name: str) -> KnownError:
    return KnownError(
        "import-damaged", f"{name} is damaged or no complete export. Nothing was imported."
    )


def _dump(chat: oasst.ReadChat) -> Dump:
    """An Open-Assistant chat in the library's shape.

    Its uids follow from its ids, so that the same file names the same chats again.
    """
    kind = chat.extra.get("oasst_kind")
    at = now_ms()
    messages: list[Dump] = []
    for n, message in enumerate(chat.messages):
        uid = str(uuid.uuid5(_NAMES, f"{kind}/{chat.key}/{n}/{message.role}/{_id(message)}"))
        messages.append(
            {
                "uid": uid,
                "parent": None if message.parent is None else messages[message.parent]["uid"],
                "role": message.role,
                "author": message.author,
                "created_at": message.created_at,
                "updated_at": message.created_at,
                "marks": message.marks,
                "extra": message.extra,
                "parts": [{"kind": "text", "text": message.text}] if message.text else [],
            }
        )
    return {
        "chat": {
            "uid": str(uuid.uuid5(_NAMES, f"{kind}/{chat.key}")),
            "title": chat.title,
            "created_at": min((m.created_at for m in chat.messages if m.created_at), default=at),
            "updated_at": at,
            "extra": chat.extra,
            "head": _best_leaf(messages),
        },
        "messages": messages,
        "chosen": _best_children(messages),
    }


def _id(message: oasst.ReadMessage) -> str:
    own = message.extra.get("oasst") or {}
    return str(own.get("message_id", ""))


def _best_children(messages: Iterable[Dump]) -> dict[str, str]:
    """At each fork the reply that people ranked best, else the first: what one reads first."""
    best: dict[str, tuple[float, int, str]] = {}
    for n, message in enumerate(messages):
        rank = message["marks"].get("rank")
        place = (rank if isinstance(rank, int) else float("inf"), n, message["uid"])
        parent = message["parent"] or ""
        best[parent] = min(best.get(parent, place), place)
    return {parent: place[2] for parent, place in best.items()}


def _best_leaf(messages: Iterable[Dump]) -> str | None:
    chosen = _best_children(messages)
    at = chosen.get("")
    while at in chosen:
        at = chosen[at]
    return at
