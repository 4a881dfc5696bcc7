"""A chat as plain dicts, without loss: what exports are made of and imports become.

The shape (version 1); ids are uids, so that a dump says the same in every library:

    {"format": "grove-chat", "version": 1,
     "chat": {"uid", "title", "head": uid | None, "weights", "preset", "pinned": bool,
              "created_at", "updated_at", "deleted_at": 0, "extra": {…}},
     "messages": [                      # depth first, siblings in their order
        {"uid", "parent": uid | None, "role": "system|user|assistant|tool",
         "state": "done|stopped|interrupted|failed|streaming", "author", "finish", "failure",
         "failure_text", "created_at", "updated_at", "edited_at", "starred": bool,
         "marks": {…}, "extra": {…},
         "parts": [{"kind": "text|reasoning|image|file|tool_call|tool_result",
                    "text"?, "blob"?: SHA-256, "meta"?: {…}}],
         "revisions": [{"at_ms", "parts": […]}],     # what stood there before, oldest first
         "turns": [{…}],                # how a reply was made; known keys: engine, weights,
                                        # weights_hash, quantisation, template_hash, seed, threads,
                                        # tokens_cached, tokens_read, tokens_written, sampler,
                                        # ancestors, times; any other key is kept too
         "deleted_at"?, "removal"?}],   # only of messages in the trash, when asked for
     "chosen": {uid or "": uid},        # the child chosen below a message ("" = the roots)
     "blobs": {SHA-256: base64}}        # the bytes of attachments

All times are ms since 1970 in UTC.  When reading, everything but `messages[].uid` and `.role` may
be absent, the order of siblings is the order of the list, a parent may stand anywhere in the list,
and fields that we do not know go to `extra`.  A parent that is not in the list makes a root, and
its name is kept as `extra["missing_parent"]`.
"""

# ruff: noqa: S608 -- columns are constants of ours; values are always bound.

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import apsw

from desktop_app.conversation.node import (
    ChatInfo,
    Json,
    Node,
    Role,
    State,
    clean,
    decode_parts,
    encode_part,
    new_uid,
    now_ms,
)
from desktop_app.conversation.places import GAP
from desktop_app.conversation.tree import Tree
from desktop_app.errors import KnownError
from desktop_app.storage import blobs, rows, search

Dump = dict[str, Json]

FORMAT: Final = "grove-chat"
VERSION: Final = 1

_PLAIN: Final = (
    "author",
    "finish",
    "failure",
    "failure_text",
    "created_at",
    "updated_at",
    "edited_at",
    "starred",
)
_OF_MESSAGE: Final = frozenset(
    {"uid", "parent", "role", "state", "marks", "extra", "parts", "revisions", "turns"}
    | {"deleted_at", "removal", *_PLAIN}
)
_OF_CHAT: Final = frozenset(
    {"uid", "title", "head", "weights", "preset", "pinned", "created_at", "updated_at"}
    | {"deleted_at", "extra"}
)


# ---- out -----------------------------------------------------------------------------------------


def read(
    db: apsw.Connection, chat_id: int, read_blob: Callable[[str], bytes], *, removed: bool = False
) -> Dump | None:
    """The dump of one chat; None when there is no such chat.

    With `removed` the messages in the trash are in it too.  A blob whose bytes are gone is left
    out, and its part still names it.
    """
    chat = rows.read_chat(db, chat_id)
    if chat is None:
        return None
    gone: dict[int, tuple[int, str]] = {}
    nodes: list[Node] = []
    for *row, deleted_at, removal in db.execute(
        f"SELECT {rows.NODE_COLUMNS}, deleted_at, removal FROM message WHERE chat_id = ?",
        (chat_id,),
    ):
        if deleted_at is None or removed:
            nodes.append(rows.node_from(row))
        if deleted_at is not None:
            gone[row[0]] = (deleted_at, removal)
    tree = Tree(nodes, complete=True)
    uids = {node.id: node.uid for node in nodes}
    cells = _Cells(db, chat_id)
    messages: list[Dump] = []
    for node_id in _depth_first(tree):
        message = _message(tree.node(node_id), uids, cells)
        if node_id in gone:
            message |= {"deleted_at": gone[node_id][0], "removal": gone[node_id][1]}
        messages.append(message)
    head = chat.head_id if chat.head_id in uids and chat.head_id not in gone else None
    chosen = {
        uids.get(parent_id, ""): uids[child_id]
        for parent_id, child_id in db.execute(
            "SELECT parent_id, child_id FROM choice WHERE chat_id = ? ORDER BY parent_id",
            (chat_id,),
        )
        if child_id in uids and (parent_id == 0 or parent_id in uids)
    }
    about = {name: getattr(chat, name) for name in ("uid", "title", "weights", "preset", "pinned")}
    about |= {"head": uids[head] if head is not None else None, "extra": dict(chat.extra)}
    for name in ("created_at", "updated_at", "deleted_at"):
        about[name] = getattr(chat, name)
    return {
        "format": FORMAT,
        "version": VERSION,
        "chat": about,
        "messages": messages,
        "chosen": chosen,
        "blobs": _blobs_of(messages, read_blob),
    }


