"""Open-Assistant's data files (trees, messages, threads; ``.jsonl``, also gzipped), in and out.

The formats are described in the Open-Assistant data schemas (LAION-AI/Open-Assistant,
``oasst-data``).  Reading loses nothing: every field of a line, known or not, stays beside the
message as ``extra["oasst"]``, and writing starts from there.

Pure functions over plain values, callable on any thread.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from desktop_app.errors import KnownError

Json = Any
Row = dict[str, Json]

_ROLE_IN: Final = {"prompter": "user", "assistant": "assistant", "system": "system"}
_ROLE_OUT: Final = {"user": "prompter", "assistant": "assistant", "system": "system"}
# Kept in columns of their own, and written from there.
_MESSAGE_OWN: Final = ("text", "replies")
MAX_DEPTH: Final = 100_000
"""Deeper trees than this are refused; real ones have a depth of 6."""


@dataclass(slots=True)
class ReadMessage:
    """One message on its way in.  `parent` is an index into the chat's list, None for a root."""

    parent: int | None
    role: str
    text: str
    author: str = ""
    created_at: int = 0
    marks: Row = field(default_factory=dict)
    extra: Row = field(default_factory=dict)


@dataclass(slots=True)
class ReadChat:
    """One chat on its way in; parents stand before their replies, siblings in their order."""

    key: str
    title: str
    messages: list[ReadMessage]
    extra: Row = field(default_factory=dict)


# --- in ------------------------------------------------------------------------------------------


def looks_like(line: Mapping[str, Json]) -> bool:
    """Is this object (the file's first line) one of Open-Assistant's?"""
    return any(key in line for key in ("message_id", "message_tree_id", "thread_id"))


def read(lines: Iterable[tuple[int, Json]]) -> list[ReadChat]:
    """The chats of a file, in the file's order.

    `lines` are (line number, parsed object).  Messages that lie flat become one chat for each
    `message_tree_id`, else for each connected piece; a message whose parent is not in the file
    becomes a root and keeps its `parent_id`.  KnownError("import-format") names the line that is
    none of the formats.
    """
    chats: list[ReadChat] = []
    flat = _FlatMessages()
    for number, line in lines:
        if not isinstance(line, dict):
            raise _bad(number, "it is no object")
        if "message_id" in line:
            flat.add(number, line)
        elif "message_tree_id" in line:
            chats.append(_read_tree(number, line))
        elif "thread_id" in line:
            chats.append(_read_thread(number, line))
        else:
            raise _bad(number, "it is no tree, message or thread")
    return chats + flat.chats()


def _read_tree(number: int, line: Row) -> ReadChat:
    prompt = line.get("prompt")
    own = {key: value for key, value in line.items() if key != "prompt"}
    key = _text(line, "message_tree_id", number)
    messages: list[ReadMessage] = []
    grove = own.get("grove")
    system = grove.get("system") if isinstance(grove, dict) else None
    if isinstance(system, str) and system:
        messages.append(ReadMessage(None, "system", system))
    if prompt is not None:
        _add_nested(number, prompt, 0 if messages else None, messages)
    else:
        own["prompt"] = None
    title = grove.get("title") if isinstance(grove, dict) else None
    return ReadChat(
        key, title if isinstance(title, str) else _title(messages), messages, _origin("tree", own)
    )


def _read_thread(number: int, line: Row) -> ReadChat:
    thread = line.get("thread")
    if not isinstance(thread, list):
        raise _bad(number, "its thread is no list")
    messages: list[ReadMessage] = []
    for item in thread:
        parent = len(messages) - 1 if messages else None
        messages.append(_read_message(number, item, parent))
    own = {key: value for key, value in line.items() if key != "thread"}
    key = _text(line, "thread_id", number)
    return ReadChat(key, _title(messages), messages, _origin("thread", own))


