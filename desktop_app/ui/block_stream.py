"""A growing text as blocks: only what follows the last finished element is parsed again.

CommonMark closes an element when the next one begins, so everything above the last top-level
element (or the last item of a top-level list, the last rows of a long table, the last lines of a
long fence) never changes while text is appended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from time import perf_counter

from desktop_app.ui.blocks import Block, Kind, Table
from desktop_app.ui.markdown import Element, cut_text, parse_elements, plain_blocks
from desktop_app.ui.safe_text import visible

CHUNK = 6000
"""Characters parsed at once: 2 to 6 ms.  A single element longer than this turns plain."""

CHUNK_LINES = 150
CODE_LINES = 48
CODE_CHARS = 4000
TABLE_ROWS = 20
MATHS_LINES = 30
"""An opened formula waits this many lines for its end; after that it is text."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")


@dataclass(frozen=True, slots=True)
class _Fence:
    """An open fence of which the first lines are finished blocks already."""

    mark: str
    indent: int
    language: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the finished part ends and inside what."""

    at: int = 0
    fence: _Fence | None = None
    table_head: str = ""
    number: int | None = None
    joined: bool = False


class BlockStream:
    """The blocks of a text that may grow; `markdown` False is for prompts: text and fences only."""

    def __init__(self, *, markdown: bool = True) -> None:
        self._markdown = markdown
        self._text = ""
        self._place = _Place()
        self._finished: list[Block] = []
        self._tail: list[Block] = []
        self._cut_short = False

    @property
    def blocks(self) -> list[Block]:
        """Finished blocks and those that may still change."""
        return self._finished + self._tail

    @property
    def finished(self) -> int:
        """How many blocks will not change while text is appended."""
        return len(self._finished)

    @property
    def rest(self) -> str:
        """The part of the text that no block shows yet, because the time was up."""
        return self._text[self._place.at :] if self._cut_short else ""

    def feed(self, text: str, limit_ms: float = 1e9) -> int:
        """Take the whole text so far; returns the index of the first block that changed.

        Stops after about `limit_ms`; the part that is left is `rest`, and another call with the
        same text goes on.  A text that does not begin with the finished part starts anew.
        """
        at = self._place.at
        if len(text) < at or text[max(0, at - 200) : at] != self._text[max(0, at - 200) : at]:
            self.__init__(markdown=self._markdown)  # type: ignore[misc]  # starts anew
        elif self._text is not text and len(text) == len(self._text) and text != self._text:
            self.__init__(markdown=self._markdown)  # type: ignore[misc]  # another text
        self._text = text
        changed = len(self._finished)
        self._tail = []
        self._cut_short = False
        start = perf_counter()
        while self._place.at < len(text) and self._advance():
            if (perf_counter() - start) * 1000 > limit_ms:
                self._cut_short = self._place.at < len(text)
                break
        if self._place.fence is not None and self._place.at >= len(text):
            self._add_code(self._place.fence, [], self._tail, still_open=False)
        return changed

    def _advance(self) -> bool:
        """Finish some blocks; False when the rest is one open element, which is the tail."""
        if self._place.fence is not None:
            return self._advance_fence(self._place.fence)
        if not self._markdown:
            return self._advance_plain()
        if self._enter_fence():
            return True
        return self._advance_markdown()

    # Fences: found by lines, so that a long one costs nothing to parse again.

    def _enter_fence(self) -> bool:
        end = self._line_end(self._place.at)
        found = _FENCE.match(self._text[self._place.at : end])
        if not found or (found[1][0] == "`" and "`" in found[2]):
            return False
        if end >= len(self._text):
            return False  # the info string may still grow
        indent = len(found[0]) - len(found[0].lstrip(" "))
        fence = _Fence(found[1], indent, visible(found[2].strip()))
        self._place = _Place(end + 1, fence=fence)
        return True

    def _advance_fence(self, fence: _Fence) -> bool:
        at, lines, size = self._place.at, 0, 0
        pieces: list[str] = []
        closed = re.compile(rf" {{0,3}}{re.escape(fence.mark[0])}{{{len(fence.mark)},}}[ \t]*$")
        while True:
            end = self._line_end(at)
            line = self._text[at:end]
            if closed.match(line):
                if end >= len(self._text):  # the line may still grow
                    self._add_code(fence, pieces, self._tail, still_open=False)
                    return False
                self._add_code(fence, pieces, self._finished, still_open=False)
                self._place = _Place(end + 1)
                return True
            if end >= len(self._text):
                pieces.append(line)
                self._add_code(fence, pieces, self._tail, still_open=False)
                return False
            pieces.append(line)
            lines, size, at = lines + 1, size + len(line), end + 1
            if (lines >= CODE_LINES or size >= CODE_CHARS) and self._goes_on(at, closed):
                self._add_code(fence, pieces, self._finished, still_open=True)
                self._place = replace(self._place, at=at, joined=True)
                return True

    def _goes_on(self, at: int, closed: re.Pattern[str]) -> bool:
        """Whether a whole further line of code follows, so that a cut leaves no empty rest."""
        end = self._line_end(at)
        return end < len(self._text) and not closed.match(self._text[at:end])

    def _add_code(
        self, fence: _Fence, lines: list[str], into: list[Block], *, still_open: bool
    ) -> None:
        cut = [_unindented(line, fence.indent) for line in lines]
        text = visible("\n".join(cut))
        joined, line_break = self._place.joined, True
        pieces = list(cut_text(text, CODE_CHARS))
        for index, (piece, breaks) in enumerate(pieces):
            into.append(
                Block(
                    Kind.CODE,
                    text=piece,
                    language=fence.language,
                    joined=joined,
                    line_break=line_break,
                    open=still_open or index + 1 < len(pieces),
                )
            )
            joined, line_break = True, breaks

    # Prompts: what was typed, with fences as code.

    def _advance_plain(self) -> bool:
        if self._enter_fence():
            return True
        at = self._place.at
        stop = self._next_fence(at)
        text = self._text[at:stop]
        if stop >= len(self._text) and len(text) <= CHUNK:
            self._tail += plain_blocks(text, joined=self._place.joined)
            return False
        if len(text) > CHUNK:
            cut = text.rfind("\n", CHUNK // 2, CHUNK) + 1 or CHUNK
            blocks = plain_blocks(text[:cut], joined=self._place.joined)
            self._place = _Place(at + cut, joined=True)
        else:
            blocks = plain_blocks(text, joined=self._place.joined) if text.strip() else []
            self._place = _Place(stop)
        self._finished += blocks
        return True

    def _next_fence(self, at: int) -> int:
        while at < len(self._text):
            end = self._line_end(at)
            if at > self._place.at and _FENCE.match(self._text[at:end]):
                return at
            at = end + 1
            if at - self._place.at > CHUNK:
                return min(at, len(self._text))
        return len(self._text)

    # Markdown.

    def _advance_markdown(self, *, wide: bool = False) -> bool:
        """Parse a stretch; `wide` when one element has more lines than a stretch should."""
        at, place = self._place.at, self._place
        lines_max = TABLE_ROWS + 4 if place.table_head else CHUNK_LINES
        end = self._chunk_end(at, CHUNK if wide else lines_max)
        whole = end >= len(self._text)
        chunk = self._text[at:end]
        elements = parse_elements(place.table_head + chunk, number=place.number)
        head_lines = place.table_head.count("\n")
        elements = [self._without_head(element, head_lines) for element in elements]
        if not elements:
            self._place = _Place(end) if not whole else place
            return not whole
        lines = chunk.split("\n")
        if self._cut_table(elements[0], lines, at):
            return True
        # Fences and long tables are cut by their own rules, which begin at their first line.
        stop = next((n for n, one in enumerate(elements) if n and _is_long(one)), len(elements) - 1)
        if whole:
            stop = next((n for n in range(stop) if _opens_maths(elements[n], lines)), stop)
            if not stop:
                self._tail = [block for element in elements for block in element.blocks]
                return False
        elements = elements[: stop + 1]
        last = elements[-1]
        for element in elements[:-1]:
            self._finished += element.blocks
        offset = sum(len(line) + 1 for line in lines[: last.first_line])
        if len(elements) > 1:
            number = last.next_number - 1 if last.kind == "ordered_item" else None
            same = last.kind == elements[-2].kind == "ordered_item"
            self._place = _Place(at + offset, number=number if same else None)
            return True
        if not wide:
            return self._advance_markdown(wide=True)
        return self._give_up(at, end)

    def _chunk_end(self, at: int, lines: int) -> int:
        """The end of a stretch to parse: so many characters or lines, ending with a line."""
        end = min(len(self._text), at + CHUNK)
        stop = at
        for _line in range(lines):
            stop = self._text.find("\n", stop, end) + 1
            if not stop:
                break
        else:
            return stop
        if end >= len(self._text):
            return end
        return self._text.rfind("\n", at, end) + 1 or end

    def _without_head(self, element: Element, head_lines: int) -> Element:
        """Take the head off a table that continues one whose first rows are finished."""
        if not head_lines:
            return element
        blocks = element.blocks
        if element.first_line == 0 and blocks and blocks[0].table is not None:
            table = replace(blocks[0].table, head=())
            blocks = [replace(blocks[0], table=table, joined=True), *blocks[1:]]
        elif element.first_line == 0:
            blocks = plain_blocks(self._text[self._place.at : self._place.at + CHUNK])
        first = max(0, element.first_line - head_lines)
        return Element(
            first, element.end_line - head_lines, blocks, element.kind, element.next_number
        )

    def _cut_table(self, element: Element, lines: list[str], at: int) -> bool:
        """Finish the first rows of a long table; the others get its head again, unseen."""
        if element.first_line or not _is_long(element) or element.blocks[0].table is None:
            return False
        block = element.blocks[0]
        assert block.table is not None
        skip = 0 if self._place.table_head else 2
        head = self._place.table_head or "\n".join(lines[:2]) + "\n"
        table: Table = replace(block.table, rows=block.table.rows[:TABLE_ROWS])
        self._finished.append(replace(block, table=table, open=True))
        taken = lines[: skip + TABLE_ROWS]
        self._place = _Place(at + sum(len(line) + 1 for line in taken), table_head=head)
        return True

    def _give_up(self, at: int, end: int) -> bool:
        """One element that fills a whole chunk: show this much of it as it was written."""
        chunk = self._text[at:end]
        self._finished += plain_blocks(chunk, joined=self._place.joined)
        self._place = _Place(end, joined=True)
        return True

    def _line_end(self, at: int) -> int:
        end = self._text.find("\n", at)
        return len(self._text) if end < 0 else end


def _is_long(element: Element) -> bool:
    block = element.blocks[0] if element.blocks else None
    if block is None or element.kind == "fence":
        return element.kind == "fence"
    return block.table is not None and len(block.table.rows) > TABLE_ROWS


def _opens_maths(element: Element, lines: list[str]) -> bool:
    """Whether display maths was opened here and may still be closed: then nothing is finished."""
    if element.kind != "paragraph_open" or len(lines) - element.first_line > MATHS_LINES:
        return False
    return lines[element.first_line].lstrip().startswith(("$$", "\\["))


def _unindented(line: str, indent: int) -> str:
    spaces = len(line) - len(line.lstrip(" "))
    return line[min(indent, spaces) :]
