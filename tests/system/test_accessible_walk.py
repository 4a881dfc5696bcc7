"""What a screen reader finds in the windows, where the machine has one's programs."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.system.reader import ROOT, inside_session, missing


@pytest.mark.timeout(150)
def test_every_control_has_a_name_an_identifier_and_tab() -> None:
    if lacking := missing():
        pytest.skip(f"{lacking} is not installed")
    command = inside_session("tests.system.accessible_walk", "--inside", "--json")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=140, check=False
    )
    assert done.stdout, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["failing"] == []
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(seen["controls"]) == 13
    assert sum(seen["controls"].values()) > 90
