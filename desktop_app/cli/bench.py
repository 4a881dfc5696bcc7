"""``grove bench``: how fast these weights read, write and go back to a branch on this computer.

Prompts are random tokens, so nothing comes from the cache unless that is what is measured, and
nothing of them is kept on disk.  Lengths are chosen by a short first run, so that the whole takes
less than a minute on slow machines too, unless they are given.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from desktop_app.cli.frame import Frame, opened, profile_of
from desktop_app.cli.loop import Interrupted
from desktop_app.cli.progress import Progress
from desktop_app.cli.terminal import note, print_json, say
from desktop_app.errors import KnownError
from desktop_app.inference.protocol import (
    Event,
    Finished,
    GenerateRequest,
    LoadedWeights,
    ReadProgress,
)
from desktop_app.inference.sampling import Sampling

_FIRST_READ: Final = 48
_FIRST_WRITTEN: Final = 8
_READ_S: Final = 4.0
_WRITE_S: Final = 2.0
"""How long one prompt and one reply may take where their lengths are chosen here."""
_LONGEST_READ: Final = 512
_LONGEST_WRITTEN: Final = 64
_DRAFTS: Final = 4


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("bench", help="measure how fast weights run here")
    parser.add_argument("--weights", type=Path, metavar="F", help="GGUF file; else the last used")
    parser.add_argument("--prompt", type=int, metavar="N", help="tokens to read; else as suits")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="tokens to write")
    parser.add_argument("--runs", type=int, default=3, metavar="N")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0 = automatic")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the medians; every run is in the JSON."""
    for name, value, high in (
        ("prompt", 1 if args.prompt is None else args.prompt, 100_000),
        ("max-tokens", 1 if args.max_tokens is None else args.max_tokens, 100_000),
        ("runs", args.runs, 1000),
        ("threads", args.threads + 1, 1025),
    ):
        if not 1 <= value <= high:
            raise KnownError("option-range", f"--{name} must be a sensible number.")
    with opened(profile_of(args.profile)) as frame:
        frame.settings.override("threads", args.threads)
        info = frame.load(args.weights)
        measuring = _Measuring(frame, info, args)
        try:
            found = measuring.all()
        except (Interrupted, KeyboardInterrupt):  # the second between two requests
            measuring.end()
            note("Stopped; nothing was measured to the end.")
            raise
    result = {
        "weights": info.name,
        "weights_hash": info.hash,
        "quantisation": info.quantisation,
        "engine": info.engine,
        "threads": info.threads,
        "gpu_layers": info.gpu_layers,
        "kv_bytes_per_token": info.kv_bytes_per_token,
        "seed": args.seed,
        **found,
    }
    if args.json:
        print_json(result)
    else:
        _tell(result)
    return 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: its drafts' ends, and the seconds until the last of them, by this process."""

    ends: tuple[Finished, ...]
    seconds: float

    @property
    def first(self) -> Finished:
        return self.ends[0]

    @property
    def written(self) -> int:
        """Tokens of all drafts."""
        return sum(end.counters.generated_tokens for end in self.ends)


