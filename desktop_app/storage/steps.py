"""The library's own steps: delete, rename, pin, import.  Their stack is scope 0 of undo_entry.

A step is a list of changes `{"chat": id, "set": {column: value}}`; applying one gives its inverse.
Every function runs in its caller's transaction, on the writing thread.
"""

# ruff: noqa: S608 -- column names are checked against a constant; values are always bound.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import apsw

from desktop_app.conversation.node import ChatInfo, Json
from desktop_app.conversation.store import Side
from desktop_app.storage import rows

SCOPE: Final = 0
_COLUMNS: Final = frozenset({"title", "pinned", "deleted_at"})

Change = dict[str, Json]


@dataclass(frozen=True, slots=True)
class LibraryStep:
    """What a library step, its undo or its redo changed."""

    name: str
    chat_ids: tuple[int, ...]


def do(db: apsw.Connection, name: str, changes: Iterable[Change], at_ms: int) -> LibraryStep:
    """Apply a new step.  One that changes nothing leaves no trace."""
    wanted = list(changes)
    inverse = _apply(db, wanted)
    if inverse and inverse != wanted:
        rows.clear_redo(db, SCOPE)
        _push(db, Side.UNDO, name, inverse, at_ms)
    return LibraryStep(name, tuple(change["chat"] for change in inverse))


def done(db: apsw.Connection, name: str, inverse: Iterable[Change], at_ms: int) -> None:
    """Note a step that was applied otherwise (an import)."""
    rows.clear_redo(db, SCOPE)
    _push(db, Side.UNDO, name, list(inverse), at_ms)


def back(db: apsw.Connection, side: Side, at_ms: int) -> LibraryStep | None:
    """Apply the top of a stack; its inverse goes on the other one.  None = nothing left."""
    row = db.execute(
        "SELECT seq, name, edits FROM undo_entry WHERE scope = ? AND side = ?"
        " ORDER BY seq DESC LIMIT 1",
        (SCOPE, side.value),
    ).fetchone()
    if row is None:
        return None
    seq, name, edits = row
    rows.pop_entry(db, SCOPE, side, seq)
    inverse = _apply(db, rows.loads(edits))
    _push(db, Side.REDO if side is Side.UNDO else Side.UNDO, name, inverse, at_ms)
    return LibraryStep(name, tuple(change["chat"] for change in inverse))


def names(db: apsw.Connection) -> tuple[str, str]:
    """The names of the steps that undo and redo would apply; empty when there is none."""
    found = []
    for side in (Side.UNDO, Side.REDO):
        row = db.execute(
            "SELECT name FROM undo_entry WHERE scope = ? AND side = ? ORDER BY seq DESC LIMIT 1",
            (SCOPE, side.value),
        ).fetchone()
        found.append(row[0] if row else "")
    return found[0], found[1]


def update_chat(db: apsw.Connection, chat: ChatInfo, *, undoable: bool, at_ms: int) -> None:
    """Write a chat's own facts; title and pin become a step of the library when `undoable`."""
    if undoable:
        new = {"title": chat.title, "pinned": int(chat.pinned)}
        old = rows.read_chat(db, chat.id)
        name = "rename" if old is None or old.title != chat.title else "pin"
        do(db, name, [{"chat": chat.id, "set": new}], at_ms)
    db.execute(
        "UPDATE chat SET title = ?, pinned = ?, weights = ?, preset = ?, extra = ? WHERE id = ?",
        (
            chat.title,
            int(chat.pinned),
            chat.weights,
            chat.preset,
            rows.dumps(dict(chat.extra)),
            chat.id,
        ),
    )


def _apply(db: apsw.Connection, changes: Iterable[Change]) -> list[Change]:
    inverse: list[Change] = []
    for change in changes:
        columns = [name for name in change["set"] if name in _COLUMNS]
        row = db.execute(
            f"SELECT {', '.join(columns)} FROM chat WHERE id = ?", (change["chat"],)
        ).fetchone()
        if row is None:
            continue  # erased meanwhile
        db.execute(
            f"UPDATE chat SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?",
            (*(change["set"][name] for name in columns), change["chat"]),
        )
        inverse.append({"chat": change["chat"], "set": dict(zip(columns, row, strict=True))})
    inverse.reverse()
    return inverse


def _push(db: apsw.Connection, side: Side, name: str, changes: list[Change], at_ms: int) -> None:
    db.execute(
        "INSERT INTO undo_entry(scope, side, seq, name, at_ms, edits) VALUES(?,?,?,?,?,?)",
        (SCOPE, side.value, rows.next_seq(db, SCOPE), name, at_ms, rows.dumps(changes)),
    )
