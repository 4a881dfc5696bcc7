"""Whole libraries out and in: nothing is lost, nothing is doubled, nothing is half done."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Part, PartKind, Role, State
from desktop_app.errors import KnownError
from desktop_app.exchange import export, imports
from desktop_app.paths import Profile
from desktop_app.storage import Library

SHARED = Path(__file__).parents[4] / "shared" / "oasst" / "en_100_tree.jsonl"


@contextmanager
def library(folder: Path) -> Iterator[Library]:
    """A library in `folder`."""
    profile = Profile(folder)
    profile.create()
    opened = Library.open(profile, post=lambda call: call())
    try:
        yield opened
    finally:
        opened.close()


def fill(opened: Library, rng: random.Random, chats: int = 3, edits: int = 60) -> None:
    """Chats with all that can happen to a message."""
    for n in range(chats):
        chat = opened.new_chat(f"Chat {n} 한국어").result()
        chat.set_system("Be kind.")
        for _ in range(edits):
            _edit(chat, rng)
        chat.set_defaults(weights="w.gguf", preset="balanced")
        chat.saved().result()


def _edit(chat: Conversation, rng: random.Random) -> None:
    tree = chat.tree
    users = [i for i in tree.ids() if tree.node(i).role is Role.USER]
    replies = [i for i in tree.ids() if tree.node(i).role is Role.ASSISTANT]
    what = rng.randrange(10)
    if what < 3 or not replies:
        _finish(chat, chat.send(f"q{rng.random()} \u2028 \u202e 🌲\x00 \ud800", author="W")[1], rng)
    elif what == 3:
        for reply in chat.ask_again(rng.choice(users), author="W", drafts=rng.randint(1, 3)):
            _finish(chat, reply, rng)
    elif what == 4:
        chat.edit_in_place(rng.choice([*users, *replies]), f"edited {rng.random()}")
    elif what == 5:
        reply = rng.choice(replies)
        chat.continue_reply(reply)
        _finish(chat, reply, rng)
    elif what == 6:
        chat.mark(rng.choice(replies), rating=rng.randint(-1, 1), labels={"quality": 0.5})
        chat.star(rng.choice(replies), True)
    elif what == 7:
        chat.choose_version(rng.choice([*users, *replies]))
    elif what == 8:
        chat.edit_as_version(rng.choice([*users, *replies]), "another")
    else:
        chat.remove(rng.choice(replies))


def _finish(chat: Conversation, reply: int, rng: random.Random) -> None:
    state = rng.choice([State.DONE, State.STOPPED, State.FAILED])
    failure = KnownError("engine-crashed", "It stopped.") if state is State.FAILED else None
    parts = (Part(PartKind.REASONING, "hm"), Part(PartKind.TEXT, f"answer {rng.random()}"))
    turn = {"engine": "test", "seed": 2**40, "something_new": [1, None], "sampler": {"top_k": 1}}
    chat.finish_stream(reply, state, parts, finish="stop", failure=failure, turn=turn)


def test_out_and_in_and_out_is_equal(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    with library(tmp_path / "one") as one:
        fill(one, random.Random(3))
        written = export.write(one, first)
        assert (written.chats, written.size_bytes) == (3, first.stat().st_size)
    with library(tmp_path / "two") as two:
        report = imports.read_into(two, first)
        assert (report.format, report.added, report.skipped, report.copies) == ("grove", 3, 0, 0)
        assert report.messages == written.messages
        export.write(two, second)
    assert json.loads(first.read_bytes()) == json.loads(second.read_bytes())
    assert first.read_bytes() == second.read_bytes()


def test_unknown_fields_survive(tmp_path: Path) -> None:
    file, again = tmp_path / "a.json", tmp_path / "b.json"
    message = {"uid": "m1", "role": "user", "parts": [{"kind": "text", "text": "Hi"}], "mood": "ok"}
    chat = {"chat": {"uid": "c1", "title": "T", "colour": "red"}, "messages": [message]}
    file.write_text(json.dumps({"format": "grove", "version": 1, "chats": [chat]}))
    with library(tmp_path / "one") as one:
        imports.read_into(one, file)
        export.write(one, again)
        [dump] = json.loads(again.read_text(encoding="utf-8"))["chats"]
        assert dump["chat"]["extra"] == {"colour": "red"}
        assert dump["messages"][0]["extra"] == {"mood": "ok"}


def test_the_same_file_twice_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with library(tmp_path / "one") as one:
        fill(one, random.Random(4))
        export.write(one, file)
        report = imports.read_into(one, file)
        assert (report.added, report.skipped) == (0, 3)
        assert "already" in report.sentence
        # A chat that went on since stands beside the file's version of it, once.
        [info, *_] = sorted(one.chats().result(), key=lambda info: info.created_at)
        chat = one.load(info.id).result()
        chat.insert(chat.head_id, Role.USER, "Something new")
        chat.saved().result()
        for added, copies in ((1, 1), (0, 0)):
            report = imports.read_into(one, file)
            assert (report.added, report.copies) == (added, copies)
        assert len(one.chats().result()) == 4


@pytest.mark.skipif(not SHARED.exists(), reason="the sample data is not beside the checkout")
def test_the_sample_trees(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in SHARED.read_text(encoding="utf-8").splitlines()]
    out = tmp_path / "out.jsonl"
    with library(tmp_path / "one") as one:
        began = time.monotonic()
        report = imports.read_into(one, SHARED)
        took_s = time.monotonic() - began
        assert (report.format, report.added, report.messages) == ("oasst", 100, 1167)
        export.write(one, out, report.chat_ids, form="oasst")
        again = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert again == lines
        assert imports.read_into(one, SHARED).skipped == 100
        # The reply that people ranked best is what one sees.
        chat = one.load(report.chat_ids[0]).result()
        ranks = [chat.tree.node(i).marks.get("rank", 0) for i in chat.path()]
        assert set(ranks) == {0}
    assert took_s < 20, f"{took_s:.1f} s"  # a slow test machine; the stated figure is 2 s


def test_a_file_that_breaks_late_adds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with library(tmp_path / "one") as one:
        fill(one, random.Random(5), chats=2, edits=5)
        export.write(one, file)
    whole: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    whole["chats"][1]["messages"][0]["role"] = "robot"
    file.write_text(json.dumps(whole))
    with library(tmp_path / "two") as two:
        with pytest.raises(KnownError) as caught:
            imports.read_into(two, file)
        assert caught.value.code == "import-damaged"
        assert two.chats().result() == []


def test_a_big_file_goes_in_by_batches_and_a_failure_is_mended_by_doing_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "BATCH_MESSAGES", 40)
    file = tmp_path / "a.json"
    with library(tmp_path / "one") as one:
        fill(one, random.Random(8), chats=5, edits=25)
        whole = export.write(one, file)
    with library(tmp_path / "two") as two:
        real, calls = two.import_chats, 0

        def full(dumps: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KnownError("disk-full", "The disk is full.")
            return real(dumps)

        monkeypatch.setattr(two, "import_chats", full)
        with pytest.raises(KnownError):
            imports.read_into(two, file)
        some = len(two.chats().result())
        assert 0 < some < 5
        shares: list[float] = []
        report = imports.read_into(two, file, progress=shares.append)
        assert (report.added, report.skipped, report.copies) == (5 - some, some, 0)
        assert shares == sorted(shares)
        assert two.counts().result()["messages"] == whole.messages


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with library(tmp_path / "one") as one:
        fill(one, random.Random(6), chats=2, edits=3)

        class Breaks:
            """A library whose disk fails at the second chat."""

            def __init__(self) -> None:
                self.count = 0

            def chats(self, *, deleted: bool = False) -> Any:
                return one.chats(deleted=deleted)

            def export_chat(self, chat_id: int, *, removed: bool = False) -> Future[Any]:
                self.count += 1
                if self.count > 1:
                    raise KnownError("database-damaged", "Broken.")
                future: Future[Any] = one.export_chat(chat_id, removed=removed)
                return future

            def import_chats(self, dumps: Any) -> Any:
                raise NotImplementedError

        with pytest.raises(KnownError):
            export.write(Breaks(), file)
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
