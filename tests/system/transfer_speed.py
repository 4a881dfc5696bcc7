"""Proof: downloading with hashing keeps up with curl, at little CPU and flat memory.

``python -m tests.system.transfer_speed --size 1000000000 --rate 200000000 --rounds 3``

Exit status 1 below 0.95 × curl, or when memory grew by more than 30 MB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
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


def measure(args: argparse.Namespace, work: Path, url: str) -> dict[str, Any]:
    size = 0
    curl_s, own_s, cpu_s, grown = [], [], [], []
    name, home = args.repository, str(work / "home")
    door = Hub(Connections(None), endpoint=url, tokens=Tokens(use_keyring=False))
    repository = door.repository(name)
    address = door.wanted(repository, repository.quantisations[0].files[0]).url
    door.connections.close()
    for _ in range(args.rounds + 1):
        target = work / "curl.out"
        begin = time.monotonic()
        subprocess.run(
            ["curl", "-sfL", "-o", target, address],
            check=True,
        )
        curl_s.append(time.monotonic() - begin)
        size = target.stat().st_size
        target.unlink()
        output = subprocess.run(
            [sys.executable, "-m", MODULE, "--child", home, "--hub", url, "--repository", name],
            check=True,
            capture_output=True,
        ).stdout
        said = json.loads(output)
        assert said["ok"]
        own_s.append(said["seconds"])
        cpu_s.append(said["cpu_s"])
        grown.append(said["grown"])
        for path in (work / "home").iterdir():
            path.unlink()
    # The first round warms caches and the server's hash of the file.
    curl, own = statistics.median(curl_s[1:]), statistics.median(own_s[1:])
    return {
        "size": size,
        "curl_mb_per_s": round(size / curl / 1e6, 1),
        "own_mb_per_s": round(size / own / 1e6, 1),
        "ratio": round(curl / own, 3),
        "best_ratio": round(max(c / o for c, o in zip(curl_s[1:], own_s[1:], strict=True)), 3),
        "cpu_s_per_gb": round(statistics.median(cpu_s) / (size / 1e9), 2),
        "memory_growth_mb": round(max(grown) / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000_000)
    parser.add_argument("--rate", type=int, default=200_000_000)
    parser.add_argument("--rounds", type=int, default=3)
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
