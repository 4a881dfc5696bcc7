"""What the branch cache saves: asking again, coming back, restarting, drafts.

Against the same engine without it: the same tokens read for the first time, or four replies asked
for one after the other with nothing in common.  Weights as in `tests.bench.engine`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import Finished, GenerateRequest, WeightsSpec
from desktop_app.inference.sampling import Sampling
from tests.bench.engine import ONE_BILLION, WAIT_S
from tests.bench.pairs import Figure, file_hash
from tests.fakes import hub_files

CONTEXT = 2048
PROMPT_TOKENS = 512
DRAFT_TOKENS = 24


class Bench:
    """An engine with one set of weights, and prompts that have nothing in common."""

    def __init__(self, path: Path, threads: int, seed: int) -> None:
        self._path, self._threads = path, threads
        self._random = random.Random(seed)
        self._folder = tempfile.TemporaryDirectory()
        self.engine = self._start()

    def _start(self) -> Engine:
        engine = Engine(cache_dir=Path(self._folder.name))
        spec = WeightsSpec(str(self._path), context_length=CONTEXT, threads=self._threads)
        engine.load(spec).done.result(WAIT_S)
        return engine

    def restart(self) -> None:
        """End the engine and start it anew with the same folder for parked blocks."""
        self.engine.close()
        self.engine = self._start()

    def close(self) -> None:
        """End it and remove what it kept."""
        self.engine.close()
        self._folder.cleanup()

    def prompt(self) -> tuple[int, ...]:
        """Tokens that no prompt before began with."""
        return tuple(self._random.randrange(300, 30_000) for _ in range(PROMPT_TOKENS))

    def ask(
        self, prompt: tuple[int, ...], *, written: int = 4, drafts: int = 1
    ) -> tuple[Finished, float]:
        """One reply or several at once; the first, and the seconds until all were written."""
        sampling = Sampling(temperature=1, top_k=0, min_p=0, seed=1, max_tokens=written)
        started = time.perf_counter()
        done = self.engine.generate(
            GenerateRequest(prompt_tokens=prompt, sampling=sampling, drafts=drafts, chat="bench")
        ).done.result(WAIT_S)
        return done[0], time.perf_counter() - started

    def wait_until_parked(self) -> None:
        """Until the blocks of what was read last are on disk."""
        folder, size = Path(self._folder.name), -1
        while (now := sum(f.stat().st_size for f in folder.rglob("*"))) != size:
            size = now
            time.sleep(0.5)


def figures(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module."""
    with tempfile.TemporaryDirectory() as folder:
        path = options.weights
        if path is None:
            path = Path(folder) / "random-1b-q4_0.gguf"
            hub_files.write(path, ONE_BILLION, seed=options.seed)
        return measured(path, options.count, options.seed)


def measured(path: Path, count: int, seed: int = 1, threads: int = 1) -> list[Figure]:
    """The figures for one weights file."""
    again = Figure("ask again: first token / decode step", "s", "<= 1.5")
    back = Figure("back to a parked branch: first token / reading it", "s", "<= 0.05")
    restart = Figure("after a restart: first token / reading it", "s", "<= 0.05")
    drafts = Figure("four drafts / four replies with prompts of their own", "s", "<= 0.3")
    reread = Figure("prompt tokens read anew: asked again, back, restarted", "tokens", "<= 1")
    bench = Bench(path, threads, seed)
    try:
        for _ in range(count):
            first, second = bench.prompt(), bench.prompt()
            cold, _ = bench.ask(first, written=16)
            speed = cold.timings.tokens_per_s
            step_s = 1 / speed if speed else cold.timings.write_s
            warm, _ = bench.ask(first)
            again.pairs.append((warm.timings.first_token_s, step_s))
            bench.ask(second)
            parked, _ = bench.ask(first)
            back.pairs.append((parked.timings.first_token_s, cold.timings.first_token_s))
            bench.wait_until_parked()
            bench.restart()
            revived, _ = bench.ask(first)
            restart.pairs.append((revived.timings.first_token_s, cold.timings.first_token_s))
            read = (done.counters.evaluated_tokens for done in (warm, parked, revived))
            reread.values += [float(tokens) for tokens in read]
            _, together_s = bench.ask(bench.prompt(), written=DRAFT_TOKENS, drafts=4)
            apart_s = sum(bench.ask(bench.prompt(), written=DRAFT_TOKENS)[1] for _ in range(4))
            drafts.pairs.append((together_s, apart_s))
    finally:
        bench.close()
    found = [again, back, restart, drafts, reread]
    for figure in found:
        figure.facts |= {"weights_sha256": file_hash(path), "threads": threads}
    return found
