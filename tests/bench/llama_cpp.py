"""The engine against llama.cpp's own programs on the same weights (`tests.bench.llama_tools`).

Parts: "decode1", "decode2" and "read" against llama-bench; "drafts-cached", "drafts-new", "hops"
and "memory" against llama-server.  All of the engine's times are those of the app, through child
process and worker.  "settings" tells what llama-server's settings make of the same
hops; with `--keep FOLDER` "server-hops" measures the server's side of "hops" in a run of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.bench.branches import Ours, sign, story, weights_of
from tests.bench.engine import PROMPT, engine_speed, memory_bytes
from tests.bench.llama_tools import Server, bench_speed
from tests.bench.pairs import Figure, alternate

READ_TOKENS: Final = 256
PROMPT_TOKENS: Final = 512
DRAFT_TOKENS: Final = 24
REST_S: Final = 0.4
DRAFTS: Final = 4
BRANCHES, HOPS, BEGINNING, REPLY = 32, 200, 1000, 4
TAIL: Final = (60, 300)
CONTEXT: Final = 8192


# --- llama-bench -------------------------------------------------------------------------------


def decode(options: argparse.Namespace, threads: int, aim: str) -> list[Figure]:
    """Writing, one reply.

    Both load the weights anew for each measure: where they come to lie in memory makes 2 %.
    """
    with weights_of(options) as weights:
        ours = Ours(weights, threads, 2048, None)

        def speed() -> float:
            ours.restart()
            return engine_speed(ours.engine)

        try:
            figure = alternate(
                f"decode / llama-bench, {threads} thread(s)",
                "tokens/s",
                aim,
                speed,
                lambda: bench_speed(weights, threads, written=48, depth=len(PROMPT)),
                count=options.count,
            )
        finally:
            ours.close()
        return sign([figure], weights, threads)


def read(options: argparse.Namespace) -> list[Figure]:
    """Reading prompts that nothing before began with."""
    chooser = random.Random(options.seed)
    with weights_of(options) as weights:
        ours = Ours(weights, options.threads, 2048, None)

        def speed() -> float:
            done, seconds = ours.ask(story(chooser, READ_TOKENS), written=1)
            assert done.counters.evaluated_tokens == READ_TOKENS
            return READ_TOKENS / seconds

        try:
            figure = alternate(
                f"reading {READ_TOKENS} tokens / llama-bench",
                "tokens/s",
                ">= 0.97",
                speed,
                lambda: bench_speed(weights, options.threads, read=READ_TOKENS),
                count=options.count,
            )
        finally:
            ours.close()
        return sign([figure], weights, options.threads)


# --- llama-server: drafts, memory --------------------------------------------------------------


@contextmanager
def both(weights: Path, threads: int, context: int, words: str) -> Iterator[tuple[Ours, Server]]:
    """The engine and a server with these options, both loaded."""
    ours = Ours(weights, threads, context, None)
    try:
        server = Server(weights, threads, context, words.split())
        try:
            yield ours, server
        finally:
            server.close()
    finally:
        ours.close()


def drafts_cached(options: argparse.Namespace) -> list[Figure]:
    """Four drafts on a prompt that both have read."""
    chooser = random.Random(options.seed)
    prompt = story(chooser, PROMPT_TOKENS)
    with weights_of(options) as weights, both(weights, options.threads, 4096, "-np 4 -kvu") as two:
        ours, server = two
        ours.ask(prompt)
        server.complete(prompt, REPLY)
        figure = alternate(
            f"{DRAFTS} drafts on a cached prompt / llama-server's n_cmpl",
            "s",
            "<= 1.1",
            lambda: ours.ask(prompt, written=DRAFT_TOKENS, drafts=DRAFTS)[1],
            lambda: server.complete(prompt, DRAFT_TOKENS, copies=DRAFTS).seconds,
            count=options.count,
            rest_s=REST_S,
        )
        read_anew = server.complete(prompt, DRAFT_TOKENS, copies=DRAFTS).read
        figure.facts["server_read_tokens"] = read_anew
        return sign([figure], weights, options.threads)


def drafts_new(options: argparse.Namespace) -> list[Figure]:
    """Four drafts on a new prompt, against four requests sent at once."""
    chooser = random.Random(options.seed)
    prompts: list[tuple[int, ...]] = []
    facts: list[int] = []

    def together() -> float:
        prompts.append(story(chooser, PROMPT_TOKENS))
        return ours.ask(prompts[-1], written=DRAFT_TOKENS, drafts=DRAFTS)[1]

    def apart() -> float:
        prompt = story(chooser, PROMPT_TOKENS)
        started = time.perf_counter()
        with ThreadPoolExecutor(DRAFTS) as pool:
            asked = [pool.submit(server.complete, prompt, DRAFT_TOKENS) for _ in range(DRAFTS)]
            facts.append(sum(one.result().read for one in asked))
        return time.perf_counter() - started

    with weights_of(options) as weights, both(weights, options.threads, 4096, "-np 4 -kvu") as two:
        ours, server = two
        figure = alternate(
            f"{DRAFTS} drafts on a new prompt / {DRAFTS} requests to llama-server at once",
            "s",
            "<= 0.3",
            together,
            apart,
            count=options.count,
            rest_s=REST_S,
            warm_up=0,
        )
        figure.facts["server_read_tokens"] = facts
        return sign([figure], weights, options.threads)


def memory(options: argparse.Namespace) -> list[Figure]:
    """The engine's memory after a reply, nothing parked, against the server's."""
    found = []
    with weights_of(options) as weights:
        # As it comes the server maps the file, which counts although it is the system's to reclaim.
        for name, extra in (("as it comes", ""), ("weights not mapped", "--load-mode none")):
            figure = Figure(
                f"engine memory / (1.05 x llama-server, {name}, + 60 MB)", "bytes", "<= 1"
            )
            words = f"-np 16 -kvu -ub 512 -b 512 {extra}"
            with both(weights, options.threads, CONTEXT, words) as (ours, server):
                ours.ask(PROMPT, written=8)
                server.complete(PROMPT, 8)
                assert ours.engine.child_pid is not None
                mine, other = memory_bytes(ours.engine.child_pid), memory_bytes(server.pid)
                family = psutil.Process(ours.engine.child_pid).children(recursive=True)
                mine += sum(child.memory_info().rss for child in family)
                figure.pairs.append((float(mine), 1.05 * other + 60e6))
                figure.facts["server_bytes"] = other
            found.append(figure)
        return sign(found, weights, options.threads)


# --- llama-server: hops ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hop:
    """One visit of a branch: its prompt is asked, a reply of some tokens comes."""

    branch: int
    prompt: tuple[int, ...]


def hops(seed: int) -> list[Hop]:
    """Random visits of branches with a shared beginning."""
    chooser = random.Random(seed)
    beginning = story(chooser, BEGINNING)
    tails = [story(chooser, chooser.randint(*TAIL)) for _ in range(BRANCHES)]
    order = [chooser.randrange(BRANCHES) for _ in range(HOPS)]
    return [Hop(branch, beginning + tails[branch]) for branch in order]


def unique_tokens(paths: Iterable[Sequence[int]]) -> int:
    """How many different beginnings these paths have: the nodes of their trie."""
    root: dict[int, object] = {}
    count = 0
    for path in paths:
        node = root
        for token in path:
            below = node.get(token)
            if not isinstance(below, dict):
                below = node[token] = {}
                count += 1
            node = below
    return count


@dataclass(frozen=True, slots=True)
class Setting:
    """Options of llama-server, and whether each branch has a slot of its own."""

    name: str
    options: str
    context: int
    own_slots: bool = False


SETTINGS: Final = (
    Setting("one slot, prompt cache at every change", "-np 1 -sps 0", CONTEXT),
    Setting("as it comes", "", CONTEXT),
    Setting("one slot", "-np 1", CONTEXT),
    Setting("a slot for each branch", "-np 32 -no-kvu -cram 0", 32 * 1536, own_slots=True),
    Setting("a slot for each branch, unified", "-np 32 -kvu -cram 0", 32 * 1536, own_slots=True),
)
BEST: Final = SETTINGS[0]


@dataclass(slots=True)
class Walk:
    """What a walk over all hops took."""

    seconds: float = 0.0
    again_s: float = 0.0  # of this, hops to branches that were read before
    read: int = 0


def _walk(way: Sequence[Hop], visit: Callable[[int, Hop], tuple[float, int]]) -> Walk:
    walk, seen = Walk(), set[int]()
    for number, hop in enumerate(way):
        seconds, read_tokens = visit(number, hop)
        walk.seconds += seconds
        walk.read += read_tokens
        if hop.branch in seen:
            walk.again_s += seconds
        seen.add(hop.branch)
    return walk


def _our_walk(ours: Ours, way: Sequence[Hop], written: list[tuple[int, ...]], seed: int) -> Walk:
    def visit(number: int, hop: Hop) -> tuple[float, int]:
        done, seconds = ours.ask(hop.prompt, written=REPLY, seed=seed + number)
        written.append((*hop.prompt, *done.tokens[: REPLY - 1]))
        return seconds, done.counters.evaluated_tokens

    return _walk(way, visit)


def _server_walk(setting: Setting, weights: Path, threads: int, way: Sequence[Hop]) -> Walk:
    server = Server(weights, threads, setting.context, setting.options.split())

    def visit(_number: int, hop: Hop) -> tuple[float, int]:
        slot = hop.branch if setting.own_slots else -1
        answer = server.complete(hop.prompt, REPLY, slot=slot)
        return answer.seconds, answer.read

    try:
        return _walk(way, visit)
    finally:
        server.close()


def hop_figures(options: argparse.Namespace) -> list[Figure]:
    """The whole walk, its hops to known branches, the same after a restart, what is kept."""
    walks = Figure(f"{HOPS} hops / llama-server ({BEST.name})", "s", "<= 0.7")
    again = Figure(f"{HOPS} hops, known branches only / llama-server", "s", "<= 0.7")
    tokens = Figure("hops: tokens read / (new ones + one per visit)", "tokens", "<= 1.02")
    anew = Figure("hops after a restart: tokens read / one per visit", "tokens", "<= 1.02")
    kept = Figure("hops: parked bytes / (unique tokens x bytes per token)", "bytes", "<= 1.1")
    later = Figure("hops after a restart / llama-server, known branches", "s", "<= 0.7")
    with weights_of(options) as weights:
        for pair in range(options.count):
            way = hops(options.seed + pair)
            server = _kept_walk(options, options.seed + pair)
            if server is None and pair % 2:
                server = _server_walk(BEST, weights, options.threads, way)
            written: list[tuple[int, ...]] = []
            with tempfile.TemporaryDirectory() as folder:
                ours = Ours(weights, options.threads, CONTEXT, Path(folder))
                try:
                    ours.ask(story(random.Random(-1), 64))  # the first step of all warms up
                    walk = _our_walk(ours, way, written, 0)
                    ours.settle()
                    size = ours.parked_bytes()
                    unique = unique_tokens(written) + 64
                    kept.pairs.append((float(size), float(unique * ours.info.kv_bytes_per_token)))
                    ours.restart()
                    second = _our_walk(ours, way, [], HOPS)
                finally:
                    ours.close()
            new = unique_tokens(hop.prompt for hop in way)
            tokens.pairs.append((float(walk.read), float(new + HOPS)))
            anew.pairs.append((float(second.read), float(HOPS)))
            server = server or _server_walk(BEST, weights, options.threads, way)
            print(f"ours {walk}, restarted {second}, llama-server {server}", flush=True)
            walks.pairs.append((walk.seconds, server.seconds))
            again.pairs.append((walk.again_s, server.again_s))
            known = HOPS - len({hop.branch for hop in way})
            later.pairs.append((second.seconds / HOPS, server.again_s / known))
            walks.facts.setdefault("server_read_tokens", []).append(server.read)  # type: ignore[attr-defined] # a list, made here
        return sign([walks, again, tokens, anew, kept, later], weights, options.threads)


def _kept_walk(options: argparse.Namespace, seed: int) -> Walk | None:
    """The server's walk that "server-hops" left in the folder `--keep`."""
    file = options.keep / f"server-walk-{seed}.json" if options.keep else None
    if file is None or not file.exists():
        return None
    return Walk(**json.loads(file.read_text(encoding="utf-8")))