def _add_nested(number: int, root: Json, parent: int | None, messages: list[ReadMessage]) -> None:
    """Append a message and all its replies, parents first, without recursion."""
    todo: list[tuple[Json, int | None, int]] = [(root, parent, 0)]
    while todo:
        item, above, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise _bad(number, "its tree is too deep")
        here = len(messages)
        messages.append(_read_message(number, item, above))
        replies = item.get("replies") or ()
        if not isinstance(replies, list | tuple):
            raise _bad(number, "its replies are no list")
        todo.extend((reply, here, depth + 1) for reply in reversed(replies))


def _read_message(number: int, item: Json, parent: int | None) -> ReadMessage:
    if not isinstance(item, dict):
        raise _bad(number, "a message is no object")
    role = _ROLE_IN.get(_text(item, "role", number))
    if role is None:
        raise _bad(number, "a message's role is neither prompter nor assistant")
    _text(item, "message_id", number)
    own = {key: value for key, value in item.items() if key not in _MESSAGE_OWN}
    if "replies" in item:
        # Whether a leaf says "replies": [] or nothing differs between writers.
        own["replies"] = None if item["replies"] is None else []
    model = item.get("model_name")
    return ReadMessage(
        parent,
        role,
        _text(item, "text", number),
        author=model if isinstance(model, str) and role == "assistant" else "",
        created_at=_milliseconds(item.get("created_date")),
        marks=_marks(item),
        extra={"oasst": own},
    )


class _FlatMessages:
    """Messages of a flat file until all are read."""

    def __init__(self) -> None:
        self._items: list[tuple[int, Row]] = []

    def add(self, number: int, line: Row) -> None:
        self._items.append((number, line))

    def chats(self) -> list[ReadChat]:
        index_of: dict[str, int] = {}
        for index, (number, item) in enumerate(self._items):
            index_of.setdefault(_text(item, "message_id", number), index)
        parents = [self._parent(index, index_of) for index in range(len(self._items))]
        _cut_cycles(parents)
        groups: dict[str, list[int]] = {}
        for index, key in enumerate(self._keys(parents)):
            groups.setdefault(key, []).append(index)
        return [self._chat(key, members, parents) for key, members in groups.items()]

    def _parent(self, index: int, index_of: Mapping[str, int]) -> int | None:
        item = self._items[index][1]
        parent = index_of.get(item["parent_id"]) if isinstance(item.get("parent_id"), str) else None
        if parent is None or parent == index:
            return None
        other = self._items[parent][1]
        if item.get("message_tree_id") != other.get("message_tree_id"):
            return None
        return parent

    def _keys(self, parents: Sequence[int | None]) -> list[str]:
        """For each message the key of its chat: its tree's id, else its topmost ancestor, where
        orphans of the same missing parent belong together."""
        keys: list[str] = []
        roots: dict[int, int] = {}
        for index, (_, item) in enumerate(self._items):
            tree = item.get("message_tree_id")
            if isinstance(tree, str):
                keys.append(tree)
                continue
            root = index
            walked = []
            while root not in roots and (above := parents[root]) is not None:
                walked.append(root)
                root = above
            root = roots.get(root, root)
            roots.update(dict.fromkeys(walked, root))
            top = self._items[root][1]
            missing = top.get("parent_id")
            keys.append(missing if isinstance(missing, str) else top["message_id"])
        return keys

    def _chat(self, key: str, members: Sequence[int], parents: Sequence[int | None]) -> ReadChat:
        children: dict[int | None, list[int]] = {}
        place = {index: n for n, index in enumerate(members)}
        for index in members:
            children.setdefault(parents[index], []).append(index)
        messages: list[ReadMessage] = []
        todo: list[tuple[int, int | None]] = [(i, None) for i in reversed(children.get(None, []))]
        while todo:
            index, above = todo.pop()
            number, item = self._items[index]
            here = len(messages)
            _add_nested(number, item, above, messages)
            messages[here].extra["line"] = place[index]
            todo.extend((child, here) for child in reversed(children.get(index, [])))
        return ReadChat(key, _title(messages), messages, _origin("messages", {}))


