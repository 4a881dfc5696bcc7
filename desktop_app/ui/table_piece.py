"""A table: columns as wide as their words, a line below the head and between rows."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import (
    QFont,
    QFontMetricsF,
    QPainter,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextFormat,
    QTextLength,
    QTextTable,
    QTextTableCellFormat,
    QTextTableFormat,
)

from desktop_app.ui.blocks import Block, Look, Run, Table, plain_runs
from desktop_app.ui.piece_look import PieceLook
from desktop_app.ui.pieces import Piece, Segment, insert_runs, line_format

_GAP = 28.0
_PAD = 6.0
_NARROWEST = 44.0
_EXTRA = 12.0
"""Code and bold words are wider than the measured letters."""

_ALIGN = {
    "left": Qt.AlignmentFlag.AlignLeft,
    "center": Qt.AlignmentFlag.AlignHCenter,
    "right": Qt.AlignmentFlag.AlignRight,
    "": Qt.AlignmentFlag.AlignLeft,
}


class TablePiece(Piece):
    """A table or a stretch of one.

    With more columns than fit at a readable width, rows are written out as "head: cell" lines.
    """

    def __init__(self, block: Block, look: PieceLook) -> None:
        super().__init__(block, look)
        assert self.block.table is not None
        self.table: Table = self.block.table
        self.columns: list[float] = []
        self._qt_table: QTextTable | None = None
        self._rows_y: list[float] = []

    def share_columns(self, above: TablePiece) -> None:
        """Use the column widths of the stretch above, so that a cut table looks like one."""
        self.columns = above.columns

    def measure(self, width: float) -> float:
        self.width = width
        rows = len(self.table.rows) + bool(self.table.head)
        self.height = rows * (self.look.theme.line_height("table") + 2 * _PAD + 1)
        return self.height

    def build(self, width: float, before: str = "") -> float:
        if width != self.width:
            self.drop()
        if not self.block.joined or not self.columns:
            self.width = width
            self.columns = self._widths()
        return super().build(width, before)

    @property
    def origin(self) -> QPointF:
        return QPointF(self.x, 0)

    def _line(self) -> float:
        return self.look.theme.line_height("table")

    def _rows(self) -> list[tuple[tuple[Run, ...], ...]]:
        return ([self.table.head] if self.table.head else []) + list(self.table.rows)

    def _widths(self) -> list[float]:
        """Natural widths; when they do not fit, the wide columns give way."""
        of_cells = QFontMetricsF(self.look.theme.font("table"))
        of_head = QFontMetricsF(self.look.theme.font("name"))
        count = len(self.table.align)
        natural = [_NARROWEST] * count
        for row in self._rows():
            metrics = of_head if row is self.table.head else of_cells
            for index, cell in enumerate(row[:count]):
                text = plain_runs(cell)[:120]
                widest = max((metrics.horizontalAdvance(x) for x in text.split("\n")), default=0)
                extra = sum(_EXTRA for run in cell if run.look & (Look.CODE | Look.BOLD))
                gap = _GAP if index + 1 < count else 0
                natural[index] = max(natural[index], widest + extra + gap + 2)
        room = self._room()
        if sum(natural) <= room or not count:
            return natural
        low, high = 0.0, max(natural)
        for _step in range(24):  # the cap at which all columns together fit
            cap = (low + high) / 2
            low, high = (low, cap) if sum(min(w, cap) for w in natural) > room else (cap, high)
        return [min(w, low) for w in natural]

    @property
    def is_narrow(self) -> bool:
        """Whether the columns would be too narrow to read."""
        return bool(self.columns) and min(self.columns) < _NARROWEST and len(self.columns) > 3

    def _fill(self, document: QTextDocument, before: str) -> None:
        del before
        self.segments = []
        self._qt_table = None
        cursor = QTextCursor(document)
        cursor.beginEditBlock()
        if self.is_narrow:
            self._fill_lines(cursor)
        else:
            self._fill_table(cursor)
        cursor.endEditBlock()

    def _fill_lines(self, cursor: QTextCursor) -> None:
        names = [plain_runs(cell) for cell in self.table.head]
        cursor.setBlockFormat(line_format(self._line(), fixed=False))
        rows = list(self.table.rows) or [self.table.head]
        for number, row in enumerate(rows):
            for index, cell in enumerate(row):
                name = f"{names[index]}: " if index < len(names) else ""
                end = Run("\n" if number or index else "")
                insert_runs(self, cursor, (end, Run(name), *cell))

    def _fill_table(self, cursor: QTextCursor) -> None:
        rows, columns = self._rows(), len(self.table.align)
        form = QTextTableFormat()
        form.setBorder(0)
        form.setCellSpacing(0)
        form.setCellPadding(0)
        form.setMargin(0)
        fixed = QTextLength.Type.FixedLength
        form.setColumnWidthConstraints([QTextLength(fixed, w) for w in self.columns])
        form.setWidth(QTextLength(fixed, sum(self.columns)))
        made = cursor.insertTable(len(rows), columns, form)
        head = self._head_format()
        body = QTextCharFormat()
        body.setFont(self.look.theme.font("table"))
        cell_forms = [self._cell_format(index) for index in range(columns)]
        line = line_format(self._line(), fixed=False)
        for y, row in enumerate(rows):
            is_head = row is self.table.head
            for x, cell in enumerate(row[:columns]):
                place = made.cellAt(y, x)
                place.setFormat(cell_forms[x])
                at = place.firstCursorPosition()
                line.setAlignment(_ALIGN.get(self.table.align[x], Qt.AlignmentFlag.AlignLeft))
                at.setBlockFormat(line)
                start = at.position()
                insert_runs(self, at, cell)
                shown = head if is_head else body
                self._restyle(at, start, shown)
                end = at.position()
                mark = "\t" if x + 1 < len(row[:columns]) else "\n"
                self.segments.append(Segment(end, end + 1, Run(mark), mark))
        self._qt_table = made

    def _restyle(self, at: QTextCursor, start: int, form: QTextCharFormat) -> None:
        """Tables are set smaller; looks and links inside a cell stay."""
        over = QTextCharFormat()
        over.setProperty(QTextFormat.Property.FontPixelSize.value, form.font().pixelSize())
        if form.font().weight() >= QFont.Weight.DemiBold:
            over.setFontWeight(QFont.Weight.DemiBold)
            over.setForeground(self.look.color("text2"))
        end = at.position()
        at.setPosition(start)
        at.setPosition(end, QTextCursor.MoveMode.KeepAnchor)
        at.mergeCharFormat(over)
        at.setPosition(end)

    def _head_format(self) -> QTextCharFormat:
        made = QTextCharFormat()
        font = self.look.theme.font("name")
        made.setFont(font)
        return made

    def _cell_format(self, index: int) -> QTextTableCellFormat:
        made = QTextTableCellFormat()
        made.setTopPadding(_PAD)
        made.setBottomPadding(_PAD + 1)
        last = index + 1 == len(self.table.align)
        made.setRightPadding(2 if last else _GAP)
        return made

    def _measured(self) -> float:
        height = super()._measured()
        self._rows_y = []
        if self._qt_table is not None and self.document is not None:
            layout = self.document.documentLayout()
            for row in range(self._qt_table.rows()):
                block = self._qt_table.cellAt(row, 0).firstCursorPosition().block()
                self._rows_y.append(layout.blockBoundingRect(block).top() - _PAD)
            # Qt keeps an empty paragraph after a table, which is not shown.
            height = layout.frameBoundingRect(self._qt_table).bottom()
        return height

    def text(self, start: int, end: int) -> str:
        return super().text(start, end).rstrip("\n")

    def _paint_below(self, painter: QPainter) -> None:
        width = sum(self.columns) if self._qt_table is not None else 0.0
        first = 1 if self.table.head else 0
        for index, y in enumerate(self._rows_y):
            if index == 0 and not self.block.joined:
                continue
            role = "line2" if index == first == 1 else "line"
            painter.fillRect(QRectF(0, round(y) - 1, width, 1), self.look.color(role))

    def _code_boxes(self) -> list[QRectF]:
        return []
