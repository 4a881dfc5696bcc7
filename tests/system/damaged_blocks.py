"""Parked blocks that were damaged, cut, exchanged or brought from elsewhere, on real llama.cpp.

`python -m tests.system.damaged_blocks [--kind llama|window|mamba] [--n N] [--seed N]` parks some
branches of tiny random weights on disk, harms files of that folder in N ways, and after each asks
all branches in a context that starts anew with the folder.  Every answer must be that of an empty
context which reads the same tokens (as in `tests.system.branch_cache`), and nothing may crash.
`--blind` is the control: exchanged contents pass as genuine, and the answers must come out wrong.
Prints one JSON object; the exit status is 1 on a wrong answer (with `--blind`: on none).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

from desktop_app.errors import KnownError
from desktop_app.inference import llama
from desktop_app.inference.branches import Branches
from desktop_app.inference.context import Batch, Context
from desktop_app.inference.parked_files import MAGIC, NAME_BYTES, write_private
from desktop_app.inference.parking import Block, Parking
from tests.fakes import tiny_gguf
from tests.system.branch_cache import EPSILON, VOCABULARY, difference, log_probabilities, make

BEGINNING, TAILS = 150, (40, 90, 90, 150, 150, 200)
BIG: Final = 1 << 30


class Blind(Parking):
    """Parking that believes whatever a file holds."""

    def _open(self, _block: Block, content: bytes) -> bytes | None:
        (size,) = struct.unpack_from("<I", content, len(MAGIC))
        return content[len(MAGIC) + 4 + size : -NAME_BYTES]


class Harm:
    """The ways to harm a folder of parked blocks; each returns the files that it touched."""

    def __init__(self, chooser: random.Random, foreign: list[Path]) -> None:
        self._random, self._foreign = chooser, foreign

    def flip(self, files: list[Path]) -> list[Path]:
        """One bit, anywhere."""
        file = self._random.choice(files)
        data = bytearray(file.read_bytes())
        data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        file.write_bytes(data)
        return [file]

    def flip_header(self, files: list[Path]) -> list[Path]:
        """One bit of magic, lengths, parent's name, offset or tokens."""
        file = self._random.choice(files)
        data = bytearray(file.read_bytes())
        data[self._random.randrange(len(MAGIC) + 4 + NAME_BYTES + 40)] ^= 1 << (
            self._random.randrange(8)
        )
        file.write_bytes(data)
        return [file]

    def cut(self, files: list[Path]) -> list[Path]:
        """The end is missing, as after a full disk or a lost write."""
        file = self._random.choice(files)
        data = file.read_bytes()
        file.write_bytes(data[: self._random.randrange(len(data))])
        return [file]

    def hole(self, files: list[Path]) -> list[Path]:
        """A page of zeros, as after a loss of power."""
        file = self._random.choice(files)
        data = bytearray(file.read_bytes())
        first = self._random.randrange(len(data))
        end = min(len(data), first + 4096)
        data[first:end] = bytes(end - first)
        file.write_bytes(data)
        return [file]

    def grow(self, files: list[Path]) -> list[Path]:
        """More behind the end."""
        file = self._random.choice(files)
        file.write_bytes(file.read_bytes() + self._random.randbytes(self._random.randrange(1, 99)))
        return [file]

    def noise(self, files: list[Path]) -> list[Path]:
        """Nothing but random bytes behind a right header."""
        file = self._random.choice(files)
        data = file.read_bytes()
        keep = min(len(data), len(MAGIC) + 4 + NAME_BYTES + 9)
        file.write_bytes(data[:keep] + self._random.randbytes(len(data) - keep))
        return [file]

    def exchange(self, files: list[Path]) -> list[Path]:
        """Two whole files change names."""
        first, second = self._random.sample(files, 2)
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
        return [first, second]

    def exchange_states(self, files: list[Path]) -> list[Path]:
        """Each keeps its header and name, but has the other's state and MAC."""
        first, second = self._random.sample(files, 2)
        parts = [_split(file.read_bytes()) for file in (first, second)]
        first.write_bytes(parts[0][0] + parts[1][1])
        second.write_bytes(parts[1][0] + parts[0][1])
        return [first, second]

    def exchange_twins(self, files: list[Path]) -> list[Path]:
        """As before, of two blocks of one shape at one place: nothing but the MAC can tell."""
        twins = [
            (first, second)
            for first, second in itertools.combinations(files, 2)
            if first.stat().st_size == second.stat().st_size
        ]
        first, second = self._random.choice(twins)
        return self.exchange_states([first, second])

    def foreign_state(self, files: list[Path]) -> list[Path]:
        """A genuine block of another profile (another key) for the same tokens and weights."""
        file = self._random.choice(files)
        other = self._random.choice(self._foreign).read_bytes()
        file.write_bytes(other)
        return [file]

    def foreign_body(self, files: list[Path]) -> list[Path]:
        """The header stays; state and MAC come from another profile."""
        file = self._random.choice(files)
        other = _split(self._random.choice(self._foreign).read_bytes())[1]
        file.write_bytes(_split(file.read_bytes())[0] + other)
        return [file]

    def stranger(self, files: list[Path]) -> list[Path]:
        """Another profile's file beside ours, under its own name."""
        other = self._random.choice(self._foreign)
        shutil.copy(other, files[0].parent / other.name)
        return [files[0].parent / other.name]

    def lost(self, files: list[Path]) -> list[Path]:
        """A file is gone."""
        file = self._random.choice(files)
        file.unlink()
        return [file]

    def index(self, files: list[Path]) -> list[Path]:
        """The list of which chat needs what."""
        file = files[0].parent / "chats.json"
        data = bytearray(file.read_bytes())
        data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        file.write_bytes(data)
        return [file]

    def key(self, files: list[Path]) -> list[Path]:
        """The key of names and MACs was replaced."""
        file = files[0].parents[2] / "branches.key"
        file.write_bytes(self._random.randbytes(32))
        return [file]


