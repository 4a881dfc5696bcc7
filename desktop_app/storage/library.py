"""`Library`: the door to everything that is kept.  One writing thread, one reading thread.

Its methods are called on the main thread (those for chats as a whole on any thread) and answer by
futures, which resolve on another thread; `post` brings callbacks to the main thread.
"""

# ruff: noqa: S608 -- columns are constants of ours; values are always bound.

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import apsw

from desktop_app import log
from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import ChatInfo, Json, clean, new_uid, now_ms
from desktop_app.conversation.store import Side, done
from desktop_app.conversation.tree import Tree
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import backups, blobs, dump, loading, opening, rows, search, steps, trash
from desktop_app.storage.failures import known, read_only
from desktop_app.storage.keeper import Keeper, Post
from desktop_app.storage.threads import Reader, Work, Writer, transaction

T = TypeVar("T")
_log = log.logger("storage")

_COUNTED: Final = {
    "chats": "SELECT count(*) FROM chat WHERE deleted_at = 0",
    "chats_in_trash": "SELECT count(*) FROM chat WHERE deleted_at > 0",
    "messages": "SELECT count(*) FROM message JOIN chat ON chat.id = chat_id"
    " WHERE message.deleted_at IS NULL AND chat.deleted_at = 0",
    "messages_in_trash": "SELECT count(*) FROM message JOIN chat ON chat.id = chat_id"
    " WHERE message.deleted_at IS NOT NULL OR chat.deleted_at > 0",
    "revisions": "SELECT count(*) FROM revision",
    "turns": "SELECT count(*) FROM turn",
    "undo_steps": "SELECT count(*) FROM undo_entry",
    "blobs": "SELECT count(*) FROM blob",
}


