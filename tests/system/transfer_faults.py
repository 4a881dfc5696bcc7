"""Proof: downloads arrive whole through faults, kills and cancels, and leave nothing behind.

``python -m tests.system.transfer_faults --faults 300 --kills 200 --cancels 20 --seed 1``

Files of ``--size`` bytes come from the hub in tests/fakes (or from ``--hub URL``, which then brings
its own faults) at ``--rate`` bytes per second.  Exit status 1 if a wrong file was accepted, a good
one lost, more than 1 MB fetched again for a break, a cancel took longer than 0.2 s, or anything
but the file was left.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from desktop_app.errors import KnownError
from desktop_app.weights.connections import Connections
from desktop_app.weights.hub import Hub, Repository
from desktop_app.weights.tokens import Tokens
from desktop_app.weights.transfer import Patience, Transfer, Wanted, discard
from tests.fakes.hub import FakeHub, Fault

MODULE = "tests.system.transfer_faults"
MAX_AGAIN = 1_000_000
# Faults after which the bytes that came before them are good and must not be fetched again.
RANGES = ("ignore-range", "416", "wrong-range")
BREAKS = ("reset", "close", "stall", "429", "500", "503", "expired", *RANGES)
# Faults that falsify content or answer another question than was asked.
FALSE = ("flip", "short", "garbage", "changed")
IMPATIENT = Patience(backoff_s=0.02, longest_wait_s=0.2, without_progress_s=60)


def make_files(folder: Path, size: int, rng: random.Random) -> None:
    """Two versions of one file: half of the proofs want the file to change."""
    target = folder / "maker" / "repo" / "weights.Q8_0.gguf"
    target.parent.mkdir(parents=True)
    target.write_bytes(rng.randbytes(size))
    (folder / "other").write_bytes(rng.randbytes(size))


class Proof:
    """Counts what went wrong."""

    def __init__(
        self, work: Path, hub: FakeHub | None, url: str, name: str, rng: random.Random
    ) -> None:
        self.work = work
        self.name = name
        self.hub = hub
        self.rng = rng
        self.connections = Connections(None, stall_timeout_s=0.4)
        self.door = Hub(self.connections, endpoint=url, tokens=Tokens(use_keyring=False))
        self.list_again()
        self.counts: Counter[str] = Counter()
        # For each break: bytes that reached this machine again, and that the hub handed to its
        # system again (with what waited there when the connection broke, and went nowhere).
        self.arrived_again: list[int] = []
        self.sent_again: list[int] = []
        self.problems: list[str] = []
        self.target = work / "home" / self.file.path

    def list_again(self) -> None:
        self.repository: Repository = self.door.repository(self.name)
        self.file = self.repository.quantisations[0].files[0]

    @property
    def wanted(self) -> Wanted:
        return self.door.wanted(self.repository, self.file)

    def run_once(self, progress: Any = None, stop: threading.Event | None = None) -> int:
        """One transfer to its end; returns the bytes fetched."""
        with self.connections.action("download", "proof", cancel=stop):
            transfer = Transfer(self.connections, self.wanted, self.target, patience=IMPATIENT)
            result = transfer.run(progress, stop)
        self.counts["breaks"] += result.breaks
        self.counts["clean starts"] += result.restarts
        return result.fetched_bytes

    def check(self, label: str, expected: str) -> None:
        """The named file is right and alone."""
        left = sorted(path.name for path in self.target.parent.iterdir())
        if left != [self.target.name]:
            self.problems.append(f"{label}: left behind {left}")
        digest = hashlib.sha256(self.target.read_bytes()).hexdigest()
        if digest != expected:
            self.counts["wrong accepted"] += 1
            self.problems.append(f"{label}: a wrong file was accepted")

    def again(self, label: str) -> None:
        """Compare, by the hub's log, where each body ended and where the next one began."""
        assert self.hub is not None
        bodies = [r for r in self.hub.log if r.origin == "files" and r.status in (200, 206)]
        for body, following in itertools.pairwise(bodies):
            begin, resumed = body.range_start or 0, following.range_start or 0
            arrived = max(0, begin + body.delivered - resumed)
            self.arrived_again.append(arrived)
            self.sent_again.append(max(0, begin + body.sent - resumed))
            if arrived > MAX_AGAIN:
                self.problems.append(f"{label}: {arrived} B again for a break")


