"""One block as a laid out QTextDocument: measured, painted, hit, selected and copied.

Documents are filled through a QTextCursor only.  `setHtml` and `setMarkdown` would swallow text
and look up images; nothing here makes Qt ask for a resource.  Lengths are logical px.
"""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt, QUrl
from PySide6.QtGui import (
    QAbstractTextDocumentLayout,
    QFontMetricsF,
    QPainter,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextImageFormat,
    QTextLayout,
    QTextOption,
)

from desktop_app.ui.blocks import Block, Kind, Look, Run
from desktop_app.ui.highlight import code_ranges
from desktop_app.ui.maths import Formula, maths
from desktop_app.ui.piece_look import PieceLook

LINE_SEPARATOR = "\u2028"
QUOTE_STEP = 16.0
_MOST_HITS = 200
CODE_PAD = QPointF(14, 10)
Selected = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a document, in UTF-16 units, and the run it shows ("" pads copy as nothing)."""

    start: int
    end: int
    run: Run
    source: str
    is_object: bool = False


def units(text: str) -> int:
    """Length in UTF-16 units, as Qt counts."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def slice_units(text: str, start: int, end: int) -> str:
    """A slice by UTF-16 units."""
    if text.isascii():
        return text[start:end]
    data = text.encode("utf-16-le", "surrogatepass")[2 * start : 2 * end]
    return data.decode("utf-16-le", "replace")


