"""The trash: it keeps until it is emptied, and then nothing is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from desktop_app.conversation import Conversation, Part, PartKind, Role, State, text_parts
from desktop_app.conversation import node as node_module
from desktop_app.errors import KnownError
from desktop_app.storage import Library, backups
from tests.fakes.hand import picture
from tests.fakes.profiles import WAIT_S, library

SECRET = "XYZZYPLUGH"


@pytest.fixture
def lib(tmp_path: Path) -> Iterator[Library]:
    with library(tmp_path) as opened:
        yield opened


def bytes_with(root: Path, word: str) -> list[str]:
    """The files below `root` that hold a word, folded or not."""
    found = []
    for file in root.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            if word.encode() in data or word.lower().encode() in data:
                found.append(file.name)
    return found


def secret_chat(lib: Library) -> Conversation:
    """A chat whose every corner says the secret."""
    chat = lib.new_chat(f"{SECRET} title").result(WAIT_S)
    user, reply = chat.send(f"{SECRET} prompt")
    chat.finish_stream(reply, State.DONE, text_parts(f"{SECRET} reply"), turn={"x": SECRET})
    chat.edit_in_place(user, f"{SECRET} edited")
    chat.mark(reply, note=SECRET)
    chat.saved().result(WAIT_S)
    return chat


def test_removed_messages_are_listed_and_come_back(lib: Library) -> None:
    chat = lib.new_chat("Chat").result(WAIT_S)
    user, reply = chat.send("keep")
    chat.finish_stream(reply, State.DONE, text_parts("gone one day"))
    below, last = chat.send("below")
    held = picture(chat)
    chat.remove(reply)
    (removal,) = lib.trash().result(WAIT_S).removals
    assert removal.node_ids == (reply, below, last)
    assert (removal.text, removal.chat_title) == ("gone one day", "Chat")
    chat.edit_in_place(user, "another step")
    chat.undo()
    chat.restore(removal.node_ids, removal.removal)
    assert set(picture(chat)) == set(held)
    assert lib.trash().result(WAIT_S).removals == ()
    chat.undo()
    chat.undo()
    chat.saved().result(WAIT_S)
    assert set(picture(chat)) == set(held)


def test_a_daily_backup_under_way_keeps_nothing_of_what_is_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with library(tmp_path) as lib:
        number = secret_chat(lib).chat.id
    for file in (tmp_path / "backups").glob("*.db"):
        file.unlink()
    begun, erased, write = threading.Event(), threading.Event(), backups.write

    def held_up(*given: Any, cancelled: Callable[[], bool] = lambda: False, **named: Any) -> Path:
        def slow() -> bool:
            begun.set()
            while not cancelled() and not erased.wait(0.01):
                pass
            return cancelled()

        daily = threading.current_thread().name == "grove-backup"
        return write(*given, cancelled=slow if daily else cancelled, **named)

    monkeypatch.setattr(backups, "write", held_up)
    with library(tmp_path) as lib:
        assert begun.wait(WAIT_S)
        lib.delete_chat(number).result(WAIT_S)
        lib.empty_trash().result(WAIT_S)
        erased.set()
        assert lib._backup_thread is not None
        lib._backup_thread.join()
    assert bytes_with(tmp_path, SECRET) == []


def test_an_undone_insertion_is_no_trash(lib: Library) -> None:
    chat = lib.new_chat().result(WAIT_S)
    chat.send("a")
    chat.undo()
    assert lib.trash().result(WAIT_S).removals == ()
    assert lib.counts().result(WAIT_S)["messages_in_trash"] == 2


def test_emptying_the_trash_leaves_no_byte_of_a_chat(lib: Library, tmp_path: Path) -> None:
    chat = secret_chat(lib)
    number = chat.chat.id
    lib.set_ui_state(number, "draft", SECRET).result(WAIT_S)
    lib.backup().result(WAIT_S)
    lib.delete_chat(number).result(WAIT_S)
    assert bytes_with(tmp_path, SECRET)
    assert lib.empty_trash().result(WAIT_S) == 2
    assert bytes_with(tmp_path, SECRET) == []
    assert len(lib.backups()) == 1
    assert lib.undo().result(WAIT_S) is None
    assert lib.check().result(WAIT_S) == "ok"
    chat.send("a late step")
    with pytest.raises(KnownError) as caught:
        chat.saved().result(WAIT_S)
    assert caught.value.code == "chat-gone"
    assert lib.chats().result(WAIT_S) == []


@pytest.mark.parametrize("opened", [True, False])
def test_emptying_the_trash_cuts_the_history_that_needs_it(
    lib: Library, tmp_path: Path, opened: bool
) -> None:
    chat = lib.new_chat("Living").result(WAIT_S)
    user, reply = chat.send("keep")
    chat.finish_stream(reply, State.DONE, text_parts("keep too"))
    secret = chat.insert(reply, Role.USER, f"{SECRET} one")
    chat.edit_in_place(secret, f"{SECRET} two")
    chat.remove(secret)
    chat.star(user, True)
    chat.mark(user, rating=1)
    held = picture(chat)
    chat.saved().result(WAIT_S)
    number = chat.chat.id
    if not opened:
        del chat
    assert lib.empty_trash().result(WAIT_S) == 1
    chat = lib.load(number).result(WAIT_S)
    assert bytes_with(tmp_path, SECRET) == []
    assert picture(chat) == held
    assert [step.name for step in iter(chat.undo, None)] == ["mark", "star"]
    assert not chat.can_undo
    assert [step.name for step in iter(chat.redo, None)] == ["star", "mark"]
    assert picture(chat) == held
    chat.saved().result(WAIT_S)
    with library(tmp_path, read_only=True) as reading:
        assert picture(reading.load(number).result(WAIT_S)) == held


def test_what_could_be_redone_goes_too(lib: Library) -> None:
    chat = lib.new_chat().result(WAIT_S)
    chat.send("first")
    chat.star(chat.path()[0], True)
    chat.undo()
    chat.undo()
    chat.saved().result(WAIT_S)
    lib.empty_trash().result(WAIT_S)
    assert chat.redo() is None
    chat.send("goes on")
    chat.saved().result(WAIT_S)


def test_attachments_nobody_needs_go(lib: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, gone = (lib.add_blob(data).result(WAIT_S) for data in (b"kept", b"gone"))
    chat = lib.new_chat().result(WAIT_S)
    chat.send("a", attachments=(Part(PartKind.FILE, blob_hash=kept),))
    second, _ = chat.send("b", attachments=(Part(PartKind.FILE, blob_hash=gone),))
    chat.remove(second)
    chat.saved().result(WAIT_S)
    later = node_module.now_ms() + 2 * 3_600_000
    monkeypatch.setattr("desktop_app.storage.blobs.now_ms", lambda: later)
    lib.empty_trash().result(WAIT_S)
    assert lib.blob(kept).result(WAIT_S) == b"kept"
    assert not (lib.profile.blobs / gone[:2] / gone).exists()
