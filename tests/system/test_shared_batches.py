"""Shared batches and reading ahead on real llama.cpp, in a process of its own (it may abort)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("kind", ["llama", "window", "mamba"])
def test_every_reply_is_what_its_own_prompt_says(kind: str) -> None:
    module = ["-m", "tests.system.shared_batches"]
    command = [sys.executable, *module, "--kind", kind, "--count", "800", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["tokens"] > 200
    assert found["refused"] > 0
    assert found["cancelled"] > 0
    assert found["ahead"]["read"] > 500
    assert found["ahead"]["sent_kept"] > 0