class Piece:
    """A block of text: paragraph, heading or list item.  Other kinds derive from it."""

    def __init__(self, block: Block, look: PieceLook) -> None:
        self.block = block
        self.look = look
        self.width = 0.0
        self.height = 0.0
        self.x = block.quote * QUOTE_STEP + block.depth * look.step
        self.document: QTextDocument | None = None
        self.segments: list[Segment] = []
        self.waits_for: set[str] = set()
        self._boxes: list[QRectF] | None = None
        self._found: list[Selected] = []
        self._found_for = ""

    # Building

    def measure(self, width: float) -> float:
        """Guess the height for a width without laying anything out."""
        self.width = width
        room = max(60.0, width - self.x)
        lines = 0
        for line in self.block.plain().split("\n"):
            lines += 1 + int(len(line) * self.look.letter * 1.02 / room)
        self.height = lines * self._line()
        return self.height

    @property
    def is_built(self) -> bool:
        """Whether the height is measured, not guessed."""
        return self.document is not None

    def build(self, width: float, before: str = "") -> float:
        """Lay the block out for a width; `before` is the code above a joined code block."""
        self.width = width
        if self.document is None:
            self.document = self._new_document()
            self._fill(self.document, before)
        self.document.setTextWidth(self._room())
        self._boxes = None
        self.height = self._measured()
        return self.height

    def drop(self) -> None:
        """Forget the document; the height stays."""
        self.document = None
        self.segments = []
        self._boxes = None
        self._found_for = ""

    def _room(self) -> float:
        return max(40.0, self.width - self.x)

    def _line(self) -> float:
        return self.look.heading(self.block.heading)[1] if self.block.heading else self.look.line

    def _new_document(self) -> QTextDocument:
        document = QTextDocument()
        document.setUndoRedoEnabled(False)
        document.setDocumentMargin(0)
        document.setDefaultFont(self.look.font)
        option = QTextOption()
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        option.setUseDesignMetrics(True)
        document.setDefaultTextOption(option)
        return document

    def _fill(self, document: QTextDocument, before: str) -> None:
        del before
        cursor = QTextCursor(document)
        cursor.beginEditBlock()
        cursor.setBlockFormat(line_format(self._line(), fixed=not self._is_tall()))
        self.segments = []
        insert_runs(self, cursor, self.block.runs, heading=self.block.heading)
        cursor.endEditBlock()

    def _is_tall(self) -> bool:
        """Whether a formula is higher than a line of text."""
        size, line = self.look.maths_size(self.block.heading), self._line()
        for run in self.block.runs:
            if run.look & Look.MATH:
                display = bool(run.look & Look.DISPLAY)
                found = maths().formula(run.text, display=display, size_px=size)
                if found is not None and (found.ascent > line * 0.8 or found.descent > line * 0.36):
                    return True
        return False

    def _measured(self) -> float:
        assert self.document is not None
        return self.document.size().height()

    @property
    def origin(self) -> QPointF:
        """Where the document stands inside the piece."""
        # Qt puts the base line at 80 % of a fixed line; the look centres the letters.
        return QPointF(self.x, -round(self._line() * 0.073))

    # Text

    @property
    def length(self) -> int:
        """Positions in the piece, in UTF-16 units."""
        if self.document is not None:
            return self.document.characterCount() - 1
        return units(self.block.plain())

    def text(self, start: int, end: int) -> str:
        """The text between two positions as it is copied."""
        parts = []
        for segment in self.segments:
            if segment.end <= start or segment.start >= end:
                continue
            if segment.is_object:
                parts.append(segment.source)
            else:
                begin = max(start, segment.start) - segment.start
                stop = min(end, segment.end) - segment.start
                parts.append(slice_units(segment.source, begin, stop))
        text = "".join(parts)
        if start == 0 and self.block.marker:
            text = f"{self.block.marker} {text}"
        return "  " * max(0, self.block.depth - 1) + text if start == 0 else text

    def word(self, position: int) -> Selected:
        """The word round a position."""
        assert self.document is not None
        cursor = QTextCursor(self.document)
        cursor.setPosition(min(position, self.length))
        cursor.select(QTextCursor.SelectionType.WordUnderCursor)
        return cursor.selectionStart(), cursor.selectionEnd()

    def position_at(self, point: QPointF) -> int:
        """The text position nearest to a point of the piece."""
        if self.document is None:
            return 0
        layout = self.document.documentLayout()
        found = layout.hitTest(point - self.origin, Qt.HitTestAccuracy.FuzzyHit)
        return self.length if found < 0 else min(found, self.length)

    def run_at(self, point: QPointF) -> Run | None:
        """The run whose text is under a point."""
        if self.document is None:
            return None
        layout = self.document.documentLayout()
        found = layout.hitTest(point - self.origin, Qt.HitTestAccuracy.ExactHit)
        if found < 0:
            return None
        for segment in self.segments:
            if segment.start <= found < segment.end:
                return segment.run
        return None

    def end_point(self) -> QPointF:
        """The top of the caret right of the last letter."""
        assert self.document is not None
        block = self.document.lastBlock()
        layout = block.layout()
        if layout.lineCount() == 0:
            return self.origin
        line = layout.lineAt(layout.lineCount() - 1)
        base = layout.position().y() + line.y() + line.ascent()
        caret = self.look.theme.px(18)
        return self.origin + QPointF(line.x() + line.naturalTextWidth() + 1, base - caret * 0.78)

    # Painting

    def paint(self, painter: QPainter, clip: QRectF, selected: Selected | None) -> None:
        """Paint the piece with its top left corner at the painter's origin."""
        if self.document is None:
            return
        painter.save()
        painter.translate(self.origin)
        self._paint_below(painter)
        context = QAbstractTextDocumentLayout.PaintContext()
        context.clip = clip.translated(-self.origin)
        marked = [self._selection(start, end, "ochresoft") for start, end in self._hits()]
        if selected is not None:
            marked.append(self._selection(*selected, "soft2"))
        context.selections = marked
        self.document.documentLayout().draw(painter, context)
        painter.restore()
        self._paint_marker(painter)

    def _hits(self) -> list[Selected]:
        """Where the words stand that are searched for."""
        words = self.look.find
        if not words or self.document is None:
            return []
        if self._found_for != words:
            self._found_for, self._found = words, []
            cursor = self.document.find(words, 0)
            while not cursor.isNull() and len(self._found) < _MOST_HITS:
                self._found.append((cursor.selectionStart(), cursor.selectionEnd()))
                cursor = self.document.find(words, cursor)
        return self._found

    def _selection(self, start: int, end: int, role: str) -> QAbstractTextDocumentLayout.Selection:
        assert self.document is not None
        made = QAbstractTextDocumentLayout.Selection()
        cursor = QTextCursor(self.document)
        cursor.setPosition(start)
        cursor.setPosition(min(end, self.length), QTextCursor.MoveMode.KeepAnchor)
        shown = QTextCharFormat()
        shown.setBackground(self.look.color(role))
        made.cursor = cursor
        made.format = shown
        return made

    def _paint_below(self, painter: QPainter) -> None:
        if self._boxes is None:
            self._boxes = self._code_boxes()
        if self._boxes:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self.look.color(self.look.ground))
            for box in self._boxes:
                painter.drawRoundedRect(box, 4, 4)

    def _code_boxes(self) -> list[QRectF]:
        """Rounded boxes behind inline code, one for each line it stands on."""
        assert self.document is not None
        boxes: list[QRectF] = []
        layout = self.document.firstBlock().layout()
        pad = 4.0
        for segment in self.segments:
            if not segment.run.look & Look.CODE or segment.is_object or not segment.source:
                continue
            for index in range(layout.lineCount()):
                line = layout.lineAt(index)
                start = max(segment.start, line.textStart())
                end = min(segment.end, line.textStart() + line.textLength())
                if start >= end:
                    continue
                left, right = x_of(line, start), x_of(line, end)
                middle = line.y() + line.ascent() - self.look.code_font.pixelSize() * 0.36
                height = self.look.code_line + 1
                boxes.append(
                    QRectF(left - pad, middle - height / 2, right - left + 2 * pad, height)
                )
        return boxes

    def _paint_marker(self, painter: QPainter) -> None:
        marker = self.block.marker
        if not marker:
            return
        painter.setFont(self.look.font)
        painter.setPen(self.look.color("text3"))
        metrics = QFontMetricsF(self.look.font)
        width = metrics.horizontalAdvance(marker)
        gap = self.look.step * (0.42 if marker == "•" else 0.25)
        base = self.origin.y() + self._line() * 0.8
        if self.document is not None and self.document.firstBlock().layout().lineCount():
            line = self.document.firstBlock().layout().lineAt(0)
            base = self.origin.y() + line.y() + line.ascent()
        painter.drawText(QPointF(self.x - gap - width, base), marker)


