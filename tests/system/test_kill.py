"""A small count of what ``tests/system/kill`` does by the hundred."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.grove import ROOT


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_nothing_acknowledged_is_lost() -> None:
    done = subprocess.run(
        [
            sys.executable, str(Path(__file__).with_name("kill")),
            "--engine", "3", "--app", "3", "--seed", "11", "--json",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["lost"] == 0
    assert said["last_reply_works"] is True
    assert said["engine"]["killed_while_writing"] > 0
    assert said["app"]["killed_while_writing"] > 0
