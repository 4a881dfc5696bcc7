"""``grove bench``: how fast these weights read and write on this computer."""

from __future__ import annotations

import argparse
import random
import statistics
from pathlib import Path
from typing import Any

from desktop_app.cli.frame import Frame, opened, profile_of
from desktop_app.cli.progress import Progress
from desktop_app.cli.terminal import print_json, say
from desktop_app.errors import KnownError
from desktop_app.inference.protocol import Finished, GenerateRequest, LoadedWeights
from desktop_app.inference.sampling import Sampling


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("bench", help="measure how fast weights run here")
    parser.add_argument("--weights", type=Path, metavar="F", help="GGUF file; else the last used")
    parser.add_argument("--prompt", type=int, default=256, metavar="N", help="tokens to read")
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N", help="tokens to write")
    parser.add_argument("--runs", type=int, default=3, metavar="N")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0 = automatic")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the medians; every run is in the JSON."""
    for name, value, high in (
        ("prompt", args.prompt, 100_000),
        ("max-tokens", args.max_tokens, 100_000),
        ("runs", args.runs, 1000),
        ("threads", args.threads + 1, 1025),
    ):
        if not 1 <= value <= high:
            raise KnownError("option-range", f"--{name} must be a sensible number.")
    with opened(profile_of(args.profile)) as frame:
        frame.settings.override("threads", args.threads)
        info = frame.load(args.weights)
        runs = _measure(frame, info, args)
    result = {
        "weights": info.name,
        "weights_hash": info.hash,
        "quantisation": info.quantisation,
        "engine": info.engine,
        "threads": info.threads,
        "gpu_layers": info.gpu_layers,
        "seed": args.seed,
        "n": len(runs),
        "read_tokens_per_s": _median(runs, "read_tokens_per_s"),
        "write_tokens_per_s": _median(runs, "write_tokens_per_s"),
        "runs": runs,
    }
    if args.json:
        print_json(result)
        return 0
    say(f"{info.name}, {info.quantisation}, {info.threads} threads, {info.gpu_layers} GPU layers")
    say(f"  reads  {result['read_tokens_per_s']:9.1f} tokens/s ({args.prompt} tokens)")
    say(f"  writes {result['write_tokens_per_s']:9.1f} tokens/s (median of {len(runs)} runs)")
    return 0


def _measure(frame: Frame, info: LoadedWeights, args: argparse.Namespace) -> list[dict[str, float]]:
    """The runs, each on other random tokens, so that nothing comes from the cache."""
    rng = random.Random(args.seed)
    length = min(args.prompt, info.context_length - args.max_tokens - 8)
    if length < 1:
        raise KnownError("option-range", "The context of these weights is too short for this.")
    sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=args.max_tokens)
    progress = Progress("Measuring")
    runs: list[dict[str, float]] = []
    # The first run warms caches up and does not count.
    for n in range(args.runs + 1):
        progress.update(n / (args.runs + 1))
        tokens = tuple(rng.randrange(info.vocabulary) for _ in range(length))
        job = frame.engine.generate(GenerateRequest(prompt_tokens=tokens, sampling=sampling))
        [done] = frame.loop.wait(job.done)
        if n:
            runs.append(_speeds(done))
    progress.end()
    return runs


def _speeds(done: Finished) -> dict[str, float]:
    counters, times = done.counters, done.timings
    return {
        "read_tokens": counters.evaluated_tokens,
        "written_tokens": counters.generated_tokens,
        "read_tokens_per_s": round(counters.evaluated_tokens / max(times.read_s, 1e-9), 2),
        "write_tokens_per_s": round(times.tokens_per_s, 2),
        "first_token_s": round(times.first_token_s, 4),
    }


def _median(runs: list[dict[str, float]], key: str) -> float:
    return round(statistics.median(run[key] for run in runs), 2)