def fault_runs(proof: Proof, count: int) -> None:
    """`count` faults at random offsets, one to three in a download."""
    hub = proof.hub
    done = 0
    while done < count:
        size = proof.file.size_bytes
        if hub is None:
            # Another hub brings its own faults and its own log; here counts what arrived.
            before, clean = proof.counts["breaks"], proof.counts["clean starts"]
            fetched = proof.run_once()
            breaks = proof.counts["breaks"] - before
            proof.check("another hub", proof.file.sha256)
            if breaks and proof.counts["clean starts"] == clean:
                # Not told by the hub: on the average of these breaks.
                proof.arrived_again.append((fetched - size) // breaks)
                if proof.arrived_again[-1] > MAX_AGAIN:
                    proof.problems.append(f"another hub: {fetched - size} B, {breaks} breaks")
            done += max(1, breaks)
            proof.target.unlink()
            continue
        only_breaks = proof.rng.random() < 0.7
        kinds = BREAKS if only_breaks else BREAKS + FALSE
        planned = [proof.rng.choice(kinds) for _ in range(proof.rng.choice([1, 2, 3]))]
        if planned[0] in RANGES:
            planned.insert(0, "close")  # a first request asks for no range
        old_kept = proof.rng.random() < 0.3
        if old_kept:
            # An update: the old file must stay until the new one is there.
            proof.target.parent.mkdir(parents=True, exist_ok=True)
            proof.target.write_bytes(b"old but good")
        left = size
        hub.log.clear()
        for kind in planned:
            after = proof.rng.randrange(max(1, left // 2))
            left -= after
            hub.plan.append(Fault(kind, after))
        # Mirrors do not name the content in their redirect; then only ETags and sizes tell.
        hub.linked = "changed" in planned or proof.rng.random() < 0.7
        done += len(planned)
        proof.counts.update(planned)
        label = "+".join(planned)
        fetched = 0
        try:
            fetched = proof.run_once()
        except KnownError as error:
            proof.problems.append(f"{label}: gave up: {error.code} {error.detail}")
            hub.plan.clear()
            discard(proof.target)
            continue
        hub.plan.clear()
        path = hub.path(f"maker/repo/{proof.file.path}")
        assert path is not None
        proof.check(label, hub.sha256(path))
        if all(kind in BREAKS for kind in planned):
            proof.again(label)
        proof.counts["downloads"] += 1
        proof.counts["fetched"] += fetched
        proof.target.unlink()
        if "changed" in planned:
            # The next download starts from a listing of what is there now.
            proof.list_again()


def change_file(hub: FakeHub) -> None:
    """Replace the hub's file by its other version, as a maker does who uploads again."""
    path = hub.path("maker/repo/weights.Q8_0.gguf")
    assert path is not None
    other = hub.folder / "other"
    spare = hub.folder / "spare"
    path.rename(spare)
    other.rename(path)
    spare.rename(other)


def _size(path: Path) -> int:
    """0 for a file that is not there, or not any more."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def kill_runs(proof: Proof, count: int, url: str) -> None:
    """`count` times kill -9 at random offsets of throttled downloads."""
    killed = 0
    size = proof.file.size_bytes
    downloads = 0
    if proof.hub is not None:
        proof.hub.log.clear()
    while killed < count:
        part = proof.target.with_name(proof.target.name + ".part")
        home = str(proof.work / "home")
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                MODULE,
                "--child",
                home,
                "--hub",
                url,
                "--repository",
                proof.name,
            ],
            stdout=subprocess.PIPE,
        )
        goal = proof.rng.randrange(size)
        have = _size(part)
        # Kill between where it is and the end; now and then the goal is past and it finishes.
        goal = have + max(1, (goal - have) if goal > have else proof.rng.randrange(1, 8 << 20))
        while child.poll() is None:
            now = _size(part)
            if now >= goal:
                os.kill(child.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        assert child.stdout is not None
        child.stdout.close()
        if child.wait() != -signal.SIGKILL:
            if child.returncode != 0:
                proof.problems.append(f"kill run: the child ended with {child.returncode}")
                return
            downloads += 1
            proof.check("kill run", proof.file.sha256)
            if proof.hub is not None:
                proof.again("kills")
                proof.hub.log.clear()
            proof.target.unlink()
            continue
        killed += 1
    proof.counts["kills"] = killed
    proof.counts["downloads despite kills"] = downloads
    # The last one may be unfinished: finish it.
    proof.run_once()
    proof.check("after the kills", proof.file.sha256)
    proof.target.unlink()


def cancel_runs(proof: Proof, count: int) -> float:
    """Cancel at random moments, in silence too; returns the slowest answer in seconds."""
    slowest = 0.0
    for number in range(count):
        if proof.hub is not None and number % 3 == 0:
            proof.hub.plan.append(Fault("stall", proof.rng.randrange(4 << 20)))
        stop = threading.Event()
        moved = threading.Event()
        ended: list[float] = []

        def work(
            stop: threading.Event = stop,
            moved: threading.Event = moved,
            ended: list[float] = ended,
        ) -> None:
            try:
                proof.run_once(lambda _p: moved.set(), stop)
            except KnownError as error:
                if error.code != "cancelled":
                    proof.problems.append(f"cancel: {error.code}")
            ended.append(time.monotonic())

        thread = threading.Thread(target=work)
        thread.start()
        moved.wait(5)
        time.sleep(proof.rng.uniform(0, 0.5))
        asked = time.monotonic()
        stop.set()
        thread.join()
        slowest = max(slowest, ended[0] - asked)
        discard(proof.target)
        if proof.hub is not None:
            proof.hub.plan.clear()
        left = list(proof.target.parent.iterdir()) if proof.target.parent.exists() else []
        if [path for path in left if path != proof.target]:
            proof.problems.append(f"cancel: left behind {left}")
        proof.target.unlink(missing_ok=True)
    return slowest


def child(home: Path, url: str, name: str) -> None:
    """One download in a process of its own, to be killed."""
    connections = Connections(None)
    door = Hub(connections, endpoint=url, tokens=Tokens(use_keyring=False))
    repository = door.repository(name)
    file = repository.quantisations[0].files[0]
    with connections.action("download", "proof"):
        Transfer(connections, door.wanted(repository, file), home / file.path).run()


def spread(values: list[int]) -> dict[str, int]:
    """How many, and the median, 99th percentile and largest."""
    ordered = sorted(values) or [0]
    return {
        "breaks": len(values),
        "median": ordered[len(ordered) // 2],
        "p99": ordered[int(len(ordered) * 0.99)],
        "largest": ordered[-1],
    }


def prove(args: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(args.seed)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        work = Path(name)
        hub = None
        if not args.hub:
            make_files(work / "hub", args.size, rng)
            hub = FakeHub(work / "hub", seed=args.seed, rate=args.rate)
            hub.on_change = functools.partial(change_file, hub)
            hub.__enter__()
        url = args.hub or (hub.url if hub else "")
        try:
            proof = Proof(work, hub, url, args.repository, rng)
            cancelled = cancel_runs(proof, args.cancels) if args.cancels else 0.0
            kill_runs(proof, args.kills, url) if args.kills else None
            fault_runs(proof, args.faults)
            proof.connections.close()
        finally:
            if hub is not None:
                hub.__exit__()
    if cancelled > 0.2:
        proof.problems.append(f"a cancel took {cancelled:.3f} s")
    return {
        "seed": args.seed,
        "size": args.size,
        "counts": dict(proof.counts),
        "bytes_again_for_a_break": spread(proof.arrived_again),
        "handed_over_again_by_the_hub": spread(proof.sent_again),
        "slowest_cancel_ms": round(cancelled * 1000),
        "problems": proof.problems,
        "seconds": round(time.monotonic() - begin),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cancels", type=int, default=20)
    parser.add_argument("--size", type=int, default=50_000_000)
    parser.add_argument("--rate", type=int, default=40_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hub", default="")
    parser.add_argument("--repository", default="maker/repo", help="on the --hub")
    parser.add_argument("--work", type=Path, help="folder for the files")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.hub, args.repository)
        return 0
    result = prove(args)
    print(json.dumps(result, indent=1))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
