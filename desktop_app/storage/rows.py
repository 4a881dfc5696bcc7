"""Between rows and the values of the domain, and the SQL of each edit.

Every function here runs inside a transaction that its caller began.
"""

# ruff: noqa: S608 -- columns and clauses are constants of ours; values are always bound.

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import apsw

from desktop_app.conversation.edits import (
    DropRevision,
    Edit,
    Insert,
    KeepRevision,
    Move,
    Remove,
    Restore,
    SetHead,
    SetMarks,
    SetParts,
    SetState,
    Step,
    decode_edit,
    encode_edit,
)
from desktop_app.conversation.node import (
    EMPTY,
    ChatInfo,
    Json,
    Node,
    Part,
    PartKind,
    Parts,
    Revision,
    Role,
    State,
    decode_parts,
    encode_parts,
)
from desktop_app.conversation.store import Entry, Side, StreamEnd
from desktop_app.storage import search

CHAT_COLUMNS: Final = (
    "id, uid, title, head_id, weights, preset, pinned, created_at, updated_at, deleted_at, extra"
)
NODE_COLUMNS: Final = (
    "id, uid, parent_id, position, role, state, author, finish, failure, failure_text, created_at,"
    " updated_at, edited_at, starred, revisions, turns, marks, extra"
)
_TURN_PLAIN: Final[dict[str, type[Json]]] = {
    "engine": str,
    "weights": str,
    "weights_hash": str,
    "quantisation": str,
    "template_hash": str,
    "seed": int,
    "threads": int,
    "tokens_cached": int,
    "tokens_read": int,
    "tokens_written": int,
}
_TURN_JSON: Final = ("sampler", "ancestors", "times")
TURN_COLUMNS: Final = ", ".join((*_TURN_PLAIN, *_TURN_JSON, "extra"))

_ROLES: Final = {role.value: role for role in Role}
_STATES: Final = {state.value: state for state in State}
_KINDS: Final = {kind.value: kind for kind in PartKind}

Cell = None | int | float | str | bytes
Bindings = tuple[Cell, ...]


def dumps(value: object) -> str:
    """Compact JSON; half surrogate pairs stay escaped, so that it is always valid UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def loads(text: str) -> Json:
    """The reverse; a damaged cell gives an empty object, because reading is total."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _mapping(text: str) -> Mapping[str, Json]:
    if text == "{}":
        return EMPTY
    value = loads(text)
    return value if isinstance(value, dict) else EMPTY


# ---- chats ---------------------------------------------------------------------------------------


def chat_from(row: Sequence[Json]) -> ChatInfo:
    """A row of CHAT_COLUMNS."""
    facts = (*row[:6], bool(row[6]), *row[7:10], _mapping(row[10]))
    return ChatInfo(*facts)


def read_chat(db: apsw.Connection, chat_id: int) -> ChatInfo | None:
    """One chat, also from the trash."""
    row = db.execute(f"SELECT {CHAT_COLUMNS} FROM chat WHERE id = ?", (chat_id,)).fetchone()
    return None if row is None else chat_from(row)


def ensure_chat(db: apsw.Connection, chat: ChatInfo) -> None:
    """Write a chat's row where there is none yet."""
    db.execute(
        f"INSERT INTO chat({CHAT_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?)"
        " ON CONFLICT(id) DO NOTHING",
        (
            chat.id,
            chat.uid,
            chat.title,
            chat.head_id,
            chat.weights,
            chat.preset,
            int(chat.pinned),
            chat.created_at,
            chat.updated_at,
            chat.deleted_at,
            dumps(dict(chat.extra)),
        ),
    )


# ---- messages ------------------------------------------------------------------------------------


def node_from(row: Sequence[Json]) -> Node:
    """A row of NODE_COLUMNS.  Unknown roles and states read as plain, finished text."""
    role, state = _ROLES.get(row[4], Role.USER), _STATES.get(row[5], State.DONE)
    tail = (bool(row[13]), row[14], row[15], _mapping(row[16]), _mapping(row[17]))
    return Node(*(*row[:4], role, state, *row[6:13], *tail))


