"""The two threads of a library: one writes, one reads; each owns its connection.

Results come back as futures.  A failure of the world resolves a future with a `KnownError`; any
other exception in there is a bug, and is handed on as it is.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import apsw

from desktop_app import log
from desktop_app.conversation.node import Parts, now_ms
from desktop_app.conversation.store import Commit, StreamEnd
from desktop_app.errors import KnownError
from desktop_app.storage import rows
from desktop_app.storage.failures import chat_gone, closed, known

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]

FLUSH_S: Final = 0.25
"""Text of a growing reply waits this long at most; the promise is half a second."""
_RETRY_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0)

_log = log.logger("storage")


def transaction(db: apsw.Connection, work: Work[T]) -> T:
    """Run `work` in one transaction: all of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


def resolve(future: Future[T], work: Callable[[], T]) -> None:
    """Run `work` and put what comes of it into the future."""
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 -- every failure belongs to whoever waits
        future.set_exception(known(error))
    else:
        future.set_result(result)


@dataclass(order=True, slots=True)
class _Reading:
    priority: int
    number: int
    work: Callable[[], None] = field(compare=False)


class Reader:
    """Answers questions in the order of their priority (0 first)."""

    def __init__(self, open_db: Callable[[], apsw.Connection]) -> None:
        """`open_db` is called here, so that its failure is the caller's."""
        self._db = open_db()
        self._queue: queue.PriorityQueue[_Reading] = queue.PriorityQueue()
        self._numbers = iter(range(2**62))
        self._open = self._running = True
        self._thread = threading.Thread(target=self._run, name="grove-reader", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T], *, priority: int = 1) -> Future[T]:
        """Run `work` on the reading thread (any thread may ask)."""
        future: Future[T] = Future()
        if not self._open:
            future.set_exception(closed())
            return future

        def run() -> None:
            if future.set_running_or_notify_cancel():
                resolve(future, lambda: work(self._db))

        self._queue.put(_Reading(priority, next(self._numbers), run))
        return future

    def close(self) -> None:
        """Answer what was asked, then stop."""
        if self._open:
            self._open = False
            self._queue.put(_Reading(9, next(self._numbers), self._stop))
            self._thread.join()

    def _stop(self) -> None:
        self._db.close(True)
        self._running = False

    def _run(self) -> None:
        while self._running:
            self._queue.get().work()