class _Cells:
    """The parts, revisions and turns of a whole chat, by message."""

    def __init__(self, db: apsw.Connection, chat_id: int) -> None:
        ids = [row[0] for row in db.execute("SELECT id FROM message WHERE chat_id=?", (chat_id,))]
        self.parts = rows.read_parts(db, ids)
        self.revisions: dict[int, list[Dump]] = {}
        self.turns: dict[int, list[Dump]] = {}
        wanted = "message_id IN (SELECT id FROM message WHERE chat_id = ?)"
        for node_id, parts, at_ms in db.execute(
            f"SELECT message_id, parts, at_ms FROM revision WHERE {wanted} ORDER BY message_id, n",
            (chat_id,),
        ):
            revision = {"at_ms": at_ms, "parts": rows.loads(parts)}
            self.revisions.setdefault(node_id, []).append(revision)
        for node_id, *row in db.execute(
            f"SELECT message_id, {rows.TURN_COLUMNS} FROM turn WHERE {wanted}"
            " AND n <= (SELECT turns FROM message WHERE id = message_id) ORDER BY message_id, n",
            (chat_id,),
        ):
            self.turns.setdefault(node_id, []).append(rows.turn_from(row))


def _message(node: Node, uids: Mapping[int, str], cells: _Cells) -> Dump:
    parent = None if node.parent_id is None else uids.get(node.parent_id)
    out: Dump = {
        "uid": node.uid,
        "parent": parent,
        "role": node.role.value,
        "state": node.state.value,
    }
    out |= {name: getattr(node, name) for name in _PLAIN}
    out |= {"marks": dict(node.marks), "extra": dict(node.extra)}
    out["parts"] = [encode_part(part) for part in cells.parts.get(node.id, ())]
    out["revisions"] = cells.revisions.get(node.id, [])
    out["turns"] = cells.turns.get(node.id, [])
    return out


def _depth_first(tree: Tree) -> Iterable[int]:
    seen: set[int] = set()
    for root in tree.children(None):
        for node_id in tree.subtree(root):
            if node_id not in seen:
                seen.add(node_id)
                yield node_id


