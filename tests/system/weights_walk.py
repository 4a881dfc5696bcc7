"""Walks the weights page as a screen reader and a keyboard do, in every state it has.

    python -m tests.system.weights_walk [--json]

First the first start's page, then the weights page: its suggestions, a search with an open
repository and an open file, a queue of downloads, gated weights with their field for a token,
offline.  In each state everything that takes the focus must have a name and an identifier of its
own, and the Tab key must come to it; what the state is for is then done with the keyboard alone.
Prints how many controls there were; exit status 1 when one had no name or could not be reached, 2
where a program is missing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fakes import tiny_gguf
from tests.fakes.hub import FakeHub
from tests.system.grove import Grove
from tests.system.reader import Control, Reader, screen, walk_main

OPEN, GATED = "tester/Tiny-Llama-GGUF", "tester/Gated-Llama-GGUF"
# Tab never takes more presses than this to come round.
MOST_TABS = 90
# The walk's own controls; the rest of the window has a walk of its own.
ROOMS = ("weights.", "connections.", "first.")


def fill(folder: Path) -> None:
    """Two repositories, one of them with two files of the same quantisation."""
    for name, files in ((OPEN, ("a-Q8_0", "b-Q4_K_M", "c-Q4_K_M")), (GATED, ("d-Q4_K_M",))):
        home = folder / "hub" / name
        home.mkdir(parents=True)
        for file in files:
            path = tiny_gguf.write(home / f"{file}.gguf")
            with path.open("ab") as out:
                out.truncate(2_000_000)


class Walk:
    """One window, and what was found in each state."""

    def __init__(self, folder: Path, env: dict[str, str], hub: FakeHub) -> None:
        self.hub = hub
        self.found: dict[str, int] = {}
        self.bad: list[tuple[str, str, str, str]] = []
        profile = Grove(folder / "profile")
        profile.profile.mkdir()
        (profile.profile / "settings.json").write_text('{"language": "en"}', encoding="utf-8")
        (profile.profile / "weights").mkdir()
        tiny_gguf.write(profile.profile / "weights" / "Own-Q8_0.gguf")
        self.reader = Reader({**env, "HF_ENDPOINT": hub.url}, profile.command())

    def check(self, state: str) -> None:
        """Every control of the page: named, and reached by Tab from where the focus is."""
        told = [c for c in self.reader.controls() if c.id.startswith(ROOMS)]
        self.found[state] = len(told)
        for control in told:
            if not control.name.strip():
                self.bad.append((state, "no name", control.role, control.id))
        for identifier, count in Counter(c.id for c in told).items():
            if count > 1:
                self.bad.append((state, "not its own", str(count), identifier))
        wanted = {c.id for c in told if c.enabled and c.role not in ("scroll pane", "scroll bar")}
        reached: set[str] = set()
        for _ in range(MOST_TABS):
            here = self.reader.focus()
            if here is not None:
                reached.add(here.id)
            if wanted <= reached:
                break
            self._tab(here)
        self.bad += [(state, "Tab never comes", "", one) for one in sorted(wanted - reached)]

    def _tab(self, here: Control | None) -> None:
        """The key, and the focus on its way to the next control."""
        self.reader.press("Tab")
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            now = self.reader.focus()
            if now is not None and (here is None or now.id != here.id):
                return

    def go(self, identifier: str) -> None:
        """Tab until the focus is there."""
        for _ in range(MOST_TABS):
            here = self.reader.focus()
            if here is not None and here.id == identifier:
                return
            self._tab(here)
        raise AssertionError(f"Tab does not come to {identifier}")

    def use(self, identifier: str, *keys: str) -> None:
        """Go there and press a key: Space where none is given."""
        self.reader.see(identifier)
        self.go(identifier)
        self.reader.press(*(keys or ("space",)))


def walk(one: Walk) -> None:
    """From state to state, by keyboard."""
    reader, hub = one.reader, one.hub
    reader.see("first.file")
    reader.activate("first")
    one.check("first start")
    one.use("first.get")
    reader.see("weights.search")
    reader.see("weights.all")
    one.check("suggestions")

    one.use("weights.search", "ctrl+a")
    reader.type("tiny")
    one.use(f"weights.result.{OPEN}", "Return")
    reader.see(f"weights.file.{OPEN}.b-Q4_K_M.gguf")
    one.use(f"weights.file.{OPEN}.b-Q4_K_M.gguf", "Return")
    reader.see(f"weights.details.{OPEN}.b-Q4_K_M.gguf", "layers")
    one.check("an open file")
    one.use(f"weights.context.{OPEN}.b-Q4_K_M.gguf")
    reader.press("Down", "Down", "Return")
    reader.see(f"weights.context.{OPEN}.b-Q4_K_M.gguf", "2,048 tokens")

    hub.rate = 20_000
    for file in ("Q8_0", "b-Q4_K_M.gguf", "c-Q4_K_M.gguf"):
        one.use(f"weights.get.{OPEN}.{file}")
    reader.see("weights.downloading.3")
    one.use("weights.earlier.3", "alt+Up")
    one.check("a queue")
    one.use("weights.cancel.1")
    one.use("weights.cancel.2")
    one.use("weights.cancel.3")

    one.use("weights.search", "ctrl+a")
    reader.type("gated")
    one.use(f"weights.result.{GATED}", "Return")
    reader.see("weights.token")
    one.check("gated weights")
    one.use("weights.token", "ctrl+a")
    reader.type("hf_right")
    reader.press("Return")
    reader.see("weights.token_state", "The token is right")

    one.use("connections.offline")
    reader.see("weights.note_offline")
    one.check("offline")
    one.use("weights.go_online")
    reader.wait("the hub again", lambda: reader.look(f"weights.result.{GATED}"))


def run() -> dict[str, Any]:
    """The walk on a display of its own: controls in each state, and those that fail."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder)
        with FakeHub(folder / "hub") as hub, screen(folder) as env:
            hub.gated = {GATED}
            one = Walk(folder, env, hub)
            try:
                walk(one)
            finally:
                status = one.reader.close()
    return {"controls": one.found, "failing": one.bad, "status": status}


if __name__ == "__main__":
    sys.exit(walk_main("tests.system.weights_walk", __doc__, run))
