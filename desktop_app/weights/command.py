"""``grove weights …``: find, fetch, list and judge weights without a window.

With ``--json`` one JSON value goes to stdout and progress, one JSON object a line, to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from desktop_app.errors import KnownError
from desktop_app.paths import Profile, default_profile
from desktop_app.settings import Settings

from .fit import Fit, Plan, load_of_size, predict, size_text
from .gguf import read_header
from .hub_files import HubFile, Quantisation
from .links import SORTS, HubAddress, parse_address

if TYPE_CHECKING:
    # Loaded when a command runs: the network library would slow down the start of every other one.
    from .downloads import Download
    from .hub import Repository
    from .room import WeightsRoom
    from .shelf import Entry

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_PREFERRED: Final = ("Q4_K_M", "Q4_0", "MXFP4", "Q4_K_S", "IQ4_XS", "Q5_K_M", "Q8_0")


def add_parser(subparsers: Any) -> None:
    """Add ``weights`` to the program's commands (`subparsers` of argparse)."""
    parser = subparsers.add_parser("weights", help="find, download and manage weights")
    commands = parser.add_subparsers(title="weights commands", metavar="ACTION", required=True)

    def command(
        name: str, work: Callable[[argparse.Namespace, WeightsRoom], int], text: str
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.add_argument("--hub", default="", metavar="URL", help="another hub or a mirror")
        sub.add_argument(
            "--token-file", metavar="FILE", help="access token for the hub, for this command only"
        )
        sub.add_argument("--offline", action="store_true", help="connect to nothing")
        sub.set_defaults(run=_run_alone, weights_work=work)
        return sub

    search = command("search", _search, "Search the hub; without words, show the catalogue.")
    search.add_argument("words", nargs="*")
    search.add_argument("--author", default="")
    search.add_argument("--sort", choices=SORTS, default="downloads")
    search.add_argument("--max-parameters", type=_number, default=0, metavar="N", help="e.g. 13B")
    search.add_argument("--limit", type=int, default=20)
    files = command("files", _files, "Show a repository's weights and how they would run here.")
    files.add_argument("repository", help="owner/name or a link")
    get = command("get", _get, "Download weights; run it again to resume.")
    get.add_argument("name", help="owner/name[:QUANTISATION], a link, or a catalogue name")
    get.add_argument("quantisation", nargs="?", default="")
    get.add_argument("--rate", type=_number, default=0, metavar="N", help="bytes per second")
    add = command("add", _add, "List a file, or watch a folder, without copying.")
    add.add_argument("path", type=Path)
    command("list", _list, "Show the weights on this computer.")
    fit = command("fit", _fit, "Predict memory and speed of a file here.")
    fit.add_argument("name", help="a path, a name from the list, or owner/name:QUANTISATION")
    fit.add_argument("--context", type=int, default=0)
    fit.add_argument("--kv-type", choices=("f16", "q8_0", "q4_0", "f32"), default="f16")
    verify = command("verify", _verify, "Check a file's header and hash.")
    verify.add_argument("name")
    remove = command("remove", _remove, "Delete a downloaded file, or forget another one.")
    remove.add_argument("name")


def run(args: argparse.Namespace, profile: Path) -> int:
    """Do one command; returns the exit status.  Raises KnownError.

    `profile` is Grove's folder.
    """
    from .room import WeightsRoom

    settings = Settings.load(Profile(profile))
    room = WeightsRoom(
        profile,
        hub_url=args.hub,
        offline=args.offline or settings.offline,
        remember_downloads=False,
    )
    try:
        _use_token(args, room)
        work: Callable[[argparse.Namespace, WeightsRoom], int] = args.weights_work
        return work(args, room)
    finally:
        room.close()


def _use_token(args: argparse.Namespace, room: WeightsRoom) -> None:
    """A token of the command line or the environment goes before the keyring's."""
    if args.token_file:
        try:
            token = Path(args.token_file).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise KnownError(
                "token-file", "The file with the access token cannot be read.", detail=str(error)
            ) from error
        room.hub.tokens.set(room.hub.origin, token, keep=False)
    elif (token := os.environ.get("HF_TOKEN", "")) and not args.hub:
        # A token in the environment is meant for the hub of the environment, not for any --hub.
        room.hub.tokens.set(room.hub.origin, token, keep=False)


def _run_alone(args: argparse.Namespace) -> int:
    """What the program's dispatcher calls: the profile is the chosen one or this user's."""
    chosen: Path | None = getattr(args, "profile", None)
    return run(args, chosen.expanduser().absolute() if chosen else default_profile().root)


def _number(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgb]?)b?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError("a number such as 500k, 20M or 13B")
    return int(float(match[1]) * _UNITS[match[2]])


