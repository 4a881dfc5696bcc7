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
from desktop_app.exchange.imports import many
from desktop_app.storage import restore_backup


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
    out.add_argument("--trash", action="store_true", help="also what lies in the trash")
    into = commands.add_parser(
        "import",
        help="read chats from a file: Grove's JSON, Open-Assistant's trees, messages, threads",
    )
    into.add_argument("file", type=Path, metavar="FILE")
    into.add_argument("--json", action="store_true", help="tell the result as JSON")
    into.set_defaults(run=run_import)
    backup = commands.add_parser("backup", help="write a backup of the whole library now")
    backup.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="else the profile's")
    backup.add_argument("--json", action="store_true")
    backup.set_defaults(run=run_backup)
    restore = commands.add_parser("restore", help="put a backup in the library's place")
    restore.add_argument("file", type=Path, nargs="?", metavar="FILE", help="else the newest")
    restore.add_argument("--empty", action="store_true", help="begin anew where there is none")
    restore.add_argument("--json", action="store_true")
    restore.set_defaults(run=run_restore)


def run_export(args: argparse.Namespace) -> int:
    """Write the file; it replaces an older one only when it is whole."""
    with reading(profile_of(args.profile)) as (library, loop):
        wanted = _wanted(loop.wait(library.chats()), args.chat)
        progress = Progress("Writing")
        try:
            written = export.write(
                library,
                args.output,
                wanted,
                form=args.format,
                trash=args.trash,
                progress=progress.update,
            )
        finally:
            progress.end()
    result = {"chats": written.chats, "messages": written.messages, "bytes": written.size_bytes}
    if args.json:
        print_json(result)
    else:
        chats, messages = many(written.chats, "chat"), many(written.messages, "message")
        say(f"{args.output} holds {chats} with {messages}.")
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


def run_backup(args: argparse.Namespace) -> int:
    """Write a backup and tell its file."""
    with reading(profile_of(args.profile)) as (library, loop):
        file = loop.wait(library.backup(args.folder))
    if args.json:
        print_json({"file": str(file)})
    else:
        say(f"The backup is {file}.")
    return 0


def run_restore(args: argparse.Namespace) -> int:
    """Restore a backup; what stood there is kept under another name."""
    profile = profile_of(args.profile)
    if args.file is not None and not args.file.is_file():
        raise KnownError("file-missing", f"There is no file {args.file}. Check the name.")
    known = sorted(profile.backups.glob("*.db"))
    if args.file is None and not known and not args.empty:
        raise KnownError(
            "backup-missing",
            f"There is no backup in {profile.backups}. Name one (grove restore FILE), or begin "
            "with an empty library (grove restore --empty).",
        )
    kept = restore_backup(profile, args.file)
    if args.json:
        print_json({"kept": str(kept) if kept else None})
    else:
        placed = (
            "The backup is in place." if known or args.file else "The next start is an empty one."
        )
        say(placed + (f" What stood there is kept as {kept}." if kept else ""))
    return 0
