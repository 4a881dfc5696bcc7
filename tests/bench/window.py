"""The window's cost: start against a bare PySide6 window, memory without weights.

    python -m tests.bench.window [--count N]

Every start is a process of its own, off screen, with a folder of compiled modules of its own (as
an installed Grove has them).  Start is processor time of all threads to the end of the first
paint.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.pairs import Figure, alternate, report

ROOT = Path(__file__).resolve().parent.parent.parent
START_LIMIT_S = 60

BARE = """
import json, os, sys, time
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QMainWindow
class Window(QMainWindow):
    def paintEvent(self, event):
        super().paintEvent(event)
        QTimer.singleShot(0, painted)
def painted():
    print(json.dumps({"ms": time.process_time() * 1000}), flush=True)
    os._exit(0)
app = QApplication([])
window = Window()
window.resize(1280, 820)
window.show()
app.exec()
"""

OURS = """
import json, os, sys, time
from desktop_app import __main__ as start, quick_start
def painted():
    print(json.dumps({"ms": time.process_time() * 1000}), flush=True)
    os._exit(0)
quick_start.end = painted  # the first thing that follows the first paint
sys.argv = ["grove", "--profile", sys.argv[1]]
sys.exit(start.main())
"""

# Memory once everything that a start does has been done and the window stands idle.
IDLE = """
import json, os, sys
import psutil
from PySide6.QtCore import QTimer
from desktop_app import __main__ as start, quick_start
def told():
    memory = psutil.Process().memory_full_info()
    print(json.dumps({"pss": memory.pss, "uss": memory.uss, "rss": memory.rss}), flush=True)
    os._exit(0)
end = quick_start.end
def painted():
    end()
    QTimer.singleShot(3000, told)
quick_start.end = painted
sys.argv = ["grove", "--profile", sys.argv[1]]
sys.exit(start.main())
"""


class Starts:
    """Starts programs on one profile, with compiled modules of their own."""

    def __init__(self, folder: Path) -> None:
        self.profile = folder / "profile"
        self._env = {
            **os.environ,
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
            "QT_QPA_PLATFORM": "offscreen",
        }
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)

    def told(self, program: str) -> dict[str, float]:
        """What a program printed as JSON before it ended."""
        done = subprocess.run(
            [sys.executable, "-c", program, str(self.profile)],
            cwd=ROOT,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S,
            check=True,
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def figures(options: argparse.Namespace) -> list[Figure]:
    """For `make bench`."""
    with tempfile.TemporaryDirectory() as name:
        starts = Starts(Path(name))
        start = alternate(
            "window: start to first paint / bare PySide6 window",
            "ms CPU",
            "<= 2.5",
            lambda: starts.told(OURS)["ms"],
            lambda: starts.told(BARE)["ms"],
            count=options.count,
        )
        memory = Figure("window: memory without weights (PSS)", "MB", "<= 150")
        for _run in range(3):
            told = starts.told(IDLE)
            memory.values.append(told["pss"] / 1e6)
            memory.facts = {"private_mb": told["uss"] / 1e6, "rss_mb": told["rss"] / 1e6}
        return [start, memory]


def main() -> int:
    """Print each measure and its aim; 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=9)
    found = figures(parser.parse_args())
    report(found, None)
    for figure in found:
        sys.stdout.write(f"{figure.pairs or figure.values} {figure.facts}\n")
    return 0 if all(figure.reached for figure in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