def hop_server(options: argparse.Namespace) -> list[Figure]:
    """The server's side of "hops" alone, left in `--keep` for it: both take minutes."""
    if options.keep is None:
        return []
    with weights_of(options) as weights:
        for seed in range(options.seed, options.seed + options.count):
            walk = _server_walk(BEST, weights, options.threads, hops(seed))
            file = options.keep / f"server-walk-{seed}.json"
            file.write_text(json.dumps(asdict(walk)), encoding="utf-8")
            print(f"llama-server {walk}", flush=True)
    return []


def hop_settings(options: argparse.Namespace) -> list[Figure]:
    """What each of the server's settings makes of the hops: `pairs` are (all, known ones)."""
    found = []
    way = hops(options.seed)
    with weights_of(options) as weights:
        for setting in SETTINGS:
            walk = _server_walk(setting, weights, options.threads, way)
            figure = Figure(f"llama-server, {setting.name}: hops, all", "s", ">= 0")
            figure.values.append(walk.seconds)
            figure.facts |= {
                "known_branches_s": walk.again_s,
                "tokens_read": walk.read,
                "options": setting.options,
                "context": setting.context,
            }
            print(f"{setting.name}: {walk}", flush=True)
            found.append(figure)
        return sign(found, weights, options.threads)


PARTS: Final = {
    "decode1": lambda options: decode(options, 1, ">= 0.98"),
    "decode2": lambda options: decode(options, 2, ">= 0.95"),
    "read": read,
    "drafts-cached": drafts_cached,
    "drafts-new": drafts_new,
    "memory": memory,
    "hops": hop_figures,
    "server-hops": hop_server,
    "settings": hop_settings,
}