class Writer:
    """Does every write, in the order of the asking.

    Growing replies are gathered and written together; they and the ends of replies are tried again
    after a failure, while everything else fails once and for all.
    """

    def __init__(
        self,
        db: apsw.Connection,
        *,
        on_failure: Callable[[int, KnownError], None],
        on_commit: Callable[[int], None],
    ) -> None:
        """`on_failure(chat_id, error)`: a reply's text could not be written yet (writer thread).

        `on_commit(chat_id)`: a chat has changed on disk (writer thread).
        """
        self._db = db
        self._on_failure = on_failure
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._streams: dict[int, tuple[int, Parts]] = {}
        self._ends: list[tuple[StreamEnd, Future[None]]] = []
        self._erased: set[int] = set()
        self._due: float | None = None
        self._failures = 0
        self._poison: dict[int, tuple[int, KnownError]] = {}
        self._open = self._running = True
        self._thread = threading.Thread(target=self._run, name="grove-writer", daemon=True)
        self._thread.start()

    # ---- any thread --------------------------------------------------------------------------

    def submit(self, work: Work[T]) -> Future[T]:
        """Run `work` in a transaction of its own."""
        return self._ask(lambda: transaction(self._db, work))

    def run_bare(self, work: Work[T]) -> Future[T]:
        """Run `work` outside of any transaction (checkpoints)."""
        return self._ask(lambda: work(self._db))

    def barrier(self) -> Future[None]:
        """Resolves when everything asked for so far, growing replies too, has been tried."""
        return self._ask(self._flush)

    def commit(self, commit: Commit) -> Future[None]:
        """Write a step; see `Commit`."""
        return self._ask(lambda: self._commit(commit))

    def stream(self, chat_id: int, node_id: int, parts: Parts) -> None:
        """Take in a growing reply."""
        if self._open:
            self._queue.put(lambda: self._grow(chat_id, node_id, parts))

    def forget_chats(self, chat_ids: Iterable[int]) -> None:
        """These chats are erased: a late step must not bring them back (writer thread)."""
        self._erased.update(chat_ids)

    def end(self, end: StreamEnd) -> Future[None]:
        """Write the end of a reply.  The future fails with the first try; more tries follow."""
        future: Future[None] = Future()
        if not self._open:
            future.set_exception(closed())
            return future
        self._queue.put(lambda: self._end(end, future))
        return future

    def close(self) -> None:
        """Write everything, then stop.  What still cannot be written fails its future."""
        if not self._open:
            return
        self._open = False
        self._queue.put(self._stop)
        self._thread.join()

    # ---- the writing thread ------------------------------------------------------------------

    def _ask(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        if self._open:
            self._queue.put(lambda: resolve(future, work))
        else:
            future.set_exception(closed())
        return future

    def _run(self) -> None:
        while self._running:
            wait = None if self._due is None else max(0.0, self._due - time.monotonic())
            try:
                with suppress(queue.Empty):
                    self._queue.get(timeout=wait)()
                if self._due is not None and self._due <= time.monotonic():
                    self._flush()
            except Exception:  # noqa: BLE001 -- a bug must not end the thread that saves chats
                threading.excepthook(
                    threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
                )

    def _stop(self) -> None:
        self._flush()
        self._give_up(closed())
        try:
            self._db.close(True)
        except apsw.Error as error:
            # The last checkpoint failed: the log beside the database holds everything.
            _log.warning("closing the database: %s", type(error).__name__)
        self._running = False

    def _commit(self, commit: Commit) -> None:
        chat_id = commit.chat.id
        poisoned = self._poison.get(chat_id)
        if poisoned is not None and commit.epoch <= poisoned[0] and not commit.soft:
            raise poisoned[1]
        try:
            transaction(self._db, lambda db: self._write_step(db, commit))
        except Exception as error:
            failure = known(error)
            if not commit.soft:
                later = failure if isinstance(failure, KnownError) else closed()
                self._poison[chat_id] = (commit.epoch, later)
            raise failure from error
        self._ends_written(chat_id)
        self._on_commit(chat_id)

    def _write_step(self, db: apsw.Connection, commit: Commit) -> None:
        chat_id = commit.chat.id
        # A reply's end that is still to be tried again comes before any step that builds on it.
        for end, _ in self._ends:
            if end.chat_id == chat_id:
                rows.end_stream(db, end)
        if chat_id in self._erased:
            raise chat_gone()
        if not commit.soft:
            rows.ensure_chat(db, commit.chat)
        for edit in commit.edits:
            rows.apply_edit(db, chat_id, edit)
        if commit.pop is not None:
            rows.pop_entry(db, chat_id, *commit.pop)
        if commit.clear_redo:
            rows.clear_redo(db, chat_id)
        if commit.push is not None:
            rows.push_entry(db, chat_id, *commit.push)
        if not commit.soft:
            db.execute("UPDATE chat SET updated_at = ? WHERE id = ?", (commit.at_ms, chat_id))

    def _grow(self, chat_id: int, node_id: int, parts: Parts) -> None:
        self._streams[node_id] = (chat_id, parts)
        if self._due is None:
            self._due = time.monotonic() + FLUSH_S

    def _end(self, end: StreamEnd, future: Future[None]) -> None:
        self._streams.pop(end.node.id, None)
        self._ends.append((end, future))
        self._flush()

    def _flush(self) -> None:
        """Write all growing and ended replies; on failure keep them and set the next try."""
        self._due = None
        if not self._streams and not self._ends:
            return
        try:
            transaction(self._db, self._write_replies)
        except Exception as error:
            failure = known(error)
            if not isinstance(failure, KnownError):
                self._give_up(failure)
                raise
            self._due = time.monotonic() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
            self._failures += 1
            waiting = {end.chat_id for end, future in self._ends if _fail(future, failure)}
            if self._failures == 1:
                for chat_id in {chat_id for chat_id, _ in self._streams.values()} - waiting:
                    self._on_failure(chat_id, failure)
            return
        self._failures = 0
        self._streams.clear()
        for chat_id in {end.chat_id for end, _ in self._ends}:
            self._ends_written(chat_id)
            self._on_commit(chat_id)

    def _write_replies(self, db: apsw.Connection) -> None:
        at = now_ms()
        for node_id, (_, parts) in self._streams.items():
            rows.write_stream(db, node_id, parts, at)
        for end, _ in self._ends:
            rows.end_stream(db, end)

    def _ends_written(self, chat_id: int) -> None:
        written = [future for end, future in self._ends if end.chat_id == chat_id]
        self._ends = [pair for pair in self._ends if pair[0].chat_id != chat_id]
        for future in written:
            if not future.done():  # it has failed before
                future.set_result(None)

    def _give_up(self, error: BaseException) -> None:
        given_up, self._ends = self._ends, []
        self._streams.clear()
        for _, future in given_up:
            _fail(future, error)


def _fail(future: Future[None], error: BaseException) -> bool:
    """Fail a future once; whether it was the first time."""
    if future.done():
        return False
    future.set_exception(error)
    return True


def after(first: Future[Any], then: Callable[[], Future[T]]) -> Future[T]:
    """A future for `then`, which is asked only when `first` is over, however it ended."""
    out: Future[T] = Future()

    def pass_on(future: Future[T]) -> None:
        error = future.exception()
        if error is not None:
            out.set_exception(error)
        else:
            out.set_result(future.result())

    first.add_done_callback(lambda _: then().add_done_callback(pass_on))
    return out
