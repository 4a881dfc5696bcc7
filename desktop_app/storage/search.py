"""Full-text search that finds any part of a word, in any script and any branch.

The index holds folded text: case, accents and compatibility forms away.  Trigrams find parts of
three characters and more; shorter ones (most Korean and Chinese words) are looked for in the folded
text itself.
"""

# ruff: noqa: S608 -- the clauses are constants of ours; values are always bound.

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import apsw

from desktop_app.conversation.node import Json, PartKind, Parts

_AROUND: Final = 60
"""Characters of context on each side of the first hit."""
_VOICED: Final = {0x3099, 0x309A}
"""The combining (han)dakuten: か and が are different letters, not a letter and an accent."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One message that has all the words.

    `message_id` is None where the chat's title matched.  `spans` are (start, end) in `snippet`.
    """

    chat_id: int
    message_id: int | None
    snippet: str
    chat_title: str
    spans: tuple[tuple[int, int], ...] = ()


@cache
def _marks() -> dict[int, None]:
    """Combining marks, to be dropped by str.translate."""
    return {
        code: None
        for code in range(0x300, sys.maxunicode + 1)
        if code not in _VOICED and unicodedata.category(chr(code)) == "Mn"
    }


def fold(text: str) -> str:
    """`text` without case, accents and compatibility differences (Unicode NFKD, marks, NFC)."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold()).translate(_marks())
    return unicodedata.normalize("NFC", plain)


def searchable(parts: Parts) -> str:
    """What of a message is searched: its words and its reasoning."""
    words = [part.text for part in parts if part.kind in (PartKind.TEXT, PartKind.REASONING)]
    return "\n".join(words)


def index(db: apsw.Connection, node_id: int, parts: Parts) -> None:
    """Put a message's words into the index, in the caller's transaction."""
    db.execute("DELETE FROM search WHERE rowid = ?", (node_id,))
    words = searchable(parts)
    if words:
        db.execute("INSERT INTO search(rowid, text) VALUES(?,?)", (node_id, fold(words)))


def terms(text: str) -> list[str]:
    """The folded words of a query; "quoted words" stay together."""
    out: list[str] = []
    for number, piece in enumerate(text.replace("“", '"').replace("”", '"').split('"')):
        folded = fold(piece)
        out.extend([folded.strip()] if number % 2 else folded.split())
    return list(dict.fromkeys(term for term in out if term))


def find(db: apsw.Connection, text: str, limit: int) -> list[Hit]:
    """The newest messages that have all the words of `text`, and chats whose title has them."""
    words = terms(text)
    if not words:
        return []
    hits = _titles(db, words, limit)
    # FTS5 and instr end at a NUL, which nobody types.
    long = [word.replace("\0", "") for word in words if len(word) >= 3]
    short = [word for word in words if len(word) < 3]
    where, values = [], list[str | int]()
    if long:
        where.append("search MATCH ?")
        values.append(" AND ".join('"' + word.replace('"', '""') + '"' for word in long))
    for word in short:
        where.append("instr(search.text, ?) > 0")
        values.append(word)
    rows: list[Json] = db.execute(
        "SELECT message.id, message.chat_id, chat.title FROM search"
        " JOIN message ON message.id = search.rowid JOIN chat ON chat.id = message.chat_id"
        f" WHERE {' AND '.join(where)} AND message.deleted_at IS NULL AND chat.deleted_at = 0"
        " ORDER BY search.rowid DESC LIMIT ?",
        (*values, max(0, limit - len(hits))),
    ).fetchall()
    for message_id, chat_id, title in rows:
        original = _original(db, message_id)
        snippet, spans = excerpt(original, words)
        hits.append(Hit(chat_id, message_id, snippet, title, spans))
    return hits


def excerpt(
    text: str, words: Sequence[str], around: int = _AROUND
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A piece of `text` round the first hit of the folded `words`, and where they stand in it."""
    folded, origin = _fold_with_origin(text)
    found = sorted(_occurrences(folded, words))
    if not found:
        return text[: 2 * around].replace("\n", " "), ()
    first = origin[found[0][0]]
    start = max(0, first - around)
    end = min(len(text), first + 2 * around)
    cut = text[start:end]
    head, tail = "…" if start else "", "…" if end < len(text) else ""
    spans: list[tuple[int, int]] = []
    for at, to in found:
        low, high = origin[at] - start, origin[to] - start
        if low >= 0 and high <= len(cut) and (not spans or low + len(head) >= spans[-1][1]):
            spans.append((low + len(head), high + len(head)))
    return head + cut.replace("\n", " ") + tail, tuple(spans)


def _titles(db: apsw.Connection, words: Sequence[str], limit: int) -> list[Hit]:
    hits: list[Hit] = []
    for chat_id, title in db.execute(
        "SELECT id, title FROM chat WHERE deleted_at = 0 AND title <> ''"
        " ORDER BY pinned DESC, updated_at DESC"
    ):
        folded = fold(title)
        if len(hits) < limit and all(word in folded for word in words):
            snippet, spans = excerpt(title, words)
            hits.append(Hit(chat_id, None, snippet, title, spans))
    return hits


def _original(db: apsw.Connection, message_id: int) -> str:
    rows = db.execute(
        "SELECT text FROM part WHERE message_id = ? AND kind IN ('text', 'reasoning')"
        " ORDER BY ordinal",
        (message_id,),
    )
    return "\n".join(row[0] for row in rows)


def _occurrences(folded: str, words: Sequence[str]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for word in words:
        at = folded.find(word)
        while at >= 0 and len(out) < 200:
            out.append((at, at + len(word)))
            at = folded.find(word, at + len(word))
    return out


def _fold_with_origin(text: str) -> tuple[str, list[int]]:
    """The folded text, and for each of its characters (and its end) the place it came from."""
    if text.isascii():
        return text.lower(), list(range(len(text) + 1))
    pieces: list[str] = []
    origin: list[int] = []
    at = 0
    while at < len(text):
        to = at + 1
        # Marks and the later letters of a spelled-out Hangul syllable belong to their first one.
        while to < len(text) and (
            unicodedata.combining(text[to]) or "\u1160" <= text[to] <= "\u11ff"
        ):
            to += 1
        piece = fold(text[at:to])
        pieces.append(piece)
        origin.extend([at] * len(piece))
        at = to
    origin.append(len(text))
    return "".join(pieces), origin
