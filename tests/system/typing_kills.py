"""The engine is killed again and again while a person types: the window lives, no key is lost.

    python -m tests.system.typing_kills [--seed N] [--n N] [--json]

A real window (off screen, or on the display of QT_QPA_PLATFORM), a real library and the real
engine child with tiny random weights.  Each round asks for a reply, kills the child at a random
moment (while it starts, reads, writes) with SIGKILL and types all the while; keys are key events
to the composer.  Prints the kills, the keys typed and those lost; exit status 1 when any was.
A death of the window ends this process, which the caller sees.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import psutil
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from desktop_app import app
from desktop_app.conversation import Conversation
from desktop_app.inference.engine import Engine
from desktop_app.paths import Profile
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.storage import Library
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.window import MainWindow
from tests.fakes import tiny_gguf

PATIENCE_S = 60.0
LATEST_KILL_S = 0.25
KEYS = string.ascii_lowercase + string.digits + " "


@dataclass
class Told:
    """What a run found."""

    seed: int
    kills: int = 0
    keys: int = 0
    lost: int = 0
    replies: int = 0
    slowest_key_ms: float = 0.0


class Typist:
    """A window, a person at its composer and somebody who kills its engine."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.told = Told(seed)
        self.typed = ""
        self.qt = app.make_application()
        profile = Profile(folder / "profile")
        profile.create()
        settings = Settings.load(profile)
        settings.language = "en"
        settings.weights_path = str(tiny_gguf.write(folder / "Tiny.gguf"))
        self.ring = app.dress(self.qt, settings)
        self.bridge = Bridge()
        self.library = Library.open(profile, post=self.bridge.post)
        self.engine = Engine(log_dir=profile.logs)
        self.session = Session(
            self.library, self.engine, settings, self.bridge.post, profile=profile, later=app.later
        )
        self.window = MainWindow(self.session, self.bridge)
        self.window.show()
        self.window.begin()
        self.field = self.window.page.composer.text

    def wait(self, what: str, done: Callable[[], object], *, typing: bool = False) -> None:
        """Run the loop until `done`, typing all the while where asked."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, f"waited for {what} in vain"
            if typing:
                self.type_key()
            self.qt.processEvents()
            time.sleep(0.002)

    def type_key(self) -> None:
        """One key into the composer."""
        key = self.rng.choice(KEYS)
        started = time.perf_counter()
        QTest.keyClicks(self.field, key)
        took_ms = (time.perf_counter() - started) * 1000
        self.told.slowest_key_ms = max(self.told.slowest_key_ms, took_ms)
        self.typed += key
        self.told.keys += 1

    def kill(self) -> bool:
        """SIGKILL to the engine child; False where none runs."""
        pid = self.engine.child_pid
        if pid is None:
            return False
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            return False
        self.told.kills += 1
        return True

    def begin(self) -> None:
        """A chat with one prompt, which every round asks again."""
        self.wait("the weights", lambda: self.engine.loaded is not None)
        QTest.keyClicks(self.field, "Tell me everything")
        QTest.keyClick(self.field, Qt.Key.Key_Return)
        self.wait("the chat", lambda: self.window.page.conversation)
        # It may be over by now: small weights write quickly.
        self.wait("the reply", lambda: len(self.conversation.path()) == 2)
        self.field.setFocus()

    @property
    def conversation(self) -> Conversation:
        """The open chat."""
        conversation = self.window.page.conversation
        assert conversation is not None
        return conversation

    def keep_asking(self) -> bool:
        """Ask again if nothing is being written: only a request starts an engine that died."""
        if not self.session.writing():
            self.window.verbs.ask_again_last()
            self.told.replies += 1
        return False

    def round(self) -> None:
        """Ask again if nothing is being written, then kill at a random moment while typing."""
        moment = time.monotonic() + self.rng.uniform(0, LATEST_KILL_S)
        self.keep_asking()
        self.wait("the moment", lambda: time.monotonic() >= moment, typing=True)
        self.wait("a child to kill", lambda: self.kill() or self.keep_asking(), typing=True)
        self.wait("the end of the reply", lambda: not self.session.writing(), typing=True)
        shown = self.field.toPlainText()
        if shown != self.typed:
            self.told.lost += max(1, abs(len(self.typed) - len(shown)))
        assert self.window.isVisible()
        self.field.clear()  # a person would not write one line for an hour
        self.typed = ""

    def close(self) -> None:
        """As `app.main` at the end."""
        self.session.stop_all()
        self.window.close()
        self.session.close()
        self.library.close()
        self.bridge.close()
        self.window.deleteLater()
        QApplication.processEvents()


def run(seed: int, count: int) -> Told:
    """`count` kills; the counts."""
    with tempfile.TemporaryDirectory() as folder:
        typist = Typist(Path(folder), seed)
        try:
            typist.begin()
            while typist.told.kills < count:
                typist.round()
        finally:
            typist.close()
        return typist.told


def main() -> int:
    """Print what was found; 1 when a key was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told = run(options.seed, options.n)
    if options.json:
        print(json.dumps(asdict(told)))
    else:
        print(
            f"{told.kills} kills, {told.keys} keys typed, {told.lost} lost, "
            f"slowest key {told.slowest_key_ms:.0f} ms (seed {told.seed})"
        )
    return 1 if told.lost else 0


if __name__ == "__main__":
    sys.exit(main())
