"""Proof: the token reaches the hub's origin only, and offline means that no socket is opened.

``python -m tests.system.transfer_private --seed 1``

Downloads gated weights through a redirect to another origin, an ignored range, an expired link and
a break, and looks for the token at both origins.  Then goes the whole way offline (add, list, fit,
verify, catalogue, remove; search and get refuse) under ``strace``, once with the switch on and once
more in a network namespace without any network.  Exit status 1 if anything leaks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from desktop_app.weights.connections import Connections
from desktop_app.weights.downloads import Downloads
from desktop_app.weights.hub import Hub
from desktop_app.weights.places import System
from desktop_app.weights.shelf import Shelf
from desktop_app.weights.tokens import Tokens
from desktop_app.weights.transfer import Patience
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_files import Shape, write

COMMAND = [sys.executable, "-m", "tests.system.transfer_command"]


def token_stays_home(work: Path, seed: int) -> dict[str, Any]:
    """Where the token was seen.  Only the hub may."""
    source = work / "hub" / "maker" / "Tiny-GGUF" / "tiny.Q8_0.gguf"
    source.parent.mkdir(parents=True)
    write(source, Shape(8, 256, 512, 4, 2, 2000, 512, "Q8_0"))
    with FakeHub(work / "hub", seed=seed) as fake:
        fake.gated = {"maker/Tiny-GGUF"}
        connections = Connections(None)
        tokens = Tokens(use_keyring=False)
        hub = Hub(connections, endpoint=fake.url, tokens=tokens)
        tokens.set(hub.origin, fake.token)
        shelf = Shelf(work / "profile", system=System(work / "home", {}))
        downloads = Downloads(hub, shelf, None, patience=Patience(backoff_s=0.01))
        repository = hub.repository("maker/Tiny-GGUF")
        hub.search("tiny")
        hub.header(repository, repository.quantisations[0].files[0])
        fake.plan.extend([Fault("close", 100_000), Fault("ignore-range"), Fault("expired")])
        done = downloads.wait(downloads.add(repository, repository.quantisations[0]), 60)
        downloads.close()
        connections.close()
        seen = {
            origin: sum(1 for r in fake.log if r.origin == origin and fake.token in r.authorization)
            for origin in ("hub", "files")
        }
        requests = {o: sum(1 for r in fake.log if r.origin == o) for o in ("hub", "files")}
    written = [
        str(path)
        for path in (work / "profile").rglob("*")
        if path.is_file() and fake.token.encode() in path.read_bytes()
    ]
    return {"state": done.state, "token_seen": seen, "requests": requests, "on_disk": written}


def journey(weights: Path) -> list[tuple[list[str], int]]:
    """Commands and the exit status each must have without any network."""
    name = str(weights)
    return [
        (["add", name], 0),
        (["list", "--json"], 0),
        (["fit", name], 0),
        (["verify", name], 0),
        (["search"], 0),
        (["search", "llama"], 1),
        (["get", "llama-3.2-1b"], 1),
        (["files", "maker/repo"], 1),
        (["remove", name], 0),
    ]


def offline(work: Path, prefix: list[str], switch: list[str]) -> dict[str, Any]:
    """The journey under strace; the sockets that it opened."""
    weights = work / "away.gguf"
    write(weights, Shape())
    wrong: list[str] = []
    opened: list[str] = []
    environment = {**os.environ, "HOME": str(work / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    for number, (words, expected) in enumerate(journey(weights)):
        trace = work / f"trace-{number}"
        needs_network = expected == 1
        if needs_network and not switch:
            continue  # without the switch these may try, and fail
        tracing = ["strace", "-f", "-qq", "-e", "trace=socket,connect", "-o", str(trace)]
        profile = ["--profile", str(work / "profile-offline")]
        done = subprocess.run(
            [*prefix, *tracing, *COMMAND, *profile, "weights", *words, *switch],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode != expected:
            wrong.append(f"{words}: {done.returncode} {done.stderr[-200:]}")
        lines = trace.read_text(errors="replace").splitlines()
        opened += [line for line in lines if re.search(r"AF_INET6?\b", line)]
    return {"wrong": wrong, "sockets": opened}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hub", default="", help="not used: this proof must see both origins")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "home").mkdir()
        result: dict[str, Any] = {"token": token_stays_home(work, args.seed)}
        if shutil.which("strace"):
            result["switch"] = offline(work, [], ["--offline"])
            denied = ["unshare", "--map-root-user", "--net"]
            if subprocess.run([*denied, "true"], check=False, capture_output=True).returncode == 0:
                result["no network"] = offline(work, denied, [])
    print(json.dumps(result, indent=1))
    token = result["token"]
    bad = token["state"] != "done" or token["token_seen"]["files"] or token["on_disk"]
    bad = bad or not token["token_seen"]["hub"]
    for part in ("switch", "no network"):
        bad = bad or any(result.get(part, {}).values())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