def _blobs_of(messages: Iterable[Dump], read_blob: Callable[[str], bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for message in messages:
        for parts in (message["parts"], *(old["parts"] for old in message["revisions"])):
            for part in parts:
                digest = part.get("blob")
                if digest and digest not in found:
                    try:
                        found[digest] = base64.b64encode(read_blob(digest)).decode()
                    except KnownError:
                        continue
    return found


# ---- in ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ids:
    """Where new ids come from."""

    chat: Callable[[], int]
    message: Callable[[], int]


def write(db: apsw.Connection, dump: Dump, ids: Ids, put_blob: Callable[[bytes], str]) -> int:
    """Add a chat from its dump, in the caller's transaction.  Returns the chat's id.

    uids that this library has already (or that stand twice in the dump) are replaced by new ones.
    Raises KnownError("import-damaged") when the dump has not the shape above.
    """
    if dump.get("format", FORMAT) != FORMAT or dump.get("version", VERSION) > VERSION:
        raise KnownError(
            "import-newer",
            "This export was made by a newer version of Grove. Install the newest Grove to open "
            "it.",
        )
    try:
        return _Writing(db, dump, ids, put_blob).run()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise KnownError(
            "import-damaged",
            "This export is damaged or not from Grove. Nothing was imported.",
            detail=f"{type(error).__name__}",
        ) from error


class _Writing:
    """One chat on its way in: rows are gathered, then written with few statements."""

    def __init__(
        self, db: apsw.Connection, dump: Dump, ids: Ids, put_blob: Callable[[bytes], str]
    ) -> None:
        self.db = db
        self.dump = dump
        self.ids = ids
        self.put_blob = put_blob
        self.messages: list[Dump] = list(dump["messages"])
        self.nodes: list[Node] = []
        self.gone: list[tuple[int, str, int]] = []
        self.parts: list[rows.Bindings] = []
        self.revisions: list[rows.Bindings] = []
        self.turns: list[rows.Bindings] = []
        self.words: list[tuple[int, str]] = []

    def run(self) -> int:
        about: Dump = dict(self.dump.get("chat") or {})
        for digest, data in (self.dump.get("blobs") or {}).items():
            raw = base64.b64decode(data, validate=True)
            if self.put_blob(raw) != digest:
                raise ValueError("a blob is not what its hash says")
            blobs.note(self.db, digest, len(raw))
        by_uid: dict[str, int] = {}
        numbered = [(self.ids.message(), message) for message in self.messages]
        for node_id, message in numbered:
            by_uid.setdefault(_text(message["uid"]), node_id)
        taken = _taken(self.db, "message", by_uid)
        places: dict[int | None, int] = {}
        for node_id, message in numbered:
            self._take(node_id, message, by_uid, taken, places)
        chat = self._chat(about, by_uid)
        rows.ensure_chat(self.db, chat)
        self._write(chat.id)
        for parent, child in (self.dump.get("chosen") or {}).items():
            if child in by_uid and (parent == "" or parent in by_uid):
                self.db.execute(
                    "INSERT INTO choice(chat_id, parent_id, child_id) VALUES(?,?,?)",
                    (chat.id, by_uid.get(parent, 0), by_uid[child]),
                )
        return chat.id

    def _chat(self, about: Dump, by_uid: Mapping[str, int]) -> ChatInfo:
        at = now_ms()
        uid = _text(about.get("uid") or new_uid(at))
        if _taken(self.db, "chat", (uid,)):
            uid = new_uid(at)
        unknown = {key: value for key, value in about.items() if key not in _OF_CHAT}
        created_at = int(about.get("created_at") or at)
        return ChatInfo(
            self.ids.chat(),
            uid,
            _text(about.get("title") or ""),
            by_uid.get(about.get("head") or ""),
            _text(about.get("weights") or ""),
            _text(about.get("preset") or ""),
            bool(about.get("pinned")),
            created_at,
            int(about.get("updated_at") or created_at),
            int(about.get("deleted_at") or 0),
            {**unknown, **(about.get("extra") or {})},
        )

    def _take(
        self,
        node_id: int,
        message: Dump,
        by_uid: Mapping[str, int],
        taken: set[str],
        places: dict[int | None, int],
    ) -> None:
        uid = _text(message["uid"])
        if uid in taken or by_uid[uid] != node_id:
            uid = new_uid()
        extra = {key: value for key, value in message.items() if key not in _OF_MESSAGE}
        extra |= message.get("extra") or {}
        parent = message.get("parent")
        parent_id = by_uid.get(parent) if parent is not None else None
        if parent is not None and parent_id is None:
            extra.setdefault("missing_parent", parent)
        position = places.get(parent_id, 0)
        places[parent_id] = position + GAP
        parts = decode_parts(message.get("parts") or ())
        revisions = message.get("revisions") or ()
        turns = message.get("turns") or ()
        state = State(message.get("state") or State.DONE)
        plain = Node(
            node_id,
            uid,
            parent_id,
            position,
            Role(message["role"]),
            # Nobody writes an imported reply.
            State.INTERRUPTED if state is State.STREAMING else state,
            starred=bool(message.get("starred")),
            revisions=len(revisions),
            turns=len(turns),
            marks=message.get("marks") or {},
            extra=extra,
        )
        texts: Dump = {name: _text(message.get(name) or "") for name in _PLAIN[:4]}
        times: Dump = {name: int(message.get(name) or 0) for name in _PLAIN[4:7]}
        self.nodes.append(replace(plain, **texts, **times))
        if message.get("deleted_at"):
            removal = _text(message.get("removal") or uid)
            self.gone.append((int(message["deleted_at"]), removal, node_id))
        self.parts.extend(rows.part_bindings(node_id, parts))
        for n, old in enumerate(revisions, 1):
            kept = [encode_part(part) for part in decode_parts(old.get("parts") or ())]
            self.revisions.append((node_id, n, rows.dumps(kept), int(old.get("at_ms") or 0)))
        for n, turn in enumerate(turns, 1):
            self.turns.append(rows.turn_bindings(node_id, n, dict(turn)))
        words = search.searchable(parts)
        if words:
            self.words.append((node_id, search.fold(words)))

    def _write(self, chat_id: int) -> None:
        db = self.db
        db.executemany(rows.INSERT_NODE, [rows.node_bindings(node, chat_id) for node in self.nodes])
        db.executemany(rows.INSERT_PART, self.parts)
        db.executemany(rows.INSERT_REVISION, self.revisions)
        db.executemany(rows.INSERT_TURN, self.turns)
        db.executemany("INSERT INTO search(rowid, text) VALUES(?,?)", self.words)
        db.executemany("UPDATE message SET deleted_at = ?, removal = ? WHERE id = ?", self.gone)


def _taken(db: apsw.Connection, table: str, uids: Iterable[str]) -> set[str]:
    found = db.execute(
        f"SELECT uid FROM {table} WHERE uid IN (SELECT value FROM json_each(?))",
        (rows.dumps(list(uids)),),
    )
    return {row[0] for row in found}


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return clean(value)
