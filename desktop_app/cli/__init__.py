"""The command line: every part of Grove without its window.

``grove [--profile DIR] COMMAND …``.  A known error is one sentence on stderr and exit status 1
(with ``--json`` also an object on stdout), a wrong command line is 2, Ctrl-C is 130.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from desktop_app import log
from desktop_app.cli.loop import Interrupted
from desktop_app.cli.terminal import INTERRUPTED, show_error
from desktop_app.errors import KnownError
from desktop_app.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.  Main thread only."""
    log.catch_bugs()
    parser = build_parser()
    args = parser.parse_args(argv)
    if getattr(args, "run", None) is None:
        # Without a window `grove` talks in the terminal.
        args = parser.parse_args([*(sys.argv[1:] if argv is None else argv), "chat"])
    as_json = bool(getattr(args, "json", False))
    try:
        status: int = args.run(args)
    except KnownError as error:
        show_error(error, as_json=as_json)
        return 1
    except (KeyboardInterrupt, Interrupted):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it (`grove search x | head -1`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from desktop_app.cli import ask, chat, engine_script, facts, transfer
    from desktop_app.weights import command as weights

    parser = argparse.ArgumentParser(
        prog="grove",
        description="Private, offline chat where a conversation is a tree you can edit.",
        epilog="Without a command Grove opens its window.",
    )
    parser.add_argument("--version", action="version", version=f"Grove {VERSION}")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="read and write everything in DIR"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    ask.add_parser(commands)
    chat.add_parser(commands)
    transfer.add_parsers(commands)
    facts.add_parsers(commands)
    weights.add_parser(commands)
    engine_script.add_parsers(commands)
    return parser