class _Measuring:
    """The runs, one after the other, with a line that tells how far they are."""

    def __init__(self, frame: Frame, info: LoadedWeights, args: argparse.Namespace) -> None:
        self._frame, self._info, self._args = frame, info, args
        self._random = random.Random(args.seed)
        self._line = Progress("Measuring")
        self._drafts = min(_DRAFTS, max(1, info.sequences - info.can_roll_back))
        self._done, self._steps = 0, 2 + 4 * args.runs
        self._length = self._written = 0

    def all(self) -> dict[str, Any]:
        """Everything that is told."""
        began = time.monotonic()
        self._choose_lengths()
        prompts = [self._prompt() for _ in range(self._args.runs)]
        new = [self._ask("Reading and writing", prompt) for prompt in prompts]
        again = [self._ask("Asking again", prompts[-1]) for _ in prompts]
        drafts = [
            self._ask(f"Writing {self._drafts} drafts", prompts[-1], drafts=self._drafts)
            for _ in prompts
        ]
        self._ask("Parking", self._prompt()[:_FIRST_READ])  # what stood in memory makes room
        back = [self._ask("Going back to parked branches", prompt) for prompt in prompts]
        self.end()
        runs = [_speeds(asked) for asked in new]
        alone = _write_speed(new)
        together = _median([asked.written / asked.seconds for asked in drafts])
        return {
            "n": len(runs),
            "prompt_tokens": self._length,
            "max_tokens": self._written,
            "seconds": round(time.monotonic() - began, 1),
            "read_tokens_per_s": _median([run["read_tokens_per_s"] for run in runs]),
            "write_tokens_per_s": alone,
            "first_token_s": _median([run["first_token_s"] for run in runs], 4),
            "again": _first_tokens(again),
            "parked": _first_tokens(back),
            "drafts": {
                "count": self._drafts,
                "tokens_per_s": together,
                "seconds": [round(asked.seconds, 4) for asked in drafts],
            },
            "runs": runs,
        }

    def end(self) -> None:
        """Take the line away."""
        self._line.end()

    def _choose_lengths(self) -> None:
        """A short run, which also warms caches up, tells what fits into the time."""
        room = self._info.context_length - 8
        self._length = min(_FIRST_READ, room // 2)
        self._written = min(_FIRST_WRITTEN, room // 4)
        if min(self._length, self._written) < 1:
            raise KnownError("option-range", "The context of these weights is too short for this.")
        first = self._ask("Trying", self._prompt()).first
        read_s = max(first.timings.read_s, 1e-9)
        longest_read = int(_READ_S * first.counters.evaluated_tokens / read_s)
        longest_written = int(_WRITE_S * first.timings.tokens_per_s)
        read = self._args.prompt or min(_LONGEST_READ, max(_FIRST_READ, longest_read))
        written = self._args.max_tokens or min(
            _LONGEST_WRITTEN, max(_FIRST_WRITTEN, longest_written)
        )
        self._written = min(written, room // 4 if self._args.max_tokens is None else written)
        # Drafts share the prompt, not what they write.
        self._length = min(read, room - self._drafts * self._written)
        if self._length < 1:
            raise KnownError("option-range", "The context of these weights is too short for this.")

    def _prompt(self) -> tuple[int, ...]:
        size = self._info.vocabulary
        return tuple(self._random.randrange(size) for _ in range(self._length))

    def _ask(self, label: str, prompt: tuple[int, ...], *, drafts: int = 1) -> _Asked:
        share = self._done / self._steps
        self._line.update(share, label)

        def hear(event: Event) -> None:
            if isinstance(event, ReadProgress) and event.total:
                part = event.done / event.total / self._steps
                self._frame.loop.post(lambda: self._line.update(share + part))

        sampling = Sampling(
            temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=self._written
        )
        request = GenerateRequest(prompt_tokens=prompt, sampling=sampling, drafts=drafts)
        began = time.perf_counter()
        job = self._frame.engine.generate(request, hear)
        try:
            ends = self._frame.loop.wait(job.done)
        except Interrupted:
            job.cancel()
            raise
        self._done += 1
        return _Asked(ends, time.perf_counter() - began)


def _speeds(asked: _Asked) -> dict[str, float]:
    counters, times = asked.first.counters, asked.first.timings
    return {
        "read_tokens": counters.evaluated_tokens,
        "written_tokens": counters.generated_tokens,
        "read_tokens_per_s": round(counters.evaluated_tokens / max(times.read_s, 1e-9), 2),
        "write_tokens_per_s": round(times.tokens_per_s, 2),
        "first_token_s": round(times.first_token_s, 4),
    }


def _write_speed(asked: list[_Asked]) -> float:
    """Of all replies together: weights may end one after a few tokens."""
    written = sum(max(0, one.first.counters.generated_tokens - 1) for one in asked)
    seconds = sum(one.first.timings.write_s for one in asked)
    return round(written / seconds, 2) if seconds > 0 else 0.0


def _first_tokens(asked: list[_Asked]) -> dict[str, Any]:
    times = [round(one.first.timings.first_token_s, 4) for one in asked]
    return {
        "first_token_s": _median(times, 4),
        "read_tokens": max(one.first.counters.evaluated_tokens for one in asked),
        "runs": times,
    }


def _median(values: list[float], digits: int = 2) -> float:
    return round(statistics.median(values), digits)


def _tell(found: dict[str, Any]) -> None:
    drafts, again, parked = found["drafts"], found["again"], found["parked"]
    say(
        f"{found['weights']}, {found['quantisation']}, {found['threads']} threads, "
        f"{found['gpu_layers']} GPU layers; medians of {found['n']} runs"
    )
    say(
        f"  reads       {found['read_tokens_per_s']:9.1f} tokens/s "
        f"({found['prompt_tokens']} tokens: {found['first_token_s']:.2f} s to the first word)"
    )
    say(f"  writes      {found['write_tokens_per_s']:9.1f} tokens/s")
    say(
        f"  {drafts['count']} drafts    {drafts['tokens_per_s']:9.1f} tokens/s all together, "
        "on a prompt that was read before"
    )
    say(
        f"  asks again  {again['first_token_s'] * 1000:9.0f} ms to the first word, "
        f"{again['read_tokens']} of {found['prompt_tokens']} tokens read"
    )
    say(
        f"  goes back   {parked['first_token_s'] * 1000:9.0f} ms to the first word of a parked "
        f"branch, {parked['read_tokens']} of {found['prompt_tokens']} tokens read"
    )
    say(f"  A token of a branch takes {found['kv_bytes_per_token'] / 1000:.1f} kB.")
