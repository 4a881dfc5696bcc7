"""The library: opening, chats, their steps, attachments, what views leave."""

from __future__ import annotations

import gc
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import apsw
import pytest

from desktop_app.conversation import (
    ChatChanged,
    ChatInfo,
    Conversation,
    Part,
    PartKind,
    Role,
    State,
    text_parts,
)
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import Library
from tests.fakes.hand import Hand, picture
from tests.fakes.profiles import WAIT_S, library

T = TypeVar("T")


@pytest.fixture
def lib(tmp_path: Path) -> Iterator[Library]:
    with library(tmp_path) as opened:
        yield opened


def got(future: Future[T]) -> T:
    return future.result(WAIT_S)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(KnownError) as caught:
        call()
    assert caught.value.sentence.endswith(".")
    return caught.value.code


def chat_with(lib: Library, *words: str) -> Conversation:
    """A chat of prompts, each with a reply, on disk."""
    chat = got(lib.new_chat("A chat"))
    for word in words:
        _, reply = chat.send(word, author="tiny")
        chat.finish_stream(reply, State.DONE, text_parts(f"re: {word}"), turn={"seed": 7})
    got(chat.saved())
    return chat


def test_a_chat_is_listed_with_its_first_step(lib: Library) -> None:
    chat = got(lib.new_chat("New", weights="tiny", extra={"from": [1]}))
    assert got(lib.chats()) == []
    chat.send("hi")
    got(chat.saved())
    (info,) = got(lib.chats())
    assert (info.title, info.weights, dict(info.extra)) == ("New", "tiny", {"from": [1]})
    assert info.head_id == chat.head_id
    assert info.updated_at >= info.created_at > 0


def test_what_memory_held_is_read_again(tmp_path: Path) -> None:
    with library(tmp_path) as lib:
        chat, hand = got(lib.new_chat()), Hand(3)
        for _ in range(60):
            hand.act(chat)
            hand.finish(chat)
        held, head, number = picture(chat), chat.head_id, chat.chat.id
        names = (chat.undo_name, chat.redo_name)
        got(chat.saved())
        del chat
    with library(tmp_path) as lib:
        chat = got(lib.load(number))
        assert picture(chat) == held
        assert chat.head_id == head
        assert (chat.undo_name, chat.redo_name) == names


def test_a_chat_is_one_object_while_it_is_held(lib: Library) -> None:
    chat = chat_with(lib, "a")
    number = chat.chat.id
    assert got(lib.load(number)) is chat
    chat.send("not yet on disk")
    held = picture(chat)
    del chat
    gc.collect()
    assert picture(got(lib.load(number))) == held, "loading waits for what is being written"
    assert code_of(lambda: got(lib.load(999))) == "chat-missing"


def test_only_the_active_path_is_loaded_and_the_rest_on_demand(tmp_path: Path) -> None:
    with library(tmp_path) as lib:
        chat = chat_with(lib, "a", "b")
        root, first = chat.path()[:2]
        chat.edit_as_version(root, "another")
        got(chat.saved())
        number = chat.chat.id
        del chat
    with library(tmp_path) as lib:
        chat = got(lib.load(number))
        assert all(chat.tree.is_loaded(i) for i in chat.path())
        assert not chat.tree.is_loaded(first)
        got(chat.need([first]))
        assert chat.tree.text(first) == "re: a"
        assert not chat.tree.is_loaded(root)
        assert chat.tree.text(root) == "a", "and without asking first"


def test_a_deep_history_is_read_in_pages(tmp_path: Path) -> None:
    with library(tmp_path) as lib:
        chat = got(lib.new_chat())
        for n in range(200):
            chat.insert(chat.head_id, Role.USER, str(n))
        got(chat.saved())
        number = chat.chat.id
        del chat
    with library(tmp_path) as lib:
        chat = got(lib.load(number))
        assert sum(1 for _ in iter(chat.undo, None)) == 200
        assert len(chat.tree) == 0
        assert sum(1 for _ in iter(chat.redo, None)) == 200
        assert [chat.tree.text(i) for i in chat.path()] == [str(n) for n in range(200)]
        got(chat.saved())


