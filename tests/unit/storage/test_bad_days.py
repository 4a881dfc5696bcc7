"""Full disks, damage, other programs, newer files, power cuts."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from desktop_app.conversation import Conversation, Role, State, text_parts
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import Library, backups, restore_backup, schema
from desktop_app.storage.failures import known
from tests.fakes.faulty_vfs import FaultyDisk
from tests.fakes.hand import picture
from tests.fakes.profiles import WAIT_S, library


def failure(root: Path, *, read_only: bool = False) -> KnownError:
    with pytest.raises(KnownError) as caught:
        Library.open(Profile(root), read_only=read_only)
    return caught.value


def some_chat(root: Path) -> int:
    """A profile with one chat and a backup of it."""
    with library(root) as lib:
        chat = lib.new_chat("One").result(WAIT_S)
        for n in range(40):
            chat.insert(chat.head_id, Role.USER, f"message {n} " * 50)
        chat.saved().result(WAIT_S)
        lib.backup().result(WAIT_S)
        return chat.chat.id


def fill(chat: Conversation, disk: FaultyDisk) -> None:
    """From here on every write fails."""
    disk.always = True
    disk.fail_at = 1


def test_a_full_disk_takes_the_step_back_and_the_next_one_works(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with library(tmp_path, vfs=disk.name) as lib:
        chat = lib.new_chat().result(WAIT_S)
        said: list[KnownError] = []
        chat.on_take_back = said.append
        chat.insert(None, Role.USER, "fits")
        chat.saved().result(WAIT_S)
        held = picture(chat)
        fill(chat, disk)
        chat.insert(None, Role.USER, "does not")
        chat.insert(None, Role.USER, "nor this")
        with pytest.raises(KnownError, match="disk is full"):
            chat.saved().result(WAIT_S)
        chat.settle()
        assert picture(chat) == held
        assert [error.code for error in said] == ["disk-full"]
        disk.fail_at = 0
        chat.insert(None, Role.USER, "fits again")
        chat.saved().result(WAIT_S)
        number, held = chat.chat.id, picture(chat)
    with library(tmp_path) as lib:
        assert picture(lib.load(number).result(WAIT_S)) == held


def test_the_text_of_a_reply_outlives_a_full_disk(tmp_path: Path) -> None:
    disk = FaultyDisk()
    told = threading.Event()
    with library(tmp_path, vfs=disk.name) as lib:
        chat = lib.new_chat().result(WAIT_S)
        said: list[KnownError] = []
        chat.on_store_error = said.append
        _, reply = chat.send("a")
        chat.saved().result(WAIT_S)
        fill(chat, disk)
        chat.stream_text(reply, text_parts("a long answer"))
        chat.finish_stream(reply, State.DONE, text_parts("a long answer, whole"), turn={"s": 1})
        with pytest.raises(KnownError):
            chat.saved().result(WAIT_S)
        chat.settle()
        assert [error.code for error in said] == ["disk-full"]
        disk.fail_at = 0
        chat.edit_in_place(reply, "edited at once")
        chat.saved().result(WAIT_S)
        told.set()
        number = chat.chat.id
    with library(tmp_path) as lib:
        chat = lib.load(number).result(WAIT_S)
        assert chat.tree.text(reply) == "edited at once"
        assert chat.tree.node(reply).state is State.DONE
        (old,) = chat.revisions(reply).result(WAIT_S)
        assert old.parts == text_parts("a long answer, whole")


def test_an_end_that_failed_is_written_later_by_itself(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with library(tmp_path, vfs=disk.name) as lib:
        chat = lib.new_chat().result(WAIT_S)
        _, reply = chat.send("a")
        chat.saved().result(WAIT_S)
        disk.fail_at = disk.calls + 1
        chat.finish_stream(reply, State.DONE, text_parts("whole"))
        with pytest.raises(KnownError):
            chat.saved().result(WAIT_S)
        number = chat.chat.id
    with library(tmp_path) as lib:
        assert lib.load(number).result(WAIT_S).tree.text(reply) == "whole"


@pytest.mark.parametrize("where", ["header", "middle", "cut", "empty", "no database"])
def test_a_damaged_database_is_never_overwritten(tmp_path: Path, where: str) -> None:
    number = some_chat(tmp_path)
    file = tmp_path / "library.db"
    data = bytearray(file.read_bytes())
    match where:
        case "header":
            data[:16] = b"not a database!!"
        case "middle":
            data[4096:20480] = os.urandom(16384)
        case "cut":
            del data[len(data) // 2 :]
        case "empty":
            data.clear()
        case _:
            data[:] = b"x" * len(data)
    file.write_bytes(data)
    backup = backups.newest(Profile(tmp_path))
    assert backup is not None
    for read_only in (False, True):
        error = failure(tmp_path, read_only=read_only)
        assert error.code == "database-damaged"
        assert backup.name in error.sentence
    assert file.read_bytes() == data
    aside = restore_backup(Profile(tmp_path))
    assert aside is not None
    assert aside.read_bytes() == data
    with library(tmp_path) as lib:
        assert len(lib.load(number).result(WAIT_S).tree) == 40
    file.write_bytes(data)
    second = restore_backup(Profile(tmp_path))
    assert second not in (None, aside)


@pytest.mark.parametrize("gone", ["nothing", "log", "all"])
def test_a_crash_while_databases_change_places(tmp_path: Path, gone: str) -> None:
    number = some_chat(tmp_path)
    backup = backups.newest(Profile(tmp_path))  # the daily one may stand beside it
    assert backup is not None
    (tmp_path / "library.ready.db").write_bytes(backup.read_bytes())
    if gone == "all":
        (tmp_path / "library.db").rename(tmp_path / "library.damaged-1.db")
    else:
        (tmp_path / "library.db").write_bytes(b"damaged")
    if gone == "log":
        (tmp_path / "library.damaged-1.db-wal").write_bytes(b"log")
    with library(tmp_path) as lib:
        assert len(lib.load(number).result(WAIT_S).tree) == 40
    assert (tmp_path / "library.damaged-1.db").exists()
    assert not (tmp_path / "library.ready.db").exists()


def test_damage_without_a_backup_says_so(tmp_path: Path) -> None:
    file = tmp_path / "library.db"
    file.write_bytes(b"rubbish" * 1000)
    assert "no backup" in failure(tmp_path).sentence
    assert restore_backup(Profile(tmp_path)) is not None
    with library(tmp_path) as lib:
        assert lib.chats().result(WAIT_S) == []


def test_damage_of_the_search_index_costs_nothing(tmp_path: Path) -> None:
    number = some_chat(tmp_path)
    with library(tmp_path) as lib:
        held = picture(lib.load(number).result(WAIT_S))
        out = lib.export_chat(number).result(WAIT_S)
    file = tmp_path / "library.db"
    db = apsw.Connection(str(file))
    sql = "SELECT pageno FROM dbstat WHERE name = 'search_data'"
    pages: list[Any] = db.execute(sql).fetchall()
    size: int = db.pragma("page_size")
    db.close()
    data = bytearray(file.read_bytes())
    for (page,) in pages:
        data[(page - 1) * size : page * size] = os.urandom(size)
    file.write_bytes(data)
    with library(tmp_path, read_only=True) as reading:
        assert reading.export_chat(number).result(WAIT_S) == out
    with library(tmp_path) as lib:
        chat = lib.load(number).result(WAIT_S)
        assert picture(chat) == held
        assert lib.export_chat(number).result(WAIT_S) == out
        assert len(lib.search("message 17", 100).result(WAIT_S)) == 1
        assert lib.check().result(WAIT_S) == "ok"
        while chat.undo():
            pass
        new = chat.insert(None, Role.USER, "new")
        assert new > max(40, *chat.tree.removed_ids())
        chat.saved().result(WAIT_S)
    assert (tmp_path / "library.damaged-1.db").read_bytes() == data
    assert not list(tmp_path.glob("library.mending*"))


def test_a_damaged_backup_replaces_nothing(tmp_path: Path) -> None:
    some_chat(tmp_path)
    before = (tmp_path / "library.db").read_bytes()
    bad = tmp_path / "bad.db"
    other = tmp_path / "other.db"
    bad.write_bytes(before[: len(before) // 2])
    db = apsw.Connection(str(other))
    db.execute("CREATE TABLE theirs(x)")
    db.close()
    for file in (bad, other):
        with pytest.raises(KnownError) as caught:
            restore_backup(Profile(tmp_path), file)
        assert caught.value.code == "backup-damaged"
    assert (tmp_path / "library.db").read_bytes() == before
    assert not list(tmp_path.glob("library.restoring*"))
    assert not list(tmp_path.glob("library.damaged*"))


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "library.db"
    db = apsw.Connection(str(file))
    db.execute("CREATE TABLE theirs(x)")
    db.close()
    before = file.read_bytes()
    assert failure(tmp_path).code == "database-damaged"
    assert file.read_bytes() == before


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    some_chat(tmp_path)
    db = apsw.Connection(str(tmp_path / "library.db"))
    db.pragma("user_version", schema.VERSION + 1)
    db.close()
    assert failure(tmp_path).code == "database-newer"
    assert failure(tmp_path, read_only=True).code == "database-newer"


def test_a_migration_begins_with_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_chat(tmp_path)
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE later(x TEXT) STRICT;")
    )
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    error = failure(tmp_path, read_only=True)
    assert error.code == "database-older"
    with library(tmp_path) as lib:
        assert len(lib.chats().result(WAIT_S)) == 1
        names = [file.name for file in lib.backups()]
    assert any(name.endswith("before-version-2.db") for name in names)


def test_a_migration_that_fails_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_chat(tmp_path)
    with monkeypatch.context() as later:
        broken = "CREATE TABLE later(x TEXT) STRICT; CREATE TABLE chat(x);"
        later.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        later.setattr(schema, "VERSION", schema.VERSION + 1)
        with pytest.raises(apsw.SQLError):
            Library.open(Profile(tmp_path))
    with library(tmp_path) as lib:
        assert len(lib.chats().result(WAIT_S)) == 1


def test_another_program_that_holds_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("desktop_app.storage.opening._BUSY_MS", 50)
    with library(tmp_path) as lib:
        chat = lib.new_chat().result(WAIT_S)
        chat.send("a")
        chat.saved().result(WAIT_S)
        other = apsw.Connection(str(tmp_path / "library.db"))
        try:
            other.execute("BEGIN IMMEDIATE")
            chat.insert(None, Role.USER, "b")
            with pytest.raises(KnownError) as caught:
                chat.saved().result(WAIT_S)
            assert caught.value.code == "database-busy"
            other.execute("ROLLBACK")
        finally:
            other.close()
        chat.settle()
        chat.insert(None, Role.USER, "c")
        chat.saved().result(WAIT_S)


def test_backups_rotate(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    profile.create()
    start = datetime(2026, 1, 1, 12, tzinfo=UTC)
    names = []
    for day in range(200):
        stamp = (start + timedelta(days=day)).strftime("%Y%m%d-%H%M%S-%f")
        names.append(f"library-{stamp}.db")
        (profile.backups / names[-1]).touch()
    (profile.backups / "library-mine.db").touch()
    backups.rotate(profile)
    left = sorted(file.name for file in backups.every(profile))
    assert "library-mine.db" in left
    left.remove("library-mine.db")
    assert left[-backups.KEEP_NEWEST + 1 :] == names[-backups.KEEP_NEWEST + 1 :]
    assert len(left) <= backups.KEEP_NEWEST + backups.KEEP_WEEKS


def test_a_backup_is_made_once_a_day_beside_the_work(tmp_path: Path) -> None:
    with library(tmp_path) as lib:
        chat = lib.new_chat().result(WAIT_S)
        chat.send("a")
        chat.saved().result(WAIT_S)
    with library(tmp_path) as lib:
        assert lib._backup_thread is not None
        lib._backup_thread.join()
        (first,) = lib.backups()
    with library(tmp_path) as lib:
        assert lib._backup_thread is None
        assert lib.backups() == [first]
    (tmp_path / "library.db").unlink()
    restore_backup(Profile(tmp_path), first)
    with library(tmp_path) as lib:
        assert len(lib.chats().result(WAIT_S)) == 1


def test_every_failure_of_the_world_has_a_sentence() -> None:
    world: list[BaseException] = [
        apsw.FullError("x"),
        apsw.IOError("x"),
        apsw.CorruptError("x"),
        apsw.NotADBError("x"),
        apsw.BusyError("x"),
        apsw.ReadOnlyError("x"),
        apsw.CantOpenError("x"),
        OSError(28, "full"),
        OSError(30, "read-only"),
        OSError(5, "broken"),
        PermissionError(13, "no"),
    ]
    for error in world:
        found = known(error)
        assert isinstance(found, KnownError)
        assert found.sentence.endswith(".")
    bug = ValueError("a bug")
    assert known(bug) is bug


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="needs modes that bind",
)
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert failure(tmp_path / "profile").code == "library-not-writable"
    finally:
        tmp_path.chmod(0o700)