def _split(content: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack_from("<I", content, len(MAGIC))
    body = len(MAGIC) + 4 + size
    return content[:body], content[body:]


class Trial:
    """Parked branches of one set of weights, and the right answers."""

    def __init__(self, kind: tiny_gguf.Kind, seed: int, folder: Path, *, blind: bool) -> None:
        self.random = random.Random(seed)
        self._folder, self._store = folder, Blind if blind else Parking
        path = tiny_gguf.write(folder / "weights.gguf", kind, seed=seed)
        self._weights = llama.Weights(str(path), gpu_layers=0)
        self._context = make(self._weights, Context)
        self._batch = Batch(512)
        beginning = self._words(BEGINNING)
        self._paths = [beginning + self._words(size) for size in TAILS]
        self._right = [self._answer(path) for path in self._paths]
        self.counts: Counter[str] = Counter()
        self.worst = 0.0
        for name in ("good", "foreign"):
            (folder / name).mkdir()  # each has a key of its own, and the seed says which
            write_private(folder / name / "branches.key", self.random.randbytes(32))
            branches = self._open(folder / name)
            for number, words in enumerate(self._paths):
                self._visit(branches, words, f"chat {number}")
            while branches.idle_work():
                pass
        self.foreign = sorted((folder / "foreign").rglob("*.blk"))

    def _words(self, count: int) -> list[int]:
        return [self.random.choice(VOCABULARY) for _ in range(count)]

    def _open(self, folder: Path) -> Branches:
        self._context.clear()
        store = self._store("test", memory_bytes=BIG, folder=folder, disk_bytes=BIG)
        return Branches(
            self._context,
            store,
            can_roll_back=not self._weights.recurrent,
            window=self._weights.window,
        )

    def _answer(self, path: list[int]) -> list[float]:
        self._context.clear()
        self._batch.clear()
        index = self._batch.add(path, 0, 0, output=True)
        assert self._context.decode(self._batch) == "done"
        return log_probabilities(self._context.logits(index))

    def _visit(self, branches: Branches, path: list[int], chat: str) -> list[float]:
        """Ask a branch; the log-probabilities behind its prompt."""
        branch = branches.take(path, chat)
        assert branch is not None
        assert branch.tokens == path[: len(branch.tokens)], "tokens of another conversation"
        self.counts["kept"] += len(branch.tokens)
        index = 0
        while len(branch.tokens) < len(path):
            done, end = len(branch.tokens), branches.read_limit(branch, len(path))
            self._batch.clear()
            index = self._batch.add(path[done:end], done, branch.sequence, output=True)
            assert self._context.decode(self._batch) == "done"
            self.counts["read"] += end - done
            branch.tokens += path[done:end]
            branches.has_read(branch, len(path))
        branches.give_back(branch)
        return log_probabilities(self._context.logits(index))

    def harmed(self, harm: Callable[[list[Path]], list[Path]]) -> None:
        """Harm a copy of the folder, then ask every branch of it."""
        folder = self._folder / "harmed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._folder / "good", folder)
        touched = harm(sorted(folder.rglob("*.blk")))
        before = {file: file.read_bytes() for file in touched if file.exists()}
        branches = self._open(folder)
        order = list(range(len(TAILS)))
        self.random.shuffle(order)
        for number in order:
            self.counts["answers"] += 1
            try:
                ours = self._visit(branches, self._paths[number], f"chat {number}")
            except KnownError:  # llama.cpp refuses what it was given
                self.counts["failed"] += 1
                branches = self._open(folder)
                continue
            right = self._right[number]
            worst = difference(ours, right)
            self.worst = max(self.worst, worst)
            first, second = sorted(right, reverse=True)[:2]
            other_top = ours.index(max(ours)) != right.index(max(right))
            wrong = worst > EPSILON or (other_top and first - second > 2 * EPSILON)
            self.counts["wrong"] += wrong
        for file, content in before.items():
            is_there = file.suffix == ".blk" and file.exists() and file.read_bytes() == content
            self.counts["left_lying"] += is_there

    def close(self) -> None:
        """Free the memory."""
        self._context.close()
        self._weights.close()


def run(kind: tiny_gguf.Kind, count: int, seed: int, *, blind: bool = False) -> dict[str, object]:
    """Harm `count` times; the figures."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(kind, seed, Path(folder), blind=blind)
        harm = Harm(trial.random, trial.foreign)
        ways = (
            [harm.exchange_twins]
            if blind
            else [
                harm.flip,
                harm.flip_header,
                harm.cut,
                harm.hole,
                harm.grow,
                harm.noise,
                harm.exchange,
                harm.exchange_states,
                harm.exchange_twins,
                harm.foreign_state,
                harm.foreign_body,
                harm.stranger,
                harm.lost,
                harm.index,
                harm.key,
            ]
        )
        trial.counts.clear()
        done: Counter[str] = Counter()
        for number in range(count):
            way = ways[number % len(ways)]
            trial.harmed(way)
            done[way.__name__] += 1
        trial.close()
        return {
            "kind": kind,
            "seed": seed,
            "n": count,
            "ways": dict(done),
            **{name: trial.counts[name] for name in ("answers", "wrong", "failed", "kept", "read")},
            "harmed_files_never_looked_at": trial.counts["left_lying"],
            "worst_difference": round(trial.worst, 5),
            "epsilon": EPSILON,
        }


def main() -> int:
    """Run the harms and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=get_args(tiny_gguf.Kind), default="llama")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true")
    args = parser.parse_args()
    llama.start(lambda _line: None)
    started = time.monotonic()
    figures = run(args.kind, args.n, args.seed, blind=args.blind)
    print(json.dumps(figures | {"seconds": round(time.monotonic() - started, 1)}))
    return int(bool(figures["wrong"] or figures["failed"]) != args.blind)


if __name__ == "__main__":
    sys.exit(main())
