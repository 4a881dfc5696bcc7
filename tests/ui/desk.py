"""A whole window on a profile of its own, for tests: real library, real session, real child."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from desktop_app.app import later
from desktop_app.conversation import Conversation, Role
from desktop_app.inference.engine import Engine
from desktop_app.paths import Profile
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.storage import Library
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.window import MainWindow
from desktop_app.weights.places import System
from desktop_app.weights.room import WeightsRoom
from desktop_app.weights.tokens import Tokens
from tests.fakes import tiny_gguf
from tests.fakes.hub import FakeHub

W = TypeVar("W", bound=QWidget)
FAKE_ENGINE = (sys.executable, str(Path(__file__).parents[1] / "fakes" / "engine_child.py"))


class Desk:
    """Builds what `app.main` builds, without the process around it; `close` takes it down."""

    def __init__(
        self,
        qtbot: QtBot,
        root: Path,
        *,
        engine: Sequence[str] | None = FAKE_ENGINE,
        **settings: object,
    ) -> None:
        """`engine` None is the real child, with llama.cpp."""
        self.qtbot = qtbot
        self.closed = False
        self.profile = Profile(root)
        self.profile.create()
        self.settings = Settings.load(self.profile)
        for key, value in settings.items():
            setattr(self.settings, key, value)
        self.bridge = Bridge()
        self.library = Library.open(self.profile, post=self.bridge.post)
        self.engine = Engine(command=engine, log_dir=self.profile.logs)
        self.session = Session(
            self.library,
            self.engine,
            self.settings,
            self.bridge.post,
            profile=self.profile,
            later=later,
        )
        self.window = MainWindow(self.session, self.bridge)
        self.window.resize(1280, 820)
        self.window.show()
        qtbot.waitExposed(self.window)
        self.window.begin()

    @staticmethod
    def weights(folder: Path, name: str = "Tiny.gguf") -> Path:
        """A weights file that passes the check before loading."""
        folder.mkdir(parents=True, exist_ok=True)
        return tiny_gguf.write(folder / name)

    def close(self) -> None:
        """As `app.main` at the end."""
        self.closed = True
        self.window.keep_state()
        self.session.close()
        self.library.close()
        self.bridge.close()
        self.window.close()
        self.window.deleteLater()
        QApplication.processEvents()

    # ---- looking -----------------------------------------------------------------------------

    @property
    def chat(self) -> Conversation:
        """The open conversation."""
        conversation = self.window.page.conversation
        assert conversation is not None
        return conversation

    def texts(self) -> list[tuple[str, str]]:
        """Role and text of the open path."""
        tree = self.chat.tree
        return [(tree.node(i).role.value, tree.text(i).strip()) for i in self.chat.path()]

    def last(self, role: Role = Role.ASSISTANT) -> int:
        """The last message of a role on the open path."""
        return next(i for i in reversed(self.chat.path()) if self.chat.tree.node(i).role is role)

    def find(self, kind: type[W], identifier: str) -> W:
        """The control with this identifier."""
        found = self.window.findChild(kind, identifier)
        assert isinstance(found, kind), identifier
        return found

    # ---- acting ------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool]) -> None:
        """Run the loop until `condition` holds."""
        self.qtbot.waitUntil(condition, timeout=15_000)

    def say(self, text: str, *, wait: bool = True) -> None:
        """Type a message and press Enter; wait until its reply has ended."""
        composer = self.window.page.composer
        composer.text.setFocus()
        composer.text.insertPlainText(text)
        QTest.keyClick(composer.text, Qt.Key.Key_Return)
        self.wait(lambda: not composer.text.toPlainText())
        self.wait(lambda: bool(self.window.page.conversation))
        if wait:
            self.wait_quiet()

    def wait_quiet(self) -> None:
        """Wait until nothing is being written in the open chat."""
        self.wait(
            lambda: not self.session.writing(self.chat.chat.id) and not self.chat.streaming_ids
        )


# Opens a window on one profile, again after it was closed.
Open = Callable[[], Desk]


def room_of(desk: Desk, hub: FakeHub) -> WeightsRoom:
    """What runs well must not hang on how busy the machine of the tests is: its speed is known."""
    made = WeightsRoom(
        desk.profile.root,
        hub_url=hub.url,
        offline=desk.settings.offline,
        system=System(home=desk.profile.root / "home", environment={}),
        tokens=Tokens(use_keyring=False),
    )
    for _ in range(3):
        made.speeds.record_memory_speed(28e9)
    return made


@contextmanager
def opener(make: Callable[[], Desk]) -> Iterator[Open]:
    """Opens a window again and again, with its weights loaded; the last is closed at the end."""
    opened: list[Desk] = []

    def start() -> Desk:
        desk = make()
        opened.append(desk)
        desk.wait(lambda: desk.engine.loaded is not None)
        return desk

    yield start
    for desk in opened:
        if not desk.closed:
            desk.close()
