"""The command line: every part of Grove without its window.

``grove [--profile DIR] COMMAND …``.  A known error is one sentence on stderr and exit status 1
(with ``--json`` also an object on stdout), a wrong command line is 2, Ctrl-C is 130.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from desktop_app import log
from desktop_app.cli.loop import Interrupted
from desktop_app.cli.terminal import INTERRUPTED, show_error
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.  Main thread only.

    Without a command it is ``chat``: what a computer without a window gets.
    """
    log.catch_bugs()
    parser = build_parser()
    args = parser.parse_args(argv)
    if getattr(args, "run", None) is None:
        args = parser.parse_args([*(sys.argv[1:] if argv is None else argv), "chat"])
    return _guarded(lambda: args.run(args), as_json=bool(getattr(args, "json", False)))


def names_no_command(argv: Sequence[str]) -> bool:
    """Whether these arguments ask for the window: none but ``--profile DIR``."""
    return not argv or (argv[0] == "--profile" and len(argv) == 2) or _is_profile_only(argv)


def _is_profile_only(argv: Sequence[str]) -> bool:
    return len(argv) == 1 and argv[0].startswith("--profile=")


def with_profile(argv: Sequence[str], work: Callable[[Profile], int]) -> int:
    """Run `work` with the profile that the arguments name."""
    from desktop_app.cli.frame import profile_of

    parser = argparse.ArgumentParser(prog="grove")
    parser.add_argument("--profile", type=Path)
    args = parser.parse_args(argv)
    return _guarded(lambda: work(profile_of(args.profile)), as_json=False)


def _guarded(work: Callable[[], int], *, as_json: bool) -> int:
    try:
        return work()
    except KnownError as error:
        show_error(error, as_json=as_json)
        return 1
    except (KeyboardInterrupt, Interrupted):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it (`grove search x | head -1`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from desktop_app.cli import ask, bench, chat, engine_script, facts, transfer
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
    bench.add_parser(commands)
    engine_script.add_parsers(commands)
    return parser
