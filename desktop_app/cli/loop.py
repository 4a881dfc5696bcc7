"""The command line's main thread: what the engine and the storage report is run here, in order."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Interrupted(Exception):  # noqa: N818 -- a wish of the user, not an error
    """Ctrl-C was pressed while the loop waited, and nobody had asked to be told."""


class MainLoop:
    """A queue of calls, run on the thread that waits for something.

    `post` may be called from any thread, all else on the main thread only.
    """

    def __init__(self) -> None:
        self.on_interrupt: Callable[[], None] | None = None
        """Called once for each Ctrl-C while waiting; without it the wait ends by `Interrupted`."""
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._interrupts = 0
        self._catching = 0

    def post(self, call: Callable[[], None]) -> None:
        """Run `call` on the main thread soon."""
        self._calls.put(call)

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Run `call` on the main thread, not before `delay_s` seconds have passed."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._count), call))

    def run_until(self, done: Callable[[], bool]) -> None:
        """Run calls until `done()` is true."""
        with self.catching():
            while not done():
                self._turn()

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Ctrl-C in here becomes a call of the loop (see `on_interrupt`); may be nested.

        Only the main thread of a process can catch it; elsewhere this does nothing.
        """
        outermost = self._catching == 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._catching += 1
        before = None
        if outermost:
            self._interrupts = 0
            before = signal.signal(signal.SIGINT, lambda _number, _frame: self.interrupted())
        try:
            yield
        finally:
            self._catching -= 1
            if outermost:
                signal.signal(signal.SIGINT, before)

    def wait(self, future: Future[T]) -> T:
        """The result of a future, or its exception; calls are run meanwhile."""
        future.add_done_callback(lambda _: self.post(_nothing))
        self.run_until(future.done)
        return future.result()

    def run_waiting(self) -> None:
        """Run what has been posted already, and return."""
        while not self._calls.empty():
            self._calls.get()()

    def interrupted(self) -> None:
        """Ctrl-C: wake the loop, which acts outside of the signal handler."""
        self._interrupts += 1
        if self._interrupts >= 3:
            raise KeyboardInterrupt
        self._calls.put(_nothing)

    def _turn(self) -> None:
        """Run one call or timer, or wait for the next one."""
        call = self._next()
        if call is not None:
            call()
        if self._interrupts:
            self._interrupts = 0
            if self.on_interrupt is None:
                raise Interrupted
            self.on_interrupt()

    def _next(self) -> Callable[[], None] | None:
        wait_s = None
        if self._timers:
            wait_s = self._timers[0][0] - time.monotonic()
            if wait_s <= 0:
                return heapq.heappop(self._timers)[2]
        try:
            return self._calls.get(timeout=wait_s)
        except queue.Empty:
            return None


def _nothing() -> None:
    pass
