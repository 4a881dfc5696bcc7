"""Threads chosen by measuring against fixed ones: idle, beside a busy program, and how soon.

One engine chooses for itself, another has one thread and two in turn; each pair holds the chosen
one's speed and the better of the two fixed ones.  Then programs begin and end to use a core while
the first engine writes: the time until it is as quick as the better fixed count there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import Event, GenerateRequest, Piece, WeightsSpec
from desktop_app.inference.sampling import Sampling
from tests.bench.engine import ONE_BILLION, PROMPT, WAIT_S
from tests.bench.pairs import Figure, file_hash
from tests.fakes import hub_files

CONTEXT = 2048
BEFORE_S = 1.5
PHASE_S = 5.0
WINDOW_S = 0.5
LONGEST_S = 3.0
REACTIONS = 4
AS_QUICK = 0.9
"""So much of the fixed count's speed at the same length of the reply counts as all of it."""


@contextmanager
def busy_program() -> Iterator[None]:
    """Another program that wants one core for itself."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def request(tokens: int) -> GenerateRequest:
    """A reply of about so many tokens: no seed, or the count of threads would be held."""
    sampling = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, max_tokens=tokens)
    return GenerateRequest(prompt_tokens=PROMPT, sampling=sampling)


def speed(engine: Engine, tokens: int) -> float:
    """Tokens per second of one reply, by the child's clock; what takes too long is cut short."""
    while True:
        job = engine.generate(request(tokens))
        try:
            (finished,) = job.done.result(LONGEST_S)
        except TimeoutError:
            job.cancel()
            (finished,) = job.done.result(WAIT_S)
        if finished.timings.tokens_per_s > 0:  # random weights may end the turn at once
            return finished.timings.tokens_per_s


def compare(
    name: str, aim: str, chosen: Engine, fixed: Engine, *, tokens: int, count: int
) -> tuple[Figure, int]:
    """Chosen against the better of one and two fixed; also which of the two is the better."""
    figure = Figure(name, "tokens/s", aim)
    ones, twos = [], []
    for index in range(count + 1):
        ours = speed(chosen, tokens) if index % 2 else 0.0
        fixed.set_threads(1)
        one = speed(fixed, tokens)
        fixed.set_threads(2)
        two = speed(fixed, tokens)
        ours = ours or speed(chosen, tokens)
        if index:
            figure.pairs.append((ours, max(one, two)))
            ones.append(one)
            twos.append(two)
    figure.facts |= {"one_thread": ones, "two_threads": twos}
    return figure, 1 if statistics.median(ones) > statistics.median(twos) else 2


class Pieces:
    """When how many tokens came."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.first = threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Piece):
            self.seen.append((time.perf_counter(), event.n_tokens))
            self.first.set()

    def speed(self, start: float, end: float) -> float:
        """Tokens per second between two moments."""
        return self.tokens(start, end) / (end - start)

    def tokens(self, start: float, end: float) -> int:
        """How many tokens came between two moments."""
        return sum(count for at, count in self.seen if start < at <= end)

    def speed_after(self, length: int) -> float:
        """Tokens per second over the half second that begins with so many tokens written."""
        written = 0
        for at, count in self.seen:
            written += count
            if written >= length:
                return self.speed(at, at + WINDOW_S)
        raise ValueError(f"the reference holds only {written} tokens, not {length}")

    def until(self, reference: Pieces, start: float, end: float) -> float:
        """Seconds from `start` until half a second is as quick as `reference` at that length."""
        at = start
        while at + WINDOW_S <= end:
            wanted = AS_QUICK * reference.speed_after(self.tokens(0, at))
            if self.speed(at, at + WINDOW_S) >= wanted:
                return at - start
            at += 0.05
        return end - start


@contextmanager
def writing(engine: Engine) -> Iterator[Pieces]:
    """A long reply, from its first token on, is being written."""
    pieces = Pieces()
    job = engine.generate(request(CONTEXT - len(PROMPT) - 1), pieces)
    pieces.first.wait(WAIT_S)
    yield pieces
    job.cancel()
    job.done.result(WAIT_S)


def reactions(engine: Engine, fixed: Engine, idle: int, busy: int) -> list[Figure]:
    """How soon it is as quick as it can be after a program began, and after it ended.

    As quick: as the better fixed count (`idle`, `busy`) at the same length of the reply, which
    slows as it grows.
    """
    begun = Figure("threads: seconds until as quick beside a program that began", "s", "<= 3")
    ended = Figure("threads: seconds until as quick after it ended", "s", "<= 3")
    fixed.set_threads(idle)
    with writing(fixed) as alone:
        time.sleep(BEFORE_S + 2 * PHASE_S)
    fixed.set_threads(busy)
    with busy_program(), writing(fixed) as beside:
        time.sleep(BEFORE_S + 2 * PHASE_S)
    for _ in range(REACTIONS):
        with writing(engine) as pieces:
            time.sleep(BEFORE_S)
            with busy_program():
                start = time.perf_counter()
                time.sleep(PHASE_S)
            end = time.perf_counter()
            time.sleep(PHASE_S)
        begun.values.append(pieces.until(beside, start, end))
        ended.values.append(pieces.until(alone, end, time.perf_counter()))
    return [begun, ended]


def figures(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module."""
    with tempfile.TemporaryDirectory() as folder:
        path = options.weights
        if path is None:
            path = Path(folder) / "random-1b-q4_0.gguf"
            hub_files.write(path, ONE_BILLION, seed=options.seed)
        return measured(path, options.count)


def measured(path: Path, count: int) -> list[Figure]:
    """The figures for one weights file."""
    tokens = 32 if path.stat().st_size > 400_000_000 else 96
    chosen, fixed = Engine(), Engine()
    try:
        loaded = chosen.load(WeightsSpec(str(path), context_length=CONTEXT)).done.result(WAIT_S)
        fixed.load(WeightsSpec(str(path), context_length=CONTEXT, threads=1)).done.result(WAIT_S)
        idle, quiet_count = compare(
            "threads: chosen / better of one and two, idle",
            ">= 0.97",
            chosen,
            fixed,
            tokens=tokens,
            count=count,
        )
        with busy_program():
            busy, busy_count = compare(
                "threads: chosen / better of one and two, beside one busy program",
                ">= 0.9",
                chosen,
                fixed,
                tokens=tokens,
                count=count,
            )
        found = [idle, busy, *reactions(chosen, fixed, quiet_count, busy_count)]
    finally:
        chosen.close()
        fixed.close()
    digest = file_hash(path)
    for figure in found:
        figure.facts |= {
            "weights_sha256": digest,
            "threads_at_load": loaded.threads,
            "choice": loaded.threads_choice,
            "measured": [[m.threads, m.tokens_per_s] for m in loaded.threads_measured],
        }
    return found
