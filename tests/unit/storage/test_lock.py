"""Who begins at the same moment: one gets the profile, never two and never none."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

RACERS, ROUNDS = 2, 1500
# For each moment that comes, try for the profile at that moment and tell; let go at the next line.
RACER = """
import sys, time
from pathlib import Path
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import opening
profile = Profile(Path(sys.argv[1]))
for moment in iter(sys.stdin.readline, ""):
    while time.monotonic() < float(moment):
        pass
    try:
        held = opening.lock(profile)
        print("held", flush=True)
    except KnownError as error:
        held = None
        print(error.code, flush=True)
    sys.stdin.readline()
    if held is not None:
        held.close()
    print("free", flush=True)
"""


def test_of_those_that_begin_at_once_one_gets_the_profile(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, bufsize=1)
        for _ in range(RACERS)
    ]

    def told(line: str) -> list[str]:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{line}\n")
        return sorted(racer.stdout.readline().strip() for racer in racers if racer.stdout)

    try:
        for _ in range(ROUNDS):
            answers = told(str(time.monotonic() + 0.001))
            assert answers == ["held", *["profile-busy"] * (RACERS - 1)]
            assert told("go on") == ["free"] * RACERS
    finally:
        for racer in racers:
            racer.communicate()
    assert [racer.returncode for racer in racers] == [0] * RACERS