def x_of(line: object, position: int) -> float:
    """`QTextLine.cursorToX` gives a pair or a number, by binding version."""
    found = line.cursorToX(position)  # type: ignore[attr-defined]  # a QTextLine
    return float(found[0] if isinstance(found, tuple) else found)


def line_format(height: float, *, fixed: bool = True) -> QTextBlockFormat:
    """A block format of one line height; formulas may make lines higher."""
    made = QTextBlockFormat()
    kinds = QTextBlockFormat.LineHeightTypes
    made.setLineHeight(height, (kinds.FixedHeight if fixed else kinds.MinimumHeight).value)
    return made


def insert_runs(
    piece: Piece, cursor: QTextCursor, runs: tuple[Run, ...], *, heading: int = 0
) -> None:
    """Insert runs at the cursor and note their segments in the piece."""
    look = piece.look
    for run in runs:
        form = look.format(run.look, link=bool(run.link), heading=heading)
        if run.look & Look.MATH and _insert_formula(piece, cursor, run, heading):
            continue
        padded = bool(run.look & Look.CODE)
        if padded:
            _insert(piece, cursor, "\u00a0", "", run, look.pad)
        shown = run.text.replace("\n", LINE_SEPARATOR)
        _insert(piece, cursor, shown, run.text, run, form)
        if padded:
            _insert(piece, cursor, "\u00a0", "", run, look.pad)


def _insert(
    piece: Piece, cursor: QTextCursor, shown: str, source: str, run: Run, form: QTextCharFormat
) -> None:
    start = cursor.position()
    cursor.insertText(shown, form)
    piece.segments.append(Segment(start, cursor.position(), run, source))


def _insert_formula(piece: Piece, cursor: QTextCursor, run: Run, heading: int) -> bool:
    display = bool(run.look & Look.DISPLAY)
    size = piece.look.maths_size(heading)
    formula = maths().formula(run.text, display=display, size_px=size)
    if formula is None:
        if maths().is_waiting(run.text, display=display, size_px=size):
            piece.waits_for.add(run.text)
        return False
    if formula.width > piece._room():  # noqa: SLF001 - a function of this class's own module
        return False
    start = cursor.position()
    _insert_image(piece, cursor, formula)
    source = f"\\[{run.text}\\]" if display else f"${run.text}$"
    piece.segments.append(Segment(start, cursor.position(), run, source, is_object=True))
    return True


def _insert_image(piece: Piece, cursor: QTextCursor, formula: Formula) -> None:
    """An image whose base line meets the text's: AlignMiddle centres on half the x height."""
    look, document = piece.look, cursor.document()
    x_height = QFontMetricsF(look.font).xHeight()
    height = max(2 * formula.ascent - x_height, 2 * formula.descent + x_height)
    top = (height + x_height) / 2 - formula.ascent
    drawn = formula.image(look.color(look.role), look.ratio)
    canvas = drawn.copy(
        0,
        -round(top * look.ratio),
        drawn.width(),
        round(height * look.ratio),
    )
    canvas.setDevicePixelRatio(look.ratio)
    name = f"grove-formula:{len(piece.segments)}"
    document.addResource(QTextDocument.ResourceType.ImageResource.value, QUrl(name), canvas)
    form = QTextImageFormat()
    form.setName(name)
    form.setWidth(formula.width)
    form.setHeight(height)
    form.setVerticalAlignment(QTextCharFormat.VerticalAlignment.AlignMiddle)
    cursor.insertImage(form)