def test_turns_and_revisions_are_kept(lib: Library) -> None:
    chat = chat_with(lib, "a")
    user, reply = chat.path()
    chat.edit_in_place(user, "b")
    chat.continue_reply(reply)
    turn = {"weights": "tiny", "seed": 2**70, "sampler": {"top_k": 1}, "odd": None, "threads": True}
    chat.finish_stream(reply, State.DONE, text_parts("more"), turn=turn)
    assert got(chat.turns(reply)) == [{"seed": 7}, turn]
    assert [old.parts for old in got(chat.revisions(user))] == [text_parts("a")]
    chat.undo()
    assert got(chat.turns(reply)) == [{"seed": 7}]


def test_replies_left_in_writing_are_interrupted_and_found(tmp_path: Path) -> None:
    with library(tmp_path) as lib:
        chat = got(lib.new_chat())
        _, reply = chat.send("a")
        chat.stream_text(reply, text_parts("half a sentence"))
        got(chat.saved())
        got(lib.counts())  # a barrier: growing text is written too
        number = chat.chat.id
    with library(tmp_path) as lib:
        assert lib.recovered == 1
        chat = got(lib.load(number))
        assert chat.tree.node(reply).state is State.INTERRUPTED
        assert chat.tree.text(reply) == "half a sentence"
        assert [hit.message_id for hit in got(lib.search("sentence"))] == [reply]
        chat.continue_reply(reply)
        assert chat.streaming_ids == (reply,)


def test_growing_text_reaches_the_disk_by_itself(lib: Library) -> None:
    chat = got(lib.new_chat())
    _, reply = chat.send("a")
    got(chat.saved())
    chat.stream_text(reply, text_parts("words"))
    file = apsw.Connection(str(lib.profile.database))
    try:
        assert _until(lambda: file.execute("SELECT text FROM part WHERE text = 'words'").fetchone())
    finally:
        file.close()