def node_bindings(node: Node, chat_id: int) -> Bindings:
    """The values of `INSERT_NODE`."""
    return (
        node.id,
        node.uid,
        node.parent_id,
        node.position,
        node.role.value,
        node.state.value,
        node.author,
        node.finish,
        node.failure,
        node.failure_text,
        node.created_at,
        node.updated_at,
        node.edited_at,
        int(node.starred),
        node.revisions,
        node.turns,
        dumps(dict(node.marks)),
        dumps(dict(node.extra)),
        chat_id,
    )


INSERT_NODE: Final = (
    f"INSERT INTO message({NODE_COLUMNS}, chat_id) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
INSERT_PART: Final = (
    "INSERT INTO part(message_id, ordinal, kind, text, blob_hash, meta) VALUES(?,?,?,?,?,?)"
)
INSERT_REVISION: Final = "INSERT INTO revision(message_id, n, parts, at_ms) VALUES(?,?,?,?)"
INSERT_TURN: Final = (
    f"INSERT OR REPLACE INTO turn(message_id, n, {TURN_COLUMNS})"
    " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


def part_bindings(node_id: int, parts: Parts) -> list[Bindings]:
    """The values of `INSERT_PART`, one row for each part."""
    return [
        (node_id, n, part.kind.value, part.text, part.blob_hash, dumps(dict(part.meta)))
        for n, part in enumerate(parts)
    ]


def turn_bindings(node_id: int, n: int, turn: Mapping[str, Json]) -> Bindings:
    """The values of `INSERT_TURN`: known facts in columns, the rest as JSON in `extra`."""
    rest = dict(turn)
    cells: list[Cell] = []
    for name, kind in _TURN_PLAIN.items():
        value: Json = rest.get(name)
        fits = type(value) is kind and (kind is str or -(2**63) <= value < 2**63)
        cells.append(rest.pop(name) if fits else None)
    for name in _TURN_JSON:
        cells.append(dumps(rest.pop(name)) if name in rest else None)
    return (node_id, n, *cells, dumps(rest))


def turn_from(row: Sequence[Json]) -> dict[str, Json]:
    """A row of TURN_COLUMNS as the mapping that was given."""
    split = len(_TURN_PLAIN)
    out = {
        name: value
        for name, value in zip(_TURN_PLAIN, row[:split], strict=True)
        if value is not None
    }
    for name, value in zip(_TURN_JSON, row[split:-1], strict=True):
        if value is not None:
            out[name] = loads(value)
    return {**out, **_mapping(row[-1])}


def set_parts(db: apsw.Connection, node_id: int, parts: Parts, *, index: bool = True) -> None:
    """Replace the parts of a message, and with `index` what search knows of it."""
    db.execute("DELETE FROM part WHERE message_id = ?", (node_id,))
    db.executemany(INSERT_PART, part_bindings(node_id, parts))
    if index:
        search.index(db, node_id, parts)


def read_parts(db: apsw.Connection, node_ids: Iterable[int]) -> dict[int, Parts]:
    """Parts by message; a message without parts (or without row) is left out."""
    found: dict[int, list[Part]] = {}
    for node_id, kind, text, blob_hash, meta in db.execute(
        "SELECT message_id, kind, text, blob_hash, meta FROM part"
        " WHERE message_id IN (SELECT value FROM json_each(?)) ORDER BY message_id, ordinal",
        (dumps(list(node_ids)),),
    ):
        part = Part(_KINDS.get(kind, PartKind.TEXT), text, blob_hash, _mapping(meta))
        found.setdefault(node_id, []).append(part)
    return {node_id: tuple(parts) for node_id, parts in found.items()}


def read_revisions(db: apsw.Connection, node_id: int) -> list[Revision]:
    """The revisions of one message, oldest first."""
    rows = db.execute(
        "SELECT n, parts, at_ms FROM revision WHERE message_id = ? ORDER BY n", (node_id,)
    )
    return [Revision(n, decode_parts(loads(parts)), at_ms) for n, parts, at_ms in rows]


def read_turns(db: apsw.Connection, node_id: int) -> list[dict[str, Json]]:
    """The generations of one reply that count, oldest first."""
    rows = db.execute(
        f"SELECT {TURN_COLUMNS} FROM turn WHERE message_id = ?"
        " AND n <= (SELECT turns FROM message WHERE id = ?) ORDER BY n",
        (node_id, node_id),
    )
    return [turn_from(row) for row in rows]


# ---- edits ---------------------------------------------------------------------------------------


class OutOfStepError(RuntimeError):
    """A bug: the tree in memory and the tables disagree.  The transaction is rolled back."""


def apply_edit(db: apsw.Connection, chat_id: int, edit: Edit) -> None:
    """Do to the tables what the edit did to the tree."""
    match edit:
        case Insert(node=node, parts=parts):
            db.execute(INSERT_NODE, node_bindings(node, chat_id))
            set_parts(db, node.id, parts)
        case Remove():
            _changed(
                db,
                len(edit.node_ids),
                "UPDATE message SET deleted_at = ?, removal = ? WHERE chat_id = ?"
                " AND deleted_at IS NULL AND id IN (SELECT value FROM json_each(?))",
                (edit.at_ms, edit.removal, chat_id, dumps(edit.node_ids)),
            )
        case Restore():
            _changed(
                db,
                len(edit.node_ids),
                "UPDATE message SET deleted_at = NULL, removal = NULL WHERE chat_id = ?"
                " AND removal = ? AND id IN (SELECT value FROM json_each(?))",
                (chat_id, edit.removal, dumps(edit.node_ids)),
            )
        case SetHead():
            _set_head(db, chat_id, edit)
        case _:
            _apply_to_one(db, edit)


def _apply_to_one(
    db: apsw.Connection,
    edit: Move | SetParts | KeepRevision | DropRevision | SetState | SetMarks,
) -> None:
    """The edits of a single message's row."""
    match edit:
        case Move():
            values: dict[str, Cell] = {
                "parent_id": edit.parent_id,
                "position": edit.position,
                "updated_at": edit.at_ms,
            }
        case SetParts():
            values = {"edited_at": edit.edited_at, "updated_at": edit.at_ms}
            set_parts(db, edit.node_id, edit.parts)
        case KeepRevision():
            values = {"revisions": edit.n}
            row = (edit.node_id, edit.n, dumps(encode_parts(edit.parts)), edit.at_ms)
            db.execute(INSERT_REVISION, row)
        case DropRevision():
            values = {"revisions": edit.n - 1}
            db.execute(
                "DELETE FROM revision WHERE message_id = ? AND n = ?", (edit.node_id, edit.n)
            )
        case SetState():
            values = _state_values(edit)
        case SetMarks():
            values = {
                "starred": int(edit.starred),
                "marks": dumps(dict(edit.marks)),
                "updated_at": edit.at_ms,
            }
    _changed(
        db,
        1,
        f"UPDATE message SET {', '.join(f'{name} = ?' for name in values)} WHERE id = ?",
        (*values.values(), edit.node_id),
    )


def _state_values(edit: SetState) -> dict[str, Cell]:
    return {
        "state": edit.state.value,
        "finish": edit.finish,
        "failure": edit.failure,
        "failure_text": edit.failure_text,
        "author": edit.author,
        "turns": edit.turns,
        "updated_at": edit.at_ms,
    }


def _set_head(db: apsw.Connection, chat_id: int, edit: SetHead) -> None:
    db.execute("UPDATE chat SET head_id = ? WHERE id = ?", (edit.head_id, chat_id))
    for parent_id, child_id in edit.chosen:
        if child_id is None:
            db.execute(
                "DELETE FROM choice WHERE chat_id = ? AND parent_id = ?", (chat_id, parent_id or 0)
            )
        else:
            db.execute(
                "INSERT OR REPLACE INTO choice(chat_id, parent_id, child_id) VALUES(?,?,?)",
                (chat_id, parent_id or 0, child_id),
            )


def _changed(db: apsw.Connection, rows: int, sql: str, values: Bindings) -> None:
    db.execute(sql, values)
    if db.changes() != rows:
        raise OutOfStepError(f"{db.changes()} rows changed instead of {rows}")


# ---- replies that are being written ------------------------------------------------------------

_OPEN_STREAM: Final = (
    "SELECT 1 FROM message WHERE id = ? AND state = 'streaming' AND deleted_at IS NULL"
)


def write_stream(db: apsw.Connection, node_id: int, parts: Parts, at_ms: int) -> None:
    """The text so far.  Touches nothing when the reply is gone or has ended meanwhile."""
    if db.execute(_OPEN_STREAM, (node_id,)).fetchone() is not None:
        set_parts(db, node_id, parts, index=False)
        db.execute("UPDATE message SET updated_at = ? WHERE id = ?", (at_ms, node_id))


def end_stream(db: apsw.Connection, end: StreamEnd) -> None:
    """The final text and state.  Touches nothing when the reply is gone or has ended meanwhile."""
    node = end.node
    if db.execute(_OPEN_STREAM, (node.id,)).fetchone() is None:
        return
    set_parts(db, node.id, end.parts)
    values = _state_values(
        SetState(
            node.id,
            node.state,
            node.finish,
            node.failure,
            node.failure_text,
            node.author,
            node.turns,
            node.updated_at,
        )
    )
    db.execute(
        f"UPDATE message SET {', '.join(f'{name} = ?' for name in values)} WHERE id = ?",
        (*values.values(), node.id),
    )
    if end.turn is not None:
        db.execute(INSERT_TURN, turn_bindings(node.id, node.turns, end.turn))


def recover(db: apsw.Connection) -> int:
    """Replies that a crash left in writing become interrupted, and searchable.  Gives how many."""
    left = [row[0] for row in db.execute("SELECT id FROM message WHERE state = 'streaming'")]
    for node_id, parts in read_parts(db, left).items():
        search.index(db, node_id, parts)
    db.execute("UPDATE message SET state = 'interrupted' WHERE state = 'streaming'")
    return len(left)


# ---- history -----------------------------------------------------------------------------------


def push_entry(db: apsw.Connection, scope: int, side: Side, entry: Entry) -> None:
    """Store an entry of a stack."""
    step = entry.step
    db.execute(
        "INSERT INTO undo_entry(scope, side, seq, name, at_ms, edits) VALUES(?,?,?,?,?,?)",
        (
            scope,
            side.value,
            entry.seq,
            step.name,
            step.at_ms,
            dumps([encode_edit(edit) for edit in step.edits]),
        ),
    )


def pop_entry(db: apsw.Connection, scope: int, side: Side, seq: int) -> None:
    """Take an entry off its stack."""
    _changed(
        db,
        1,
        "DELETE FROM undo_entry WHERE scope = ? AND side = ? AND seq = ?",
        (scope, side.value, seq),
    )


def clear_redo(db: apsw.Connection, scope: int) -> None:
    """A new step: nothing can be redone any more."""
    db.execute("DELETE FROM undo_entry WHERE scope = ? AND side = 'redo'", (scope,))


def read_entries(
    db: apsw.Connection, scope: int, side: Side, below: int, limit: int
) -> list[Entry]:
    """Entries under `below`, the highest first."""
    rows = db.execute(
        "SELECT seq, name, at_ms, edits FROM undo_entry"
        " WHERE scope = ? AND side = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
        (scope, side.value, below, limit),
    )
    return [
        Entry(seq, Step(name, tuple(decode_edit(edit) for edit in loads(edits)), at_ms))
        for seq, name, at_ms, edits in rows
    ]


def next_seq(db: apsw.Connection, scope: int) -> int:
    """A number above every entry of both stacks."""
    row = db.execute("SELECT max(seq) FROM undo_entry WHERE scope = ?", (scope,)).fetchone()
    return 1 + ((row[0] if row else None) or 0)
