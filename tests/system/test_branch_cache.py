"""The branch cache on real llama.cpp, in a process of its own (it may abort)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(module: str, *words: str) -> dict[str, float]:
    """What a program of these tests found; its exit status must be 0."""
    command = [sys.executable, "-m", f"tests.system.{module}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["llama", "window", "mamba"])
def test_random_operations_answer_as_an_empty_context_does(kind: str) -> None:
    figures = run("branch_cache", "--kind", kind, "--count", "1000", "--seed", "2")
    assert figures["kept"] > 0
    assert figures["restored"] > 0


@pytest.mark.parametrize("kind", ["llama", "window", "mamba"])
def test_harmed_blocks_change_no_answer(kind: str) -> None:
    figures = run("damaged_blocks", "--kind", kind, "--n", "120", "--seed", "1")
    assert figures["answers"] == 720
    assert figures["kept"] > 0


def test_an_exchanged_block_would_be_seen() -> None:
    """The control: where nothing is checked, the answers are wrong."""
    assert run("damaged_blocks", "--blind", "--n", "30")["wrong"] >= 30