def _until(found: Callable[[], object]) -> bool:
    """Half a second is promised; a loaded machine gets some more."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.02)
    return False


def test_the_library_has_steps_of_its_own(lib: Library) -> None:
    chat = chat_with(lib, "a")
    number = chat.chat.id
    got(lib.rename(number, "Renamed"))
    got(lib.pin(number, True))
    got(lib.delete_chat(number))
    assert got(lib.chats()) == []
    assert [info.id for info in got(lib.chats(deleted=True))] == [number]
    assert got(lib.history()) == ("delete-chat", "")
    steps = [got(lib.undo()) for _ in range(4)]
    assert [step.name if step else None for step in steps] == ["delete-chat", "pin", "rename", None]
    (info,) = got(lib.chats())
    assert (info.title, info.pinned, info.deleted_at) == ("A chat", False, 0)
    assert chat.undo_name == "send", "its own stack is another"
    got(lib.redo())
    assert got(lib.history()) == ("rename", "pin")
    assert got(lib.chats())[0].title == "Renamed"
    got(lib.rename(number, "Third"))
    assert got(lib.history()) == ("rename", "")
    got(lib.rename(number, "Third"))
    got(lib.undo())
    assert got(lib.chats())[0].title == "Renamed", "renaming to the same name is no step"


def test_an_open_chat_hears_of_its_new_name(lib: Library) -> None:
    chat = chat_with(lib, "a")
    heard: list[object] = []

    class Ear:
        def before(self, change: object) -> None:
            pass

        def after(self, change: object) -> None:
            heard.append(change)

    chat.tree.add_watcher(Ear())
    got(lib.rename(chat.chat.id, "Renamed"))
    got(lib.counts())
    chat.settle()
    assert chat.chat.title == "Renamed"
    assert heard == [ChatChanged()]
    chat.set_title("By itself")
    got(chat.saved())
    assert got(lib.chats())[0].title == "By itself"
    got(lib.undo())
    got(lib.counts())
    chat.settle()
    assert chat.chat.title == "Renamed"


def test_chats_are_announced(tmp_path: Path) -> None:
    seen: list[ChatInfo] = []
    lib = Library.open(Profile(tmp_path), post=lambda call: call())
    try:
        lib.watch_chats(seen.append)
        chat = chat_with(lib, "a")
        got(lib.delete_chat(chat.chat.id))
        got(lib.counts())
    finally:
        lib.close()
    assert seen[0].id == chat.chat.id
    assert seen[-1].deleted_at > 0


def test_one_app_for_a_profile(lib: Library) -> None:
    assert code_of(lambda: Library.open(lib.profile)) == "profile-busy"
    chat = chat_with(lib, "a")
    with library(lib.profile.root, read_only=True) as reading:
        assert len(got(reading.chats())) == 1
        assert len(got(reading.search("re"))) == 1
        other = got(reading.load(chat.chat.id))
        other.send("no")
        assert code_of(lambda: got(other.saved())) == "read-only"
        other.settle()
        assert picture(other) == picture(chat)
        assert code_of(lambda: got(reading.rename(1, "x"))) == "read-only"
        assert code_of(lambda: got(reading.new_chat())) == "read-only"


def test_the_profile_is_free_after_closing(tmp_path: Path) -> None:
    for _ in range(2):
        with library(tmp_path) as lib:
            chat_with(lib, "a")
            lib.close()
    assert code_of(lambda: got(lib.chats())) == "library-closed"
    assert code_of(lambda: got(lib.rename(1, "x"))) == "library-closed"
    assert sorted(p.name for p in tmp_path.glob("library.db*")) == ["library.db"]


def test_reading_where_nothing_is(tmp_path: Path) -> None:
    def read() -> None:
        Library.open(Profile(tmp_path / "none"), read_only=True)

    assert code_of(read) == "library-missing"
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no owner-only modes")
def test_files_are_their_owners_only(lib: Library) -> None:
    digest = got(lib.add_blob(b"picture"))
    chat_with(lib, "a")
    backup = got(lib.backup())
    blob = lib.profile.blobs / digest[:2] / digest
    for file in (lib.profile.database, lib.profile.root / "library.db-wal", blob, backup):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_attachments_are_kept_by_their_content(lib: Library) -> None:
    digest = got(lib.add_blob(b"picture"))
    assert got(lib.add_blob(b"picture")) == digest
    assert got(lib.blob(digest)) == b"picture"
    chat = got(lib.new_chat())
    user, _ = chat.send("see", attachments=(Part(PartKind.IMAGE, blob_hash=digest),))
    got(chat.saved())
    assert chat.tree.parts(user)[0].blob_hash == digest
    (lib.profile.blobs / digest[:2] / digest).write_bytes(b"other")
    assert code_of(lambda: got(lib.blob(digest))) == "attachment-missing"
    assert code_of(lambda: got(lib.blob("0" * 64))) == "attachment-missing"


def test_views_keep_small_things(tmp_path: Path) -> None:
    with library(tmp_path) as lib:
        number = chat_with(lib, "a").chat.id
        got(lib.set_ui_state(number, "view", {"draft": "반", "places": {"1": [2, 3]}}))
        got(lib.set_ui_state(12345, "view", {"of": "a chat that was never written"}))
        got(lib.set_ui_state(0, "app", 1))
    with library(tmp_path) as lib:
        assert got(lib.ui_state(number, "view")) == {"draft": "반", "places": {"1": [2, 3]}}
        assert got(lib.ui_state(12345, "view")) is None
        assert got(lib.ui_state(0, "app")) == 1
        got(lib.set_ui_state(0, "app", None))
        assert got(lib.ui_state(0, "app")) is None


def test_a_long_chat_opens_with_what_is_needed(tmp_path: Path) -> None:
    messages: list[dict[str, object]] = [
        {"uid": f"u{n}", "parent": f"u{n - 1}" if n else None, "role": "user", "parts": []}
        for n in range(3000)
    ]
    with library(tmp_path) as lib:
        number = got(lib.import_chat({"messages": messages}))
        chat = got(lib.load(number))
        assert len(chat.path()) == 3000
        chat.send("still works")
        got(chat.saved())
