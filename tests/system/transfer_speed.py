"""Proof: downloading with hashing keeps up with curl, at little CPU and flat memory.

``python -m tests.system.transfer_speed --size 1000000000 --rate 200000000 --rounds 15``

Each round is a pair, curl and Grove in turns first.  The figure is the median of the pairs' ratios.
``--already FILE`` adds the pairs of earlier runs, for machines that are quiet only for a while.
Exit status 1 below 0.95 × curl, or when memory grew by more than 30 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from desktop_app.weights.connections import Connections
from desktop_app.weights.hub import Hub
from desktop_app.weights.tokens import Tokens
from desktop_app.weights.transfer import Transfer

MODULE = "tests.system.transfer_speed"


def child(home: Path, url: str, name: str) -> None:
    """One download; prints seconds, CPU seconds and memory as JSON."""
    connections = Connections(None)
    door = Hub(connections, endpoint=url, tokens=Tokens(use_keyring=False))
    repository = door.repository(name)
    file = repository.quantisations[0].files[0]
    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.monotonic()
    with connections.action("download", "proof"):
        result = Transfer(connections, door.wanted(repository, file), home / file.path).run()
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    grown = (after.ru_maxrss - before.ru_maxrss) * 1024
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "grown": grown, "ok": result.verified}))


def prove(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    server = None
    url = args.hub
    if not url:
        folder = work / "hub" / "maker" / "repo"
        folder.mkdir(parents=True)
        rng = random.Random(args.seed)
        piece = rng.randbytes(1 << 20)
        with (folder / "weights.Q8_0.gguf").open("wb") as file:
            for number in range(args.size >> 20):
                file.write(number.to_bytes(8, "little") + piece[8:])
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.hub", str(work / "hub"), "--rate", str(args.rate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
    try:
        return measure(args, work, url)
    finally:
        if server is not None:
            server.communicate()  # the end of its stdin stops it


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds of one download each, and what Grove's took of the processor and of memory."""

    size: int
    curl_s: float
    own_s: float
    cpu_s: float
    grown: int


def with_curl(address: str, target: Path) -> tuple[float, int]:
    """Seconds and bytes."""
    begin = time.monotonic()
    subprocess.run(["curl", "-sfL", "-o", target, address], check=True)
    seconds = time.monotonic() - begin
    size = target.stat().st_size
    target.unlink()
    return seconds, size


def with_grove(home: Path, url: str, name: str) -> dict[str, Any]:
    words = ["--child", str(home), "--hub", url, "--repository", name]
    output = subprocess.run(
        [sys.executable, "-m", MODULE, *words], check=True, capture_output=True
    ).stdout
    said: dict[str, Any] = json.loads(output)
    assert said["ok"]
    for path in home.iterdir():
        path.unlink()
    return said


def measure(args: argparse.Namespace, work: Path, url: str) -> dict[str, Any]:
    name, home = args.repository, work / "home"
    connections = Connections(None)
    door = Hub(connections, endpoint=url, tokens=Tokens(use_keyring=False))
    repository = door.repository(name)
    address = door.wanted(repository, repository.quantisations[0].files[0]).url
    connections.close()
    pairs = []
    for number in range(args.rounds + 1):
        os.sync()  # nobody pays for what the one before left to be written
        if number % 2:
            curl_s, size = with_curl(address, work / "curl.out")
            os.sync()
            said = with_grove(home, url, name)
        else:
            said = with_grove(home, url, name)
            os.sync()
            curl_s, size = with_curl(address, work / "curl.out")
        if number:  # the first round warms caches and the server's hash of the file
            pairs.append(Pair(size, curl_s, said["seconds"], said["cpu_s"], said["grown"]))
    if args.already is not None:
        if args.already.exists():
            pairs += [Pair(**item) for item in json.loads(args.already.read_text())]
        args.already.write_text(json.dumps([asdict(pair) for pair in pairs]))
    return judge(pairs)


def judge(pairs: list[Pair]) -> dict[str, Any]:
    ratios = sorted(pair.curl_s / pair.own_s for pair in pairs)
    return {
        "pairs": len(pairs),
        "size": pairs[0].size,
        "curl_mb_per_s": round(statistics.median(p.size / p.curl_s for p in pairs) / 1e6, 1),
        "own_mb_per_s": round(statistics.median(p.size / p.own_s for p in pairs) / 1e6, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "cpu_s_per_gb": round(statistics.median(p.cpu_s / (p.size / 1e9) for p in pairs), 2),
        "memory_growth_mb": round(max(pair.grown for pair in pairs) / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000_000)
    parser.add_argument("--rate", type=int, default=200_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--already", type=Path, help="a file that keeps the pairs of all runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hub", default="")
    parser.add_argument("--repository", default="maker/repo", help="on the --hub")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.hub, args.repository)
        return 0
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        result = prove(args, Path(name))
    print(json.dumps(result, indent=1))
    return 0 if result["ratio"] >= 0.95 and result["memory_growth_mb"] <= 30 else 1


if __name__ == "__main__":
    sys.exit(main())
