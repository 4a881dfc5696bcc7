"""The log and the one place where bugs end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop_app import log
from desktop_app.inference.child import _logged


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Bugs that were shown; the hooks are put back afterwards."""
    bugs: list[tuple[str, str]] = []
    monkeypatch.setattr(log, "_bugs", None)
    before = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    log.catch_bugs(lambda sentence, trace: bugs.append((sentence, trace)))
    yield bugs
    sys.excepthook, threading.excepthook, sys.unraisablehook = before
    log.stop()


def raise_secret() -> None:
    secret = "what a person {}"
    raise KeyError(secret.format("wrote"))


@pytest.mark.expects_log
def test_a_bug_is_logged_and_shown_once(tmp_path: Path, shown: list[tuple[str, str]]) -> None:
    file = log.start(tmp_path / "logs")
    for _ in range(3):
        try:
            raise_secret()
        except KeyError as error:
            sys.excepthook(KeyError, error, error.__traceback__)
    log.stop()
    assert len(shown) == 1
    text = file.read_text(encoding="utf-8")
    assert text.count("bug in the main thread: KeyError") == 3
    assert "raise_secret" in text
    assert "what a person wrote" not in text


@pytest.mark.expects_log
def test_bugs_of_threads_and_finalisers(tmp_path: Path, shown: list[tuple[str, str]]) -> None:
    file = log.start(tmp_path)
    thread = threading.Thread(target=raise_secret, name="worker")
    thread.start()
    thread.join()

    class Doomed:
        def __del__(self) -> None:
            raise ValueError("in a finaliser")

    Doomed()
    log.stop()
    assert len(shown) == 2
    text = file.read_text(encoding="utf-8")
    assert "bug in worker: KeyError" in text
    assert "ValueError" in text


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_start(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x")
    log.start(blocked)
    log.logger("test").info("nowhere")
    log.stop()


def test_the_log_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_LOG_BYTES", 2000)
    log.start(tmp_path)
    for n in range(400):
        log.logger("test").info("line %s", n)
    log.stop()
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["grove.log", "grove.log.1", "grove.log.2", "grove.log.3"]
    assert all(p.stat().st_size <= 2100 for p in tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full")
def test_the_engines_words_are_dropped_when_the_disk_is_full() -> None:
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 -- `_logged` closes it
    assert _logged(full, "a line") is None
    assert full.closed
    assert _logged(None, "a line") is None
