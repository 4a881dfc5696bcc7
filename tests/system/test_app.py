"""The window as a process: starts once, raises on a second start, ends in order on a signal."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import opening

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def environment() -> dict[str, str]:
    return {**os.environ, "QT_QPA_PLATFORM": "offscreen"}


class Running:
    """`grove` on a profile, with its window off screen."""

    def __init__(self, profile: Path) -> None:
        self.profile = profile
        command = [sys.executable, "-m", "desktop_app", "--profile", str(profile)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
        )

    def wait_ready(self) -> None:
        """Until the profile is locked: it listens by then, and the window follows at once."""
        end = time.monotonic() + PATIENCE_S
        while not is_locked(self.profile / "profile.lock"):
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and what it said."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        own = [line for line in said.splitlines() if "This plugin does not support" not in line]
        return self.process.returncode, "\n".join(own)


def is_locked(file: Path) -> bool:
    """Whether somebody holds the lock."""
    if not file.exists():
        return False
    try:
        opening.lock(Profile(file.parent)).close()
    except KnownError:
        return True
    return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    grove = Running(tmp_path / "profile")
    grove.wait_ready()
    yield grove
    if grove.process.poll() is None:
        grove.process.kill()
        grove.process.communicate()


def second_start(profile: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "desktop_app", "--profile", str(profile)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_second_start_ends_at_once_and_the_first_goes_on(running: Running) -> None:
    second = second_start(running.profile)
    assert (second.returncode, second.stderr) == (0, "")
    assert running.process.poll() is None
    status, said = running.end()
    assert status == 0, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(running: Running, number: int) -> None:
    # The first paint comes before the signal's handler is of any use to a person.
    second_start(running.profile)
    status, said = running.end(number)
    assert (status, said) == (0, "")
    # The log was folded into the database, and what the window remembers was written.
    assert not (running.profile / "library.db-wal").exists()
    with sqlite3.connect(running.profile / "library.db") as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
    database.close()
    settings = json.loads((running.profile / "settings.json").read_text(encoding="utf-8"))
    assert "geometry" in settings["window"]


def test_after_a_kill_the_next_start_works(tmp_path: Path) -> None:
    first = Running(tmp_path / "profile")
    first.wait_ready()
    first.process.kill()
    first.process.communicate()
    again = Running(tmp_path / "profile")
    again.wait_ready()
    second_start(tmp_path / "profile")
    status, said = again.end()
    assert (status, said) == (0, "")


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
def test_a_signal_while_it_starts_ends_it_too(tmp_path: Path, delay_s: float) -> None:
    """The symptom: a signal between the lock and the loop was lost, and the window stayed."""
    grove = Running(tmp_path / "profile")
    try:
        grove.wait_ready()
        # The delay is the test's input: each falls on another step of the start.
        time.sleep(delay_s)
        status, said = grove.end()
        # Before the handlers are there, the system ends it.
        assert (status, said) in ((0, ""), (-signal.SIGTERM, ""))
    finally:
        if grove.process.poll() is None:
            grove.process.kill()
            grove.process.communicate()
