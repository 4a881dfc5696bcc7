"""A conversation's tree as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from desktop_app.cli.terminal import one_line, styled
from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role

_MARK = {Role.USER: "?", Role.ASSISTANT: "·", Role.SYSTEM: "§", Role.TOOL: "+"}


def outline(conversation: Conversation) -> Iterator[str]:
    """One line for each message.

    Only forks indent, so that a long run of messages stays flat.  Messages of the active path carry
    their number in it.
    """
    tree = conversation.tree
    numbers = {node_id: n for n, node_id in enumerate(conversation.path(), 1)}
    todo: list[tuple[int, int]] = [(root, 0) for root in reversed(tree.children(None))]
    seen: set[int] = set()
    while todo:
        node_id, depth = todo.pop()
        if node_id in seen:
            continue
        seen.add(node_id)
        number = f"{numbers[node_id]:3}" if node_id in numbers else "   "
        mark = _MARK[tree.node(node_id).role]
        text = one_line(tree.text(node_id), max(20, 72 - 2 * depth)) or "(no text)"
        line = f"{number} {'  ' * depth}{mark} {text}"
        yield styled(line, "bold") if node_id in numbers else line
        below = tree.children(node_id)
        deeper = depth + (1 if len(below) > 1 else 0)
        todo.extend((child, deeper) for child in reversed(below))
