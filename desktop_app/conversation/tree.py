"""The tree in memory: which message hangs below which, and the parts that were loaded.

Main thread only.  A `Tree` is changed by edits alone (see `edits`), through the methods that begin
with `apply_`; watchers are told before and after each change.  Walking is total: a message whose
parent is gone counts as a root, and a cycle (only a damaged file has one) ends the walk.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from desktop_app.conversation.node import Node, Part, PartKind, Parts, joined


@dataclass(frozen=True, slots=True)
class Streamed:
    """A change that is no edit: a reply's parts grew while it is written."""

    node_id: int


@dataclass(frozen=True, slots=True)
class PartsLoaded:
    """A change that is no edit: the parts of these messages came from disk."""

    node_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChatChanged:
    """A change that is no edit: the chat's title, pin, weights or preset."""


class Watcher(Protocol):
    """Is told of each change: one of the edits, or `Streamed`, `PartsLoaded`, `ChatChanged`."""

    def before(self, change: object) -> None:
        """The tree is still as it was."""

    def after(self, change: object) -> None:
        """The tree has changed."""


class Tree:
    """Topology, loaded parts, the head, and the child last chosen at each fork."""

    def __init__(
        self,
        nodes: Iterable[Node] = (),
        *,
        removed: Iterable[Node] = (),
        parts: Mapping[int, Parts] | None = None,
        head_id: int | None = None,
        chosen: Mapping[int | None, int] | None = None,
        complete: bool = False,
    ) -> None:
        """Build from stored rows.

        `removed` are the soft-deleted messages (`Restore` brings them back).  `complete` says that
        a message without an entry in `parts` has none, rather than not loaded ones.
        """
        self._nodes: dict[int, Node] = {node.id: node for node in nodes}
        self._removed: dict[int, Node] = {node.id: node for node in removed}
        self._children: dict[int | None, list[int]] = {}
        self._lost: set[int] = set()  # parents that are not here, but have children here
        self._loops: list[int] = []  # one message of each cycle, shown as a root
        self._loops_stale = False
        self._parts: dict[int, Parts] = dict(parts or {})
        self._chosen: dict[int | None, int] = dict(chosen or {})
        self._watchers: list[Watcher] = []
        self._head: int | None = None
        self.fetch: Callable[[int], None] | None = None
        if complete:
            for node_id in (*self._nodes, *self._removed):
                self._parts.setdefault(node_id, ())
        self._link_all()
        self._head = head_id if head_id in self._nodes else self.leaf_below(None)

    # ---- reading -----------------------------------------------------------------------------

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def head_id(self) -> int | None:
        """The message where the active path ends; None in an empty chat."""
        return self._head

    @property
    def chosen(self) -> Mapping[int | None, int]:
        """The child remembered for each fork where one was chosen; key None = the roots."""
        return self._chosen

    def ids(self) -> tuple[int, ...]:
        """All messages that are not removed, in no order that means anything."""
        return tuple(self._nodes)

    def removed_ids(self) -> tuple[int, ...]:
        """The soft-deleted messages."""
        return tuple(self._removed)

    def node(self, node_id: int) -> Node:
        """The message; KeyError when it is not in the tree (never was, or is removed)."""
        return self._nodes[node_id]

    def removed(self, node_id: int) -> Node:
        """A soft-deleted message; KeyError when it is none."""
        return self._removed[node_id]

    def parent(self, node_id: int) -> int | None:
        """The parent, None for a root (and for a message whose parent is gone)."""
        parent_id = self._nodes[node_id].parent_id
        return parent_id if parent_id in self._nodes else None

    def children(self, node_id: int | None) -> tuple[int, ...]:
        """The children in order; None gives the roots, with orphans and cycles at their end."""
        if node_id is not None:
            return tuple(self._children.get(node_id, ()))
        roots = list(self._children.get(None, ()))
        for parent_id in sorted(self._lost):
            roots.extend(self._children[parent_id])
        if self._loops_stale:
            self._loops_stale = False
            self._find_loops()
        if not self._loops:
            return tuple(roots)
        return tuple(dict.fromkeys((*roots, *self._loops)))

    def siblings(self, node_id: int) -> tuple[int, ...]:
        """All versions at this place, `node_id` among them, in order."""
        row = self.children(self.parent(node_id))
        return row if node_id in row else self.children(None)

    def path(self, head: int | None) -> list[int]:
        """The ids from the root to `head`; empty when `head` is None or gone."""
        out: list[int] = []
        seen: set[int] = set()
        at = head
        while at is not None and at in self._nodes and at not in seen:
            seen.add(at)
            out.append(at)
            at = self._nodes[at].parent_id
        out.reverse()
        return out

    def chosen_child(self, node_id: int | None) -> int | None:
        """The child last used at a fork, else the newest; None below a leaf."""
        row = self.children(node_id)
        if not row:
            return None
        picked = self._chosen.get(node_id)
        return picked if picked in row else row[-1]

    def leaf_below(
        self, node_id: int | None, chosen: Mapping[int | None, int] | None = None
    ) -> int | None:
        """Follow the chosen children down to a leaf; `node_id` itself when it has no children.

        `chosen` overrides the remembered choices.
        """
        at, seen = node_id, set[int | None]()
        while at not in seen:
            seen.add(at)
            picked = chosen.get(at) if chosen else None
            child = picked if picked in self.children(at) else self.chosen_child(at)
            if child is None or child in seen:
                break
            at = child
        return at

    def subtree(self, node_id: int) -> list[int]:
        """`node_id` and everything below it, parents before children."""
        out, seen, todo = [], {node_id}, [node_id]
        while todo:
            at = todo.pop()
            out.append(at)
            for child in reversed(self._children.get(at, ())):
                if child not in seen:
                    seen.add(child)
                    todo.append(child)
        return out

    def descendants_count(self, node_id: int) -> int:
        """How many messages stand below this one."""
        return len(self.subtree(node_id)) - 1

    def is_loaded(self, node_id: int) -> bool:
        """Whether `parts` can answer without reading the disk."""
        return node_id in self._parts

    def parts(self, node_id: int) -> Parts:
        """The parts; reads them from disk first where they are not loaded yet.

        That wait is short (one branch), and `Conversation.need` avoids it.
        """
        if node_id not in self._parts and self.fetch is not None:
            self.fetch(node_id)
        return self._parts.get(node_id, ())

    def text(self, node_id: int) -> str:
        """The text parts, joined."""
        return joined(self.parts(node_id))

    def reasoning(self, node_id: int) -> str:
        """The reasoning parts, joined."""
        return joined(self.parts(node_id), PartKind.REASONING)

    # ---- watching ----------------------------------------------------------------------------

    def add_watcher(self, watcher: Watcher) -> None:
        """Tell `watcher` of each change from now on."""
        self._watchers.append(watcher)

    def remove_watcher(self, watcher: Watcher) -> None:
        """Stop telling it."""
        self._watchers.remove(watcher)

    def tell_before(self, change: object) -> None:
        """Announce a change that comes now."""
        for watcher in tuple(self._watchers):
            watcher.before(change)

    def tell_after(self, change: object) -> None:
        """Announce a change that has been made."""
        for watcher in tuple(self._watchers):
            watcher.after(change)

    # ---- changing: called by edits and by the document -----------------------------------------

    def apply_insert(self, node: Node, parts: Parts) -> None:
        """Add a message.  ValueError when its id is in use."""
        if node.id in self._nodes or node.id in self._removed:
            raise ValueError(f"message {node.id} exists already")
        self._nodes[node.id] = node
        self._parts[node.id] = parts
        self._link(node)

    def apply_remove(self, node_ids: Iterable[int]) -> None:
        """Soft-delete exactly these messages; their ids can be restored."""
        for node_id in node_ids:
            node = self._nodes.pop(node_id)
            self._removed[node_id] = node
            self._unlink(node)
        if self._head not in self._nodes:
            self._head = None

    def apply_restore(self, node_ids: Iterable[int]) -> None:
        """Bring soft-deleted messages back to where they were."""
        for node_id in node_ids:
            node = self._removed.pop(node_id)
            self._nodes[node_id] = node
            self._link(node)

    def apply_replace(self, node: Node) -> None:
        """Put another state of the same message in place (also another parent or position)."""
        old = self._nodes[node.id]
        if (old.parent_id, old.position) == (node.parent_id, node.position):
            self._nodes[node.id] = node
            return
        self._unlink(old)
        self._nodes[node.id] = node
        self._link(node)

    def apply_parts(self, node_id: int, parts: Iterable[Part]) -> None:
        """Set the parts of a message, in the tree or removed."""
        self._parts[node_id] = tuple(parts)

    def apply_head(self, head: int | None, chosen: Mapping[int | None, int | None]) -> None:
        """Set the head, and the chosen child of some forks (None forgets a choice)."""
        self._head = head if head is None or head in self._nodes else self.leaf_below(None)
        for parent_id, child_id in chosen.items():
            if child_id is None:
                self._chosen.pop(parent_id, None)
            else:
                self._chosen[parent_id] = child_id

    def apply_forget(self, node_ids: Iterable[int]) -> None:
        """Drop soft-deleted messages for good (the trash was emptied)."""
        gone = set(node_ids) & set(self._removed)
        for node_id in gone:
            del self._removed[node_id]
            self._parts.pop(node_id, None)
            for child in self.children(node_id):
                self.apply_replace(replace(self._nodes[child], parent_id=None))
        for node in tuple(self._removed.values()):
            if node.parent_id in gone:
                self._removed[node.id] = replace(node, parent_id=None)
        for parent_id, child_id in tuple(self._chosen.items()):
            if child_id in gone or parent_id in gone:
                del self._chosen[parent_id]

    def last_position(self, parent_id: int | None) -> int | None:
        """The highest position below a parent, removed messages included; None when none."""
        row = self._children.get(parent_id)
        best = self._nodes[row[-1]].position if row else None
        for node in self._removed.values():
            if node.parent_id == parent_id and (best is None or node.position > best):
                best = node.position
        return best

    # ---- links -------------------------------------------------------------------------------

    def _key(self, node_id: int) -> tuple[int, int]:
        return (self._nodes[node_id].position, node_id)

    def _link(self, node: Node) -> None:
        insort(self._children.setdefault(node.parent_id, []), node.id, key=self._key)
        self._note_lost(node.parent_id)
        self._note_lost(node.id)

    def _unlink(self, node: Node) -> None:
        self._loops_stale = bool(self._loops)
        row = self._children[node.parent_id]
        row.remove(node.id)
        if not row:
            del self._children[node.parent_id]
        self._note_lost(node.parent_id)
        self._note_lost(node.id)

    def _note_lost(self, parent_id: int | None) -> None:
        if parent_id is not None:
            lost = parent_id in self._children and parent_id not in self._nodes
            (self._lost.add if lost else self._lost.discard)(parent_id)

    def _link_all(self) -> None:
        for node in sorted(self._nodes.values(), key=lambda node: (node.position, node.id)):
            self._children.setdefault(node.parent_id, []).append(node.id)
        for parent_id in self._children:
            self._note_lost(parent_id)
        self._find_loops()

    def _find_loops(self) -> None:
        """Nothing but a cycle is out of reach of the roots: open each at its oldest message."""
        reached: set[int] = set()
        self._loops = []
        todo = list(self.children(None))
        left = sorted(self._nodes)
        while True:
            while todo:
                at = todo.pop()
                if at not in reached:
                    reached.add(at)
                    todo.extend(self._children.get(at, ()))
            if len(reached) == len(self._nodes):
                return
            start = next(node_id for node_id in left if node_id not in reached)
            self._loops.append(start)
            todo.append(start)


def moved(node: Node, parent_id: int | None, position: int, at_ms: int) -> Node:
    """The same message at another place."""
    return replace(node, parent_id=parent_id, position=position, updated_at=at_ms)