class CodePiece(Piece):
    """Code on a sunken ground; long lines wrap, so nothing is hidden at the right."""

    def measure(self, width: float) -> float:
        self.width = width
        room = max(60.0, self._room())
        letter = QFontMetricsF(self.look.code_font).averageCharWidth()
        lines = sum(1 + int(len(one) * letter / room) for one in self.block.text.split("\n"))
        self.height = lines * self.look.code_line + self._pads()
        return self.height

    def _pads(self) -> float:
        """Room above the first and below the last line of the whole block."""
        return (0 if self.block.joined else CODE_PAD.y()) + (0 if self.block.open else CODE_PAD.y())

    def _room(self) -> float:
        return max(40.0, self.width - self.x - 2 * CODE_PAD.x())

    def _line(self) -> float:
        return self.look.code_line

    @property
    def origin(self) -> QPointF:
        top = 0 if self.block.joined else CODE_PAD.y()
        return QPointF(self.x + CODE_PAD.x(), top - round(self.look.code_line * 0.04))

    def _fill(self, document: QTextDocument, before: str) -> None:
        code = self.block.text
        form = QTextCharFormat()
        form.setFont(self.look.code_font)
        form.setForeground(self.look.color("text"))
        cursor = QTextCursor(document)
        cursor.setBlockFormat(line_format(self.look.code_line))
        cursor.insertText(code.replace("\n", LINE_SEPARATOR), form)
        document.setIndentWidth(28)
        option = document.defaultTextOption()
        option.setTabStopDistance(4 * QFontMetricsF(self.look.code_font).horizontalAdvance(" "))
        document.setDefaultTextOption(option)
        self.segments = [Segment(0, cursor.position(), Run(code), code)]
        ranges = []
        for start, length, role in code_ranges(code, self.block.language, before):
            made = QTextLayout.FormatRange()
            made.start = units(code[:start]) if not code.isascii() else start
            made.length = units(code[start : start + length])
            shown = QTextCharFormat()
            shown.setForeground(self.look.color(role))
            made.format = shown
            ranges.append(made)
        document.firstBlock().layout().setFormats(ranges)

    def _measured(self) -> float:
        return super()._measured() + self._pads()

    def box(self) -> QRectF:
        """The sunken ground, in the piece's coordinates."""
        return QRectF(self.x, 0, self.width - self.x, self.height)

    def paint(self, painter: QPainter, clip: QRectF, selected: Selected | None) -> None:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self.look.color(self.look.ground))
        box = self.box()
        painter.setClipRect(box)
        grown = box.adjusted(0, -20 if self.block.joined else 0, 0, 20 if self.block.open else 0)
        painter.drawRoundedRect(grown, 8, 8)
        painter.restore()
        super().paint(painter, clip, selected)
        if self.block.language and not self.block.joined:
            painter.setFont(self.look.theme.font("small"))
            painter.setPen(self.look.color("text2"))
            room = QRectF(self.width - 148, 4, 140, 20)
            right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            metrics = painter.fontMetrics()
            name = metrics.elidedText(self.block.language, Qt.TextElideMode.ElideRight, 140)
            painter.drawText(room, int(right), name)

    def _code_boxes(self) -> list[QRectF]:
        return []


class MathPiece(Piece):
    """A formula on its own line; its TeX as code until it is ready."""

    def __init__(self, block: Block, look: PieceLook) -> None:
        super().__init__(block, look)
        self.x += look.step
        self._formula: Formula | None = None

    def measure(self, width: float) -> float:
        self.width = width
        self.height = 2.2 * self.look.line
        return self.height

    def _fill(self, document: QTextDocument, before: str) -> None:
        del before
        tex = self.block.text
        run = Run(tex, Look.MATH | Look.DISPLAY)
        cursor = QTextCursor(document)
        cursor.setBlockFormat(line_format(self.look.line, fixed=False))
        insert_runs(self, cursor, (run,))

    @property
    def origin(self) -> QPointF:
        return QPointF(self.x, 0)


class RulePiece(Piece):
    """A line across."""

    def measure(self, width: float) -> float:
        self.width = width
        self.height = 17.0
        return self.height

    def _fill(self, document: QTextDocument, before: str) -> None:
        del before, document

    def _measured(self) -> float:
        return 17.0

    def text(self, start: int, end: int) -> str:
        del start, end
        return "———"

    def paint(self, painter: QPainter, clip: QRectF, selected: Selected | None) -> None:
        del clip, selected
        painter.fillRect(QRectF(self.x, 8, self.width - self.x, 1), self.look.color("line2"))


def new_piece(block: Block, look: PieceLook) -> Piece:
    """The piece for a block."""
    from desktop_app.ui.table_piece import TablePiece

    kinds: dict[Kind, type[Piece]] = {
        Kind.CODE: CodePiece,
        Kind.MATH: MathPiece,
        Kind.RULE: RulePiece,
        Kind.TABLE: TablePiece,
    }
    return kinds.get(block.kind, Piece)(block, look)
