"""Takes the pictures of the window: `python -m tests.ui.screenshots --out DIR [--only NAME …]`.

Main window, empty state, settings, failure, trash, in light and dark, at one and two pixels a
point, off screen.  Every picture is taken of a real window on a profile made for it, with a real
library and session; only the engine's words are given.  One process for each pixel ratio, because
Qt reads it once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PySide6.QtWidgets import QApplication, QWidget

from desktop_app import app
from desktop_app.conversation import Conversation, State, text_parts
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import LoadedWeights
from desktop_app.paths import Profile
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.storage import Library
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.settings_window import SettingsWindow
from desktop_app.ui.trash import TrashWindow
from desktop_app.ui.window import MainWindow
from desktop_app.weights.downloads import Download
from desktop_app.weights.fit import Machine, SpeedBook
from desktop_app.weights.places import System
from desktop_app.weights.room import WeightsRoom
from desktop_app.weights.shelf import Entry
from desktop_app.weights.tokens import Tokens

SCENES = ("main", "drafts", "empty", "settings", "failure", "trash", "weights", "first")
LOOKS = ("light", "dark")
SIZE = (1280, 820)

REPLY = """Over 25 years you pay **€188 less each month**, but €30,061 more in interest. With the \
amount $P$, the monthly rate $r$ and $n$ payments:

$$M = \\frac{P r}{1 - (1 + r)^{-n}}$$

| Term | Each month | Interest in all |
|---|--:|--:|
| 20 years | €1,441.74 | €106,017 |
| 25 years | €1,253.59 | €136,078 |
"""
CODE = """This works for any rate above zero:

```python
def monthly(amount, rate, years):
    n, r = years * 12, rate / 12      # rate is yearly, 0.039
    return amount * r / (1 - (1 + r) ** -n)
```

