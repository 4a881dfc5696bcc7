"""The tree: order, walking, and damage that must not stop it."""

from __future__ import annotations

import pytest

from desktop_app.conversation import Conversation, Node, Role, Tree, new_uid
from desktop_app.conversation.node import clean
from desktop_app.conversation.places import GAP


def node(node_id: int, parent_id: int | None, position: int = 0) -> Node:
    return Node(node_id, new_uid(), parent_id, position, Role.USER)


def test_children_stand_by_position_then_id() -> None:
    tree = Tree([node(1, None), node(4, 1, 7), node(3, 1, 7), node(2, 1, 9)], complete=True)
    assert tree.children(1) == (3, 4, 2)
    assert tree.siblings(4) == (3, 4, 2)
    assert tree.children(None) == (1,)
    assert tree.descendants_count(1) == 3


def test_the_newest_child_is_shown_unless_another_was_chosen() -> None:
    nodes = [node(1, None), node(2, 1, 1), node(3, 1, 2), node(4, 2)]
    assert Tree(nodes, complete=True).leaf_below(None) == 3
    tree = Tree(nodes, chosen={1: 2}, complete=True)
    assert tree.leaf_below(None) == 4
    assert tree.head_id == 4
    assert Tree(nodes, chosen={1: 99}, complete=True).leaf_below(1) == 3


def test_orphans_count_as_roots() -> None:
    tree = Tree([node(1, None), node(5, 77), node(6, 5)], complete=True)
    assert tree.children(None) == (1, 5)
    assert tree.path(6) == [5, 6]
    assert tree.parent(5) is None
    assert tree.siblings(5) == (1, 5)


def test_a_cycle_ends_every_walk() -> None:
    tree = Tree([node(1, 3), node(2, 1), node(3, 2), node(9, None)], complete=True)
    assert tree.children(None) == (9, 1)
    assert set(tree.path(3)) == {1, 2, 3}
    assert sorted(tree.subtree(1)) == [1, 2, 3]
    assert tree.leaf_below(1) in (1, 2, 3)
    tree.apply_replace(node(3, None))
    assert tree.children(None) == (9, 3) or tree.children(None) == (3, 9)
    assert tree.path(2) == [3, 1, 2]


def test_a_head_that_is_gone_is_replaced() -> None:
    assert Tree([node(1, None), node(2, 1)], head_id=55, complete=True).head_id == 2
    assert Tree([], head_id=55, complete=True).head_id is None


def test_uids_are_of_version_7_and_rise_with_time() -> None:
    early, late = new_uid(1_700_000_000_000), new_uid(1_700_000_000_001)
    assert early[14] == "7"
    assert early[19] in "89ab"
    assert early < late
    assert int(early.replace("-", "")[:12], 16) == 1_700_000_000_000
    assert len({new_uid(5) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("broken", "whole"), [("a\ud800b", "a\ufffdb"), ("\udc00", "\ufffd"), ("😀é", "😀é")]
)
def test_half_surrogates_become_replacement_characters(broken: str, whole: str) -> None:
    assert clean(broken) == whole
    assert clean("\ud83d\ude00") == "😀"


def test_insertions_at_one_place_never_run_out_of_room() -> None:
    chat = Conversation.in_memory()
    root = chat.insert(None, Role.USER, "root")
    first = chat.insert(root, Role.ASSISTANT, "first")
    last = chat.insert(root, Role.ASSISTANT, "last")
    new = [chat.insert(root, Role.ASSISTANT, str(n), 1) for n in range(40)]
    assert chat.tree.children(root) == (first, *reversed(new), last)
    keys = [chat.tree.node(i).position for i in chat.tree.children(root)]
    assert keys == sorted(set(keys))
    assert GAP > 40 or len(keys) == 42
    while chat.undo():
        pass
    assert len(chat.tree) == 0
