"""A person who edits chats at random, and a picture of a chat to compare by."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from desktop_app.conversation import Conversation, Part, PartKind, Role, State, text_parts
from desktop_app.conversation.node import encode_parts

WORDS = [
    "tree",
    "leaf",
    "나무",
    "잎사귀",
    "森の木",
    "树枝",
    "é",
    "naïve",
    "😀",
    "ﬁn",
    "\n\n",
    "`x`",
]


class Hand:
    """Acts on conversations by chance; the same seed and states give the same acts."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def words(self, most: int = 12) -> str:
        """Some text, never empty."""
        return " ".join(self.chance.choices(WORDS, k=self.chance.randint(1, most)))

    def pick(self, conversation: Conversation) -> int | None:
        """Any message, None in an empty chat."""
        ids = sorted(conversation.tree.ids())
        return self.chance.choice(ids) if ids else None

    def finish(self, conversation: Conversation, after: Callable[[], None] = lambda: None) -> None:
        """Let every reply that is being written come to an end; `after` follows each of them."""
        for node_id in conversation.streaming_ids:
            self.stream(conversation, node_id)
            state = self.chance.choice((State.DONE, State.DONE, State.STOPPED, State.FAILED))
            conversation.finish_stream(
                node_id,
                state,
                finish="stop" if state is State.DONE else "cancelled",
                turn={"weights": "tiny", "seed": self.chance.randint(0, 2**40), "odd": [1, None]},
            )
            after()

    def stream(self, conversation: Conversation, node_id: int) -> None:
        """A reply grows by some words."""
        parts = conversation.tree.parts(node_id)
        if not parts and self.chance.random() < 0.2:
            parts = (Part(PartKind.REASONING, self.words(4)),)
        conversation.stream_text(node_id, (*parts, *text_parts(self.words())))

    def navigate(self, conversation: Conversation) -> None:
        """Look elsewhere."""
        target = self.pick(conversation)
        if target is not None:
            self.chance.choice((conversation.choose_version, conversation.set_head))(target)

    def act(self, conversation: Conversation) -> None:
        """One verb; it may turn out to change nothing."""
        c, chance = conversation, self.chance
        target = self.pick(c)
        if target is None:
            c.send(self.words(), author="tiny")
            return
        node = c.tree.node(target)
        verbs = {
            "send": 22,
            "copy": 3,
            "again": 10,
            "edit": 10,
            "version": 8,
            "insert": 8,
            "remove": 5,
            "lift": 4,
            "move": 8,
            "mark": 8,
            "star": 5,
            "system": 4,
            "continue": 6,
            "save-again": 5,
            "only-path": 0.5,
        }
        verb = chance.choices(list(verbs), weights=list(verbs.values()))[0]
        if verb == "continue" and node.role is not Role.ASSISTANT:
            verb = "edit"
        if verb == "save-again" and node.role is not Role.USER:
            verb = "version"
        acts: dict[str, Callable[[], object]] = {
            "send": lambda: c.send(self.words(), author="tiny", drafts=chance.choice((1, 1, 3))),
            "copy": lambda: c.copy_in([(c.tree.node(i), c.tree.parts(i)) for i in c.path(target)]),
            "again": lambda: c.ask_again(target, author="tiny", drafts=chance.choice((1, 1, 3))),
            "edit": lambda: c.edit_in_place(target, self.words()),
            "version": lambda: c.edit_as_version(target, self.words()),
            "insert": lambda: self._insert(c, target),
            "remove": lambda: c.remove(target),
            "lift": lambda: c.remove(target, keep_below=True),
            "move": lambda: self._move(c, target),
            "mark": lambda: c.mark(target, rating=chance.choice((1, -1, None)), tags=["funny"]),
            "star": lambda: c.star(target, not node.starred),
            "system": lambda: c.set_system(chance.choice(("", self.words()))),
            "continue": lambda: c.continue_reply(target),
            "save-again": lambda: c.save_and_ask_again(target, self.words(), author="tiny"),
            "only-path": c.keep_only_path,
        }
        acts[verb]()

    def _insert(self, c: Conversation, target: int) -> None:
        chance = self.chance
        where, position = chance.choice((target, None)), chance.choice((None, 0, 1, 99))
        role = chance.choice(list(Role))
        c.insert(where, role, self.words(), position, adopt=chance.random() < 0.3)

    def _move(self, c: Conversation, target: int) -> None:
        below = set(c.tree.subtree(target))
        places = [None, *(i for i in sorted(c.tree.ids()) if i not in below)]
        c.move(target, self.chance.choice(places), self.chance.choice((None, 0, 1)))


def picture(conversation: Conversation) -> dict[str, Any]:
    """Everything that steps change, by uid; not the head, which navigation changes too.

    A reply that is being written counts as interrupted and without words: what a crash leaves of
    it depends on the moment.
    """
    tree = conversation.tree
    out: dict[str, Any] = {}
    order: list[int] = []
    for root in tree.children(None):
        order.extend(tree.subtree(root))
    for node_id in order:
        node = tree.node(node_id)
        going = node.state is State.STREAMING
        out[node.uid] = (
            None if (parent := tree.parent(node_id)) is None else tree.node(parent).uid,
            node.role.value,
            "interrupted" if going else node.state.value,
            "" if going else encode_parts(tree.parts(node_id)),
            node.author,
            node.finish,
            node.starred,
            dict(node.marks),
            node.edited_at,
            node.revisions,
            node.turns,
            node.position,
        )
    return out
