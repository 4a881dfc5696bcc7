"""Some random interleavings of ask, stop, switch, delete and kill, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.system.grove import ROOT


def test_nothing_is_lost_crossed_or_left() -> None:
    command = [sys.executable, "-m", "tests.system.interleavings", "--n", "12", "--seed", "5"]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["rounds"] == 12
    assert told["asked"] > 12
    assert told["kills"] > 0
    assert told["tokens_checked"] > 100
