"""The changes a conversation knows.  Applying one returns its inverse; each survives JSON.

An edit names rows and new values and nothing else, so that the tree in memory and the tables on
disk can both apply it and agree.  An inverse holds the values that it found, so that an undo gives
back exactly what stood there, and the inverse of that is the redo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from desktop_app.conversation.node import (
    EMPTY,
    Json,
    Node,
    Parts,
    Role,
    State,
    decode_parts,
    encode_parts,
)
from desktop_app.conversation.tree import Tree, moved

__all__ = [
    "DropRevision",
    "Edit",
    "Insert",
    "KeepRevision",
    "Move",
    "Remove",
    "Restore",
    "SetHead",
    "SetMarks",
    "SetParts",
    "SetState",
    "Step",
    "apply_all",
    "decode_edit",
    "decode_step",
    "disturbed",
    "encode_edit",
    "encode_step",
    "mentioned",
    "touched",
]


@dataclass(frozen=True, slots=True)
class Insert:
    """A new message with its parts."""

    node: Node
    parts: Parts = ()

    def apply(self, tree: Tree) -> Edit:
        """Add it; undone by a soft `Remove`, so that a redo gives back the same id."""
        tree.apply_insert(self.node, self.parts)
        return Remove((self.node.id,), self.node.uid, self.node.created_at)


@dataclass(frozen=True, slots=True)
class Remove:
    """Soft-delete exactly these messages.  `removal` (a uid) names this act, for `Restore`."""

    node_ids: tuple[int, ...]
    removal: str
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Take them out; undone by `Restore`."""
        tree.apply_remove(self.node_ids)
        return Restore(self.node_ids, self.removal, self.at_ms)


@dataclass(frozen=True, slots=True)
class Restore:
    """Bring back exactly the messages that the removal took away."""

    node_ids: tuple[int, ...]
    removal: str
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Put them back; undone by the same `Remove` again."""
        tree.apply_restore(self.node_ids)
        return Remove(self.node_ids, self.removal, self.at_ms)


@dataclass(frozen=True, slots=True)
class Move:
    """Hang a message, and what is below it, elsewhere.  The caller rules out cycles."""

    node_id: int
    parent_id: int | None
    position: int
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Move it; undone by a move back."""
        old = tree.node(self.node_id)
        tree.apply_replace(moved(old, self.parent_id, self.position, self.at_ms))
        return Move(self.node_id, old.parent_id, old.position, old.updated_at)


@dataclass(frozen=True, slots=True)
class SetParts:
    """Other words for a message.  `edited_at` 0 = this is no edit by hand."""

    node_id: int
    parts: Parts
    edited_at: int
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Set them; undone by the parts and times that stood there."""
        old = tree.node(self.node_id)
        old_parts = tree.parts(self.node_id)
        tree.apply_parts(self.node_id, self.parts)
        tree.apply_replace(replace(old, edited_at=self.edited_at, updated_at=self.at_ms))
        return SetParts(self.node_id, old_parts, old.edited_at, old.updated_at)


@dataclass(frozen=True, slots=True)
class KeepRevision:
    """Set aside what stands in a message now, as its revision `n` (= revisions so far + 1)."""

    node_id: int
    n: int
    parts: Parts
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Count it; undone by dropping it."""
        tree.apply_replace(replace(tree.node(self.node_id), revisions=self.n))
        return DropRevision(self.node_id, self.n, self.parts, self.at_ms)


@dataclass(frozen=True, slots=True)
class DropRevision:
    """Forget the newest revision; it is carried along for the inverse."""

    node_id: int
    n: int
    parts: Parts
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Count down; undone by keeping it again."""
        tree.apply_replace(replace(tree.node(self.node_id), revisions=self.n - 1))
        return KeepRevision(self.node_id, self.n, self.parts, self.at_ms)


@dataclass(frozen=True, slots=True)
class SetState:
    """Where a reply stands; `turns` says how many of its stored generations count."""

    node_id: int
    state: State
    finish: str
    failure: str
    failure_text: str
    author: str
    turns: int
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Set it; undone by the state that stood there."""
        old = tree.node(self.node_id)
        tree.apply_replace(
            replace(
                old,
                state=self.state,
                finish=self.finish,
                failure=self.failure,
                failure_text=self.failure_text,
                author=self.author,
                turns=self.turns,
                updated_at=self.at_ms,
            )
        )
        return state_of(old)


def state_of(node: Node) -> SetState:
    """The edit that would bring `node` back to the state it has."""
    return SetState(
        node.id,
        node.state,
        node.finish,
        node.failure,
        node.failure_text,
        node.author,
        node.turns,
        node.updated_at,
    )


@dataclass(frozen=True, slots=True)
class SetMarks:
    """The star and all marks (rating, rank, labels …) of a message."""

    node_id: int
    starred: bool
    marks: Mapping[str, Json]
    at_ms: int

    def apply(self, tree: Tree) -> Edit:
        """Set them; undone by those that stood there."""
        old = tree.node(self.node_id)
        tree.apply_replace(
            replace(old, starred=self.starred, marks=self.marks, updated_at=self.at_ms)
        )
        return SetMarks(self.node_id, old.starred, old.marks, old.updated_at)


