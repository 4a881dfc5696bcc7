"""The one crossing from other threads to Qt's main thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from PySide6.QtCore import QObject, Qt, Signal, Slot

from desktop_app.errors import KnownError

T = TypeVar("T")


class Bridge(QObject):
    """Runs callables on the main thread, in the order in which they were posted.

    Create it on the main thread.  `post` and `when_done` may be called from any thread.  After
    `close` nothing runs any more: late answers of threads that are ending fall on the floor.
    """

    _posted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._open = True
        self._posted.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` on the main thread soon, never within this call."""
        if self._open:
            self._posted.emit(work)

    def when_done(
        self,
        future: Future[T],
        done: Callable[[T], None],
        failed: Callable[[KnownError], None] | None = None,
    ) -> None:
        """Call `done(result)` on the main thread, or `failed(error)` for an expected failure.

        A cancelled future calls neither.  Any other exception, and an expected one without
        `failed`, is raised on the main thread and so reaches the excepthook.
        """

        def finish(ended: Future[T]) -> None:
            self.post(lambda: _hand_over(ended, done, failed))

        future.add_done_callback(finish)

    def close(self) -> None:
        """Stop delivering."""
        self._open = False

    @Slot(object)
    def _run(self, work: Callable[[], None]) -> None:
        if self._open:
            work()


def _hand_over(
    future: Future[T],
    done: Callable[[T], None],
    failed: Callable[[KnownError], None] | None,
) -> None:
    try:
        result = future.result(timeout=0)
    except CancelledError:
        return
    except KnownError as error:
        if failed is None:
            raise
        failed(error)
        return
    done(result)
