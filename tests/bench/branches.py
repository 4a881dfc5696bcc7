"""What the branch cache must show: asking again, a restart, what parked branches cost.

Weights as in `tests.bench.engine`.  Parts: "long" (a chat of 4,000 tokens, read once: some 80
seconds with 1.1 B parameters on two threads) and "parked" (31 branches of 500 tokens; these are
read once and kept in `--keep FOLDER`, where one is named, so that a later run begins at once).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import Finished, GenerateRequest, WeightsSpec
from desktop_app.inference.sampling import Sampling
from tests.bench.engine import ONE_BILLION, WAIT_S
from tests.bench.pairs import Figure, file_hash
from tests.fakes import hub_files

FREE: Final = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, repetition_penalty=1)
"""Sampled from all tokens: llama.cpp's server gets the same in these benchmarks."""
MESSAGE_TOKENS: Final = 100
STEP_TOKENS: Final = 9
PARKED, PARKED_TOKENS = 31, 500


class Ours:
    """An engine with one set of weights and a folder for parked blocks."""

    def __init__(self, weights: Path, threads: int, context: int, folder: Path | None) -> None:
        """`folder` None: parked branches stay in memory."""
        self._spec = WeightsSpec(str(weights), context_length=context, threads=threads)
        self.folder = folder
        self._start()

    def _start(self) -> None:
        self.engine = Engine(cache_dir=self.folder)
        self.info = self.engine.load(self._spec).done.result(WAIT_S)

    def restart(self) -> None:
        """End the engine and start it anew with the same folder."""
        self.engine.close()
        self._start()

    def ask(
        self, prompt: tuple[int, ...], *, written: int = 4, drafts: int = 1, seed: int = 1
    ) -> tuple[Finished, float]:
        """Replies to one prompt; the first one, and the seconds until the app has them all."""
        sampling = replace(FREE, seed=seed, max_tokens=written)
        started = time.perf_counter()
        done = self.engine.generate(
            GenerateRequest(prompt_tokens=prompt, sampling=sampling, drafts=drafts, chat="bench")
        ).done.result(WAIT_S)
        return done[0], time.perf_counter() - started

    def parked_bytes(self) -> int:
        """What lies on disk."""
        if self.folder is None:
            return 0
        return sum(file.stat().st_size for file in self.folder.rglob("*.blk"))

    def settle(self) -> None:
        """Wait until what was read last is on disk: the engine is idle then."""
        size, same = -1, 0
        while same < 2:
            time.sleep(0.1)
            now = self.parked_bytes()
            same, size = (same + 1, size) if now == size else (0, now)

    def close(self) -> None:
        """End it."""
        self.engine.close()


def story(chooser: random.Random, size: int) -> tuple[int, ...]:
    """Random tokens: text that nothing before began with."""
    return tuple(chooser.randrange(300, 30_000) for _ in range(size))


@contextmanager
def weights_of(options: argparse.Namespace) -> Iterator[Path]:
    """The weights to measure with, made where none are named."""
    if options.weights is not None:
        yield options.weights
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random-1b-q4_0.gguf"
        hub_files.write(path, ONE_BILLION, seed=options.seed)
        yield path


def sign(figures: list[Figure], weights: Path, threads: int) -> list[Figure]:
    """Write into each figure what it was measured with."""
    for figure in figures:
        figure.facts |= {"weights_sha256": file_hash(weights), "threads": threads}
    return figures


def long_chat(options: argparse.Namespace) -> list[Figure]:
    """Ask again at any message of a long chat, and after a restart."""
    again = Figure("ask again at any message: first token / decode step", "s", "<= 1.5")
    reread = Figure("ask again at any message: prompt tokens read anew", "tokens", "<= 1")
    restart = Figure("first token after a restart / reading the prompt", "s", "<= 0.05")
    revived = Figure("after a restart: prompt tokens read anew", "tokens", "<= 1")
    chooser = random.Random(options.seed)
    chat = story(chooser, options.tokens)
    with weights_of(options) as weights, tempfile.TemporaryDirectory() as folder:
        ours = Ours(weights, options.threads, options.tokens + 200, Path(folder))
        try:
            cold, _ = ours.ask(chat)
            read_s = cold.timings.first_token_s
            ours.settle()
            for _ in range(options.count):
                message = chooser.randrange(1, options.tokens // MESSAGE_TOKENS + 1)
                prompt = chat[: message * MESSAGE_TOKENS]
                asked, first_s = ours.ask(prompt, written=1, seed=message)
                reread.values.append(float(asked.counters.evaluated_tokens))
                steps, _ = ours.ask(prompt, written=STEP_TOKENS)
                again.pairs.append((first_s, 1 / steps.timings.tokens_per_s))
                again.facts.setdefault("prompt_tokens", []).append(len(prompt))  # type: ignore[attr-defined] # a list, made here
                ours.settle()
            for _ in range(options.count):
                ours.restart()
                first, first_s = ours.ask(chat, written=1)
                restart.pairs.append((first_s, read_s))
                revived.values.append(float(first.counters.evaluated_tokens))
            restart.facts["note"] = "the prompt was read once, for all pairs"
        finally:
            ours.close()
        return sign([again, reread, restart, revived], weights, options.threads)


def parked(options: argparse.Namespace) -> list[Figure]:
    """Decoding beside parked branches, and alone."""
    figure = Figure(f"decode step beside {PARKED} parked branches / alone", "s", "<= 1.05")
    chooser = random.Random(options.seed)
    others = [story(chooser, PARKED_TOKENS) for _ in range(PARKED)]
    mine = story(chooser, PARKED_TOKENS)
    with weights_of(options) as weights, tempfile.TemporaryDirectory() as folder:
        keep = options.keep / "parked" if options.keep else Path(folder)
        full = Ours(weights, options.threads, 4096, keep)
        alone = Ours(weights, options.threads, 4096, None)
        try:
            for other in others:
                full.ask(other)
                full.settle()  # on disk: a run that is broken off goes on from here
            for engine in (full, alone):
                engine.ask(mine)
            full.settle()
            for index in range(options.count):
                if not index % 5:
                    for other in chooser.sample(others, 3):  # as hopping leaves the cache
                        full.ask(other)
                    full.ask(mine)
                    full.settle()
                order = (full, alone) if index % 2 else (alone, full)
                steps = {engine: _step_s(engine, mine) for engine in order}
                figure.pairs.append((steps[full], steps[alone]))
                full.settle()
        finally:
            full.close()
            alone.close()
        return sign([figure], weights, options.threads)


def _step_s(engine: Ours, prompt: tuple[int, ...]) -> float:
    return 1 / engine.ask(prompt, written=24)[0].timings.tokens_per_s


PARTS: Final = {"long": long_chat, "parked": parked}
