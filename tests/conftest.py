"""Rules that hold for every test: no warnings unasked for, nothing left running."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

# How long a thread or process may take to end after the test that started it.
GRACE_S = 5.0


def _settled(remaining: Callable[[], list[str]]) -> list[str]:
    """What `remaining` still lists once the grace is over (usually nothing, at once)."""
    deadline = time.monotonic() + GRACE_S
    while (left := remaining()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Fail a test that leaves threads or child processes behind."""
    me = psutil.Process()
    threads_before = set(threading.enumerate())
    children_before = {child.pid for child in me.children(recursive=True)}
    yield

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t not in threads_before and t.is_alive()]

    def children() -> list[str]:
        found = []
        for child in me.children(recursive=True):
            if child.pid in children_before:
                continue
            try:
                found.append(f"{child.pid} {' '.join(child.cmdline())[:200]}")
            except psutil.Error:
                continue  # it ended while we looked
        return found

    assert not (left := _settled(threads)), f"threads left behind: {left}"
    assert not (left := _settled(children)), f"processes left behind: {left}"


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def no_unexpected_log_warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that logs a warning or worse, unless it is marked `expects_log`."""
    collector = _Collector()
    root = logging.getLogger()
    root.addHandler(collector)
    yield
    root.removeHandler(collector)
    if request.node.get_closest_marker("expects_log") is None:
        told = [f"{r.name}: {r.getMessage()}" for r in collector.records]
        assert not told, f"unexpected log records: {told}"


@pytest.fixture(scope="session")
def shared_dir() -> Path | None:
    """The folder of shared test data beside the checkout, where there is one."""
    folder = Path(__file__).resolve().parent.parent.parent / "shared"
    return folder if folder.is_dir() else None
