"""``grove export`` and ``grove import``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from desktop_app.cli.frame import opened, profile_of, reading
from desktop_app.cli.progress import Progress
from desktop_app.cli.terminal import note, print_json, say
from desktop_app.conversation.node import ChatInfo
from desktop_app.errors import KnownError
from desktop_app.exchange import export, imports


def add_parsers(commands: Any) -> None:
    """Declare both commands."""
    out = commands.add_parser("export", help="write chats to a file")
    which = out.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="the whole library")
    which.add_argument("--chat", action="append", metavar="ID", help="this chat (repeatable)")
    out.add_argument("--json", action="store_true", help="Grove's own lossless JSON (the default)")
    out.add_argument("--format", choices=("grove", "oasst"), default="grove")
    out.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    out.set_defaults(run=run_export)
    into = commands.add_parser(
        "import",
        help="read chats from a file: Grove's JSON, Open-Assistant's trees, messages, threads",
    )
    into.add_argument("file", type=Path, metavar="FILE")
    into.add_argument("--json", action="store_true", help="tell the result as JSON")
    into.set_defaults(run=run_import)


def run_export(args: argparse.Namespace) -> int:
    """Write the file; it replaces an older one only when it is whole."""
    with reading(profile_of(args.profile)) as (library, loop):
        wanted = _wanted(loop.wait(library.chats()), args.chat)
        progress = Progress("Writing")
        try:
            written = export.write(
                library, args.output, wanted, form=args.format, progress=progress.update
            )
        finally:
            progress.end()
    result = {"chats": written.chats, "messages": written.messages, "bytes": written.size_bytes}
    if args.json:
        print_json(result)
    else:
        say(f"{written.chats} chats with {written.messages} messages are in {args.output}.")
    return 0


def _wanted(infos: list[ChatInfo], names: list[str] | None) -> list[int] | None:
    if names is None:
        return None
    by_name = {name: info.id for info in infos for name in (str(info.id), info.uid)}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise KnownError(
            "chat-missing", f"There is no chat {missing[0]}. “grove chats” lists them."
        )
    return [by_name[name] for name in names]


def run_import(args: argparse.Namespace) -> int:
    """Read the file whole, then add its chats."""
    with opened(profile_of(args.profile)) as frame:
        progress = Progress("Reading")
        try:
            report = imports.read_into(frame.library, args.file, progress=progress.update)
        finally:
            progress.end()
    if args.json:
        print_json(
            {
                "format": report.format,
                "added": report.added,
                "skipped": report.skipped,
                "copies": report.copies,
                "messages": report.messages,
            }
        )
    else:
        say(report.sentence)
    for line in report.notices:
        note(line)
    sys.stdout.flush()
    return 0
