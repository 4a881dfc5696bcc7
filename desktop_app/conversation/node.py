"""The values a conversation is made of: messages, their parts, revisions, and a chat's facts.

Everything here is immutable and may cross threads.  Times are milliseconds since 1970 in UTC.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

# Recursive aliases need Python 3.12; `Any` here means "whatever json.loads returns".
Json = Any

EMPTY: Mapping[str, Json] = MappingProxyType({})


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class State(StrEnum):
    """How far a message has come; only replies are ever anything but DONE."""

    DONE = "done"
    STREAMING = "streaming"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class PartKind(StrEnum):
    """What a part of a message holds; only TEXT and REASONING are made today."""

    TEXT = "text"
    REASONING = "reasoning"
    IMAGE = "image"
    FILE = "file"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message: text, or a blob named by its SHA-256, with free `meta`."""

    kind: PartKind = PartKind.TEXT
    text: str = ""
    blob_hash: str | None = None
    meta: Mapping[str, Json] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        """Half a surrogate pair is no text (a broken paste); it would not survive UTF-8."""
        object.__setattr__(self, "text", clean(self.text))


Parts = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One message of the tree, without its parts (`Tree.parts` has those).

    `position` is a sort key among siblings, not an index.  `finish` says why a reply ended ("stop",
    "length", "cancelled", …); `failure` is the `KnownError` code of a FAILED reply.  `edited_at`
    is 0 until the first edit in place.  `revisions` counts the texts kept from before such edits
    and `turns` the generations that made a reply (a continued one has two).
    """

    id: int
    uid: str
    parent_id: int | None
    position: int
    role: Role
    state: State = State.DONE
    author: str = ""
    finish: str = ""
    failure: str = ""
    failure_text: str = ""
    created_at: int = 0
    updated_at: int = 0
    edited_at: int = 0
    starred: bool = False
    revisions: int = 0
    turns: int = 0
    marks: Mapping[str, Json] = field(default_factory=lambda: EMPTY)
    extra: Mapping[str, Json] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class Revision:
    """What message stood there before its `n`-th edit in place (n from 1), set aside `at_ms`."""

    n: int
    parts: Parts
    at_ms: int


@dataclass(frozen=True, slots=True)
class ChatInfo:
    """A chat's own facts.  `head_id` is where the next view begins; `deleted_at` 0 = not in trash.

    `extra` keeps fields of imports that Grove does not know.
    """

    id: int
    uid: str
    title: str = ""
    head_id: int | None = None
    weights: str = ""
    preset: str = ""
    pinned: bool = False
    created_at: int = 0
    updated_at: int = 0
    deleted_at: int = 0
    extra: Mapping[str, Json] = field(default_factory=lambda: EMPTY)


def clean(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD, so that it is valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def now_ms() -> int:
    """The time as milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000


def new_uid(at_ms: int | None = None) -> str:
    """A fresh UUID of version 7 (RFC 9562, section 5.7): 48 bits of time, then 74 random bits."""
    at = now_ms() if at_ms is None else at_ms
    bits = int.from_bytes(os.urandom(10), "big")
    value = (at & (2**48 - 1)) << 80 | 0x7 << 76 | (bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | bits & (2**62 - 1)
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def text_parts(text: str) -> Parts:
    """A plain text as parts; the empty text has none."""
    return (Part(PartKind.TEXT, text),) if text else ()


def joined(parts: Iterable[Part], kind: PartKind = PartKind.TEXT) -> str:
    """The text of all parts of one kind, in order."""
    return "".join(part.text for part in parts if part.kind is kind)


def with_text(parts: Parts, text: str) -> Parts:
    """`parts` with their text parts replaced by one; reasoning, images and files stay.

    The new text stands where the first text part stood, else at the end.
    """
    out: list[Part] = []
    put = False
    for part in parts:
        if part.kind is not PartKind.TEXT:
            out.append(part)
        elif not put:
            put = True
            out.extend(text_parts(text))
    if not put:
        out.extend(text_parts(text))
    return tuple(out)


def encode_part(part: Part) -> dict[str, Json]:
    """A part as JSON: `kind`, then `text`, `blob` and `meta` where they are not empty."""
    out: dict[str, Json] = {"kind": part.kind.value}
    if part.text:
        out["text"] = part.text
    if part.blob_hash is not None:
        out["blob"] = part.blob_hash
    if part.meta:
        out["meta"] = dict(part.meta)
    return out


def decode_part(data: Mapping[str, Json]) -> Part:
    """The reverse of `encode_part`."""
    return Part(
        PartKind(data["kind"]), data.get("text", ""), data.get("blob"), data.get("meta") or EMPTY
    )


def encode_parts(parts: Iterable[Part]) -> list[Json]:
    """Parts as a JSON list."""
    return [encode_part(part) for part in parts]


def decode_parts(data: Iterable[Mapping[str, Json]]) -> Parts:
    """The reverse of `encode_parts`."""
    return tuple(decode_part(item) for item in data)
