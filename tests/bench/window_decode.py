"""Decode speed with the window open and its transcript on screen, against the engine alone.

One engine with one set of weights serves both sides of a pair: a reply that streams into the
window, and one that nobody shows.  Both speeds are the child's own, tokens per second over the
written tokens.  Off screen by default (QT_QPA_PLATFORM), where Qt paints every frame in software.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.engine import ONE_BILLION, PROMPT, WAIT_S
from tests.bench.pairs import Figure, alternate
from tests.fakes import hub_files

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

WRITTEN = 64


class Shown:
    """A window with a real session and engine, driven without a person."""

    def __init__(self, root: Path, weights: Path, threads: int) -> None:
        # Here, so that listing the benchmarks needs no Qt.
        from PySide6.QtWidgets import QApplication

        from desktop_app import app
        from desktop_app.inference.engine import Engine
        from desktop_app.paths import Profile
        from desktop_app.session import Session
        from desktop_app.settings import Settings
        from desktop_app.storage import Library
        from desktop_app.ui.bridge import Bridge
        from desktop_app.ui.window import MainWindow

        self.application = QApplication.instance() or app.make_application()
        profile = Profile(root)
        profile.create()
        settings = Settings.load(profile)
        settings.threads = threads
        settings.context_length = 2048
        assert isinstance(self.application, QApplication)
        app.dress(self.application, settings)
        self.bridge = Bridge()
        self.library = Library.open(profile, post=self.bridge.post)
        self.engine = Engine(log_dir=profile.logs)
        self.session = Session(
            self.library, self.engine, settings, self.bridge.post, profile=profile, later=app.later
        )
        self.window = MainWindow(self.session, self.bridge)
        self.window.resize(1280, 820)
        self.window.show()
        self.window.begin()
        self.window.new_chat()
        loading = self.session.load_weights(weights)
        self.wait(loading.done)
        loading.result()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Run Qt's loop until `condition` holds."""
        from PySide6.QtTest import QTest

        until = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError("the window did not get there")
            # Sleeps between events: a loop that spins would take a core from the engine.
            QTest.qWait(20)

    def in_window(self) -> float:
        """Tokens per second of a reply that streams into the transcript."""
        from desktop_app.conversation import State
        from desktop_app.inference.sampling import Sampling

        if self.window.page.conversation is None:
            opened = self.session.new_chat()
            self.wait(opened.done)
            self.window.page.show_conversation(opened.result())
        conversation = self.window.page.conversation
        assert conversation is not None
        sampling = Sampling(temperature=0, max_tokens=WRITTEN)
        self.session.send(conversation, "Go on and on", sampling=sampling)
        reply = conversation.path()[-1]
        self.wait(lambda: conversation.tree.node(reply).state is not State.STREAMING)
        speed = self.session.speed(reply)
        conversation.undo()  # the next reply is asked in the same place
        return speed

    def alone(self) -> float:
        """Tokens per second of a reply that goes nowhere; Qt's loop stands still."""
        from desktop_app.inference.protocol import GenerateRequest
        from desktop_app.inference.sampling import Sampling

        sampling = Sampling(temperature=0, max_tokens=WRITTEN)
        request = GenerateRequest(prompt_tokens=PROMPT, sampling=sampling)
        (finished,) = self.engine.generate(request).done.result(WAIT_S)
        return finished.timings.tokens_per_s

    def close(self) -> None:
        """As the app at its end."""
        self.session.close()
        self.library.close()
        self.bridge.close()
        self.window.close()


def figures(options: argparse.Namespace) -> list[Figure]:
    """Both thread counts."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = options.weights
        if path is None:
            path = Path(folder) / "random-1b-q4_0.gguf"
            hub_files.write(path, ONE_BILLION, seed=options.seed)
        for threads, aim in ((1, ">= 0.97"), (2, ">= 0.92")):
            shown = Shown(Path(folder) / f"profile-{threads}", path, threads)
            try:
                found.append(
                    alternate(
                        f"decode with the window open / without, {threads} thread(s)",
                        "tokens/s",
                        aim,
                        shown.in_window,
                        shown.alone,
                        count=options.count,
                    )
                )
            finally:
                shown.close()
    return found
