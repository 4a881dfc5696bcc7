"""Starting Grove as a user does: a process, its words, its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object that it printed."""
        return json.loads(self.out)

    def ok(self) -> Ran:
        """Itself, when it succeeded."""
        assert self.status == 0, f"status {self.status}: {self.err}"
        return self


@dataclass(frozen=True)
class Grove:
    """Grove on one profile."""

    profile: Path

    def command(self, *args: object) -> list[str]:
        """The command line."""
        start = [sys.executable, "-m", "desktop_app", "--profile", str(self.profile)]
        return [*start, *map(str, args)]

    def __call__(self, *args: object, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
        done = subprocess.run(
            self.command(*args),
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            env=environment(env),
            timeout=TIMEOUT_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without a display, so that nothing opens a window."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    env = {key: value for key, value in os.environ.items() if key not in displays}
    return {**env, "PYTHONIOENCODING": "utf-8", **(more or {})}
