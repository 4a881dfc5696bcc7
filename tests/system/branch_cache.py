"""The branch cache on real llama.cpp: random operations, each answer checked against a fresh one.

`python -m tests.system.branch_cache [--kind llama|window|mamba] [--count N] [--seed N]` makes tiny
random weights, then forks, hops, parks, restores from memory and disk, restarts, stops and
overflows at random.  After each prompt the log-probabilities of the next token are compared with
those of an empty context that reads the same tokens: within EPSILON, and the same top token
wherever its lead exceeds 2 EPSILON.  Every restored state is saved again and must be equal, byte
for byte.  Prints one JSON object with the counts and figures; the exit status is 1 on any miss.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

from desktop_app.inference import llama
from desktop_app.inference.branches import Branch, Branches
from desktop_app.inference.context import Batch, Context
from desktop_app.inference.parking import Parking
from tests.fakes import tiny_gguf

EPSILON = 0.1
"""Of natural log-probabilities: f16 keys and values read in other batch shapes differ so much on
these weights, whose logits are as spread as those of trained ones."""
LENGTH = 1024
VOCABULARY = range(280, 440)


class CheckedContext(Context):
    """A context that saves again what it restored, and compares."""

    restored = 0
    unequal = 0

    def restore(self, sequence: int, data: bytes) -> bool:
        done = super().restore(sequence, data)
        if done:
            CheckedContext.restored += 1
            # A whole state also names its sequence, in bytes 4 to 7 of it; blocks always come from
            # and go to the same one.
            saved = super().save(sequence)
            CheckedContext.unequal += saved[:4] + saved[8:] != data[:4] + data[8:]
        return done


def make(weights: llama.Weights, kind: type[Context] = CheckedContext) -> Context:
    """A context as the engine makes it, small."""
    return kind(
        weights, length=LENGTH, sequences=6, threads=1, kv_type="f16", batch=512, offload=False
    )


def log_probabilities(logits: list[float]) -> list[float]:
    """Log-softmax."""
    top = max(logits)
    total = top + math.log(sum(math.exp(value - top) for value in logits))
    return [value - total for value in logits]


def difference(ours: list[float], fresh: list[float]) -> float:
    """The largest difference; tokens that are all but impossible differ more, and never matter."""
    return max(abs(a - b) for a, b in zip(ours, fresh, strict=True) if b > -12)


class Checker:
    """The cache under test, and an empty context to compare with."""

    def __init__(self, kind: tiny_gguf.Kind, seed: int, folder: Path) -> None:
        self._random = random.Random(seed)
        self._folder = folder
        path = tiny_gguf.write(folder / "weights.gguf", kind, seed=seed)
        self._weights = llama.Weights(str(path), gpu_layers=0)
        self._fresh = make(self._weights, Context)
        self._batch = Batch(512)
        self._context = make(self._weights)
        self._open()
        self._known: list[list[int]] = [self._words(60)]
        self._busy: list[Branch] = []
        self.worst = self.noise = 0.0
        self.counts = dict.fromkeys(
            ("asked", "read", "kept", "restarts", "top_differs", "beyond_epsilon"), 0
        )

    def _open(self) -> None:
        cap = self._random.choice([1 << 30, 200_000])
        parking = Parking("test", memory_bytes=cap, folder=self._folder, disk_bytes=1 << 30)
        self._branches = Branches(
            self._context,
            parking,
            can_roll_back=not self._weights.recurrent,
            window=self._weights.window,
        )

    def _words(self, count: int) -> list[int]:
        return [self._random.choice(VOCABULARY) for _ in range(count)]

    def operate(self) -> None:
        """One random operation."""
        action = self._random.choice(("ask", "ask", "ask", "fork", "give", "idle", "rare"))
        if action == "ask" and len(self._busy) < 3:
            self._ask()
        elif action == "fork" and self._busy:
            fork = self._branches.fork(self._random.choice(self._busy), "a")
            if fork is not None:
                self._busy.append(fork)
        elif action == "give" and self._busy:
            self._branches.give_back(self._busy.pop(self._random.randrange(len(self._busy))))
        elif action == "idle":
            for _ in range(self._random.randint(1, 12)):
                self._branches.idle_work()
        elif action == "rare":
            self._rare()

    def _rare(self) -> None:
        chance = self._random.random()
        if chance < 0.1:
            self._branches.forget([self._random.choice("ab")])
        elif chance < 0.2 and not self._busy:
            self._context.close()
            self._context = make(self._weights)
            self.counts["restarts"] += 1
            self._open()
        elif chance < 0.4 and self._busy and not self._weights.recurrent:
            branch = self._random.choice(self._busy)
            self._batch.clear()
            first = len(branch.tokens)
            self._batch.add(self._words(5), first, branch.sequence, output=True)
            self._context.abort(on=True)  # a stop in the middle of a step
            assert self._context.decode(self._batch) in ("aborted", "no_room")
            self._context.abort(on=False)
            self._branches.rewind(branch)

    def _ask(self) -> None:
        path = self._random.choice(self._known)
        path = path[: self._random.randint(2, len(path))]
        if self._random.random() < 0.7:
            path = [*path, *self._words(self._random.randint(1, 200))]
        path = path[: LENGTH // 3]
        branch = self._branches.take(path, self._random.choice("ab"))
        if branch is None:
            return
        self._known = [*self._known[-30:], path]
        assert branch.tokens == path[: len(branch.tokens)], "tokens of another conversation"
        self.counts["asked"] += 1
        self.counts["kept"] += len(branch.tokens)
        self.counts["read"] += len(path) - len(branch.tokens)
        ours = self._read(self._context, branch.sequence, path, branch)
        if ours is None:
            self._branches.give_back(branch)
            return
        self._fresh.clear()
        fresh = self._read(self._fresh, 0, path, None)
        assert fresh is not None
        if self._random.random() < 0.2:
            self._measure_noise(path, log_probabilities(fresh))
        self._compare(log_probabilities(ours), log_probabilities(fresh))
        if self._random.random() < 0.3:
            self._busy.append(branch)
        else:
            self._branches.give_back(branch)

    def _read(
        self, context: Context, sequence: int, path: list[int], branch: Branch | None
    ) -> list[float] | None:
        """Read what is missing of a path; the logits behind it, None when there is no room."""
        done = len(branch.tokens) if branch is not None else 0
        index = 0
        while done < len(path):
            end = len(path)
            if branch is not None:
                end = min(
                    self._branches.read_limit(branch, end), done + self._random.choice((64, 512))
                )
            self._batch.clear()
            index = self._batch.add(path[done:end], done, sequence, output=True)
            outcome = context.decode(self._batch)
            if outcome == "no_room":
                if not self._branches.make_room():
                    if not self._busy:
                        return None
                    self._branches.give_back(self._busy.pop())
                continue
            assert outcome == "done"
            if branch is not None:
                branch.tokens += path[done:end]
                self._branches.has_read(branch, len(path))
            done = end
        return context.logits(index)

    def _measure_noise(self, path: list[int], fresh: list[float]) -> None:
        """How much an empty context differs from itself when it reads in pieces of 64."""
        self._fresh.clear()
        index = 0
        for first in range(0, len(path), 64):
            self._batch.clear()
            index = self._batch.add(path[first : first + 64], first, 0, output=True)
            assert self._fresh.decode(self._batch) == "done"
        self.noise = max(
            self.noise, difference(log_probabilities(self._fresh.logits(index)), fresh)
        )

    def _compare(self, ours: list[float], fresh: list[float]) -> None:
        worst = difference(ours, fresh)
        self.worst = max(self.worst, worst)
        self.counts["beyond_epsilon"] += worst > EPSILON
        first, second = sorted(fresh, reverse=True)[:2]
        if first - second > 2 * EPSILON:
            self.counts["top_differs"] += ours.index(max(ours)) != fresh.index(max(fresh))


def _silent(_line: str) -> None:
    """llama.cpp's log is of no interest here."""


def main() -> int:
    """Run the operations and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=get_args(tiny_gguf.Kind), default="llama")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    llama.start(_silent)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        checker = Checker(args.kind, args.seed, Path(folder))
        for _ in range(args.count):
            checker.operate()
    figures = {
        "kind": args.kind,
        "seed": args.seed,
        "n": args.count,
        **checker.counts,
        "restored": CheckedContext.restored,
        "restored_unequal": CheckedContext.unequal,
        "worst_difference": round(checker.worst, 5),
        "worst_difference_by_batches_alone": round(checker.noise, 5),
        "epsilon": EPSILON,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(figures))
    wrong = checker.counts["beyond_epsilon"] + checker.counts["top_differs"]
    return 1 if wrong or CheckedContext.unequal else 0


if __name__ == "__main__":
    sys.exit(main())
