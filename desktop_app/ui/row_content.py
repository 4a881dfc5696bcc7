"""What a row shows and where: text, reasoning and the boxes of a row, with or without a widget.

A row off screen has no widget, but its height must be known (or guessed) all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QFontMetricsF

from desktop_app.ui.blocks import Run
from desktop_app.ui.body import MessageBody, Spot
from desktop_app.ui.piece_look import PieceLook
from desktop_app.ui.row_view import RowState, RowView
from desktop_app.ui.theme import Theme

GUTTER = 40.0
NODE_X = 12.0
HEADER = 28.0
YOU_PAD = QPointF(14, 8)
MEASURE = 640.0
WIDEST = 760.0
BOTTOM = 14.0
EDGE = 24

REASONING, BODY = 0, 1


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the transcript's text: row, part (`REASONING` or `BODY`) and spot."""

    row: int
    part: int
    spot: Spot


class Looks:
    """The piece looks of one theme, shared by all rows."""

    def __init__(self, theme: Theme, ratio: float, find: str = "") -> None:
        self.theme = theme
        self.reading = PieceLook(theme)
        self.prompt = PieceLook(theme, ground="canvas")  # code on the block behind a prompt
        self.quiet = PieceLook(theme, style="draft", role="text2")
        self.draft = PieceLook(theme, style="draft")
        self._all = (self.reading, self.prompt, self.quiet, self.draft)
        for look in self._all:
            look.ratio = ratio
        self.find = ""
        self.set_find(find)

    def set_find(self, words: str) -> None:
        """Mark these words wherever they stand."""
        self.find = words
        for look in self._all:
            look.find = words

    def of(self, view: RowView) -> PieceLook:
        """The look of a message's text."""
        return self.prompt if view.is_user else self.reading


@dataclass(slots=True)
class Boxes:
    """Where the parts of a row stand, in px from the row's top and the column's left edge."""

    body_top: float = HEADER
    reasoning_top: float = 0.0
    bar_top: float = 0.0
    error_top: float = 0.0
    actions_top: float = 0.0
    editor_top: float = 0.0
    notice_top: float = 0.0
    height: float = HEADER + BOTTOM
    ground: QRectF = field(default_factory=QRectF)


