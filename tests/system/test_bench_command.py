"""`grove bench` with tiny random weights in real processes."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes import tiny_gguf
from tests.system.grove import ROOT, Grove, environment


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that never end a turn, so that every reply has the length that was asked for."""
    return tiny_gguf.write(tmp_path_factory.mktemp("weights") / "slow.gguf", "slow")


@pytest.fixture
def grove(tmp_path: Path) -> Grove:
    return Grove(tmp_path / "profile")


def test_it_tells_what_was_measured(grove: Grove, weights: Path) -> None:
    words = ("--prompt", 100, "--max-tokens", 8, "--runs", 2, "--threads", 1, "--json")
    found = grove("bench", "--weights", weights, *words).ok().json
    assert found["n"] == len(found["runs"]) == 2
    assert (found["prompt_tokens"], found["max_tokens"]) == (100, 8)
    for run in found["runs"]:
        assert (run["read_tokens"], run["written_tokens"]) == (100, 8)
        assert run["read_tokens_per_s"] > 0
        assert run["write_tokens_per_s"] > 0
    # What was read before is not read again, neither at once nor from a parked branch.
    assert found["again"]["read_tokens"] == found["parked"]["read_tokens"] == 1
    assert found["drafts"]["count"] == 4
    assert found["drafts"]["tokens_per_s"] > 0
    assert found["kv_bytes_per_token"] > 0
    assert not list(grove.profile.rglob("*.blk")), "random tokens are no chat: never on disk"


def test_weights_without_roll_back(grove: Grove, tmp_path: Path) -> None:
    weights = tiny_gguf.write(tmp_path / "mamba.gguf", "mamba")
    words = ("--prompt", 60, "--max-tokens", 4, "--runs", 1, "--json")
    found = grove("bench", "--weights", weights, *words).ok().json
    assert found["again"]["read_tokens"] == found["parked"]["read_tokens"] == 1


def test_words_for_a_person(grove: Grove, weights: Path) -> None:
    words = ("--prompt", 50, "--max-tokens", 4, "--runs", 1, "--threads", 1)
    said = grove("bench", "--weights", weights, *words).ok().out
    for word in ("reads", "writes", "4 drafts", "asks again", "goes back", "tokens/s", "1 of 50"):
        assert word in said


@pytest.mark.parametrize(
    "words",
    [("--prompt", 0), ("--runs", 0), ("--max-tokens", -1), ("--prompt", 90, "--max-tokens", 9000)],
)
def test_lengths_that_cannot_be(grove: Grove, weights: Path, words: tuple[object, ...]) -> None:
    ran = grove("bench", "--weights", weights, *words, "--json")
    assert ran.status == 1
    assert ran.json["error"]["code"] == "option-range"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_is_seen_and_ctrl_c_ends_it(grove: Grove, weights: Path) -> None:
    """On a terminal a line moves; Ctrl-C takes it away and leaves with 130 and no numbers."""
    ours, theirs = pty.openpty()
    command = grove.command("bench", "--weights", weights, "--runs", 500, "--threads", 1)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=environment()
    )
    os.close(theirs)
    said = b""
    try:
        deadline = time.monotonic() + 60
        while b"writing" not in said and time.monotonic() < deadline:
            if select.select([ours], [], [], 1.0)[0]:
                said += os.read(ours, 4096)
        assert b"writing" in said
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        with contextlib.suppress(OSError):  # a closed terminal reads as an error on Linux
            while chunk := os.read(ours, 4096):
                said += chunk
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 130
    assert out == b""
    assert b"Stopped" in said
