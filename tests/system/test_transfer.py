"""Small rounds of the weights' proofs; the full counts are options of the scripts beside this."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(name: str, *words: str) -> dict[str, Any]:
    """Run one proof; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.system.{name}", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{\n") else {}
    return found


def test_faults_kills_and_cancels(tmp_path: Path) -> None:
    words = ["--faults", "12", "--kills", "4", "--cancels", "3", "--seed", "3"]
    found = run(
        "transfer_faults",
        *words,
        "--size",
        "8000000",
        "--rate",
        "16000000",
        "--work",
        str(tmp_path),
    )
    assert found["counts"]["kills"] == 4
    assert found["problems"] == []
    assert list(tmp_path.iterdir()) == []


def test_mutated_headers() -> None:
    found = run("transfer_headers", "--count", "150", "--seed", "4")
    assert found["deaths"] == []
    if importlib.util.find_spec("llama_cpp") is not None:
        assert found["decoded"] > 10


def test_tokens_and_offline() -> None:
    found = run("transfer_private", "--seed", "5")
    assert found["token"]["token_seen"] == {"hub": found["token"]["requests"]["hub"], "files": 0}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_speed_is_measured_against_curl(tmp_path: Path) -> None:
    # Only that it works: the machine of a test run may be busy.
    script = "import sys; from tests.system.transfer_speed import main; sys.exit(min(main(), 0))"
    subprocess.run(
        [sys.executable, "-c", script, "--size", "20000000", "--rounds", "1", "--work",
         str(tmp_path)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="no engine here")
def test_memory_is_predicted(tmp_path: Path) -> None:
    run(
        "transfer_fit",
        "--largest",
        "0.2",
        "--seconds",
        "0.2",
        "--no-speed",
        "--work",
        str(tmp_path),
    )
