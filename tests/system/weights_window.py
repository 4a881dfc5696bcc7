"""The window as a process that works itself by identifiers, for the journey to the first weights.

    python -m tests.system.weights_window PROFILE begin|finish

`begin`: first start, the recommended weights, waits while they arrive (to be killed).
`finish`: the next start: resume, pause, resume, wait, load, say something.  Each prints lines of
JSON.  The hub is the one that HF_ENDPOINT names; the engine is the real one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget

from desktop_app import app
from desktop_app.inference.engine import Engine
from desktop_app.paths import Profile
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.storage import Library
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.window import MainWindow
from desktop_app.weights.fit import Machine, SpeedBook

PATIENCE_S = 60.0


class Hand:
    """One window, worked by the identifiers of its controls; counts its clicks."""

    def __init__(self, profile: Path) -> None:
        self.qt = app.make_application()
        self.profile = Profile(profile)
        self.profile.create()
        self.settings = Settings.load(self.profile)
        self.settings.language = "en"
        self.ring = app.dress(self.qt, self.settings)
        self.bridge = Bridge()
        self.library = Library.open(self.profile, post=self.bridge.post)
        self.engine = Engine(log_dir=self.profile.logs)
        self.session = Session(
            self.library,
            self.engine,
            self.settings,
            self.bridge.post,
            profile=self.profile,
            later=app.later,
        )
        self.window = MainWindow(self.session, self.bridge)
        self.window.resize(1280, 820)  # the off-screen platform has a small screen
        self.window.show()
        self.window.begin()
        self.clicks = 0

    def wait(self, what: str, done: Callable[[], object]) -> None:
        """Run the loop until `done`."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, f"waited for {what} in vain"
            self.qt.processEvents()
            time.sleep(0.01)

    def control(self, identifier: str) -> QWidget | None:
        """The visible control with this identifier."""
        found = self.window.findChildren(QWidget, identifier)
        return next((widget for widget in found if widget.isVisible()), None)

    def click(self, identifier: str) -> None:
        """Wait for a control and click it."""
        self.wait(identifier, lambda: self.control(identifier))
        control = self.control(identifier)
        assert control is not None
        QTest.mouseClick(control, Qt.MouseButton.LeftButton)
        self.clicks += 1

    def close(self) -> None:
        """As `app.main` at the end."""
        self.window.close()
        self.session.close()
        self.library.close()
        self.bridge.close()
        QApplication.processEvents()


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def begin(hand: Hand) -> None:
    """First start to the middle of the download."""
    store = hand.window.hub.store
    hand.wait("a recommendation", lambda: hand.control("first.get") and store.recommended())
    found = store.recommended()
    assert found is not None
    tell(repository=found.entry.repository, label=found.choice.label)
    sys.stdin.readline()  # the hub has it now
    hand.click("first.get")
    hand.wait("bytes", lambda: store.downloads and store.downloads[0].done_bytes > 200_000)
    tell(arriving=store.downloads[0].done_bytes, clicks=hand.clicks)
    hand.wait("being killed", lambda: False)


def finish(hand: Hand) -> None:
    """From the kept part to a reply."""
    store = hand.window.hub.store
    line = hand.control("sidebar.connections")
    assert line is not None
    hand.wait("the unfinished download", lambda: "1 paused" in line.accessibleName())
    kept = store.downloads[0].done_bytes
    number = store.downloads[0].id
    hand.click("sidebar.connections")
    hand.click(f"weights.resume.{number}")
    hand.wait("more bytes", lambda: store.downloads[0].done_bytes > kept)
    hand.click(f"weights.pause.{number}")
    hand.wait("the pause", lambda: store.downloads[0].state == "paused")
    tell(paused=store.downloads[0].done_bytes, kept=kept)
    sys.stdin.readline()  # the hub breaks connections from now on
    hand.click(f"weights.resume.{number}")
    toast = hand.window.page.toast
    hand.wait("the end", lambda: toast.text.endswith("is ready"))
    hand.click("toast.action")
    wanted = Path(store.downloads[0].path)

    def is_loaded() -> bool:
        loaded = hand.engine.loaded
        return loaded is not None and Path(loaded.path) == wanted

    hand.wait("the weights in memory", is_loaded)
    text = hand.window.page.composer.text
    QTest.keyClicks(text, "Good morning")
    QTest.keyClick(text, Qt.Key.Key_Return)
    page = hand.window.page
    hand.wait("a reply", lambda: page.conversation and page.conversation.path())
    chat = page.conversation
    assert chat is not None
    # Random weights know no end: some words are enough.
    hand.wait("words", lambda: chat.tree.text(chat.path()[-1]).strip())
    hand.session.stop_all()
    hand.wait("its end", lambda: not hand.session.writing() and not chat.streaming_ids)
    reply = chat.tree.node(chat.path()[-1])
    tell(author=reply.author, state=reply.state.value, bytes=wanted.stat().st_size)


def main() -> int:
    profile, part = Path(sys.argv[1]), sys.argv[2]
    # Which weights are recommended must not hang on how busy the machine of the tests is.
    machine = Machine(64 * 10**9, 60 * 10**9, 8, 500 * 10**9)
    Machine.here = classmethod(lambda *_a, **_k: machine)  # type: ignore[method-assign, assignment]  # for the whole process
    speeds = SpeedBook(profile / "speed.json")
    for _ in range(3):
        speeds.record_memory_speed(28e9)
    hand = Hand(profile)
    {"begin": begin, "finish": finish}[part](hand)
    hand.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
