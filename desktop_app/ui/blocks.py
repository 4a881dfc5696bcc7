"""The blocks that a message is shown as: plain immutable data between Markdown and painting."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag


class Look(IntFlag):
    """How a run of text looks; flags add up."""

    PLAIN = 0
    BOLD = 1
    ITALIC = 2
    STRIKE = 4
    CODE = 8
    MATH = 16  # the run's text is TeX
    DISPLAY = 32  # with MATH: a formula of its own size inside a line
    QUIET = 64  # small grey text that we add: the address of an image


@dataclass(frozen=True, slots=True)
class Run:
    """Text of one look; `link` is an address that may be opened ("" for none), `tip` its title."""

    text: str
    look: Look = Look.PLAIN
    link: str = ""
    tip: str = ""


class Kind(Enum):
    """What a block is."""

    TEXT = "text"
    CODE = "code"
    TABLE = "table"
    MATH = "math"
    RULE = "rule"


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a stretch of one; `head` is empty for a stretch that continues the one above.

    `align` has ``"left"``, ``"center"``, ``"right"`` or ``""`` for each column.
    """

    head: tuple[tuple[Run, ...], ...]
    rows: tuple[tuple[tuple[Run, ...], ...], ...]
    align: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a message, a few thousand characters at most, so that it is cheap to lay out.

    `text` is the code of CODE and the TeX of MATH.  `depth` counts list levels, `quote` quotes,
    `marker` is a list item's bullet or number.  `joined` means: the block above goes on here (a
    long code block, table or paragraph is cut into several), with `line_break` when a line ended
    at the cut.  `open` means: it goes on in the block below.
    """

    kind: Kind
    runs: tuple[Run, ...] = ()
    text: str = ""
    language: str = ""
    heading: int = 0
    depth: int = 0
    quote: int = 0
    marker: str = ""
    table: Table | None = None
    joined: bool = False
    line_break: bool = True
    open: bool = False

    def plain(self) -> str:
        """The text as it reads, without marks: for counting, searching and screen readers."""
        if self.table is not None:
            rows = ([self.table.head] if self.table.head else []) + list(self.table.rows)
            return "\n".join("\t".join(plain_runs(cell) for cell in row) for row in rows)
        return self.text or plain_runs(self.runs)


def plain_runs(runs: tuple[Run, ...]) -> str:
    """The text of runs."""
    return "".join(run.text for run in runs)
