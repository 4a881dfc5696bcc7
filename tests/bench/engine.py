"""The engine against a bare llama.cpp loop: decode speed, stop to silence, memory.

The bare loop calls the same llama.cpp through ctypes in a process of its own: one sequence, greedy
choice, nothing else.  `--weights` names a GGUF of about 1 B parameters; without it one
of random numbers is made in a temporary folder (22 layers, width 2,048, Q4_0).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

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
from tests.bench.pairs import Figure, alternate, file_hash
from tests.fakes import hub_files

CONTEXT = 2048
WRITTEN = 48
PROMPT = tuple(300 + i % 1000 for i in range(64))
LONG_PROMPT = tuple(300 + i % 1000 for i in range(1500))
WAIT_S = 600.0

BARE = """
import json, sys, time
from desktop_app.inference import llama
from desktop_app.inference.context import Batch, Context, SamplerChain
from desktop_app.inference.sampling import Sampling
path, context, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llama.start(lambda line: None)
weights = llama.Weights(path, gpu_layers=0)
memory = Context(weights, length=context, sequences=1, threads=threads, kv_type="f16", batch=512,
                 offload=False)
batch = Batch(512)
for line in sys.stdin:
    prompt, written = json.loads(line)
    memory.clear()
    batch.clear()
    index = batch.add(prompt, 0, 0, output=True)
    memory.decode(batch)
    chain = SamplerChain(Sampling(temperature=0), seed=1, vocabulary_size=memory.vocabulary_size,
                         window=context)
    token = chain.sample(memory, index)
    started = time.perf_counter()
    for place in range(written - 1):
        batch.clear()
        index = batch.add([token], len(prompt) + place, 0, output=True)
        memory.decode(batch)
        token = chain.sample(memory, index)
    print((written - 1) / (time.perf_counter() - started), flush=True)
"""


class Bare:
    """The bare loop in its process."""

    def __init__(self, path: Path, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BARE, str(path), str(CONTEXT), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def tokens_per_s(self) -> float:
        """Decode speed of one reply."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([PROMPT, WRITTEN]) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def memory_bytes(pid: int) -> int:
    """What a process has in memory, mapped weights included."""
    return int(psutil.Process(pid).memory_info().rss)


@contextmanager
def loaded(path: Path, threads: int) -> Iterator[Engine]:
    """An engine with the weights loaded."""
    engine = Engine()
    try:
        spec = WeightsSpec(str(path), context_length=CONTEXT, threads=threads)
        engine.load(spec).done.result(WAIT_S)
        yield engine
    finally:
        engine.close()


def engine_speed(engine: Engine) -> float:
    """Decode speed of one reply as it arrives in the app, in tokens per second.

    Counted over the tokens between the first piece and the end, by the app's clock.
    """
    first = 0.0
    first_tokens = 0

    def hear(event: Event) -> None:
        nonlocal first, first_tokens
        if isinstance(event, Piece) and not first:
            first, first_tokens = time.perf_counter(), event.n_tokens

    sampling = Sampling(temperature=0, max_tokens=WRITTEN)
    request = GenerateRequest(prompt_tokens=PROMPT, sampling=sampling)
    (finished,) = engine.generate(request, hear).done.result(WAIT_S)
    took = time.perf_counter() - first
    if finished.counters.generated_tokens < WRITTEN or not first:
        # Random weights may end the turn, or show nothing: the child's own clock then.
        return finished.timings.tokens_per_s
    return (finished.counters.generated_tokens - first_tokens) / took


def silence_s(
    engine: Engine, prompt: tuple[int, ...], moment: type[Event], delay_s: float
) -> float:
    """Seconds from a cancel to the end of the reply, `delay_s` after an event of `moment`."""
    ready = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, moment | Finished):
            ready.set()

    sampling = Sampling(temperature=1, top_k=0, min_p=0, seed=1)
    job = engine.generate(GenerateRequest(prompt_tokens=prompt, sampling=sampling), hear)
    ready.wait(WAIT_S)
    time.sleep(delay_s)
    started = time.perf_counter()
    job.cancel()
    job.done.result(WAIT_S)
    return time.perf_counter() - started


def figures(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module."""
    with tempfile.TemporaryDirectory() as folder:
        path = options.weights
        if path is None:
            path = Path(folder) / "random-1b-q4_0.gguf"
            hub_files.write(path, ONE_BILLION, seed=options.seed)
        return measured(path, options.count)


ONE_BILLION = hub_files.Shape(
    blocks=22,
    embedding=2048,
    feed_forward=5632,
    heads=32,
    kv_heads=4,
    vocabulary=32000,
    kind="Q4_0",
    name="Random 1.1B",
)


def measured(path: Path, count: int) -> list[Figure]:
    """The figures for one weights file."""
    found: list[Figure] = []
    for threads, aim in ((1, ">= 0.97"), (2, ">= 0.95")):
        bare = Bare(path, threads)
        with loaded(path, threads) as engine:
            found.append(
                alternate(
                    f"decode through child and worker / bare loop, {threads} thread(s)",
                    "tokens/s",
                    aim,
                    lambda engine=engine: engine_speed(engine),  # type: ignore[misc] # bound now
                    bare.tokens_per_s,
                    count=count,
                )
            )
            if threads == 2:
                found.append(_memory(engine, bare))
                found += _silences(engine, count)
        bare.close()
    for figure in found:
        figure.facts["weights_sha256"] = file_hash(path)
    return found


def _memory(engine: Engine, bare: Bare) -> Figure:
    assert engine.child_pid is not None
    ours, other = memory_bytes(engine.child_pid), memory_bytes(bare.process.pid)
    figure = Figure("engine memory / (1.05 x bare loop + 60 MB)", "bytes", "<= 1")
    figure.pairs.append((float(ours), 1.05 * other + 60e6))
    figure.facts["bare_bytes"] = other
    return figure


def _silences(engine: Engine, count: int) -> list[Figure]:
    reading = Figure("stop to silence while reading a prompt", "s", "<= 0.2")
    writing = Figure("stop to silence while writing", "s", "<= 0.2")
    for index in range(count):
        prompt = (400 + index, *LONG_PROMPT)
        reading.values.append(silence_s(engine, prompt, ReadProgress, 0.1 + 0.05 * (index % 7)))
        writing.values.append(silence_s(engine, PROMPT, Piece, 0.02 * (index % 7)))
    return [reading, writing]