@dataclass(frozen=True, slots=True)
class SetHead:
    """Where the active path ends, and the child chosen at some forks.

    `chosen` holds pairs (parent or None for the roots, child or None for "no choice").
    """

    head_id: int | None
    chosen: tuple[tuple[int | None, int | None], ...] = ()

    def apply(self, tree: Tree) -> Edit:
        """Set them; undone by the head and choices that stood there."""
        before = tuple((parent_id, tree.chosen.get(parent_id)) for parent_id, _ in self.chosen)
        old = SetHead(tree.head_id, before)
        tree.apply_head(self.head_id, dict(self.chosen))
        return old


Edit = (
    Insert
    | Remove
    | Restore
    | Move
    | SetParts
    | KeepRevision
    | DropRevision
    | SetState
    | SetMarks
    | SetHead
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one gesture did, as edits; undone and redone as one.

    `name` is a stable key that the interface words: "send", "ask-again", "edit", "edit-version",
    "save-and-ask-again", "continue", "insert", "remove", "move", "keep-path", "mark", "star",
    "system", "restore".
    """

    name: str
    edits: tuple[Edit, ...]
    at_ms: int = field(default=0)


def apply_all(tree: Tree, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Apply edits in order and tell the watchers; all or none.  Returns the inverses in order."""
    inverses: list[Edit] = []
    try:
        for edit in edits:
            tree.tell_before(edit)
            inverses.append(edit.apply(tree))
            tree.tell_after(edit)
    except BaseException:
        for inverse in reversed(inverses):
            tree.tell_before(inverse)
            inverse.apply(tree)
            tree.tell_after(inverse)
        raise
    return tuple(reversed(inverses))


def touched(edits: Iterable[Edit]) -> set[int]:
    """The messages whose row these edits change."""
    out: set[int] = set()
    for edit in edits:
        match edit:
            case Insert(node=node):
                out.add(node.id)
            case Remove(node_ids=node_ids) | Restore(node_ids=node_ids):
                out.update(node_ids)
            case SetHead():
                pass
            case _:
                out.add(edit.node_id)
    return out


def mentioned(edits: Iterable[Edit]) -> set[int]:
    """The messages that must exist for these edits to be applied: those touched, and parents."""
    edits = tuple(edits)
    out = touched(edits)
    for edit in edits:
        match edit:
            case Insert(node=Node(parent_id=int(parent_id))) | Move(parent_id=int(parent_id)):
                out.add(parent_id)
            case _:
                pass
    return out


def disturbed(edits: Iterable[Edit]) -> set[int]:
    """The messages whose text or existence these edits change: no reply may be in writing there."""
    calm = (Move, SetMarks, Insert, Restore)
    return touched(edit for edit in edits if not isinstance(edit, calm))


_KINDS: dict[str, type[Edit]] = {
    "insert": Insert,
    "remove": Remove,
    "restore": Restore,
    "move": Move,
    "parts": SetParts,
    "keep-revision": KeepRevision,
    "drop-revision": DropRevision,
    "state": SetState,
    "marks": SetMarks,
    "head": SetHead,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode_node(node: Node) -> dict[str, Json]:
    """A message's own fields as JSON."""
    out: dict[str, Json] = {item.name: getattr(node, item.name) for item in fields(node)}
    out |= {"role": node.role.value, "state": node.state.value}
    out |= {"marks": dict(node.marks), "extra": dict(node.extra)}
    return out


def decode_node(data: Mapping[str, Json]) -> Node:
    """The reverse of `encode_node`."""
    plain = dict(data)
    plain |= {"role": Role(data["role"]), "state": State(data["state"])}
    plain |= {"marks": data["marks"] or EMPTY, "extra": data["extra"] or EMPTY}
    return Node(**plain)


def encode_edit(edit: Edit) -> dict[str, Json]:
    """An edit as JSON: `do` names its kind, the rest are its fields."""
    out: dict[str, Json] = {"do": _NAMES[type(edit)]}
    for item in fields(edit):
        value = getattr(edit, item.name)
        match item.name:
            case "node":
                value = encode_node(value)
            case "parts":
                value = encode_parts(value)
            case "node_ids":
                value = list(value)
            case "chosen":
                value = [list(pair) for pair in value]
            case "marks":
                value = dict(value)
            case _:
                pass
        out[item.name] = value
    return out


def decode_edit(data: Mapping[str, Json]) -> Edit:
    """The reverse of `encode_edit`.  KeyError or TypeError when it is none of ours."""
    plain: dict[str, Json] = {}
    for name, value in data.items():
        match name:
            case "do":
                pass
            case "node":
                plain[name] = decode_node(value)
            case "parts":
                plain[name] = decode_parts(value)
            case "node_ids":
                plain[name] = tuple(value)
            case "chosen":
                plain[name] = tuple((pair[0], pair[1]) for pair in value)
            case "state":
                plain[name] = State(value)
            case _:
                plain[name] = value
    return _KINDS[data["do"]](**plain)


def encode_step(step: Step) -> dict[str, Json]:
    """A step as JSON."""
    return {
        "name": step.name,
        "at_ms": step.at_ms,
        "edits": [encode_edit(edit) for edit in step.edits],
    }


def decode_step(data: Mapping[str, Json]) -> Step:
    """The reverse of `encode_step`."""
    return Step(data["name"], tuple(decode_edit(item) for item in data["edits"]), data["at_ms"])