def _cut_cycles(parents: list[int | None]) -> None:
    """Make a root of one message of each ring of parents."""
    state = [0] * len(parents)
    for start in range(len(parents)):
        walk: list[int] = []
        index: int | None = start
        while index is not None and state[index] == 0:
            state[index] = 1
            walk.append(index)
            index = parents[index]
        if index is not None and state[index] == 1:
            parents[index] = None
        for seen in walk:
            state[seen] = 2


def _origin(kind: str, own: Row) -> Row:
    return {"oasst": own, "oasst_kind": kind}


def _text(item: Mapping[str, Json], key: str, number: int) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise _bad(number, f"{key} is missing")
    return value


def _title(messages: Sequence[ReadMessage]) -> str:
    first = next((m for m in messages if m.role == "user"), None)
    line = " ".join(first.text.split()) if first is not None else ""
    return line if len(line) <= 60 else line[:59].rstrip() + "…"


def _marks(item: Mapping[str, Json]) -> Row:
    """Rank, labels and emojis in one shape; the hub's column form is turned round."""
    marks: Row = {}
    rank = item.get("rank")
    if isinstance(rank, int) and not isinstance(rank, bool):
        marks["rank"] = rank
    labels = item.get("labels")
    if isinstance(labels, dict):
        if all(isinstance(labels.get(column), list) for column in ("name", "value", "count")):
            rows = zip(labels["name"], labels["value"], labels["count"], strict=False)
            marks["labels"] = {n: {"value": v, "count": c} for n, v, c in rows}
        else:
            marks["labels"] = labels
    emojis = item.get("emojis")
    if isinstance(emojis, dict):
        if all(isinstance(emojis.get(column), list) for column in ("name", "count")):
            marks["emojis"] = dict(zip(emojis["name"], emojis["count"], strict=False))
        else:
            marks["emojis"] = emojis
    return marks


def _milliseconds(date: Json) -> int:
    """ISO 8601, taken as UTC where it has no zone; 0 where there is none."""
    if not isinstance(date, str):
        return 0
    try:
        moment = datetime.datetime.fromisoformat(date)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp() * 1000)


def _bad(number: int, why: str) -> KnownError:
    return KnownError(
        "import-format",
        f"Line {number} of the file cannot be read: {why}. Nothing was imported.",
    )


# --- out -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutMessage:
    """One message on its way out; `children` are indexes into the chat's list, in order."""

    uid: str
    role: str
    text: str
    reasoning: str
    author: str
    created_at: int
    marks: Mapping[str, Json]
    extra: Mapping[str, Json]
    children: Sequence[int]


@dataclass(frozen=True, slots=True)
class OutChat:
    """One chat on its way out."""

    uid: str
    title: str
    extra: Mapping[str, Json]
    messages: Sequence[OutMessage]
    roots: Sequence[int]


def write(chat: OutChat) -> Iterator[Row]:
    """The lines of one chat: of the kind that it came from, else one tree for each first message.

    Open-Assistant knows no system role: a system prompt travels as the field ``grove.system`` of
    its trees, and comes back from there.
    """
    kind = chat.extra.get("oasst_kind")
    if kind == "messages":
        yield from _write_flat(chat)
    elif kind == "thread" and _is_line(chat):
        own = chat.extra.get("oasst") or {}
        yield {**own, "thread": [_message(m, None) for m in _along(chat)]}
    else:
        yield from _write_trees(chat, kind == "tree")


def _write_trees(chat: OutChat, from_tree: bool) -> Iterator[Row]:
    own = chat.extra.get("oasst") if from_tree else None
    own = dict(own) if isinstance(own, Mapping) else {}
    tops = [(root, "") for root in chat.roots]
    pairs: list[tuple[int, str]] = []
    for top, _ in tops:
        message = chat.messages[top]
        if message.role == "system" and "oasst" not in message.extra:
            pairs.extend((child, message.text) for child in message.children)
        else:
            pairs.append((top, ""))
    if not pairs and own:
        yield own
    for n, (root, system) in enumerate(pairs):
        tree = _nested(chat, root)
        line: Row = dict(own) if n == 0 else {}
        line.setdefault("message_tree_id", tree["message_id"])
        line.pop("prompt", None)
        if not line.get("tree_state") and not (from_tree and n == 0):
            line["tree_state"] = "not_applicable"
        if not from_tree or n > 0:
            line["grove"] = {"chat": chat.uid, "title": chat.title}
            if system:
                line["grove"]["system"] = system
        yield {**line, "prompt": tree}