def _print(args: argparse.Namespace, value: Any, lines: list[str]) -> None:
    if args.json:
        print(json.dumps(value, ensure_ascii=False, indent=2, default=str))
    else:
        for line in lines:
            print(_printable(line))


def _printable(text: str) -> str:
    """Without control characters: what a hub sends must not steer the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their longest cell, the last one free."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            [cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]]
        ).rstrip()
        for row in rows
    ]


def _search(args: argparse.Namespace, room: WeightsRoom) -> int:
    words = " ".join(args.words)
    if not words and not args.author:
        return _suggest(args, room)
    found = room.hub.search(
        words,
        author=args.author,
        sort=args.sort,
        max_parameters=args.max_parameters,
        limit=args.limit,
    )
    rows = [
        (
            item.id,
            f"{item.parameter_count / 1e9:.1f}B" if item.parameter_count else "",
            item.licence,
            "gated" if item.gated else "",
            f"{item.downloads:,} downloads",
        )
        for item in found
    ]
    lines = _table(rows) or ["Nothing was found. Try fewer words, or the maker's name."]
    _print(args, [asdict(item) for item in found], lines)
    return 0


def _suggest(args: argparse.Namespace, room: WeightsRoom) -> int:
    room.measure_speed_once()
    found = room.catalogue.suggest(room.machine(), room.speeds)
    rows = [
        (
            s.entry.id,
            s.choice.label,
            size_text(s.choice.size_bytes),
            s.entry.licence,
            s.fit.headline + (" (recommended)" if s.recommended else ""),
        )
        for s in found
    ]
    value = [
        {
            **asdict(s.entry),
            "choice": asdict(s.choice),
            "fit": s.fit.as_dict(),
            "recommended": s.recommended,
        }
        for s in found
    ]
    _print(args, value, _table(rows))
    return 0


def _address(text: str, room: WeightsRoom) -> HubAddress:
    address = parse_address(text, room.hub.endpoint)
    if address is None:
        entry = room.catalogue.find(text)
        return HubAddress(entry.repository)
    return address


def _fit_of_hub(room: WeightsRoom, quantisation: Quantisation, context: int) -> Fit:
    load = load_of_size(quantisation.size_bytes, quantisation.label, context)
    return predict(load, room.machine(), room.speeds)


def _files(args: argparse.Namespace, room: WeightsRoom) -> int:
    address = _address(args.repository, room)
    repository = room.hub.repository(address.repository, revision=address.revision)
    room.measure_speed_once()
    rows, values = [], []
    for quantisation in repository.quantisations:
        fit = _fit_of_hub(room, quantisation, repository.context_length)
        parts = len(quantisation.files)
        name = quantisation.name + (f" ({parts} parts)" if parts > 1 else "")
        rows.append((quantisation.label, size_text(quantisation.size_bytes), name, fit.headline))
        values.append(
            {**asdict(quantisation), "size_bytes": quantisation.size_bytes, "fit": fit.as_dict()}
        )
    about = [repository.licence or "no licence named", ", ".join(repository.languages)]
    about += ["gated: accept the terms on its page first"] if repository.gated else []
    lines = [" · ".join(text for text in about if text), *_table(rows)]
    _print(args, {**asdict(repository), "quantisations": values}, lines)
    return 0


def _choose(repository: Repository, label: str) -> Quantisation:
    """The one asked for, the one of a link, or the usual balance of size and quality."""
    if label:
        return repository.quantisation(label)
    complete = [q for q in repository.quantisations if not q.is_incomplete]
    if not complete:
        raise KnownError(
            "hub-no-weights",
            f"{repository.id} has no GGUF files. Look for a repository whose name ends in GGUF.",
        )
    for wanted in _PREFERRED:
        for quantisation in complete:
            if quantisation.label == wanted:
                return quantisation
    return complete[0]


def _get(args: argparse.Namespace, room: WeightsRoom) -> int:
    address = _address(args.name, room)
    repository = room.hub.repository(address.repository, revision=address.revision)
    quantisation = _choose(repository, args.quantisation or address.file)
    room.downloads.limit.bytes_per_s = args.rate
    bar = _Bar(f"{repository.id} {quantisation.label}", as_json=args.json)
    room.downloads.add_listener(lambda items: bar.show(items[-1]) if items else None)
    number = room.downloads.add(repository, quantisation)
    try:
        done = room.downloads.wait(number)
    except KeyboardInterrupt:
        room.downloads.pause(number)
        room.downloads.wait(number)
        bar.end()
        print("Paused. Run the same command again to go on.", file=sys.stderr)
        raise
    bar.end()
    if done.state != "done":
        raise KnownError(done.error, done.error_sentence)
    entry = room.shelf.find(done.path)
    known = "checked" if entry.sha256 else "the hub tells no hash to check it by"
    text = f"{entry.path} ({size_text(entry.size_bytes)}, {known})"
    _print(args, entry.as_dict(), [text])
    if entry.state != "ready":
        raise KnownError(entry.problem, entry.problem_sentence)
    return 0


def _add(args: argparse.Namespace, room: WeightsRoom) -> int:
    path: Path = args.path
    entries = room.shelf.add_folder(path) if path.is_dir() else [room.shelf.add_file(path)]
    _print(args, [entry.as_dict() for entry in entries], _entry_lines(entries))
    return 0


def _entry_lines(entries: list[Entry]) -> list[str]:
    rows = [
        (
            entry.title,
            entry.quantisation,
            size_text(entry.size_bytes),
            entry.source,
            entry.state if entry.state != "ready" else str(entry.path),
        )
        for entry in entries
    ]
    return _table(rows) or ["No weights are on this computer yet: grove weights search"]


def _list(args: argparse.Namespace, room: WeightsRoom) -> int:
    entries = room.shelf.refresh()
    _print(args, [entry.as_dict() for entry in entries], _entry_lines(entries))
    return 0


def _fit(args: argparse.Namespace, room: WeightsRoom) -> int:
    room.measure_speed_once()
    plan = Plan(context_length=args.context, kv_type=args.kv_type)
    path = Path(args.name)
    address = parse_address(args.name, room.hub.endpoint)
    if path.is_file():
        header = read_header(path)
    elif address is not None and address.file:
        repository = room.hub.repository(address.repository, revision=address.revision)
        file: HubFile = repository.quantisation(address.file).files[0]
        header = room.hub.header(repository, file)
    else:
        room.shelf.refresh()
        header = read_header(room.shelf.find(args.name).path)
    fit = predict(header, room.machine(), room.speeds, plan)
    parts = (
        f"weights {size_text(fit.weights_bytes)} · {fit.context_length:,} tokens of context "
        f"{size_text(fit.kv_bytes)} · computing {size_text(fit.compute_bytes)}"
    )
    _print(args, fit.as_dict(), [fit.sentence, parts])
    return 0


def _verify(args: argparse.Namespace, room: WeightsRoom) -> int:
    room.shelf.refresh()
    path = Path(args.name)
    entry = room.shelf.add_file(path) if path.is_file() else room.shelf.find(args.name)
    bar = _Bar(f"Checking {entry.title}", as_json=args.json)
    digest = room.shelf.verify(entry, progress=bar.fraction)
    bar.end()
    known = "as its maker published it" if entry.sha256 else "no published hash to compare with"
    _print(
        args,
        {"path": str(entry.path), "sha256": digest, "compared": bool(entry.sha256)},
        [f"{entry.path.name} is sound: {known}.", f"SHA-256 {digest}"],
    )
    return 0


def _remove(args: argparse.Namespace, room: WeightsRoom) -> int:
    room.shelf.refresh()
    entry = room.shelf.find(args.name)
    own = entry.path.is_relative_to(room.shelf.own_folder)
    room.shelf.remove(entry)
    text = "was deleted" if own else "is not listed any more; the file was left alone"
    _print(args, {"path": str(entry.path), "deleted": own}, [f"{entry.title} {text}."])
    return 0


class _Bar:
    """A progress line on stderr: a bar on a terminal, JSON lines with --json, else nothing."""

    def __init__(self, label: str, *, as_json: bool) -> None:
        self._label = _printable(label)
        self._as_json = as_json
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._last = 0.0

    def show(self, item: Download) -> None:
        if self._as_json:
            value = {
                "state": item.state,
                "done_bytes": item.done_bytes,
                "total_bytes": item.total_bytes,
                "speed_bytes_per_s": round(item.speed_bytes_per_s),
                "left_s": round(item.left_s, 1),
            }
            print(json.dumps(value), file=sys.stderr, flush=True)
            return
        notes = {"waiting": "waiting for the network", "checking": "checking", "queued": ""}
        speed = f"{size_text(item.speed_bytes_per_s)}/s" if item.speed_bytes_per_s else ""
        left = f"{_duration(item.left_s)} left" if item.left_s else ""
        self._line(
            item.fraction,
            f"{size_text(item.done_bytes)} of {size_text(item.total_bytes)}",
            notes.get(item.state, speed),
            left,
        )

    def fraction(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < 0.2 and done < total:
            return
        self._last = now
        if not self._as_json:
            self._line(done / total if total else 0.0, size_text(done), "", "")

    def _line(self, fraction: float, *texts: str) -> None:
        if not self._terminal:
            return
        tail = " · ".join(text for text in texts if text)
        width = max(8, min(30, shutil.get_terminal_size().columns - len(self._label + tail) - 12))
        full = round(width * min(1.0, fraction))
        bar = "█" * full + "░" * (width - full)
        line = f"\r\033[K{self._label} {bar} {fraction:4.0%} {tail}"
        print(line, end="", file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)
            self._shown = False


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
