"""The session over a real library: what is erased is erased everywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from desktop_app.cli.loop import MainLoop
from desktop_app.conversation.node import State
from desktop_app.inference.engine import Engine, Job
from desktop_app.paths import Profile
from desktop_app.session import Session, loading
from desktop_app.settings import Settings
from desktop_app.storage import Library
from desktop_app.version import VERSION

CHILD = Path(__file__).parents[2] / "fakes" / "engine_child.py"


class Noting(Engine):
    """An engine that notes which chats it was asked to forget."""

    def __init__(self) -> None:
        super().__init__(command=(sys.executable, str(CHILD)))
        self.forgotten: list[str] = []

    def forget(self, chats: Iterable[str]) -> Job[None]:
        chats = list(chats)
        self.forgotten += chats
        return super().forget(chats)


def test_each_draft_keeps_how_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(*_: object) -> Any:
        return None

    monkeypatch.setattr(loading, "check_file", unchecked)
    profile = Profile(tmp_path)
    profile.create()
    (tmp_path / "tale.gguf").touch()
    settings = Settings.load(profile)
    settings.weights_path = str(tmp_path / "tale.gguf")
    loop = MainLoop()
    library = Library.open(profile, post=loop.post)
    session = Session(library, Noting(), settings, loop.post, profile=profile, later=loop.later)
    try:
        chat = loop.wait(session.new_chat())
        prompt, *drafts = session.send(chat, "count 3", drafts=3)
        loop.run_until(lambda: not session.writing())
        loop.wait(chat.saved())
        turns = [loop.wait(chat.turns(i)) for i in drafts]
        assert [len(one) for one in turns] == [1, 1, 1]
        facts = [one[0] for one in turns]
        assert [turn["seed"] for turn in facts] == [session.seed(i) for i in drafts]
        assert [turn["draft"] for turn in facts] == [0, 1, 2]
        assert {turn["drafts"] for turn in facts} == {3}
        assert {turn["preset"] for turn in facts} == {"balanced"}
        assert {turn["app"] for turn in facts} == {VERSION}
        assert facts[0]["ancestors"] == [[chat.tree.node(prompt).uid, 0]]
        # Options of its own come with no preset's name.
        (other,) = session.ask_again(chat, prompt, sampling=session.sampling(chat))
        loop.run_until(lambda: not session.writing())
        loop.wait(chat.saved())
        assert loop.wait(chat.turns(other))[0]["preset"] == ""
    finally:
        session.close()
        library.close()


def test_the_engine_forgets_what_the_trash_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unchecked(*_: object) -> Any:
        return None

    monkeypatch.setattr(loading, "check_file", unchecked)
    profile = Profile(tmp_path)
    profile.create()
    (tmp_path / "tale.gguf").touch()
    settings = Settings.load(profile)
    settings.weights_path = str(tmp_path / "tale.gguf")
    loop = MainLoop()
    library = Library.open(profile, post=loop.post)
    engine = Noting()
    session = Session(library, engine, settings, loop.post, profile=profile, later=loop.later)
    try:
        chats = [loop.wait(session.new_chat()) for _ in range(3)]
        for chat in chats:
            session.send(chat, "count 3")
        loop.run_until(lambda: not session.writing())
        for chat in chats:
            loop.wait(chat.saved())
        gone, cut, kept = chats
        _, last = session.send(gone, "wait")
        loop.run_until(lambda: gone.tree.text(last) == "0 1 ")
        loop.wait(session.delete_chats([gone.chat.id]))
        assert session.writing() == ()
        assert gone.tree.node(last).state is State.STOPPED
        cut.remove(cut.path()[1])
        assert loop.wait(session.empty_trash()) == 5
        assert set(engine.forgotten) == {gone.chat.uid, cut.chat.uid}
        assert kept.chat.uid not in engine.forgotten
        assert loop.wait(session.empty_trash()) == 0

        # What is streaming when Grove closes is kept.
        _, reply = session.send(kept, "wait")
        loop.run_until(lambda: kept.tree.text(reply) == "0 1 ")
    finally:
        session.close()
        library.close()
    again = Library.open(profile, post=loop.post)
    try:
        chat = again.load(kept.chat.id).result()
        assert (chat.tree.node(reply).state, chat.tree.text(reply)) == (State.STOPPED, "0 1 ")
        assert chat.chat.title == "count 3"
    finally:
        again.close()
