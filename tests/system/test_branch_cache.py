"""The branch cache on real llama.cpp, in a process of its own (it may abort)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("kind", ["llama", "window", "mamba"])
def test_random_operations_answer_as_an_empty_context_does(kind: str) -> None:
    module = ["-m", "tests.system.branch_cache"]
    command = [sys.executable, *module, "--kind", kind, "--count", "1000", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    figures = json.loads(done.stdout)
    assert figures["kept"] > 0
    assert figures["restored"] > 0
