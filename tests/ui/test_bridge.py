"""Work crosses from other threads to the main thread, in order, and stops at the end."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial

from pytestqt.qtbot import QtBot

from desktop_app.errors import KnownError
from desktop_app.ui.bridge import Bridge


def test_posted_work_runs_later_in_order_on_the_main_thread(qtbot: QtBot, bridge: Bridge) -> None:
    seen: list[tuple[int, bool]] = []
    main = threading.current_thread()

    def note(number: int) -> None:
        seen.append((number, threading.current_thread() is main))

    def post_from_elsewhere() -> None:
        for number in range(100):
            bridge.post(partial(note, number))

    other = threading.Thread(target=post_from_elsewhere)
    other.start()
    other.join()
    assert seen == []
    qtbot.waitUntil(lambda: len(seen) == 100)
    assert seen == [(number, True) for number in range(100)]


def test_post_from_the_main_thread_does_not_run_at_once(qtbot: QtBot, bridge: Bridge) -> None:
    seen: list[int] = []
    bridge.post(lambda: seen.append(1))
    assert seen == []
    qtbot.waitUntil(lambda: seen == [1])


def test_futures_end_in_one_of_two_callbacks(qtbot: QtBot, bridge: Bridge) -> None:
    told: list[object] = []
    good: Future[int] = Future()
    bad: Future[int] = Future()
    given_up: Future[int] = Future()
    for future in (good, bad, given_up):
        bridge.when_done(future, told.append, lambda error: told.append(error.code))
    given_up.cancel()
    good.set_result(7)
    bad.set_exception(KnownError("disk-full", "The disk is full."))
    qtbot.waitUntil(lambda: len(told) == 2)
    assert told == [7, "disk-full"]


def test_a_bug_behind_a_future_reaches_the_excepthook(qtbot: QtBot, bridge: Bridge) -> None:
    future: Future[int] = Future()
    bridge.when_done(future, lambda _: None, lambda _: None)
    with qtbot.captureExceptions() as raised:
        future.set_exception(ValueError("a bug"))
        qtbot.waitUntil(lambda: bool(raised))
    assert raised[0][0] is ValueError


def test_nothing_runs_after_close(qtbot: QtBot, bridge: Bridge) -> None:
    seen: list[int] = []
    bridge.post(lambda: seen.append(1))
    bridge.close()
    bridge.post(lambda: seen.append(2))
    done: list[int] = []
    other = Bridge()
    other.post(lambda: done.append(1))
    qtbot.waitUntil(lambda: done == [1])
    assert seen == []
