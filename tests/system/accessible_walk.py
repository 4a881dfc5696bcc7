"""Walks the window as a screen reader does: what takes the focus has a name and an identifier.

    python -m tests.system.accessible_walk [--json]

Needs Xvfb, dbus-run-session, at-spi2-core and the system's Python with gir1.2-atspi-2.0.  Starts
Grove on a display, a session bus and a profile of its own and asks AT-SPI for its tree, at a first
start and with an open chat.  Prints
how many controls take the focus and those without a name or an identifier; exit status 1 when
there are any, 2 where a program is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fakes import tiny_gguf
from tests.system.grove import Grove

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"
LIMIT_S = 90

# Runs under the system's Python, which has the bindings: argv is Grove's command line.
WALK = r"""
import json, subprocess, sys, time
import gi
gi.require_version("Atspi", "2.0")
from gi.repository import Atspi

def find(pid):
    desktop = Atspi.get_desktop(0)
    for index in range(desktop.get_child_count()):
        app = desktop.get_child_at_index(index)
        if app is not None and app.get_process_id() == pid and app.get_child_count():
            return app
    return None

def walk(node, found, depth=0):
    if node is None or depth > 40:
        return
    states = node.get_state_set()
    if states.contains(Atspi.StateType.FOCUSABLE) and states.contains(Atspi.StateType.SHOWING):
        found.append([node.get_role_name(), node.get_name(), node.get_accessible_id()])
    for index in range(min(node.get_child_count(), 200)):
        walk(node.get_child_at_index(index), found, depth + 1)

grove = subprocess.Popen(sys.argv[1:])
try:
    end = time.monotonic() + 40
    before, found = None, []
    while time.monotonic() < end:
        app = find(grove.pid)
        found = []
        walk(app, found)
        if found and found == before:
            break
        before = found
        time.sleep(1.5)
    print(json.dumps(found))
finally:
    grove.terminate()
    grove.wait(20)
"""


def missing() -> str:
    """What this machine lacks for the walk; empty when it has all."""
    for program in ("Xvfb", "dbus-run-session", SYSTEM_PYTHON):
        if shutil.which(program) is None:
            return program
    asked = "import gi; gi.require_version('Atspi', '2.0')"
    done = subprocess.run([SYSTEM_PYTHON, "-c", asked], capture_output=True, check=False)
    return "" if done.returncode == 0 else "gir1.2-atspi-2.0"


def with_chat(folder: Path) -> None:
    """Give the profile weights and a chat, which its window opens."""
    grove = Grove(folder / "profile")
    weights = tiny_gguf.write(folder / "Tiny.gguf")
    grove("ask", "--json", "--weights", weights, "--max-tokens", 8, "Hello there").ok()
    file = grove.profile / "settings.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    chat = grove("chats", "--json").ok().json[0]["id"]
    settings["window"] = {"chat": chat}
    file.write_text(json.dumps(settings), encoding="utf-8")


def walked(folder: Path) -> list[tuple[str, str, str]]:
    """Role, name and identifier of every visible control that takes the focus."""
    reader, writer = os.pipe()
    display = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1440x960x24", "-nolisten", "tcp"],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as lines:
            number = lines.readline().strip()
        env = {
            **os.environ,
            "DISPLAY": f":{number}",
            "QT_QPA_PLATFORM": "xcb",
            "QT_LOGGING_RULES": "qt.text.font.db=false",
            "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
            "LC_ALL": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }
        grove = [sys.executable, "-m", "desktop_app", "--profile", str(folder / "profile")]
        done = subprocess.run(
            ["dbus-run-session", "--", SYSTEM_PYTHON, "-c", WALK, *grove],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
        found: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return [(role, name or "", identifier or "") for role, name, identifier in found]
    finally:
        display.terminate()
        display.wait()


def nameless(found: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Those without a name or without an identifier of their own.

    Qt gives what has none the path of its parents' names, in which nameless widgets stand with
    their class: such a path must not end in one.
    """
    return [
        (role, name, identifier)
        for role, name, identifier in found
        if not name.strip() or not identifier or identifier.rsplit(".", 1)[-1][:1].isupper()
    ]


def main() -> int:
    """Walk, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if lacking := missing():
        print(f"Missing: {lacking}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as folder:
        with_chat(Path(folder))
        found = walked(Path(first)) + walked(Path(folder))
    bad = nameless(found)
    if options.json:
        print(json.dumps({"controls": found, "failing": bad}))
    else:
        print(f"{len(found)} controls take the focus, {len(bad)} without name or identifier")
        for role, name, identifier in bad:
            print(f"  {role}: name {name!r}, identifier {identifier!r}")
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())
