"""Several chats at once, and reading while somebody types.

Weights as in `tests.bench.engine`.  `python -m tests.bench.several --weights FILE [--only PARTS]
[--count N] [--json FILE]` measures some parts alone: question, three, paste, typing, keys.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from desktop_app.cli.loop import MainLoop
from desktop_app.conversation import Conversation
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import (
    Event,
    Finished,
    GenerateRequest,
    Piece,
    ReadProgress,
    WeightsSpec,
)
from desktop_app.inference.sampling import Sampling
from desktop_app.paths import Profile
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.storage import Library
from tests.bench.engine import ONE_BILLION, WAIT_S
from tests.bench.pairs import Figure, alternate, file_hash, report
from tests.fakes import hub_files

if TYPE_CHECKING:
    from PySide6.QtWidgets import QWidget

CONTEXT = 8192
LONG_TOKENS = 4000
QUESTION_TOKENS = 32
ANSWER_TOKENS = 16
WRITTEN = 32
TYPED_TOKENS = 300
TYPING_S, BEFORE_ENTER_S = 30.0, 10.0
KEYS = 400
PARTS = ("question", "three", "paste", "typing", "keys")


class Bench:
    """An engine with the weights, and prompts that have nothing in common."""

    def __init__(self, path: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self.engine = Engine()
        self.engine.load(WeightsSpec(str(path), context_length=CONTEXT)).done.result(WAIT_S)

    def request(self, tokens: int, written: int) -> GenerateRequest:
        """A prompt of so many new tokens, answered by so many."""
        prompt = tuple(self._random.randrange(300, 30_000) for _ in range(tokens))
        sampling = Sampling(temperature=1, top_k=0, min_p=0, seed=1, max_tokens=written)
        return GenerateRequest(prompt_tokens=prompt, sampling=sampling)

    def long_read_s(self, ask_at: float | None, answers: list[float]) -> float:
        """Seconds to the first token behind a long prompt.

        At the share `ask_at` of it another chat asks a short question; the seconds to its first
        token go to `answers`.
        """
        asked: list[tuple[float, list[float], object]] = []
        question = self.request(QUESTION_TOKENS, ANSWER_TOKENS)

        def hear_question(event: Event, since: float, heard: list[float]) -> None:
            if isinstance(event, Piece | Finished):
                heard.append(time.perf_counter() - since)

        def hear(event: Event) -> None:
            if ask_at is None or asked or not isinstance(event, ReadProgress):
                return
            if event.done >= ask_at * event.total:
                since, heard = time.perf_counter(), list[float]()
                job = self.engine.generate(question, lambda e: hear_question(e, since, heard))
                asked.append((since, heard, job))

        (done,) = self.engine.generate(self.request(LONG_TOKENS, 1), hear).done.result(WAIT_S)
        for _, heard, job in asked:
            job.done.result(WAIT_S)  # type: ignore[attr-defined] # a Job
            answers.append(heard[0])
        return done.timings.first_token_s

    def together(self, chats: int) -> float:
        """Tokens a second of so many chats that write at once, all of them counted."""
        jobs = [self.engine.generate(self.request(16, WRITTEN)) for _ in range(chats)]
        written = 0
        longest = 0.0
        for job in jobs:
            (done,) = job.done.result(WAIT_S)
            written += done.counters.generated_tokens - 1
            longest = max(longest, done.timings.write_s)
        return written / longest


def question_figures(path: Path, count: int, seed: int) -> list[Figure]:
    """A short question while a long prompt is read: its first token, and what the other loses."""
    bench = Bench(path, seed)
    chooser = random.Random(seed)
    answers: list[float] = []
    try:
        loss = alternate(
            f"{LONG_TOKENS} tokens read with a question in between / alone",
            "s",
            "<= 1.15",
            lambda: bench.long_read_s(chooser.uniform(0.1, 0.7), answers),
            lambda: bench.long_read_s(None, answers),
            count=count,
            warm_up=0,
        )
    finally:
        bench.engine.close()
    first = Figure("first token of a question while a long prompt is read", "s", "<= 3")
    first.values += answers
    return [first, loss]


def three_figures(path: Path, count: int, seed: int) -> list[Figure]:
    """Three chats writing at once against one."""
    bench = Bench(path, seed)
    try:
        return [
            alternate(
                "three chats writing together / one",
                "tokens/s",
                ">= 1.3",
                lambda: bench.together(3),
                lambda: bench.together(1),
                count=count,
            )
        ]
    finally:
        bench.engine.close()


class Desk:
    """A session on the weights, without a window."""

    def __init__(self, path: Path, folder: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self.profile = Profile(folder)
        self.profile.create()
        self.settings = Settings.load(self.profile)
        self.settings.presets = {"Bench": {"temperature": 1.0, "max_tokens": 2}}
        self.settings.preset, self.settings.context_length = "Bench", CONTEXT
        self.loop = MainLoop()
        self.library = Library.open(self.profile, post=self.loop.post)
        self.engine = Engine(log_dir=self.profile.logs)
        self.session = Session(
            self.library,
            self.engine,
            self.settings,
            self.loop.post,
            profile=self.profile,
            later=self.loop.later,
        )
        self.loop.wait(self.session.load_weights(path))
        self._size = 0

    def close(self) -> None:
        """Take it down."""
        self.session.close()
        self.library.close()

    def text(self) -> str:
        """About `TYPED_TOKENS` tokens in words that were not used before."""

        def words(count: int) -> str:
            letters = "abcdefghiklmnoprstuvwy"
            return " ".join(
                "".join(self._random.choices(letters, k=self._random.randint(2, 8)))
                for _ in range(count)
            )

        if not self._size:
            from desktop_app.inference.protocol import ChatMessage

            sample = words(50)
            rendered = self.engine.render((ChatMessage("user", sample),)).done.result(WAIT_S)
            self._size = max(1, round(TYPED_TOKENS * 50 / len(rendered.tokens)))
        return words(self._size)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        over: list[bool] = []
        self.loop.later(seconds, lambda: over.append(True))
        self.loop.run_until(lambda: bool(over))

    def first_token_s(self, wish: str, typing_s: float, before_s: float) -> float:
        """Seconds from Enter to the first token; typed over `typing_s` (0: pasted)."""
        self.settings.read_ahead = wish
        chat = self.loop.wait(self.session.new_chat())
        text = self.text()
        if typing_s:
            begun = time.monotonic()
            for end in range(1, len(text) + 1):
                self.session.typed(chat, text[:end])
                self.wait(max(0.0, begun + typing_s * end / len(text) - time.monotonic()))
        else:
            self.session.typed(chat, text)
            self.wait(before_s)
        _prompt, reply = self.session.send(chat, text)
        self.session.typed(chat, "")
        self.loop.run_until(lambda: not self.session.writing())
        return self._first_token(chat, reply)

    def _first_token(self, chat: Conversation, reply: int) -> float:
        self.loop.wait(chat.saved())
        turn = self.loop.wait(chat.turns(reply))[-1]
        return float(turn["times"]["first_token_s"])


def ahead_figure(name: str, path: Path, count: int, seed: int, typing_s: float) -> Figure:
    """The first token after Enter with reading ahead, against reading from Enter on."""
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(path, Path(folder), seed)
        try:
            return alternate(
                f"{TYPED_TOKENS} tokens {name}: first token / reading from Enter on",
                "s",
                "<= 0.2",
                lambda: desk.first_token_s("always", typing_s, BEFORE_ENTER_S),
                lambda: desk.first_token_s("never", 0.0, 0.2),
                count=count,
                warm_up=0,
            )
        finally:
            desk.close()


@contextmanager
def _window(path: Path, folder: Path) -> Iterator[tuple[QWidget, Callable[[], None]]]:
    """The composer's field of a real window on the weights, off screen."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from desktop_app import app
    from desktop_app.ui.bridge import Bridge
    from desktop_app.ui.window import MainWindow

    qt = app.make_application()
    profile = Profile(folder)
    profile.create()
    settings = Settings.load(profile)
    settings.language, settings.weights_path, settings.read_ahead = "en", str(path), "always"
    ring = app.dress(qt, settings)
    bridge = Bridge()
    library = Library.open(profile, post=bridge.post)
    engine = Engine(log_dir=profile.logs)
    session = Session(library, engine, settings, bridge.post, profile=profile, later=app.later)
    window = MainWindow(session, bridge)
    window.show()
    window.begin()
    while engine.loaded is None:
        qt.processEvents()
        time.sleep(0.01)
    try:
        yield window.page.composer.text, qt.processEvents
    finally:
        window.close()
        session.close()
        library.close()
        bridge.close()
        ring.deleteLater()
        window.deleteLater()
        qt.processEvents()


