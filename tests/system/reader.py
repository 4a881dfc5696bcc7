"""Grove worked from outside: a display, a screen reader's tree, the mouse and the keyboard.

Needs Xvfb, xdotool, dbus-run-session, at-spi2-core and the system's Python with its bindings;
`missing` tells which of them a machine lacks.  Everything here runs inside a D-Bus session of its
own: `inside_session` gives the command for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"
PATIENCE_S = 40.0
SCREEN = "1440x900x24"

T = TypeVar("T")


def missing() -> str:
    """What this machine lacks; empty when it has all."""
    for program in ("Xvfb", "xdotool", "dbus-run-session", SYSTEM_PYTHON):
        if shutil.which(program) is None:
            return program
    asked = "import gi; gi.require_version('Atspi', '2.0')"
    done = subprocess.run([SYSTEM_PYTHON, "-c", asked], capture_output=True, check=False)
    return "" if done.returncode == 0 else "gir1.2-atspi-2.0"


def inside_session(module: str, *args: str) -> list[str]:
    """The command that runs a module of the tests with a session bus of its own."""
    return ["dbus-run-session", "--", sys.executable, "-m", module, *args]


@dataclass(frozen=True)
class Control:
    """One control as the tree tells it; `area` is x, y, width, height on the screen."""

    role: str
    name: str
    description: str
    id: str
    focusable: bool
    focused: bool
    enabled: bool
    checked: bool
    area: tuple[int, int, int, int]


@contextlib.contextmanager
def screen(home: Path) -> Iterator[dict[str, str]]:
    """An X server of our own; yields the environment for programs on it, with `home` as home."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", SCREEN, "-nolisten", "tcp", "-noreset"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as file:
            number = file.readline().strip()
        kept = {key: value for key, value in os.environ.items() if not key.startswith("QT_")}
        yield {
            **kept,
            "DISPLAY": f":{number}",
            "QT_QPA_PLATFORM": "xcb",
            "QT_LOGGING_RULES": "qt.text.font.db=false",
            "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }
    finally:
        server.terminate()
        server.wait()


class Reader:
    """Asks `reader_process` about one program; works its controls with mouse and keyboard."""

    def __init__(self, env: dict[str, str], command: list[str]) -> None:
        """`command` starts the program."""
        self._env = env
        self.clicks = 0
        self.grove = subprocess.Popen(command, cwd=ROOT, env=env)
        eyes = [SYSTEM_PYTHON, str(Path(__file__).with_name("reader_process.py"))]
        self._eyes = subprocess.Popen(
            eyes, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    # ---- looking -----------------------------------------------------------------------------

    def _ask(self, **question: object) -> list[Control]:
        assert self._eyes.stdin is not None
        assert self._eyes.stdout is not None
        assert self.grove.poll() is None, "Grove has ended"
        self._eyes.stdin.write(json.dumps({"pid": self.grove.pid, **question}) + "\n")
        self._eyes.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(self._eyes.stdout.readline())
        return [Control(**{**item, "area": tuple(item["area"])}) for item in answer]

    def look(self, identifier: str) -> Control | None:
        """The visible control with this identifier."""
        found = self._ask(id=identifier)
        return found[0] if found else None

    def controls(self) -> list[Control]:
        """Every visible control that takes the focus."""
        return self._ask()

    def focus(self, but: Sequence[str] = ()) -> Control | None:
        """The control with the focus, but none of these roles."""
        found = self._ask(focus=True, but=list(but))
        return found[0] if found else None

    def wait(self, what: str, find: Callable[[], T | None]) -> T:
        """Ask again and again until `find` gives something."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = find()
            if found:
                return found
            assert time.monotonic() < end, f"waited for {what} in vain"
            time.sleep(0.05)

    def see(self, identifier: str, *words: str) -> Control:
        """Wait for a control, enabled, in whose name or description all these words stand."""

        def find() -> Control | None:
            control = self.look(identifier)
            if control is None or not control.enabled:
                return None
            told = f"{control.name} {control.description}"
            return control if all(word in told for word in words) else None

        return self.wait(f"{identifier} with {words}", find)

    # ---- acting ------------------------------------------------------------------------------

    def activate(self, identifier: str) -> None:
        """Give the window the keyboard by a click on the bare corner of a page."""
        x, y, _width, _height = self.see(identifier).area
        self.do("mousemove", str(x + 4), str(y + 4), "click", "1")

    def do(self, *words: str) -> None:
        """One xdotool call."""
        subprocess.run(["xdotool", *words], check=True, env=self._env)

    def click(self, identifier: str, *words: str) -> Control:
        """Wait for a control as `see` and click its middle."""
        control = self.see(identifier, *words)
        x, y, width, height = control.area
        self.do("mousemove", str(x + width // 2), str(y + height // 2), "click", "1")
        self.clicks += 1
        return control

    def type(self, text: str) -> None:
        """Keys, one by one."""
        self.do("type", "--delay", "8", text)

    def press(self, *keys: str) -> None:
        """Named keys, such as ``Return``."""
        self.do("key", *keys)

    # ---- ending ------------------------------------------------------------------------------

    def kill(self) -> None:
        """As a power cut would: no goodbye."""
        self.grove.kill()
        self._end()

    def close(self) -> int:
        """As the session's end would; the program's exit status."""
        if self.grove.poll() is None:
            self.grove.terminate()
        self._end()
        return self.grove.returncode

    def _end(self) -> None:
        self.grove.wait(30)
        assert self._eyes.stdin is not None
        assert self._eyes.stdout is not None
        self._eyes.stdin.close()
        self._eyes.wait(10)
        self._eyes.stdout.close()


def told_from_outside(module: str, *words: str, timeout_s: float) -> dict[str, Any]:
    """What a program of this folder tells as JSON on a session bus of its own; for tests.

    Skips the test where a program is missing, fails it where it ended badly.
    """
    if lacking := missing():
        pytest.skip(f"{lacking} is not installed")
    command = inside_session(module, "--inside", *words)
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.stdout, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "failing" in seen:
        assert seen["failing"] == []
    assert done.returncode == 0, done.stderr[-3000:]
    return seen


def run_inside(module: str, *words: str) -> int:
    """Run a program of this folder on a bus of its own: its status, 2 if something is missing."""
    if lacking := missing():
        print(f"Missing: {lacking}", file=sys.stderr)
        return 2
    command = inside_session(module, "--inside", *words)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def walk_main(module: str, description: str | None, run: Callable[[], dict[str, Any]]) -> int:
    """A walk as a program: runs on a session bus of its own, prints, judges.

    `run` gives "controls" (how many take the focus in each state), "failing" and perhaps the
    "status" Grove ended with.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        return run_inside(module, *sys.argv[1:])
    found = run()
    if options.json:
        print(json.dumps(found))
    else:
        for state, count in found["controls"].items():
            print(f"{state}: {count} controls take the focus")
        for failing in found["failing"]:
            print("  ", *failing)
    return 1 if found["failing"] or found.get("status") else 0