Call `monthly(240_000, 0.039, 25)` and you should get 1,253.59."""

NAMES = (
    "**Steady at twenty**: a higher rate each month, and €30,061 less interest in all.",
    "**Room to breathe**: 25 years, €188 less a month, and an option to repay early.",
    "**Twenty, with a way out**: the short term now, and a longer one if rates fall.",
)


def main() -> int:
    """Take the pictures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(SCENES), choices=SCENES)
    parser.add_argument("--ratio", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.ratio:
        take_all(options.out, options.only, options.ratio)
        return 0
    for ratio in (1, 2):
        environment = {
            **os.environ,
            "QT_QPA_PLATFORM": "offscreen",
            "QT_SCALE_FACTOR": str(ratio),
        }
        command = [sys.executable, "-m", "tests.ui.screenshots", "--out", str(options.out)]
        command += ["--ratio", str(ratio), "--only", *options.only]
        subprocess.run(command, env=environment, check=True)
    return 0


def take_all(out: Path, scenes: list[str], ratio: int) -> None:
    """Every scene in both looks, at the ratio that this process runs with."""
    app.make_application()
    for look in LOOKS:
        for scene in scenes:
            with tempfile.TemporaryDirectory() as folder:
                picture = out / f"{scene}-{look}-{ratio}x.png"
                Stage(Path(folder), look).take(scene, picture)
                print(picture)


class Stage:
    """A window with a chat in it."""

    def __init__(self, root: Path, look: str) -> None:
        qt = QApplication.instance()
        assert isinstance(qt, QApplication)
        self.qt = qt
        self.profile = Profile(root / "profile")
        self.profile.create()
        weights = root / "Llama-3.2-3B-Instruct-Q4_K_M.gguf"
        weights.touch()
        values = {"theme": look, "language": "en", "weights_path": str(weights), "offline": True}
        self.settings = Settings(self.profile.settings_file, values)
        self.ring = app.dress(qt, self.settings)
        self.bridge = Bridge()
        self.library = Library.open(self.profile, post=self.bridge.post)
        self.engine = Engine()
        self.engine.loaded = loaded_weights(str(weights))
        self.session = Session(
            self.library,
            self.engine,
            self.settings,
            self.bridge.post,
            profile=self.profile,
            later=app.later,
        )
        self.chat: Conversation | None = None
        self.window = MainWindow(self.session, self.bridge)
        self.window.resize(*SIZE)

    def take(self, scene: str, picture: Path) -> None:
        """Set the scene, save the picture, take everything down."""
        self.window.show()
        self.spin()
        self.window.begin()
        self.make_chats()
        target = {
            "main": self.main,
            "drafts": self.drafts,
            "empty": self.empty,
            "settings": self.settings_window,
            "failure": self.failure,
            "trash": self.trash,
            "weights": self.weights,
            "first": self.first,
        }[scene]()
        self.spin(0.5)
        target.grab().save(str(picture))
        self.close()

    def spin(self, seconds: float = 0.15) -> None:
        """Run the loop for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.qt.processEvents()
            time.sleep(0.005)

    def wait(self, done: Callable[[], bool]) -> None:
        """Run the loop until `done`, for ten seconds at most."""
        end = time.monotonic() + 10
        while not done():
            assert time.monotonic() < end, "the scene did not come about"
            self.qt.processEvents()
            time.sleep(0.005)

    def make_chats(self) -> None:
        """Some chats for the sidebar, the last of them with versions and a code block."""
        titles = (
            ("Bike route along the river", False),
            ("Why is my backup slow", False),
            ("제주도 3박 4일 일정", False),
            ("Sourdough timetable", False),
            ("Regex for invoice numbers", False),
            ("Thesis: street trees and heat", True),
            ("Weekly plan", True),
        )
        for title, pinned in titles:
            chat = self.session.new_chat(title)
            self.wait(chat.done)
            self.say(chat.result(), title, "Gladly.")
            chat.result().saved().result()
            if pinned:
                self.library.pin(chat.result().chat.id, True).result()
        made = self.session.new_chat("Loan over 20 or 25 years")
        self.wait(made.done)
        chat_ = self.chat = made.result()
        _, starred = self.say(chat_, "We want to buy a flat. Fixed or variable rate?", "Fixed.")
        chat_.star(starred, True)
        prompt, _ = self.say(chat_, "Compare 15 and 20 years", "At 15 years you pay more.")
        self.say(chat_, "And if rates rise to 6%?", "Then the term matters more.")
        asked = "I’d borrow €240,000 at 3.9%. Compare 20 and 25 years, with the formula."
        _, reply = chat_.save_and_ask_again(prompt, asked, author="Llama 3.2 3B")
        self.end(reply, REPLY)
        for other in chat_.ask_again(reply, author="Llama 3.2 3B", drafts=2):
            self.end(other, "A shorter answer.")
        chat_.choose_version(reply)

    def say(self, chat: Conversation, prompt: str, reply: str) -> tuple[int, int]:
        """A prompt with its whole reply."""
        asked, answered = chat.send(prompt, author="Llama 3.2 3B")[:2]
        chat.finish_stream(answered, State.DONE, text_parts(reply), finish="stop")
        return asked, answered

    def end(self, reply: int, text: str) -> None:
        """Give a reply its words."""
        assert self.chat is not None
        self.chat.finish_stream(reply, State.DONE, text_parts(text), finish="stop")

    # ---- scenes: each returns the widget to take -------------------------------------------------

    def show_chat(self) -> None:
        assert self.chat is not None
        self.window.reload_chats()
        self.window.page.show_conversation(self.chat)
        self.wait(lambda: self.window.page.transcript.position()[0] > 0)
        self.spin(0.3)

    def main(self) -> QWidget:
        assert self.chat is not None
        self.say(self.chat, "Write it as a Python function, so I can try other rates.", CODE)
        self.show_chat()
        self.window.page.transcript.scroll_to_end()
        return self.window

    def drafts(self) -> QWidget:
        assert self.chat is not None
        _, first = self.say(self.chat, "Name the plan in one line.", NAMES[0])
        ids = [first, *self.chat.ask_again(first, author="Llama 3.2 3B", drafts=2)]
        for reply, name in zip(ids[1:], NAMES[1:], strict=True):
            self.end(reply, name)
        self.chat.choose_version(first)
        self.show_chat()
        self.window.page.drafts.compare(ids)
        self.show_chat()
        self.window.page.transcript.scroll_to_end()
        return self.window

    def empty(self) -> QWidget:
        self.window.reload_chats()
        self.window.new_chat()
        return self.window

    def settings_window(self) -> QWidget:
        window = SettingsWindow(self.window, self.session)
        window.show()
        return window

    def failure(self) -> QWidget:
        assert self.chat is not None
        _, reply = self.chat.send("And over 30 years?", author="Llama 3.2 3B")
        self.chat.stream_text(reply, text_parts("Over 30 years you pay"))
        error = KnownError(
            "engine-memory", "Memory ran out while this was written. Use a smaller context."
        )
        self.chat.finish_stream(reply, State.FAILED, None, finish="error", failure=error)
        self.chat.edit_in_place(self.chat.path()[2], "I’d borrow €250,000 at 3.9%.")
        self.show_chat()
        self.window.page.transcript.scroll_to_end()
        return self.window

    def trash(self) -> QWidget:
        assert self.chat is not None
        self.chat.remove(self.chat.path()[2])
        self.chat.saved().result()
        for chat in self.library.chats().result()[3:5]:
            self.library.delete_chat(chat.id).result()
        window = TrashWindow(self.window, self.session, self.bridge)
        window.show()
        self.wait(lambda: window.list.count() == 3)
        window.list.setCurrentRow(1)
        return window

    def weights(self) -> QWidget:
        self.open_room()
        store = self.window.hub.store
        self.window.hub.show_page()
        self.spin(0.2)
        own = self.profile.weights / "Qwen" / "Qwen2.5-0.5B-Instruct-GGUF"
        store.entries = [
            Entry(own / "qwen.gguf", "own", "Qwen2.5 0.5B Instruct", 491_000_000, "ready"),
            Entry(Path("/drive/c.gguf"), "file", "CodeLlama 13B", 7_870_000_000, "away"),
        ]
        store.downloads = (
            Download(
                id=1,
                title="Llama-2-7B-Chat",
                repository="TheBloke/Llama-2-7B-Chat-GGUF",
                revision="main",
                label="Q4_K_M",
                files=(),
                state="running",
                done_bytes=2_540_000_000,
                total_bytes=4_080_000_000,
                speed_bytes_per_s=8_400_000,
                left_s=183,
            ),
        )
        store.connections_changed.emit()
        store.changed.emit()
        return self.window

    def first(self) -> QWidget:
        self.open_room()
        self.window.hub.show_first_run()
        self.window.hub.store.changed.emit()
        return self.window

    def open_room(self) -> None:
        """A weights room that sees nothing of this computer."""
        self.settings.offline = False
        self.window.hub.make_room = self.make_room
        store = self.window.hub.store
        store.start()
        self.wait(lambda: bool(store.looked and store.suggestions))

    def make_room(self) -> WeightsRoom:
        """One that judges for a computer of our own choice, not for the one that takes pictures."""
        system = System(home=self.profile.root, environment={})
        room = WeightsRoom(self.profile.root, system=system, tokens=Tokens(use_keyring=False))
        # What the loaded weights hold counts as free.
        machine = Machine(16_000_000_000, 8_600_000_000, 8, 41_000_000_000)
        room.machine = lambda devices=(): machine  # type: ignore[method-assign]  # noqa: ARG005  # see above
        room.measure_speed_once = lambda: None  # type: ignore[method-assign]  # as above
        room.speeds = SpeedBook()
        room.speeds.record_memory_speed(28e9)
        return room

    def close(self) -> None:
        """Take the window and everything behind it down."""
        self.window.hub.close()
        self.session.close()
        self.library.close()
        self.bridge.close()
        self.window.close()
        self.window.deleteLater()
        self.ring.deleteLater()
        self.spin(0.05)


def loaded_weights(path: str) -> LoadedWeights:
    """The facts of weights that are not really there."""
    return LoadedWeights(
        path=path,
        name="Llama 3.2 3B",
        architecture="llama",
        description="",
        quantisation="Q4_K_M",
        hash="0" * 64,
        size_bytes=2_020_000_000,
        memory_bytes=2_600_000_000,
        parameters=3_210_000_000,
        context_length=8192,
        trained_context=131072,
        vocabulary=128256,
        has_template=True,
        template_family="llama3",
        threads=4,
        gpu_layers=0,
        offload_reason="",
        kv_type="f16",
        flash_attention=True,
        can_roll_back=True,
        sequences=8,
        kv_bytes_per_token=112_000,
        engine="",
    )


if __name__ == "__main__":
    sys.exit(main())
