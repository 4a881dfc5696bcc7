"""The command line's loop: calls in order, timers, Ctrl-C outside of the handler."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future

import pytest

from desktop_app.cli.loop import Interrupted, MainLoop
from desktop_app.cli.terminal import one_line, safe


def test_calls_run_in_order_on_the_waiting_thread() -> None:
    loop = MainLoop()
    seen: list[tuple[int, bool]] = []
    main = threading.current_thread()

    def post_all() -> None:
        for n in range(100):
            loop.post(lambda n=n: seen.append((n, threading.current_thread() is main)))  # type: ignore[misc]  # mypy infers no type for a lambda's default

    thread = threading.Thread(target=post_all)
    thread.start()
    loop.run_until(lambda: len(seen) == 100)
    thread.join()
    assert seen == [(n, True) for n in range(100)]


def test_a_timer_that_fulfils_the_wait_ends_it() -> None:
    loop = MainLoop()
    seen: list[str] = []
    began = time.monotonic()
    loop.later(0.05, lambda: seen.append("later"))
    loop.later(0.01, lambda: seen.append("sooner"))
    loop.run_until(lambda: len(seen) == 2)
    assert seen == ["sooner", "later"]
    assert time.monotonic() - began >= 0.05


def test_waiting_for_a_future() -> None:
    loop = MainLoop()
    future: Future[int] = Future()
    threading.Timer(0.02, lambda: future.set_result(7)).start()
    assert loop.wait(future) == 7
    failed: Future[int] = Future()
    failed.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        loop.wait(failed)


@pytest.mark.skipif(os.name != "posix", reason="signals to oneself")
def test_ctrl_c_is_told_or_ends_the_wait() -> None:
    loop = MainLoop()
    before = signal.getsignal(signal.SIGINT)
    told: list[int] = []
    loop.on_interrupt = lambda: told.append(1)
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    loop.run_until(lambda: bool(told))
    loop.on_interrupt = None
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted):
        loop.run_until(lambda: False)
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_steers_the_terminal() -> None:
    assert safe("a\x1b[2Jb\x07\r\x9bc\n\t한🌲") == "a[2Jbc\n\t한🌲"
    assert one_line("  two\nlines  here ", 8) == "two lin…"
