"""Sort keys: where a message stands among its siblings.

Keys leave gaps, so that an insertion changes one row; when a gap is used up, the row of siblings
is numbered anew, as moves of the same step.
"""

from __future__ import annotations

from desktop_app.conversation.edits import Edit, Move, SetHead
from desktop_app.conversation.tree import Tree

GAP = 1 << 16


def spread(n: int) -> int:
    """The distance of the n-th neighbour."""
    return n * GAP


def place(
    tree: Tree, parent_id: int | None, index: int | None, at_ms: int, *, moving: int | None = None
) -> tuple[int, list[Move]]:
    """A sort key for child number `index` (None or too high = last) of a parent.

    Returns the key and the moves that make room for it.  `moving` is a message that leaves its
    place for this one, and does not count.
    """
    row = [i for i in _own_children(tree, parent_id) if i != moving]
    if index is None or index >= len(row):
        last = tree.last_position(parent_id)
        return (0 if last is None else last + GAP), []
    keys = [tree.node(i).position for i in row]
    index = max(index, 0)
    if index == 0:
        return keys[0] - GAP, []
    middle = (keys[index - 1] + keys[index]) // 2
    if keys[index - 1] < middle < keys[index]:
        return middle, []
    order = [*row[:index], None, *row[index:]]
    moves = [Move(i, parent_id, spread(n), at_ms) for n, i in enumerate(order) if i is not None]
    return spread(index), moves


def below_lifted(tree: Tree, node_id: int, at_ms: int) -> list[Move]:
    """The moves that put the children of a message in its own place among its siblings."""
    node = tree.node(node_id)
    children = list(tree.children(node_id))
    row = list(_own_children(tree, node.parent_id))
    at = row.index(node_id)
    following = [tree.node(i).position for i in row[at + 1 : at + 2]]
    room = (following[0] - node.position) if following else spread(len(children))
    step = room // len(children)
    if step > 0:
        return [
            Move(child, node.parent_id, node.position + n * step, at_ms)
            for n, child in enumerate(children)
        ]
    order = [*row[:at], *children, *row[at + 1 :]]
    return [Move(i, node.parent_id, spread(n), at_ms) for n, i in enumerate(order)]


def beside(tree: Tree, node_id: int) -> int | None:
    """Where to look when a message goes: the next version, the one before, the parent."""
    row = tree.siblings(node_id)
    at = row.index(node_id)
    others = row[at + 1 : at + 2] or row[max(at - 1, 0) : at]
    return tree.leaf_below(others[0]) if others else tree.parent(node_id)


def adopted(tree: Tree, parent_id: int | None, new_id: int, at_ms: int) -> list[Edit]:
    """Hang the children of a parent below a new message there, and show the same ones."""
    edits: list[Edit] = [
        Move(child, new_id, tree.node(child).position, at_ms) for child in tree.children(parent_id)
    ]
    # A parent that was the head stays the head's path: it ends at the new message.
    head = new_id if tree.head_id == parent_id else tree.head_id
    chosen = ((new_id, tree.chosen_child(parent_id)), (parent_id, new_id))
    return [*edits, SetHead(head, chosen)]


def _own_children(tree: Tree, parent_id: int | None) -> tuple[int, ...]:
    """The children without the orphans that only count as roots."""
    row = tree.children(parent_id)
    return row if parent_id is not None else tuple(i for i in row if tree.node(i).parent_id is None)