class Library:
    """All chats of one profile.  Build it with `open`, and `close` it."""

    def __init__(
        self,
        profile: Profile,
        keys: opening.KeyProvider,
        vfs: str | None,
        lock: apsw.Connection | None,
        post: Post,
    ) -> None:
        """Called by `open`.  `lock` None = for reading only."""
        self.profile = profile
        self.read_only = lock is None
        self.recovered = 0
        self._keys = keys
        self._vfs = vfs
        self._lock = lock
        self._post = post
        self._gate = threading.Lock()  # guards _opened, which three threads look into
        self._opened: WeakValueDictionary[int, Conversation] = WeakValueDictionary()
        self._watchers: list[Callable[[ChatInfo], None]] = []
        self._closing = threading.Event()
        self._backup_thread: threading.Thread | None = None
        # Held while a backup is written: what is erased must not live on in one begun before.
        self._backing_up = threading.Lock()
        self._erasing = threading.Event()
        writing = None if lock is None else opening.open_writer(profile, keys, vfs)
        try:
            if writing is not None:
                self.recovered = transaction(writing, rows.recover)
                transaction(writing, _sweep_ui_state)
            self._reader = Reader(
                lambda: opening.open_reader(profile, keys, vfs, alone=lock is None)
            )
            try:
                counted = self._reader.submit(_last_ids).result()
            except BaseException:
                self._reader.close()
                raise
        except BaseException:
            if writing is not None:
                writing.close(True)
            raise
        self._chat_ids, message_ids = count(counted[0] + 1), count(counted[1] + 1)
        self._writer = None
        if writing is not None:
            self._writer = Writer(
                writing, on_failure=self._stream_failed, on_commit=self._chat_changed
            )
        self._keeper = Keeper(self._reader, self._writer, message_ids, post, self._chat_changed)
        self._ids = dump.Ids(lambda: next(self._chat_ids), self._keeper.lease_message_id)

    @classmethod
    def open(
        cls,
        profile: Profile,
        *,
        key_provider: opening.KeyProvider | None = None,
        read_only: bool = False,
        vfs: str | None = None,
        post: Post | None = None,
    ) -> Library:
        """Open the profile's library, making it where there is none.

        Takes the profile's lock, unless `read_only` (for export, search and doctor beside a running
        Grove).  `post` runs a call on the main thread soon, from any thread; without it, failed
        writes are noticed at a conversation's next verb.  `vfs` names an SQLite VFS (tests).

        Raises KnownError: "profile-busy", "database-damaged", "database-newer", "database-older"
        and "library-missing" (both only for reading), "disk-full", "disk-error",
        "library-not-writable", "database-busy".
        """
        keys = key_provider or opening.NoKey()
        lock = None
        try:
            if not read_only:
                profile.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = opening.lock(profile)
            library = cls(profile, keys, vfs, lock, post or _nowhere)
        except BaseException as error:
            if lock is not None:
                lock.close(True)
            failure = known(error)
            if failure is error:
                raise
            raise failure from error
        if library.recovered:
            _log.info("%d replies were interrupted by a crash", library.recovered)
        library._back_up_if_due()
        return library

    def close(self) -> None:
        """Write everything, stop the threads, release the profile.  May be called twice."""
        self._closing.set()
        if self._backup_thread is not None:
            self._backup_thread.join()
        # The reader goes first: the last connection to close folds the log into the database.
        if self._writer is not None:
            self._writer.barrier().exception()
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            self._lock.close(True)

    # ---- chats -------------------------------------------------------------------------------

    def chats(self, *, deleted: bool = False) -> Future[list[ChatInfo]]:
        """All chats, or those in the trash: pinned first, then the newest first."""
        where = "deleted_at > 0" if deleted else "deleted_at = 0"
        sql = (
            f"SELECT {rows.CHAT_COLUMNS} FROM chat WHERE {where}"
            " ORDER BY pinned DESC, updated_at DESC, id DESC"
        )
        return self._read(lambda db: [rows.chat_from(row) for row in db.execute(sql)])

    def new_chat(
        self,
        title: str = "",
        *,
        weights: str = "",
        preset: str = "",
        extra: dict[str, Json] | None = None,
    ) -> Future[Conversation]:
        """An empty chat.  It is written, and listed by `chats`, with its first step."""
        if self._writer is None:
            return _failed(read_only())
        at = now_ms()
        chat = ChatInfo(
            next(self._chat_ids),
            new_uid(at),
            clean(title),
            weights=weights,
            preset=preset,
            created_at=at,
            updated_at=at,
            extra=extra or {},
        )
        conversation = Conversation(chat, Tree(complete=True), self._keeper)
        with self._gate:
            self._opened[chat.id] = conversation
        return done(conversation)

    def load(self, chat_id: int) -> Future[Conversation]:
        """Open a chat: one object however often it is asked for, as long as somebody holds it.

        KnownError("chat-missing") when there is no such chat.
        """
        with self._gate:
            held = self._opened.get(chat_id)
        if held is not None:
            return done(held)
        return self._keeper.after_writes(
            lambda: self._reader.submit(lambda db: self._load(db, chat_id), priority=0)
        )

    def watch_chats(self, watcher: Callable[[ChatInfo], None]) -> None:
        """Call this on the main thread (by `post`) with each chat whose own facts changed."""
        self._watchers.append(watcher)

    # ---- the library's own steps ---------------------------------------------------------------

    def rename(self, chat_id: int, title: str) -> Future[None]:
        """Name a chat."""
        return self._do("rename", (chat_id,), title=clean(title))

    def pin(self, chat_id: int, pinned: bool) -> Future[None]:
        """Keep a chat on top of the list, or let it go."""
        return self._do("pin" if pinned else "unpin", (chat_id,), pinned=int(pinned))

    def delete_chat(self, chat_id: int) -> Future[None]:
        """Put a chat into the trash."""
        return self.delete_chats((chat_id,))

    def delete_chats(self, chat_ids: Iterable[int]) -> Future[None]:
        """Put chats into the trash, as one step."""
        return self._do("delete-chat", chat_ids, deleted_at=now_ms())

    def restore_chat(self, chat_id: int) -> Future[None]:
        """Take a chat out of the trash."""
        return self._do("restore-chat", (chat_id,), deleted_at=0)

    def undo(self) -> Future[steps.LibraryStep | None]:
        """Undo the newest of these steps; None = nothing left."""
        return self._back(Side.UNDO)

    def redo(self) -> Future[steps.LibraryStep | None]:
        """Redo what was undone last; None = nothing left."""
        return self._back(Side.REDO)

    def history(self) -> Future[tuple[str, str]]:
        """The names of the steps that `undo` and `redo` would apply ("" = none)."""
        return self._read(steps.names)

    # ---- the trash ---------------------------------------------------------------------------

    def trash(self) -> Future[trash.Trash]:
        """Deleted chats, and removed messages of the others."""
        return self._read(trash.look)

    def empty_trash(self) -> Future[int]:
        """Erase everything in the trash for good; resolves to the number of messages.

        Rows, search words, attachments, and the undo steps that need them go; freed pages are
        overwritten.  Older backups hold them too, so a new one replaces them all.  Main thread.
        """
        writer = self._writer
        if writer is None:
            return _failed(read_only())
        with self._gate:
            opened = dict(self._opened)
        let_go = {chat_id: held.forget_removed() for chat_id, held in opened.items()}
        erasing = writer.submit(lambda db: self._erase(db, let_go, writer))
        out: Future[int] = Future()

        def clean_up(db: apsw.Connection) -> None:
            erased = erasing.result()
            self._erasing.set()  # the daily backup gives way; its snapshot would keep the log full
            with self._backing_up:
                self._erasing.clear()
                db.execute("PRAGMA incremental_vacuum")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                blobs.delete_all_but(self.profile, erased.kept_blobs)
                backups.keep_only(self.profile, backups.write(db, self.profile, self._keys))

        def finished(cleaning: Future[None]) -> None:
            error = erasing.exception() or cleaning.exception()
            if error is not None:
                out.set_exception(error)
            else:
                out.set_result(erasing.result().messages)

        writer.run_bare(clean_up).add_done_callback(finished)
        return out

    # ---- search ------------------------------------------------------------------------------

    def search(self, text: str, limit: int = 50) -> Future[list[search.Hit]]:
        """Messages in all branches of all chats that have all the words, the newest first."""
        return self._read(lambda db: search.find(db, text, limit))

    # ---- attachments, view state -----------------------------------------------------------------

    def add_blob(self, data: bytes) -> Future[str]:
        """Keep bytes; resolves to their SHA-256 in hex, for `Part.blob_hash`."""

        def work(db: apsw.Connection) -> str:
            digest = blobs.put(self.profile, data)
            blobs.note(db, digest, len(data))
            return digest

        return self._write(work)

    def blob(self, digest: str) -> Future[bytes]:
        """The bytes of an attachment; KnownError("attachment-missing")."""
        return self._reader.submit(lambda _: blobs.get(self.profile, digest))

    def ui_state(self, chat_id: int, key: str) -> Future[Json]:
        """What a view left for itself; None when nothing.  `chat_id` 0 = the app's own."""

        def work(db: apsw.Connection) -> Json:
            row = db.execute(
                "SELECT value FROM ui_state WHERE chat_id = ? AND key = ?", (chat_id, key)
            ).fetchone()
            return None if row is None else rows.loads(row[0])

        return self._read(work)

    def set_ui_state(self, chat_id: int, key: str, value: Json) -> Future[None]:
        """Keep a small JSON value for a view; None forgets it."""

        def work(db: apsw.Connection) -> None:
            if value is None:
                db.execute("DELETE FROM ui_state WHERE chat_id = ? AND key = ?", (chat_id, key))
            else:
                db.execute(
                    "INSERT OR REPLACE INTO ui_state(chat_id, key, value) VALUES(?,?,?)",
                    (chat_id, key, rows.dumps(value)),
                )

        return self._write(work)

    # ---- whole chats in and out ------------------------------------------------------------------

    def export_chat(self, chat_id: int, *, removed: bool = False) -> Future[dump.Dump]:
        """A chat as plain dicts without loss (see `storage.dump`); any thread.

        With `removed` its messages in the trash are in it too.
        """

        def work(db: apsw.Connection) -> dump.Dump:
            db.execute("BEGIN")
            try:
                found = dump.read(db, chat_id, self._read_blob, removed=removed)
            finally:
                db.execute("COMMIT")
            if found is None:
                raise _no_such_chat()
            return found

        return self._read(work)

    def import_chats(self, dumps: Iterable[dump.Dump]) -> Future[list[int]]:
        """Add chats from their dumps: all of them or none, as one step of the library; any thread.

        Resolves to the new chats' ids.  KnownError("import-damaged" | "import-newer").
        """
        wanted = list(dumps)

        def put_blob(data: bytes) -> str:
            return blobs.put(self.profile, data)

        def work(db: apsw.Connection) -> list[int]:
            at = now_ms()
            ids = [dump.write(db, one, self._ids, put_blob) for one in wanted]
            inverse = [{"chat": chat_id, "set": {"deleted_at": at}} for chat_id in ids]
            steps.done(db, "import", inverse, at)
            return ids

        return self._announcing(self._write(work), lambda ids: ids)

    def import_chat(self, one: dump.Dump) -> Future[int]:
        """Add one chat from its dump; resolves to its id."""
        out: Future[int] = Future()

        def finished(future: Future[list[int]]) -> None:
            error = future.exception()
            if error is not None:
                out.set_exception(error)
            else:
                out.set_result(future.result()[0])

        self.import_chats((one,)).add_done_callback(finished)
        return out

    # ---- upkeep ------------------------------------------------------------------------------

    def backup(self, folder: Path | None = None) -> Future[Path]:
        """Write a backup now, into the profile's folder of backups or another one."""

        def write(db: apsw.Connection) -> Path:
            stop = self._closing.is_set
            with self._backing_up:
                return backups.write(db, self.profile, self._keys, folder=folder, cancelled=stop)

        return self._read(write)

    def backups(self) -> list[Path]:
        """The backups there are, the newest first."""
        return backups.every(self.profile)

    def check(self) -> Future[str]:
        """SQLite's quick_check: "ok", or the first thing that is wrong."""
        return self._read(opening.quick_check)

    def counts(self) -> Future[dict[str, int]]:
        """How much there is of everything."""
        return self._read(
            lambda db: {name: int(db.execute(sql).get) for name, sql in _COUNTED.items()}
        )

    # ---- inside ------------------------------------------------------------------------------

    def _read(self, work: Work[T]) -> Future[T]:
        """Read what is on disk once all writes so far are done."""
        return self._keeper.after_writes(lambda: self._reader.submit(work))

    def _write(self, work: Work[T]) -> Future[T]:
        return _failed(read_only()) if self._writer is None else self._writer.submit(work)

    def _read_blob(self, digest: str) -> bytes:
        return blobs.get(self.profile, digest)

    def _load(self, db: apsw.Connection, chat_id: int) -> Conversation:
        loaded = loading.load(db, chat_id)
        if loaded is None:
            raise _no_such_chat()
        with self._gate:
            held = self._opened.get(chat_id)
            if held is None:
                held = Conversation(
                    loaded.chat,
                    loaded.tree,
                    self._keeper,
                    undo=loaded.undo,
                    redo=loaded.redo,
                    next_seq=loaded.next_seq,
                    deeper=loaded.deeper,
                )
                self._opened[chat_id] = held
        return held

    def _do(self, name: str, chat_ids: Iterable[int], **values: Json) -> Future[None]:
        changes = [{"chat": chat_id, "set": values} for chat_id in chat_ids]
        future = self._announcing(
            self._write(lambda db: steps.do(db, name, changes, now_ms())),
            lambda step: step.chat_ids,
        )
        out: Future[None] = Future()
        future.add_done_callback(
            lambda over: (
                out.set_exception(error) if (error := over.exception()) else out.set_result(None)
            )
        )
        return out

    def _back(self, side: Side) -> Future[steps.LibraryStep | None]:
        return self._announcing(
            self._write(lambda db: steps.back(db, side, now_ms())),
            lambda step: step.chat_ids if step else (),
        )

    def _announcing(self, future: Future[T], ids: Callable[[T], Iterable[int]]) -> Future[T]:
        """Tell open conversations and the watchers of the chats that a write changed."""

        def written(over: Future[T]) -> None:
            if over.exception() is None:
                for chat_id in ids(over.result()):
                    self._chat_changed(chat_id, own=False)

        future.add_done_callback(written)
        return future

    def _erase(self, db: apsw.Connection, let_go: dict[int, set[int]], writer: Writer) -> Any:
        erased = trash.erase(db, let_go)
        writer.forget_chats(erased.chat_ids)
        return erased

    def _chat_changed(self, chat_id: int, *, own: bool = True) -> None:
        """A chat has other facts on disk now.  `own`: its open conversation knows already."""
        with self._gate:
            held = self._opened.get(chat_id)
        if (own or held is None) and not self._watchers:
            return

        def arrived(future: Future[ChatInfo | None]) -> None:
            chat = None if future.exception() else future.result()
            if chat is None:
                return
            if held is not None and not own:
                held.chat_changed(chat)
            for watcher in tuple(self._watchers):
                self._post(partial(watcher, chat))

        self._reader.submit(lambda db: rows.read_chat(db, chat_id)).add_done_callback(arrived)

    def _stream_failed(self, chat_id: int, error: KnownError) -> None:
        with self._gate:
            held = self._opened.get(chat_id)
        if held is not None:
            held.store_failed(error)

    def _back_up_if_due(self) -> None:
        if self.read_only or not backups.is_due(self.profile):
            return
        self._backup_thread = threading.Thread(
            target=self._daily_backup, name="grove-backup", daemon=True
        )
        self._backup_thread.start()

    def _daily_backup(self) -> None:
        """A backup beside the work, from a connection of its own."""
        try:
            db = opening.open_reader(self.profile, self._keys, self._vfs, alone=False)
            try:
                if not db.execute("SELECT count(*) FROM chat").get:
                    return
                with self._backing_up:
                    backups.write(db, self.profile, self._keys, cancelled=self._gives_way)
                    backups.rotate(self.profile)
            finally:
                db.close(True)
        except (apsw.Error, OSError, KnownError) as error:
            # No backup today (the disk may be full); the next start tries again.
            _log.info("no backup today: %s", type(error).__name__)

    def _gives_way(self) -> bool:
        """Whether the daily backup should end, half-written."""
        return self._closing.is_set() or self._erasing.is_set()


def _nowhere(call: Callable[[], None]) -> None:
    """Without a main loop, conversations look for what is waiting at each verb."""
    del call


def _failed(error: KnownError) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _no_such_chat() -> KnownError:
    return KnownError("chat-missing", "This chat is not in the library any more.")


def _last_ids(db: apsw.Connection) -> tuple[int, int]:
    """The highest chat and message id ever used."""
    sequences: list[Any] = db.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
    found: dict[str, int] = dict(sequences)
    return found.get("chat", 0), found.get("message", 0)


def _sweep_ui_state(db: apsw.Connection) -> None:
    """Drop what views kept of chats that were never written."""
    db.execute("DELETE FROM ui_state WHERE chat_id <> 0 AND chat_id NOT IN (SELECT id FROM chat)")