def keys_figure(path: Path) -> Figure:
    """How long a key takes in the window while the engine reads ahead, 95th percentile."""
    from PySide6.QtTest import QTest

    figure = Figure("a key while the engine reads ahead, 95th percentile", "ms", "<= 16")
    letters = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz     ", k=KEYS)
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder, _window(path, Path(folder)) as (field, events):
        for key in letters:
            started = time.perf_counter()
            QTest.keyClicks(field, key)
            events()
            took.append((time.perf_counter() - started) * 1000)
            until = started + 0.05
            while time.perf_counter() < until:
                events()
                time.sleep(0.002)
    figure.values.append(statistics.quantiles(took, n=20)[-1])
    figure.facts |= {"keys": len(took), "median_ms": statistics.median(took), "most_ms": max(took)}
    return figure


def measured(path: Path, count: int, seed: int, parts: Sequence[str] = PARTS) -> list[Figure]:
    """The figures for one weights file; the long ones with fewer pairs."""
    found: list[Figure] = []
    if "question" in parts:
        found += question_figures(path, max(1, count // 5), seed)
    if "three" in parts:
        found += three_figures(path, count, seed)
    if "paste" in parts:
        found.append(ahead_figure("pasted 10 s before Enter", path, max(3, count // 3), seed, 0))
    if "typing" in parts:
        typed = ahead_figure("typed over 30 s", path, max(1, count // 5), seed, TYPING_S)
        found.append(typed)
    if "keys" in parts:
        found.append(keys_figure(path))
    for figure in found:
        figure.facts["weights_sha256"] = file_hash(path)
    return found


def figures(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module."""
    with tempfile.TemporaryDirectory() as folder:
        path = options.weights
        if path is None:
            path = Path(folder) / "random-1b-q4_0.gguf"
            hub_files.write(path, ONE_BILLION, seed=options.seed)
        return measured(path, options.count, options.seed)


def main() -> None:
    """Some parts alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--count", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    parts = options.only.split(",") if options.only else PARTS
    found: list[Figure] = []
    for part in parts:  # told one by one: a run that is cut short has told what it knows
        found += measured(options.weights, options.count, options.seed, (part,))
        report(found, options.json)


if __name__ == "__main__":
    main()
