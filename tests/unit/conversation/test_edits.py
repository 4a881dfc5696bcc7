"""Edits: exact inverses, and JSON both ways."""

from __future__ import annotations

import json

import pytest

from desktop_app.conversation import Conversation, Part, PartKind
from desktop_app.conversation.edits import (
    Edit,
    Insert,
    Step,
    apply_all,
    decode_step,
    encode_step,
)
from tests.fakes.hand import Hand, picture


class Steps:
    """A watcher that keeps every edit it hears of, and checks that each is told twice."""

    def __init__(self) -> None:
        self.edits: list[Edit] = []
        self.coming: object = None

    def before(self, change: object) -> None:
        self.coming = change

    def after(self, change: object) -> None:
        assert change == self.coming
        if isinstance(change, Edit):
            self.edits.append(change)


@pytest.mark.parametrize("seed", range(4))
def test_every_step_undoes_to_what_stood_there(seed: int) -> None:
    chat, hand = Conversation.in_memory(), Hand(seed)
    for _ in range(120):
        hand.finish(chat)
        before = picture(chat)
        could_undo = chat._ledger.history._next_seq
        hand.act(chat)
        hand.finish(chat)
        after = picture(chat)
        if chat._ledger.history._next_seq == could_undo:
            assert before == after
            continue
        assert chat.undo() is not None
        assert picture(chat) == before
        assert chat.redo() is not None
        assert picture(chat) == after


def test_every_edit_survives_json() -> None:
    chat, hand, heard = Conversation.in_memory(), Hand(9), Steps()
    chat.tree.add_watcher(heard)
    for _ in range(250):
        hand.act(chat)
        hand.finish(chat)
    while chat.undo():
        pass
    while chat.redo():
        pass
    kinds = {type(edit).__name__ for edit in heard.edits}
    assert len(kinds) == 10, kinds
    step = Step("all", tuple(heard.edits), 5)
    assert decode_step(json.loads(json.dumps(encode_step(step)))) == step


def test_parts_survive_json() -> None:
    chat = Conversation.in_memory()
    user, _ = chat.send(
        "see", attachments=(Part(PartKind.IMAGE, "", "ab" * 32, {"width": 5, "α": [None]}),)
    )
    insert = Insert(chat.tree.node(user), chat.tree.parts(user))
    step = Step("x", (insert,), 1)
    assert decode_step(json.loads(json.dumps(encode_step(step)))) == step


def test_a_step_that_fails_half_way_leaves_nothing() -> None:
    chat = Conversation.in_memory()
    user, _ = chat.send("hi")
    chat.finish_stream(chat.streaming_ids[0], chat.tree.node(user).state)
    before = picture(chat)
    fresh = Insert(chat._new(chat.tree.node(user).role, user, 1))
    with pytest.raises(ValueError, match="exists already"):
        apply_all(chat.tree, (fresh, Insert(chat.tree.node(user))))
    assert picture(chat) == before