class RowContent:
    """One message, laid out."""

    def __init__(self, view: RowView, looks: Looks) -> None:
        self.view = view
        self._looks = looks
        self.body = MessageBody(looks.of(view), markdown=not view.is_user)
        self.body.set_text(view.text)
        self.reasoning: MessageBody | None = None
        self.reasoning_open = False
        self.editor_height = 0.0
        self.is_editing = False
        self.boxes = Boxes()
        self.width = 0.0
        self._set_reasoning(view.reasoning)

    def set_view(self, view: RowView) -> None:
        """Show another state of the message."""
        if view.is_user != self.view.is_user:
            self.body = MessageBody(self._looks.of(view), markdown=not view.is_user)
            self.body.set_width(self._body_width())
        self.view = view
        if view.text is not self.body.text and view.text != self.body.text:
            self.body.set_text(view.text)
        self._set_reasoning(view.reasoning)

    def stream(self, text: str, reasoning: str) -> None:
        """Take the whole text so far."""
        if text != self.body.text:
            self.body.set_text(text)
        self._set_reasoning(reasoning)

    def set_looks(self, looks: Looks) -> None:
        """Use other fonts and colours."""
        self._looks = looks
        self.body.set_look(looks.of(self.view))
        if self.reasoning is not None:
            self.reasoning.set_look(looks.quiet)

    def _set_reasoning(self, text: str) -> None:
        if not text:
            self.reasoning = None
            return
        if self.reasoning is None:
            self.reasoning = MessageBody(self._looks.quiet)
            if self.width:
                self.reasoning.set_width(self._text_width() - 16)
        if text != self.reasoning.text:
            self.reasoning.set_text(text)

    # Layout

    def _text_width(self) -> float:
        return self.width - GUTTER

    def _body_width(self) -> float:
        pads = 2 * YOU_PAD.x() if self.view.is_user else 0
        return max(60.0, self._text_width() - pads)

    def set_width(self, width: float) -> None:
        """Lay out for a column width, lazily."""
        if width != self.width:
            self.width = width
            self.body.set_width(self._body_width())
            if self.reasoning is not None:
                self.reasoning.set_width(self._text_width() - 16)

    def set_room(self, column: float, _left: float, _view_width: float) -> None:
        """Lay out for a column that begins `left` px from the edge of a view."""
        self.set_width(column)

    @property
    def wants_more(self) -> bool:
        """Whether more text must be parsed for what is in view."""
        return self.body.wants_more

    def parse_more(self) -> None:
        """Parse a further stretch."""
        self.body.parse_more()

    def layout(self, top: float, bottom: float) -> float:
        """Lay out what stands between two heights of the row; returns the row's height."""
        for _pass in range(3):
            self._stack()
            body_top = self.boxes.body_top
            changed = False
            if not self.is_editing:
                changed = self.body.ensure(top - body_top, bottom - body_top)
            if self.reasoning is not None and self.reasoning_open:
                up = self.boxes.reasoning_top + 28
                changed |= self.reasoning.ensure(top - up, bottom - up)
            if not changed:
                break
        self._stack()
        return self.boxes.height

    def _stack(self) -> None:
        view, boxes, y = self.view, self.boxes, HEADER
        boxes.reasoning_top = boxes.bar_top = boxes.error_top = 0.0
        boxes.actions_top = boxes.editor_top = boxes.notice_top = 0.0
        if self.reasoning is not None:
            boxes.reasoning_top = y
            y += 28
            if self.reasoning_open:
                y += self.reasoning.height + 8
        if view.state in (RowState.READING, RowState.LOADING):
            boxes.bar_top = y + 6
            y += 16
        if self.is_editing:
            boxes.editor_top = y + 2
            boxes.body_top = y
            y += self.editor_height + 4
        else:
            y = self._stack_body(y)
        if view.state is RowState.FAILED:
            boxes.error_top = y + 8
            y += 8 + self.error_height()
            boxes.actions_top = y + 8
            y += 8 + 32
        if view.elsewhere:
            boxes.notice_top = y + 12
            y += 12 + 20
        boxes.height = y + BOTTOM

    def _stack_body(self, y: float) -> float:
        boxes = self.boxes
        height = self.body.height
        if not self.view.is_user:
            boxes.ground = QRectF()
            boxes.body_top = y
            if self._is_empty():
                return y + (self._looks.reading.line if self._shows_no_text() else 0)
            return y + height
        y += 2
        width = min(self._text_width(), self.body.ideal_width() + 2 * YOU_PAD.x() + 1)
        height = max(height, self._looks.reading.line)
        boxes.ground = QRectF(GUTTER, y, max(width, 44.0), height + 2 * YOU_PAD.y())
        boxes.body_top = y + YOU_PAD.y()
        return y + height + 2 * YOU_PAD.y()

    def _is_empty(self) -> bool:
        return not self.body.text.strip()

    def _shows_no_text(self) -> bool:
        return self.view.state in (RowState.DONE, RowState.STOPPED, RowState.INTERRUPTED)

    @property
    def shows_no_text(self) -> bool:
        """Whether "No text" stands where the text would be."""
        return self._is_empty() and (self._shows_no_text() or self.view.is_user)

    def error_height(self) -> float:
        """Height of the sentence of a failure."""
        if not self.view.error:
            return 0.0
        metrics = QFontMetricsF(self._looks.theme.font("interface"))
        room = QRectF(0, 0, self._text_width(), 10_000)
        return metrics.boundingRect(room, int(Qt.TextFlag.TextWordWrap), self.view.error).height()

    def guess_height(self) -> float:
        """The height without laying out anything."""
        self._stack()
        return self.boxes.height

    # Places

    @property
    def body_left(self) -> float:
        """Left edge of the text in the column."""
        return GUTTER + (YOU_PAD.x() if self.view.is_user else 0)

    def part_origin(self, part: int) -> QPointF:
        """Where a part's text begins, in the column."""
        if part == REASONING:
            return QPointF(GUTTER + 16, self.boxes.reasoning_top + 28)
        return QPointF(self.body_left, self.boxes.body_top)

    def part(self, part: int) -> MessageBody | None:
        """The text of a part that is shown now."""
        if part == REASONING:
            return self.reasoning if self.reasoning_open else None
        return None if self.is_editing else self.body

    def place_at(self, row: int, point: QPointF) -> Place:
        """The place nearest to a point of the column."""
        if self.reasoning is not None and self.reasoning_open and point.y() < self.boxes.body_top:
            spot = self.reasoning.spot_at(point - self.part_origin(REASONING))
            return Place(row, REASONING, spot)
        return Place(row, BODY, self.body.spot_at(point - self.part_origin(BODY)))

    def last_place(self, row: int) -> Place:
        """Where the text ends."""
        return Place(row, BODY, self.body.end())

    def text_at(self, point: QPointF) -> bool:
        """Whether a point of the column is over text."""
        top = self.boxes.body_top
        tall = top <= point.y() <= top + self.body.height
        return tall and not self.is_editing and self.body_left <= point.x() <= self.width

    def code_hit(self, point: QPointF) -> tuple[int, bool]:
        """The code block under a point of the column, and whether its copy button is hit."""
        if self.is_editing:
            return -1, False
        inner = point - self.part_origin(BODY)
        first = self.body.code_at(inner)
        return first, first >= 0 and self.body.code_button(first).contains(inner)

    def code_text(self, name: int) -> str:
        """The source of a code block."""
        return self.body.code_text(name)

    def codes_of(self, _message_id: int) -> list[tuple[int, str]]:
        """The code blocks of a message: name and language."""
        return list(self.body.codes())

    def links_of(self, _message_id: int) -> list[str]:
        """The links in a message."""
        return list(self.body.links())

    def run_at(self, point: QPointF) -> Run | None:
        """The run under a point of the column."""
        for part in (REASONING, BODY):
            body = self.part(part)
            if body is None:
                continue
            inner = point - self.part_origin(part)
            if 0 <= inner.y() <= body.height:
                return body.run_at(inner)
        return None

    def copy(self, start: Place | None, end: Place | None) -> str:
        """The text between two places of this row (None: its start, its end)."""
        parts = []
        for part in (REASONING, BODY):
            body = self.part(part)
            if body is None or not body.text:
                continue
            if (start is not None and start.part > part) or (end is not None and end.part < part):
                continue
            begin = start.spot if start is not None and start.part == part else None
            stop = end.spot if end is not None and end.part == part else None
            parts.append(body.copy_text(begin, stop))
        return "\n\n".join(parts)

    def formula_ready(self, tex: str) -> bool:
        """A formula can be drawn now; True when this row shows it."""
        hit = self.body.formula_ready(tex)
        if self.reasoning is not None:
            hit = self.reasoning.formula_ready(tex) or hit
        return hit


def column_in(width: int, text_scale: float) -> tuple[float, float]:
    """Left edge and width of the column in a view of this width."""
    measure = min(WIDEST, MEASURE * max(1.0, text_scale))
    column = max(200.0, min(float(width - 2 * EDGE), measure + GUTTER))
    return max(float(EDGE), float((width - column) // 2)), column


def guess_row_height(view: RowView, width: float, line: float, letter: float) -> float:
    """The height of a row that was never built, from its text alone: a few µs."""
    room = max(60.0, width - GUTTER - (2 * YOU_PAD.x() if view.is_user else 0))
    text = view.text
    size = len(text)
    # Characters beyond Latin take more bytes and are about twice as wide.
    wide = 0 if text.isascii() else (len(text.encode("utf-8", "replace")) - size) // 2
    breaks = text.count("\n")
    lines = (size + wide) * letter / room + 0.6 * breaks + 1
    height = HEADER + BOTTOM + int(lines) * line + (2 * YOU_PAD.y() + 2 if view.is_user else 0)
    if view.elsewhere:
        height += 32
    if view.reasoning:
        height += 28
    return height
