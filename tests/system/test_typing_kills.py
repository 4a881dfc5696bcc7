"""A small round of engine kills under a person's hands, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.system.grove import ROOT


def test_no_key_is_lost_when_the_engine_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.typing_kills", "--seed", "3", "--n", "6", "--json"],
        cwd=ROOT,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 6
    assert told["lost"] == 0
    assert told["keys"] >= 6
