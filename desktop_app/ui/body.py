"""The body of one message: its pieces in a column, of which only those on screen are laid out.

Not a widget.  Heights of pieces that were never on screen are guesses; a very long text is not
even parsed to its end before it is needed.  Lengths are logical px, main thread only.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from time import perf_counter

from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QPainter

from desktop_app.ui.block_stream import BlockStream
from desktop_app.ui.blocks import Block, Kind, Run
from desktop_app.ui.piece_look import PieceLook
from desktop_app.ui.pieces import QUOTE_STEP, CodePiece, Piece, new_piece
from desktop_app.ui.safe_text import visible
from desktop_app.ui.table_piece import TablePiece

PARSE_LIMIT_MS = 12.0
"""How long one call may parse; the rest follows when it is scrolled to."""

_REST_CHARS_PER_LINE = 80
_FIND_S = 0.3
_MANY = 60
_FAR_PX = 4000.0
"""After so many pieces were laid out, those this far out of view give their layout back."""


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """A place in a body: piece and text position."""

    piece: int
    position: int


class MessageBody:
    """The laid out text of one message."""

    def __init__(self, look: PieceLook, *, markdown: bool = True) -> None:
        self._look = look
        self._markdown = markdown
        self._stream = BlockStream(markdown=markdown)
        self._text = ""
        self._width = 0.0
        self._pieces: list[Piece] = []
        self._tops: list[float] = []
        self._rest = 0
        self._built = 0  # since layouts were given back
        self.wants_more = False

    # Content

    @property
    def text(self) -> str:
        """The source text."""
        return self._text

    def set_text(self, text: str) -> int:
        """Show this text; what is unchanged at its start keeps its layout.

        Returns the index of the first piece that is new.
        """
        self._text = text
        changed = self._stream.feed(text, PARSE_LIMIT_MS)
        self._take(changed)
        return changed

    def parse_more(self) -> bool:
        """Parse a further stretch of a long text; False when nothing is left."""
        if not self._rest:
            return False
        self._take(self._stream.feed(self._text, PARSE_LIMIT_MS))
        return True

    def set_look(self, look: PieceLook) -> None:
        """Use other fonts and colours; everything is laid out again when seen."""
        self._look = look
        self._pieces = [self._piece(block, None) for block in self._stream.blocks]
        self._remeasure(0)

    def _take(self, changed: int) -> None:
        blocks = self._stream.blocks
        keep = changed
        while keep < min(len(blocks), len(self._pieces)) and (
            blocks[keep] == self._pieces[keep].block
        ):
            keep += 1
        del self._pieces[keep:]
        for block in blocks[keep:]:
            self._pieces.append(self._piece(block, self._pieces[-1] if self._pieces else None))
        self._rest = len(self._stream.rest)
        self._remeasure(keep)

    def _piece(self, block: Block, _above: Piece | None) -> Piece:
        return new_piece(block, self._look)

    # Layout

    @property
    def width(self) -> float:
        """The width it is laid out for."""
        return self._width

    @property
    def pieces(self) -> list[Piece]:
        """The pieces, top to bottom."""
        return self._pieces

    @property
    def height(self) -> float:
        """Height in px, partly a guess."""
        if not self._pieces:
            return 0.0
        bottom = self._tops[-1] + self._pieces[-1].height
        return bottom + self._rest / _REST_CHARS_PER_LINE * self._look.line

    def set_width(self, width: float) -> None:
        """Lay out for another width, lazily."""
        if width != self._width:
            self._width = width
            self._remeasure(0, drop=True)

    def _remeasure(self, first: int, *, drop: bool = False) -> None:
        if self._width <= 0:
            return
        for piece in self._pieces[first:]:
            if drop or not piece.is_built:
                piece.measure(self._width)
                if drop:
                    piece.drop()
        self._stack(first)

    def _stack(self, first: int) -> None:
        del self._tops[first:]
        for index in range(first, len(self._pieces)):
            if index == 0:
                self._tops.append(0.0)
                continue
            above = self._pieces[index - 1]
            gap = _gap(above.block, self._pieces[index].block, self._look)
            self._tops.append(self._tops[index - 1] + above.height + gap)

    def top(self, index: int) -> float:
        """Where a piece begins."""
        return self._tops[index] if index < len(self._tops) else self.height

    def ensure(self, top: float, bottom: float) -> bool:
        """Lay out what stands between two heights; True when a height changed.

        Where the parsed text ends above `bottom`, `wants_more` is set: the view calls
        `parse_more` when the event loop is free.
        """
        changed = False
        index = self.piece_at(top)
        while index < len(self._pieces) and self._tops[index] < bottom:
            if self._build(index):
                changed = True
            index += 1
        self.wants_more = self._rest > 0 and self._bottom() < bottom
        if self._built > _MANY:
            self._built = 0
            self.drop_layouts(top - _FAR_PX, bottom + _FAR_PX)
        return changed

    def _bottom(self) -> float:
        return self._tops[-1] + self._pieces[-1].height if self._pieces else 0.0

    def _build(self, index: int) -> bool:
        piece = self._pieces[index]
        if piece.is_built and piece.width == self._width:
            return False
        before = piece.height
        above = self._pieces[index - 1] if index else None
        context = ""
        if isinstance(piece, CodePiece) and piece.block.joined and above is not None:
            context = above.block.text
        if isinstance(piece, TablePiece) and isinstance(above, TablePiece) and piece.block.joined:
            if not above.columns:
                self._build(index - 1)
            piece.share_columns(above)
        piece.build(self._width, context)
        self._built += 1
        if abs(piece.height - before) < 0.01:
            return False
        self._stack(index + 1)
        return True

    def drop_layouts(self, top: float, bottom: float) -> None:
        """Free the documents outside of a stretch; heights stay as they were measured."""
        for index, piece in enumerate(self._pieces):
            if self._tops[index] + piece.height < top or self._tops[index] > bottom:
                piece.drop()

    def formula_ready(self, tex: str) -> bool:
        """Drop the layout of pieces that wait for this formula; True when there are any."""
        hit = [piece for piece in self._pieces if tex in piece.waits_for]
        for piece in hit:
            piece.drop()
            piece.waits_for.clear()
        return bool(hit)

    def ideal_width(self) -> float:
        """How wide the text is: for the block behind a prompt, laid out at the full width."""
        widest = 0.0
        for piece in self._pieces[:40]:
            if isinstance(piece, CodePiece | TablePiece) or not piece.is_built:
                return self._width
            document = piece.document
            assert document is not None
            widest = max(widest, piece.x + document.idealWidth())
        return min(self._width, widest)

    # Finding places

    def piece_at(self, y: float) -> int:
        """The index of the piece at a height (the nearest above in a gap)."""
        return max(0, bisect_right(self._tops, y) - 1) if self._tops else 0

    def spot_at(self, point: QPointF) -> Spot:
        """The place in the text nearest to a point."""
        if not self._pieces:
            return Spot(0, 0)
        index = self.piece_at(point.y())
        self._build(index)
        piece = self._pieces[index]
        if point.y() > self._tops[index] + piece.height:
            nearer = index + 1 < len(self._pieces) and (
                self._tops[index + 1] - point.y() < point.y() - self._tops[index] - piece.height
            )
            if nearer:
                return Spot(index + 1, 0)
            return Spot(index, piece.length)
        return Spot(index, piece.position_at(point - QPointF(0, self._tops[index])))

    def run_at(self, point: QPointF) -> Run | None:
        """The run under a point, for links."""
        if not self._pieces:
            return None
        index = self.piece_at(point.y())
        return self._pieces[index].run_at(point - QPointF(0, self._tops[index]))

    def code_at(self, point: QPointF) -> int:
        """The index of the first piece of the code block under a point, -1 for none."""
        if not self._pieces:
            return -1
        index = self.piece_at(point.y())
        piece = self._pieces[index]
        if not isinstance(piece, CodePiece) or point.y() > self._tops[index] + piece.height:
            return -1
        while self._pieces[index].block.joined and index:
            index -= 1
        return index

    def code_text(self, first: int) -> str:
        """The whole code of a block that begins at a piece."""
        text = self._pieces[first].block.text
        for piece in self._pieces[first + 1 :]:
            if piece.block.kind is not Kind.CODE or not piece.block.joined:
                break
            text += ("\n" if piece.block.line_break else "") + piece.block.text
        return text

    def code_button(self, first: int) -> QRectF:
        """Where the copy button of a code block stands: left of the language's name."""
        piece = self._pieces[first]
        name = piece.block.language
        metrics_width = len(name[:18]) * self._look.theme.px(6.6)
        right = piece.width - 8 - (metrics_width + 8 if name else 0)
        return QRectF(right - 24, self._tops[first] + 4, 24, 24)

    def piece_with(self, words: str) -> int:
        """The index of the first piece that has these words in any case, -1 for none.

        Parses on until they come, for a third of a second at most.
        """
        folded, index, start = words.casefold(), 0, perf_counter()
        while True:
            for piece in self._pieces[index:]:
                if folded in piece.block.plain().casefold():
                    return index
                index += 1
            index = max(0, index - 1)  # the last one may have been cut short
            if perf_counter() - start > _FIND_S or not self.parse_more():
                return -1

    def links(self) -> list[str]:
        """Addresses in the text that may be opened, each once, in order."""
        found: dict[str, None] = {}
        for piece in self._pieces:
            table = piece.block.table
            cells = [piece.block.runs]
            if table is not None:
                cells += [cell for row in (table.head, *table.rows) for cell in row]
            found.update({run.link: None for cell in cells for run in cell if run.link})
        return list(found)

    def codes(self) -> list[tuple[int, str]]:
        """The code blocks: index of the first piece, and the language."""
        return [
            (index, piece.block.language)
            for index, piece in enumerate(self._pieces)
            if isinstance(piece, CodePiece) and not piece.block.joined
        ]

    def end(self) -> Spot:
        """The place after the last letter."""
        last = len(self._pieces) - 1
        return Spot(last, self._pieces[last].length) if last >= 0 else Spot(0, 0)

    def word(self, spot: Spot) -> tuple[Spot, Spot]:
        """The word round a place."""
        if not self._pieces or not self._pieces[spot.piece].is_built:
            return spot, spot
        start, end = self._pieces[spot.piece].word(spot.position)
        return Spot(spot.piece, start), Spot(spot.piece, end)

    def whole_piece(self, spot: Spot) -> tuple[Spot, Spot]:
        """The paragraph round a place."""
        if not self._pieces:
            return spot, spot
        return Spot(spot.piece, 0), Spot(spot.piece, self._pieces[spot.piece].length)

    def copy_text(self, start: Spot | None = None, end: Spot | None = None) -> str:
        """The text between two places (None: from the start, to the end) as it reads.

        What was not parsed yet is copied as it was written.
        """
        if not self._pieces:
            return ""
        start = start or Spot(0, 0)
        whole = end is None
        end = end or self.end()
        parts: list[str] = []
        for index in range(start.piece, end.piece + 1):
            piece = self._pieces[index]
            if not piece.is_built:
                self._build(index)
            begin = start.position if index == start.piece else 0
            stop = end.position if index == end.piece and not whole else piece.length
            if parts:
                parts.append(_between(self._pieces[index - 1].block, piece.block))
            parts.append(piece.text(begin, stop))
        if whole and self._rest:
            parts.append("\n" + visible(self._stream.rest))
        return "".join(parts)

    # Painting

    def paint(
        self, painter: QPainter, clip: QRectF, selected: tuple[Spot, Spot] | None = None
    ) -> None:
        """Paint what stands in `clip` with the top left corner at the painter's origin."""
        index = self.piece_at(clip.top())
        while index < len(self._pieces) and self._tops[index] <= clip.bottom():
            piece, top = self._pieces[index], self._tops[index]
            if not piece.is_built:
                self._build(index)
            painter.save()
            painter.translate(0, top)
            self._paint_quotes(painter, index)
            piece.paint(painter, clip.translated(0, -top), self._selected(index, selected))
            painter.restore()
            index += 1

    def _selected(self, index: int, selected: tuple[Spot, Spot] | None) -> tuple[int, int] | None:
        if selected is None or not selected[0].piece <= index <= selected[1].piece:
            return None
        start = selected[0].position if index == selected[0].piece else 0
        end = selected[1].position if index == selected[1].piece else self._pieces[index].length
        return (start, end) if end > start else None

    def _paint_quotes(self, painter: QPainter, index: int) -> None:
        """A bar for each quote level; it runs through the gap to a quoted piece below."""
        piece = self._pieces[index]
        below = self._pieces[index + 1] if index + 1 < len(self._pieces) else None
        for level in range(piece.block.quote):
            height = piece.height
            if below is not None and below.block.quote > level:
                height = self._tops[index + 1] - self._tops[index]
            box = QRectF(level * QUOTE_STEP + 2, 0, 2, height)
            painter.fillRect(box, self._look.color("line2"))


def _gap(above: Block, below: Block, look: PieceLook) -> float:
    """Room between two blocks."""
    if below.joined:
        return 0.0
    if below.heading:
        return 20.0 if below.heading <= 2 else 16.0
    if above.heading:
        return 6.0
    if above.depth and below.depth and below.kind is Kind.TEXT and above.kind is Kind.TEXT:
        return 4.0
    if Kind.TABLE in (above.kind, below.kind) or Kind.MATH in (above.kind, below.kind):
        return 10.0
    return 8.0 * max(1.0, look.theme.text_scale)


def _between(above: Block, below: Block) -> str:
    """What stands between two blocks when they are copied."""
    if below.joined:
        return "\n" if below.line_break else ""
    if above.depth and below.depth and below.marker:
        return "\n"
    return "\n\n"
