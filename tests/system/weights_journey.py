"""From a new laptop to a chat, worked from outside by the identifiers of the controls.

    python -m tests.system.weights_journey [--part smooth|rough] [--json]

Grove runs as its users start it, on a display and a bus of its own, against a hub on loopback
that has every file of the catalogue.  `smooth`: nothing goes wrong; the clicks are counted.
`rough`: killed in the middle of the download, resumed, paused, resumed, the connection lost three
times.  Prints what was seen; exit status 1 when the journey did not end in a reply, 2 where a
program is missing.  The engine is the real one, the weights are small and speak nonsense.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from desktop_app.weights.catalogue import Catalogue
from desktop_app.weights.fit import SpeedBook
from tests.fakes import tiny_gguf
from tests.fakes.hub import FakeHub, Fault
from tests.system.grove import Grove
from tests.system.reader import Reader, run_inside, screen

SIZE_BYTES = 2_000_000
SLOW_BYTES_PER_S = 300_000


def fill(folder: Path) -> None:
    """Every size of every suggestion: whatever is recommended here can be fetched."""
    one = tiny_gguf.write(folder / "one.gguf")
    with one.open("ab") as file:
        file.truncate(SIZE_BYTES)
    for entry in Catalogue.load().entries:
        home = folder / "hub" / entry.repository
        home.mkdir(parents=True, exist_ok=True)
        for choice in entry.quantisations:
            os.link(one, home / f"weights-{choice.label}.gguf")


class Journey:
    """One new profile, and what is seen on the way."""

    def __init__(self, folder: Path, env: dict[str, str], hub: FakeHub) -> None:
        self.hub = hub
        self.profile = Grove(folder / "profile")
        self.env = {**env, "HF_ENDPOINT": hub.url}
        self.seen: dict[str, Any] = {}
        self.reader: Reader
        folder.mkdir()
        self.profile.profile.mkdir()
        # A speed of this computer's memory is known already: what is recommended does not hang on
        # how busy the machine of the tests is.
        speeds = SpeedBook(self.profile.profile / "speed.json")
        for _ in range(3):
            speeds.record_memory_speed(28e9)
        settings = {"language": "en"}
        (self.profile.profile / "settings.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """As a user does."""
        self.reader = Reader(self.env, self.profile.command())

    def get(self) -> None:
        """The first start's second way: the recommended weights."""
        way = self.reader.click("first.get", "tokens/s")
        self.seen["recommended"] = way.description

    def line(self, *words: str) -> str:
        """The download's line on the page, once it says all these words."""
        return self.reader.see("weights.downloading.1", *words).name

    def percent(self) -> int:
        """How far the download is, as its line says."""
        found = re.search(r"(\d+)%", self.line())
        return int(found[1]) if found else 0

    def load_and_talk(self) -> None:
        """From the notice to a reply."""
        self.reader.click("toast.action", "Load now")
        self.reader.see("weights.card", "ready")
        self.reader.type("Good morning")
        self.reader.press("Return")
        self.seen["clicks"] = self.reader.clicks
        # The second message is the reply; its name begins with who wrote it.
        self.seen["reply"] = self.reader.see("message.2").name

    def end(self) -> None:
        """As a user does; then the library is asked what has become of it."""
        self.seen["status"] = self.reader.close()
        file = self.profile.profile.parent / "chats.json"
        self.profile("export", "--all", "-o", file).ok()
        chat = json.loads(file.read_text(encoding="utf-8"))["chats"][0]
        self.seen["roles"] = [message["role"] for message in chat["messages"]]
        self.seen["arrived"] = [
            path.stat().st_size for path in (self.profile.profile / "weights").rglob("*.gguf")
        ]


def smooth(journey: Journey) -> None:
    """Nothing goes wrong."""
    journey.start()
    journey.get()
    journey.load_and_talk()
    journey.end()


def rough(journey: Journey) -> None:
    """Killed, resumed, paused, resumed, disconnected."""
    hub, seen = journey.hub, journey.seen
    hub.rate = SLOW_BYTES_PER_S
    journey.start()
    journey.get()
    seen["killed_at"] = journey.reader.wait("a tenth", lambda: _over(journey.percent(), 10))
    journey.reader.kill()
    journey.start()
    reader = journey.reader
    reader.click("sidebar.connections", "1 paused")
    seen["kept"] = journey.percent()
    reader.click("weights.resume.1")
    reader.wait("more of it", lambda: _over(journey.percent(), seen["kept"]))
    reader.click("weights.pause.1")
    journey.line("paused")
    seen["paused_at"] = journey.percent()
    hub.plan.extend([Fault("reset", 100_000), Fault("close", 50_000), Fault("503")])
    hub.rate = 0
    reader.click("weights.resume.1")
    journey.load_and_talk()
    seen["faults_left"] = len(hub.plan)
    journey.end()


def _over(value: int, limit: int) -> int:
    return value if value > limit else 0


PARTS: dict[str, Callable[[Journey], None]] = {"smooth": smooth, "rough": rough}


def run(parts: list[str]) -> dict[str, dict[str, Any]]:
    """The journeys on one display; what was seen on each."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder)
        for part in parts:
            with FakeHub(folder / "hub") as hub, screen(folder) as env:
                began = time.monotonic()
                journey = Journey(folder / part, env, hub)
                try:
                    PARTS[part](journey)
                finally:
                    if hasattr(journey, "reader") and journey.reader.grove.poll() is None:
                        journey.reader.close()
                journey.seen["seconds"] = round(time.monotonic() - began, 1)
                journey.seen["sent"] = sum(r.sent for r in hub.log if r.origin == "files")
                found[part] = journey.seen
    return found


def main() -> int:
    """Run inside a session bus of its own, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        return run_inside("tests.system.weights_journey", *sys.argv[1:])
    print(json.dumps(run(options.part or ["smooth", "rough"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
