"""What was removed, and erasing it for good."""

# ruff: noqa: S608 -- columns are constants of ours; values are always bound.

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import apsw

from desktop_app.conversation.edits import decode_edit, mentioned
from desktop_app.conversation.node import ChatInfo
from desktop_app.conversation.store import Side
from desktop_app.storage import blobs, rows, steps

_SNIPPET = 80


@dataclass(frozen=True, slots=True)
class Removal:
    """Messages that went together; `Conversation.restore(node_ids, removal)` brings them back."""

    chat_id: int
    chat_title: str
    removal: str
    node_ids: tuple[int, ...]
    at_ms: int
    text: str
    """How the topmost of them begins."""


@dataclass(frozen=True, slots=True)
class Trash:
    """Everything that emptying the trash erases, but for what only a redo would bring back."""

    chats: tuple[ChatInfo, ...]
    removals: tuple[Removal, ...]


@dataclass(frozen=True, slots=True)
class Erased:
    """How much went, and which blobs are still needed."""

    chat_ids: tuple[int, ...]
    messages: int
    kept_blobs: tuple[str, ...]


def look(db: apsw.Connection) -> Trash:
    """What lies in the trash, the newest first."""
    chats = tuple(
        rows.chat_from(row)
        for row in db.execute(
            f"SELECT {rows.CHAT_COLUMNS} FROM chat WHERE deleted_at > 0 ORDER BY deleted_at DESC"
        )
    )
    removals: list[Removal] = []
    # An undone insertion is removed under its own uid; that belongs to redo, not to the trash.
    for chat_id, title, removal, ids, at_ms in db.execute(
        "SELECT chat_id, title, removal, json_group_array(message.id), max(message.deleted_at)"
        " FROM message JOIN chat ON chat.id = chat_id"
        " WHERE removal IS NOT NULL AND removal <> message.uid AND chat.deleted_at = 0"
        " GROUP BY chat_id, removal ORDER BY max(message.deleted_at) DESC"
    ):
        node_ids = tuple(sorted(rows.loads(ids)))
        text = db.execute(
            "SELECT substr(text, 1, ?) FROM part WHERE kind = 'text' AND message_id IN"
            " (SELECT value FROM json_each(?)) ORDER BY message_id, ordinal LIMIT 1",
            (_SNIPPET, ids),
        ).get
        removals.append(Removal(chat_id, title, removal, node_ids, at_ms, str(text or "")))
    return Trash(chats, tuple(removals))


def erase(db: apsw.Connection, open_chats: Mapping[int, Set[int]]) -> Erased:
    """Erase deleted chats and removed messages with everything that still says their words.

    Of `open_chats` only the given messages go: those that memory has let go of.  Runs in the
    caller's transaction; `secure_delete` overwrites the freed pages.
    """
    chat_ids = [row[0] for row in db.execute("SELECT id FROM chat WHERE deleted_at > 0")]
    by_chat: dict[int, set[int]] = {}
    for node_id, chat_id in db.execute(
        "SELECT id, chat_id FROM message WHERE deleted_at IS NOT NULL"
        " OR chat_id IN (SELECT id FROM chat WHERE deleted_at > 0)"
    ):
        if chat_id in chat_ids or chat_id not in open_chats or node_id in open_chats[chat_id]:
            by_chat.setdefault(chat_id, set()).add(node_id)
    ids = rows.dumps([node_id for found in by_chat.values() for node_id in found])
    gone = "(SELECT value FROM json_each(?))"
    db.execute(f"DELETE FROM search WHERE rowid IN {gone}", (ids,))
    db.execute(f"DELETE FROM choice WHERE parent_id IN {gone} OR child_id IN {gone}", (ids, ids))
    for chat_id, found in by_chat.items():
        if chat_id not in chat_ids:
            _cut_history(db, chat_id, found)
    # Parts, revisions and turns go with their message, messages with their chat (foreign keys).
    db.execute(f"DELETE FROM message WHERE id IN {gone}", (ids,))
    chats = rows.dumps(chat_ids)
    db.execute(f"DELETE FROM chat WHERE id IN {gone}", (chats,))
    db.execute(f"DELETE FROM undo_entry WHERE scope IN {gone}", (chats,))
    db.execute(f"DELETE FROM ui_state WHERE chat_id IN {gone}", (chats,))
    _cut_library_history(db, set(chat_ids))
    kept = blobs.drop_unused(db)
    return Erased(tuple(chat_ids), sum(map(len, by_chat.values())), tuple(kept))


def _cut_history(db: apsw.Connection, chat_id: int, gone: set[int]) -> None:
    """Cut each stack at its highest entry that needs an erased message."""
    for side in Side:
        for seq, edits in _entries(db, chat_id, side):
            if mentioned(decode_edit(edit) for edit in rows.loads(edits)) & gone:
                _cut(db, chat_id, side, seq)
                break


def _cut_library_history(db: apsw.Connection, gone: set[int]) -> None:
    if not gone:
        return
    for side in Side:
        for seq, edits in _entries(db, steps.SCOPE, side):
            if {change["chat"] for change in rows.loads(edits)} & gone:
                _cut(db, steps.SCOPE, side, seq)
                break


def _entries(db: apsw.Connection, scope: int, side: Side) -> list[tuple[int, str]]:
    found: list[Any] = db.execute(
        "SELECT seq, edits FROM undo_entry WHERE scope = ? AND side = ? ORDER BY seq DESC",
        (scope, side.value),
    ).fetchall()
    return found


def _cut(db: apsw.Connection, scope: int, side: Side, seq: int) -> None:
    db.execute(
        "DELETE FROM undo_entry WHERE scope = ? AND side = ? AND seq <= ?",
        (scope, side.value, seq),
    )
