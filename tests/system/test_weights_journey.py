"""From a new laptop to a chat with good weights: a kill, a pause, lost connections in between.

Once inside the process, on any platform of Qt; and from outside, by identifiers, where a
machine has what that needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import tiny_gguf
from tests.fakes.hub import FakeHub, Fault
from tests.system import weights_journey
from tests.system.reader import told_from_outside

ROOT = Path(__file__).parents[2]
SIZE_BYTES = 3_000_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    (tmp_path / "hub").mkdir()
    with FakeHub(tmp_path / "hub", rate=500_000) as made:
        yield made


class Window:
    """`weights_window` as a process: its lines, and a word to it."""

    def __init__(self, profile: Path, part: str, hub: FakeHub) -> None:
        environment = {"QT_QPA_PLATFORM": "offscreen", **os.environ, "HF_ENDPOINT": hub.url}
        environment["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
        environment["HOME"] = str(profile.parent)
        command = [sys.executable, "-m", "tests.system.weights_window", str(profile), part]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            pytest.fail(self.process.communicate()[1][-2000:])
        found = json.loads(text)
        assert isinstance(found, dict)
        return found

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, *, kill: bool = False) -> int:
        if kill:
            self.process.kill()
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.mark.timeout(180)
def test_first_start_kill_resume_pause_lost_connection_load_chat(
    tmp_path: Path, hub: FakeHub
) -> None:
    profile = tmp_path / "profile"
    first = Window(profile, "begin", hub)
    wanted = first.line()
    home = hub.folder / wanted["repository"]
    home.mkdir(parents=True)
    source = tiny_gguf.write(home / f"weights-{wanted['label']}.gguf")
    with source.open("ab") as file:
        file.truncate(SIZE_BYTES)
    first.go_on()
    arriving = first.line()
    assert arriving["clicks"] == 1
    first.end(kill=True)

    second = Window(profile, "finish", hub)
    paused = second.line()
    # What had arrived before the kill was not fetched again.
    assert paused["kept"] >= 200_000
    assert paused["paused"] > paused["kept"]
    hub.plan.extend([Fault("reset", 100_000), Fault("close", 50_000), Fault("503")])
    hub.rate = 0
    second.go_on()
    last = second.line()
    assert second.end() == 0
    assert last["state"] in ("done", "stopped")
    assert last["bytes"] == SIZE_BYTES
    assert last["author"]
    arrived = list((profile / "weights").rglob("*.gguf"))
    assert len(arrived) == 1
    assert arrived[0].read_bytes() == source.read_bytes()
    # Nothing was asked of the hub but this one repository.
    paths = {request.path for request in hub.log if request.origin == "hub"}
    assert all(wanted["repository"] in path for path in paths)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", ["smooth", "rough"])
def test_journey_from_outside(part: str) -> None:
    told = told_from_outside("tests.system.weights_journey", "--part", part, timeout_s=110)
    seen = told[part]
    assert seen["roles"] == ["user", "assistant"]
    assert seen["arrived"] == [weights_journey.SIZE_BYTES]
    assert seen["status"] == 0
    if part == "smooth":
        assert seen["clicks"] <= 3
        assert seen["sent"] == weights_journey.SIZE_BYTES
    else:
        assert seen["kept"] >= seen["killed_at"] - 1
        assert seen["paused_at"] > seen["kept"]
        assert seen["faults_left"] == 0
        # Nothing that had arrived was fetched again, but what was in flight at each break.
        assert seen["sent"] <= weights_journey.SIZE_BYTES + 1_000_000


@pytest.mark.timeout(180)
def test_every_control_of_the_page_is_named_and_reached_by_keyboard() -> None:
    seen = told_from_outside("tests.system.weights_walk", "--json", timeout_s=170)
    assert seen["failing"] == []
    assert seen["status"] == 0
    assert len(seen["controls"]) == 6
