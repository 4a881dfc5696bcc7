"""Reading a chat: all of its topology, the parts of its active path, the tops of its history."""

# ruff: noqa: S608 -- columns are constants of ours; values are always bound.

from __future__ import annotations

from dataclasses import dataclass

import apsw

from desktop_app.conversation.history import PAGE
from desktop_app.conversation.node import ChatInfo, Node, Parts
from desktop_app.conversation.store import Entry, Side
from desktop_app.conversation.tree import Tree
from desktop_app.storage import rows


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a `Conversation` is built from."""

    chat: ChatInfo
    tree: Tree
    undo: list[Entry]
    redo: list[Entry]
    next_seq: int
    deeper: frozenset[Side]
    """The stacks of which the disk has more."""


def load(db: apsw.Connection, chat_id: int) -> Loaded | None:
    """One consistent view of a chat; None when there is no such chat."""
    db.execute("BEGIN")
    try:
        return _load(db, chat_id)
    finally:
        db.execute("COMMIT")


def _load(db: apsw.Connection, chat_id: int) -> Loaded | None:
    chat = rows.read_chat(db, chat_id)
    if chat is None:
        return None
    nodes: list[Node] = []
    removed: list[Node] = []
    for *row, deleted_at in db.execute(
        f"SELECT {rows.NODE_COLUMNS}, deleted_at FROM message WHERE chat_id = ?", (chat_id,)
    ):
        (nodes if deleted_at is None else removed).append(rows.node_from(row))
    chosen = {
        parent_id or None: child_id
        for parent_id, child_id in db.execute(
            "SELECT parent_id, child_id FROM choice WHERE chat_id = ?", (chat_id,)
        )
    }
    tree = Tree(nodes, removed=removed, head_id=chat.head_id, chosen=chosen)
    path = tree.path(tree.head_id)
    parts: dict[int, Parts] = dict.fromkeys(path, ())
    parts |= rows.read_parts(db, path)
    for node_id, words in parts.items():
        tree.apply_parts(node_id, words)
    seq = rows.next_seq(db, chat_id)
    undo = rows.read_entries(db, chat_id, Side.UNDO, seq, PAGE)
    redo = rows.read_entries(db, chat_id, Side.REDO, seq, PAGE)
    found = {Side.UNDO: undo, Side.REDO: redo}
    deeper = frozenset(side for side, stack in found.items() if len(stack) == PAGE)
    return Loaded(chat, tree, undo[::-1], redo[::-1], seq, deeper)