def _write_flat(chat: OutChat) -> Iterator[Row]:
    order: list[tuple[int, int, int | None]] = []
    nested: set[int] = set()
    todo: list[tuple[int, int | None]] = [(root, None) for root in reversed(chat.roots)]
    while todo:
        index, above = todo.pop()
        message = chat.messages[index]
        children = list(message.children)
        own = message.extra.get("oasst")
        if isinstance(own, Mapping) and own.get("replies") == []:
            inside = [c for c in children if "line" not in chat.messages[c].extra]
            nested.update(inside)
        line = message.extra.get("line")
        if index not in nested:
            order.append((line if isinstance(line, int) else len(order), index, above))
        todo.extend((child, index) for child in reversed(children))
    inside_all = nested
    for _, index, above in sorted(order, key=lambda entry: entry[0]):
        row = _message(chat.messages[index], chat.messages[above] if above is not None else None)
        inside = [c for c in chat.messages[index].children if c in inside_all]
        if inside:
            row["replies"] = [_nested(chat, child, chat.messages[index]) for child in inside]
        yield row


def _nested(chat: OutChat, root: int, above: OutMessage | None = None) -> Row:
    top = _message(chat.messages[root], above)
    todo = [(root, top)]
    while todo:
        index, row = todo.pop()
        message = chat.messages[index]
        if not message.children and "replies" not in row and "oasst" in message.extra:
            continue
        replies = [_message(chat.messages[c], message) for c in message.children]
        if replies or row.get("replies", []) is not None:
            row["replies"] = replies
        todo.extend(zip(message.children, replies, strict=True))
    return top


def _message(message: OutMessage, above: OutMessage | None) -> Row:
    """One message's fields: what came in, with what was changed here since."""
    own = message.extra.get("oasst")
    own = dict(own) if isinstance(own, Mapping) else {}
    replies = own.pop("replies", ...)
    row: Row = {"message_id": own.pop("message_id", message.uid)}
    parent = _id(above) if above is not None else None
    if "parent_id" in own:
        kept = own.pop("parent_id")
        row["parent_id"] = parent if parent is not None else kept
    elif parent is not None:
        row["parent_id"] = parent
    row["text"] = message.text
    own.pop("role", None)
    row["role"] = _ROLE_OUT.get(message.role, "assistant")
    row.update(own)
    before = _marks(own)
    if not message.extra.get("oasst"):
        row["created_date"] = _iso(message.created_at)
        if message.author:
            row["model_name"] = message.author
    for name in ("rank", "labels", "emojis"):
        if name in message.marks and message.marks[name] != before.get(name):
            row[name] = message.marks[name]
    if message.reasoning:
        row["grove"] = {"reasoning": message.reasoning}
    if replies is not ...:
        row["replies"] = replies
    return row


def _id(message: OutMessage) -> str:
    own = message.extra.get("oasst")
    known = own.get("message_id") if isinstance(own, Mapping) else None
    return known if isinstance(known, str) else message.uid


def _iso(created_at_ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(created_at_ms / 1000, datetime.UTC)
    return moment.isoformat()


def _along(chat: OutChat) -> Iterator[OutMessage]:
    index = chat.roots[0] if chat.roots else None
    while index is not None:
        yield chat.messages[index]
        below = chat.messages[index].children
        index = below[0] if below else None


def _is_line(chat: OutChat) -> bool:
    return len(chat.roots) <= 1 and all(len(m.children) <= 1 for m in chat.messages)
