"""``grove doctor``, ``grove selftest``, ``grove search``, ``grove chats``."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import desktop_app
from desktop_app.cli.frame import opened, profile_of, reading
from desktop_app.cli.terminal import one_line, print_json, safe, say, styled
from desktop_app.conversation.node import State
from desktop_app.errors import KnownError
from desktop_app.exchange.imports import many
from desktop_app.inference import threads
from desktop_app.inference.engine import engine_command
from desktop_app.inference.protocol import PROTOCOL_VERSION, Hello, ProtocolError, decode_event
from desktop_app.inference.sampling import Sampling
from desktop_app.paths import Profile, starter_weights
from desktop_app.settings import Settings
from desktop_app.version import VERSION

_HELLO_S: Final = 60.0


def add_parsers(commands: Any) -> None:
    """Declare the commands."""
    doctor = commands.add_parser("doctor", help="what Grove finds on this computer")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=run_doctor)
    selftest = commands.add_parser("selftest", help="check that engine and database work here")
    selftest.add_argument("--weights", type=Path, metavar="F", help="try these weights")
    selftest.add_argument("--json", action="store_true")
    selftest.set_defaults(run=run_selftest)
    search = commands.add_parser("search", help="find text in all branches of all chats")
    search.add_argument("text", metavar="TEXT")
    search.add_argument("--limit", type=int, default=20, metavar="N")
    search.add_argument("--json", action="store_true")
    search.set_defaults(run=run_search)
    chats = commands.add_parser("chats", help="list the chats")
    chats.add_argument("--json", action="store_true")
    chats.set_defaults(run=run_chats)


# ---- doctor ------------------------------------------------------------------------------------


def run_doctor(args: argparse.Namespace) -> int:
    """Print what there is; the exit status is 1 when something is wrong."""
    report = _doctor(profile_of(args.profile))
    if args.json:
        print_json(report)
    else:
        _say_doctor(report)
    return 0 if report["database"]["check"] == "ok" and not report["engine"]["error"] else 1


def _doctor(profile: Profile) -> dict[str, Any]:
    engine: dict[str, Any] = {"build": "", "devices": [], "error": ""}
    try:
        hello = engine_hello()
        engine["build"] = hello.engine
        engine["devices"] = [asdict(device) for device in hello.devices]
    except KnownError as error:
        engine["error"] = error.sentence
    measured = threads.Remembered(profile.cache).latest()
    engine["threads"] = {
        "at_most": threads.most_threads(),
        "last_measured": [
            {"threads": count, "tokens_per_s": speed} for count, speed in threads.told(measured)
        ],
    }
    database: dict[str, Any] = {"check": "", "size_bytes": 0}
    counts: dict[str, int] = {}
    try:
        with reading(profile) as (library, loop):
            database["check"] = loop.wait(library.check())
            counts = loop.wait(library.counts())
    except KnownError as error:
        database["check"] = error.sentence
    if profile.database.exists():
        database["size_bytes"] = profile.database.stat().st_size
    starter = starter_weights()
    return {
        "version": VERSION,
        "python": platform.python_version(),
        "system": platform.platform(),
        "engine": engine,
        "paths": {
            "profile": str(profile.root),
            "database": str(profile.database),
            "logs": str(profile.logs),
            "weights": str(profile.weights),
            "starter": str(starter) if starter else "",
        },
        "database": database,
        "counts": counts,
        "weights": Settings.load(profile).weights_path,
    }


def engine_hello() -> Hello:
    """What a fresh engine child says of itself; it ends when nothing is asked of it.

    KnownError("engine-start") when it does not come up.
    """
    package = str(Path(desktop_app.__file__).resolve().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        child = subprocess.run(
            engine_command(),
            input=b"",
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            timeout=_HELLO_S,
            check=False,
        )
        _, event = decode_event(child.stdout.partition(b"\n")[0])
    except (OSError, subprocess.TimeoutExpired, ProtocolError) as error:
        raise KnownError(
            "engine-start", "The engine does not start. Install Grove again.", detail=str(error)
        ) from error
    if not isinstance(event, Hello):
        raise KnownError("engine-start", "The engine does not start. Install Grove again.")
    return event


def _say_doctor(report: dict[str, Any]) -> None:
    engine = report["engine"]
    say(styled(f"Grove {report['version']}", "bold"))
    say(f"  Python    {report['python']} on {report['system']}")
    say(f"  engine    {engine['error'] or engine['build']}")
    for device in engine["devices"]:
        free, total = device["free_bytes"] / 2**30, device["total_bytes"] / 2**30
        say(f"  device    {device['name']} ({device['description']}), "
            f"{free:.1f} of {total:.1f} GiB free")  # fmt: skip
    speeds = [
        f"{m['threads']}: {m['tokens_per_s']:.0f} tokens/s"
        for m in engine["threads"]["last_measured"]
    ]
    say(f"  threads   at most {engine['threads']['at_most']}; "
        f"last measured: {', '.join(speeds) or 'nothing yet'}")  # fmt: skip
    for name, path in report["paths"].items():
        say(f"  {name:9} {path or 'none'}")
    database = report["database"]
    say(f"  check     {database['check']}, {database['size_bytes'] / 1e6:.1f} MB")
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in report["counts"].items())
    say(f"  holds     {counts}")


# ---- selftest ----------------------------------------------------------------------------------


def run_selftest(args: argparse.Namespace) -> int:
    """Try the parts in a folder of their own, offline; 1 when one does not work."""
    with tempfile.TemporaryDirectory(prefix="grove-selftest-") as folder:
        profile = Profile(Path(folder))
        profile.create()
        weights = args.weights or starter_weights()
        results = [
            _try("database", lambda: _test_database(profile)),
            _try("engine", _test_engine),
        ]
        if weights is None:
            results.append(
                {"test": "reply", "ok": None, "said": "no weights at hand (name some: --weights F)"}
            )
        else:
            results.append(_try("reply", lambda: _test_reply(profile, weights)))
    if args.json:
        print_json({"ok": all(r["ok"] is not False for r in results), "tests": results})
    else:
        for result in results:
            word = {True: "works", False: "FAILS", None: "not tried"}[result["ok"]]
            say(f"{result['test']:10} {word}: {result['said']}")
    return 1 if any(r["ok"] is False for r in results) else 0


def _try(name: str, test: Callable[[], str]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        said, ok = test(), True
    except KnownError as error:
        said, ok = error.sentence, False
    return {"test": name, "ok": ok, "said": said, "seconds": round(time.monotonic() - began, 3)}


def _test_database(profile: Profile) -> str:
    """A chat written, found, closed, opened again and undone."""
    with opened(profile) as frame:
        conversation = frame.chat(None)
        conversation.send("selftest ok?")
        conversation.finish_stream(conversation.streaming_ids[0], State.STOPPED)
        frame.loop.wait(conversation.saved())
        chat_id = conversation.chat.id
        if not frame.loop.wait(frame.library.search("selftest", 5)):
            raise KnownError("selftest-search", "The search did not find what was just written.")
    with opened(profile) as frame:
        conversation = frame.loop.wait(frame.session.open_chat(chat_id))
        if len(conversation.path()) != 2:
            raise KnownError("selftest-read", "What was written was not there afterwards.")
        conversation.undo()
        frame.loop.wait(conversation.saved())
        if conversation.path() or frame.loop.wait(frame.library.check()) != "ok":
            raise KnownError("selftest-undo", "Undo did not work, or the database is damaged.")
    return "wrote, searched, opened again, undid; check ok"


def _test_engine() -> str:
    hello = engine_hello()
    if hello.protocol != PROTOCOL_VERSION:
        raise KnownError("engine-version", "The engine is of another version. Install Grove again.")
    return f"{hello.engine}, {many(len(hello.devices), 'device')}"


def _test_reply(profile: Profile, weights: Path) -> str:
    with opened(profile) as frame:
        info = frame.load(weights)
        conversation = frame.chat(None)
        sampling = Sampling(temperature=0.0, max_tokens=8, seed=1)
        _, reply = frame.session.send(conversation, "Once upon a time", sampling=sampling)
        frame.loop.run_until(lambda: not frame.session.writing())
        node = conversation.tree.node(reply)
        if node.state is not State.DONE:
            raise KnownError(node.failure or "selftest-reply", node.failure_text)
        frame.loop.wait(conversation.saved())
        [turn] = frame.loop.wait(conversation.turns(reply))
        return f"{info.name} wrote {turn['tokens_written']} tokens"


# ---- lists -------------------------------------------------------------------------------------


def run_search(args: argparse.Namespace) -> int:
    """Print the hits; 0 also when there are none."""
    with reading(profile_of(args.profile)) as (library, loop):
        hits = loop.wait(library.search(args.text, args.limit))
        if args.json:
            print_json(
                [
                    {
                        "chat": hit.chat_id,
                        "title": hit.chat_title,
                        "message": hit.message_id,
                        "snippet": hit.snippet,
                    }
                    for hit in hits
                ]
            )
            return 0
        for hit in hits:
            title = styled(one_line(hit.chat_title, 40) or "(no title)", "bold")
            say(f"{hit.chat_id:5} {title}  {one_line(hit.snippet, 100)}")
        if not hits:
            say(f"Nothing found for {safe(args.text)}.")
    return 0


def run_chats(args: argparse.Namespace) -> int:
    """Print the chats, the newest first."""
    with reading(profile_of(args.profile)) as (library, loop):
        infos = loop.wait(library.chats())
    infos = sorted(infos, key=lambda info: info.updated_at, reverse=True)
    if args.json:
        print_json(
            [
                {"id": info.id, "uid": info.uid, "title": info.title, "updated_at": info.updated_at}
                for info in infos
            ]
        )
        return 0
    for info in infos:
        say(f"{info.id:5} {one_line(info.title, 70) or '(no title)'}")
    if not infos:
        print("There are no chats yet.", file=sys.stderr)
    return 0
