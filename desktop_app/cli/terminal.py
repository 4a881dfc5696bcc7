"""Words for a terminal: colours only where they are wanted, and nothing that could steer it."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, Final, TextIO

from desktop_app.errors import KnownError

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def safe(text: str) -> str:
    """`text` without control characters (weights can write escape sequences; a terminal would obey
    them).  Newlines and tabs stay."""
    return _CONTROL.sub("", text)


def one_line(text: str, width: int = 72) -> str:
    """The beginning of a text on one line."""
    line = " ".join(safe(text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def _wants_colour(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in bold, dim or green where the stream is a terminal that shows it."""
    if not _wants_colour(stream or sys.stdout):
        return text
    code = {"bold": "1", "dim": "2", "green": "32"}[style]
    return f"\033[{code}m{text}\033[0m"


def say(text: str = "") -> None:
    """A line for the person, on stdout."""
    print(text, flush=True)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    print(text, file=sys.stderr, flush=True)


def write(text: str) -> None:
    """A piece of a line, shown at once; control characters go where the output is a terminal."""
    sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def show_error(error: KnownError, *, as_json: bool) -> None:
    """The one sentence of a known error, on stderr; as an object on stdout where JSON was asked."""
    if as_json:
        print_json({"error": {"code": error.code, "sentence": error.sentence}})
    note(error.sentence)
