"""A day in the window from outside, where the machine has a display's and a reader's programs."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.system.reader import ROOT, inside_session, missing


@pytest.mark.timeout(240)
def test_a_day_in_the_window_and_a_restart() -> None:
    if lacking := missing():
        pytest.skip(f"{lacking} is not installed")
    command = inside_session("tests.system.window_day", "--inside", "--json")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["versions"] == 3
    assert seen["undone"] == seen["redone"] >= 8
    assert seen["status"] == 0
    assert seen["in_view"] >= 1
