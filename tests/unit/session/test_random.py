"""Hundreds of random acts while replies are written, stopped, crashed, removed and undone.

Afterwards nothing is left in writing, memory and disk agree, and an undo to the very beginning and
a redo to the end give the same library.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from desktop_app.cli.loop import MainLoop
from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role, State
from desktop_app.inference.engine import Engine
from desktop_app.paths import Profile
from desktop_app.session import Session, SessionListener, loading
from desktop_app.settings import Settings
from desktop_app.storage import Library

CHILD = Path(__file__).parents[2] / "fakes" / "engine_child.py"
PROMPTS = ("count 3", "count 40", "wait", "wait", "fail", "crash")


class Ends(SessionListener):
    """Which replies ended, and how often."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}

    def finished(self, _chat_id: int, message_id: int) -> None:
        self.ends[message_id] = self.ends.get(message_id, 0) + 1

    def failed(self, _chat_id: int, message_id: int, _error: object) -> None:
        self.ends[message_id] = self.ends.get(message_id, 0) + 1


def act(rng: random.Random, session: Session, chat: Conversation) -> int:
    """One random act; returns how many replies it asked for."""
    tree = chat.tree
    users = [i for i in tree.ids() if tree.node(i).role is Role.USER]
    replies = [i for i in tree.ids() if tree.node(i).role is Role.ASSISTANT]
    if not replies:
        session.send(chat, rng.choice(PROMPTS))
        return 1
    asking: list[Callable[[], Any]] = [
        lambda: session.send(chat, rng.choice(PROMPTS))[1:],
        lambda: session.ask_again(chat, rng.choice([*users, *replies]), rng.randint(1, 3)),
        lambda: session.save_and_ask_again(chat, rng.choice(users), rng.choice(PROMPTS))[1:],
    ]
    other: list[Callable[[], Any]] = [
        lambda: session.stop(rng.choice(replies)),
        lambda: session.stop_chat(chat.chat.id),
        lambda: session.undo(chat),
        lambda: session.undo(chat),
        lambda: session.redo(chat),
        lambda: session.remove(chat, rng.choice([*users, *replies])),
        lambda: session.remove(chat, rng.choice(replies), keep_below=True),
        lambda: chat.edit_in_place(rng.choice([*users, *replies]), f"count {rng.randint(1, 9)}"),
        lambda: chat.choose_version(rng.choice(replies)),
        lambda: session.continue_reply(chat, rng.choice(replies)),
    ]
    if rng.random() < 0.5:
        return len(rng.choice(asking)())
    rng.choice(other)()
    return 0


@pytest.mark.parametrize("seed", [1, 2])
def test_random_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    def unchecked(*_: object) -> Any:
        return None

    monkeypatch.setattr(loading, "check_file", unchecked)
    rng = random.Random(seed)
    profile = Profile(tmp_path)
    profile.create()
    (tmp_path / "tale.gguf").touch()
    settings = Settings.load(profile)
    settings.weights_path = str(tmp_path / "tale.gguf")
    loop = MainLoop()
    library = Library.open(profile, post=loop.post)
    engine = Engine(command=(sys.executable, str(CHILD)))
    session = Session(library, engine, settings, loop.post, profile=profile, later=loop.later)
    ends = Ends()
    session.add_listener(ends)
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    def turn() -> None:
        """Let events in, for about as long as a person needs between two clicks."""
        before = turns
        loop.later(rng.choice((0.0, 0.0, 0.005, 0.02)), count)
        loop.run_until(lambda: turns > before)

    try:
        chats = [loop.wait(session.new_chat()) for _ in range(3)]
        for _ in range(250):
            act(rng, session, rng.choice(chats))
            turn()
        session.stop_all()
        loop.run_until(lambda: not session.writing())
        assert sum(ends.ends.values()) > 50
        for chat in chats:
            loop.wait(chat.saved())
            assert chat.streaming_ids == ()
            states = {chat.tree.node(i).state for i in chat.tree.ids()}
            assert State.STREAMING not in states
            before = loop.wait(library.export_chat(chat.chat.id))
            undone = 0
            while session.undo(chat) is not None:
                undone += 1
            assert chat.tree.ids() == ()
            for _ in range(undone):
                assert session.redo(chat) is not None
            loop.wait(chat.saved())
            after = loop.wait(library.export_chat(chat.chat.id))
            assert _said(after) == _said(before)
    finally:
        session.close()
        library.close()
    again = Library.open(profile)
    try:
        assert again.recovered == 0
        for chat in chats:
            stored = again.load(chat.chat.id).result()
            assert {i: stored.tree.text(i) for i in stored.tree.ids()} == {
                i: chat.tree.text(i) for i in chat.tree.ids()
            }
            assert stored.path() == chat.path()
    finally:
        again.close()


def _said(dump: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What a dump says, without the times of writing."""
    return [
        (m["uid"], m["parent"], m["role"], m["state"], m["failure"], m["parts"], m["revisions"])
        for m in dump["messages"]
    ]
