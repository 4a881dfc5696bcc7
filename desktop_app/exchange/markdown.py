"""One path of a chat as Markdown, to be read elsewhere.

What the path says is kept word for word; branches, versions and provenance are not: Grove's own
JSON keeps those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from desktop_app.exchange.files import write_atomically


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the path: who speaks (as a heading), what they say, and their reasoning."""

    speaker: str
    text: str
    reasoning: str = ""


def write(path: Path, title: str, messages: Iterable[Said]) -> int:
    """Write a path to a file, replacing an older one as a whole; returns its size in bytes.

    Any thread.  KnownError("disk-full" | "file-unwritable").
    """
    return write_atomically(path, _chunks(title, messages))


def _chunks(title: str, messages: Iterable[Said]) -> Iterator[str]:
    yield f"# {_one_line(title)}\n"
    for said in messages:
        yield f"\n## {_one_line(said.speaker)}\n"
        if said.reasoning.strip():
            quoted = "\n".join(f"> {line}".rstrip() for line in said.reasoning.strip().split("\n"))
            yield f"\n{quoted}\n"
        if said.text.strip():
            yield f"\n{_fenced(said.text)}\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fenced(text: str) -> str:
    """The text without white space around it; a code fence left open is closed.

    A reply that was stopped may end inside one, and would take what follows with it.
    """
    body = text.strip("\n")
    fence = ""
    for line in body.split("\n"):
        bare = line.lstrip(" ")
        mark = bare[:1]
        run = len(bare) - len(bare.lstrip(mark)) if mark in ("`", "~") and mark else 0
        if len(line) - len(bare) > 3 or run < 3:
            continue
        if not fence:
            if mark == "~" or "`" not in bare[run:]:
                fence = bare[:run]
        elif mark == fence[0] and run >= len(fence) and not bare[run:].strip():
            fence = ""
    return f"{body}\n{fence}" if fence else body
