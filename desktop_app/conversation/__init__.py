"""The domain: a conversation as a tree, its edits and its undo.  No I/O, no Qt."""

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.edits import Edit, Step
from desktop_app.conversation.node import (
    ChatInfo,
    Json,
    Node,
    Part,
    PartKind,
    Parts,
    Revision,
    Role,
    State,
    clean,
    joined,
    new_uid,
    now_ms,
    text_parts,
)
from desktop_app.conversation.tree import ChatChanged, PartsLoaded, Streamed, Tree, Watcher

__all__ = [
    "ChatChanged",
    "ChatInfo",
    "Conversation",
    "Edit",
    "Json",
    "Node",
    "Part",
    "PartKind",
    "Parts",
    "PartsLoaded",
    "Revision",
    "Role",
    "State",
    "Step",
    "Streamed",
    "Tree",
    "Watcher",
    "clean",
    "joined",
    "new_uid",
    "now_ms",
    "text_parts",
]
