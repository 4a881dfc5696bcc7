"""Drafts side by side, laid out: one card for each, in a row where they fit, else in several.

Takes the place of a `RowContent` in the stack of rows.  x counts from the column's left edge and
may be negative: cards use the whole width of the view.  Parts of the text, as selections name
them, are the cards in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QFontMetricsF

from desktop_app.ui.blocks import Run
from desktop_app.ui.body import MessageBody
from desktop_app.ui.row_content import BOTTOM, EDGE, GUTTER, HEADER, Looks, Place, RowContent
from desktop_app.ui.row_view import RowState, RowView

PAD = 16.0
GAP = 16.0
LANES = 32.0
"""Room above each line of cards, where the trunk splits."""
_LEAST, _MOST = 256.0, 440.0  # width of a card in px at 100 %, before it wraps or stops growing
_LEAST_BODY = 66.0
_CODES = 1 << 12  # a code block is named by card * _CODES + piece


@dataclass(slots=True)
class Card:
    """One draft: its words, and where it stands in the column."""

    view: RowView
    body: MessageBody
    box: QRectF = field(default_factory=QRectF)
    body_top: float = 0.0  # from the card's top
    error_top: float = 0.0

    @property
    def origin(self) -> QPointF:
        """Where its text begins, in the column."""
        return self.box.topLeft() + QPointF(PAD, self.body_top)

    @property
    def shows_no_text(self) -> bool:
        """Whether "No text" stands where the text would be."""
        return not self.body.text.strip() and not self.view.state.is_live


class DraftsContent(RowContent):
    """The drafts of one prompt.  `view` is the one on the open path, with all in `view.drafts`."""

    def __init__(self, view: RowView, looks: Looks) -> None:
        self.cards: list[Card] = []
        self.view_width = 0.0
        self.lines: list[list[Card]] = []
        """The cards line by line, as they stand."""
        super().__init__(view, looks)
        self.reasoning = None
        self._left = 0.0
        self._take(view)

    # ---- what is shown -----------------------------------------------------------------------

    def set_view(self, view: RowView) -> None:
        """Show another state of the drafts."""
        self.view = view
        self._take(view)

    def _take(self, view: RowView) -> None:
        known = {card.view.message_id: card for card in self.cards}
        order = [card.view.message_id for card in self.cards]
        self.cards = []
        for draft in view.drafts:
            card = known.get(draft.message_id)
            if card is None:
                card = Card(draft, MessageBody(self._looks.draft))
            card.view = draft
            if draft.text != card.body.text:
                card.body.set_text(draft.text)
            self.cards.append(card)
        if self.width and order != [card.view.message_id for card in self.cards]:
            self._arrange()
        shown = self.card_of(view.shown_draft) or self.cards[0]
        self.body = shown.body

    def card_of(self, message_id: int) -> Card | None:
        """The card of a draft."""
        return next((card for card in self.cards if card.view.message_id == message_id), None)

    def stream_draft(self, draft: RowView) -> Card | None:
        """Take another state of one draft, while it grows."""
        card = self.card_of(draft.message_id)
        if card is not None:
            card.view = draft
            if draft.text != card.body.text:
                card.body.set_text(draft.text)
        return card

    def set_looks(self, looks: Looks) -> None:
        """Use other fonts and colours."""
        self._looks = looks
        for card in self.cards:
            card.body.set_look(looks.draft)

    @property
    def wants_more(self) -> bool:
        """Whether more text must be parsed for what is in view."""
        return any(card.body.wants_more for card in self.cards)

    def parse_more(self) -> None:
        """Parse a further stretch of the first long draft."""
        for card in self.cards:
            if card.body.wants_more:
                card.body.parse_more()
                return

    # ---- layout ------------------------------------------------------------------------------

    def _px(self, size: float) -> float:
        return self._looks.theme.px(size)

    @property
    def head_height(self) -> float:
        """Height of a card's head."""
        return max(44.0, self._px(40))

    @property
    def foot_height(self) -> float:
        """Height of a card's foot."""
        return max(52.0, self._px(48))

    def set_room(self, column: float, left: float, view_width: float) -> None:
        """Lay out for a column that begins `left` px from the edge of a view."""
        if (column, left, view_width) != (self.width, self._left, self.view_width):
            self.width, self._left, self.view_width = column, left, view_width
            self._arrange()

    def _arrange(self) -> None:
        """Widths and x of all cards; heights follow in `_stack`."""
        count = len(self.cards)
        least, most = self._px(_LEAST), self._px(_MOST)
        whole = self.view_width - 2 * EDGE
        if count * (least + GAP) - GAP <= whole:
            per_line = count
            width = min(most, (whole + GAP) / count - GAP)
            total = count * (width + GAP) - GAP
            start = GUTTER
            if self._left + GUTTER + total > self.view_width - EDGE:
                start = (self.view_width - total) / 2 - self._left
        else:
            # In several lines the trunk runs down beside the cards, which begin where texts do.
            start = GUTTER
            room = max(160.0, self.view_width - EDGE - self._left - GUTTER)
            fit = max(1, int((room + GAP) / (least + GAP)))
            per_line = ceil(count / ceil(count / fit))
            width = (room + GAP) / per_line - GAP
        width = float(int(width))
        self.lines = [self.cards[n : n + per_line] for n in range(0, count, per_line)]
        for line in self.lines:
            for place, card in enumerate(line):
                card.box = QRectF(round(start + place * (width + GAP)), 0, width, 0)
                card.body.set_width(width - 2 * PAD)

    def layout(self, top: float, bottom: float) -> float:
        """Lay out what stands between two heights of the row; returns the row's height."""
        for _pass in range(3):
            self._stack()
            changed = False
            for card in self.cards:
                y = card.origin.y()
                changed |= card.body.ensure(top - y, bottom - y)
            if not changed:
                break
        self._stack()
        return self.boxes.height

    def _stack(self) -> None:
        boxes = self.boxes
        y = HEADER
        reading = any(c.view.state in (RowState.READING, RowState.LOADING) for c in self.cards)
        boxes.bar_top = y + 6 if reading else 0.0
        for line in self.lines:
            y += LANES
            height = max(self._card_height(card) for card in line)
            for card in line:
                card.box = QRectF(card.box.x(), y, card.box.width(), height)
            y += height
        shown = self.card_of(self.view.shown_draft) or self.cards[0]
        boxes.body_top = shown.origin.y()
        boxes.height = y + BOTTOM

    def _card_height(self, card: Card) -> float:
        card.body_top = self.head_height
        if card.view.reasoning:
            card.body_top += self._px(22)
        height = card.body_top + max(card.body.height, self._px(_LEAST_BODY))
        card.error_top = 0.0
        if card.view.state is RowState.FAILED and card.view.error:
            card.error_top = card.body_top + card.body.height + (8 if card.body.text else 0)
            height = max(height, card.error_top + self.card_error_height(card))
        return height + 12 + self.foot_height

    def card_error_height(self, card: Card) -> float:
        """Height of the sentence of a draft's failure."""
        metrics = QFontMetricsF(self._looks.theme.font("interface"))
        room = QRectF(0, 0, card.box.width() - 2 * PAD, 10_000)
        flags = int(Qt.TextFlag.TextWordWrap)
        return metrics.boundingRect(room, flags, card.view.error).height()

    # ---- places ------------------------------------------------------------------------------

    def part_origin(self, part: int) -> QPointF:
        """Where a card's text begins, in the column."""
        return self.cards[part].origin

    def part(self, part: int) -> MessageBody | None:
        """The text of a card."""
        return self.cards[part].body if part < len(self.cards) else None

    def place_at(self, row: int, point: QPointF) -> Place:
        """The place nearest to a point of the column."""

        def distance(number: int) -> float:
            box = self.cards[number].box
            across = max(box.left() - point.x(), point.x() - box.right(), 0.0)
            down = max(box.top() - point.y(), point.y() - box.bottom(), 0.0)
            return across + 4 * down

        nearest = min(range(len(self.cards)), key=distance)
        card = self.cards[nearest]
        return Place(row, nearest, card.body.spot_at(point - card.origin))

    def last_place(self, row: int) -> Place:
        """Where the last card's text ends."""
        return Place(row, len(self.cards) - 1, self.cards[-1].body.end())

    def text_at(self, point: QPointF) -> bool:
        """Whether a point of the column is over text."""
        return self._under(point) is not None

    def _under(self, point: QPointF) -> Card | None:
        for card in self.cards:
            size = QRectF(card.origin, card.box.bottomRight() - QPointF(PAD, self.foot_height))
            if size.contains(point):
                return card
        return None

    def run_at(self, point: QPointF) -> Run | None:
        """The run under a point of the column."""
        card = self._under(point)
        return card.body.run_at(point - card.origin) if card is not None else None

    def code_hit(self, point: QPointF) -> tuple[int, bool]:
        """The code block under a point of the column, and whether its copy button is hit."""
        card = self._under(point)
        if card is None:
            return -1, False
        inner = point - card.origin
        first = card.body.code_at(inner)
        if first < 0:
            return -1, False
        name = self.cards.index(card) * _CODES + first
        return name, card.body.code_button(first).contains(inner)

    def code_in(self, name: int) -> tuple[int, int]:
        """(card, piece) of a code block."""
        return divmod(name, _CODES)

    def code_text(self, name: int) -> str:
        """The source of a code block."""
        number, first = self.code_in(name)
        return self.cards[number].body.code_text(first) if number < len(self.cards) else ""

    def codes_of(self, message_id: int) -> list[tuple[int, str]]:
        """The code blocks of one draft: name and language."""
        for number, card in enumerate(self.cards):
            if card.view.message_id == message_id:
                return [(number * _CODES + first, name) for first, name in card.body.codes()]
        return []

    def links_of(self, message_id: int) -> list[str]:
        """The links in one draft."""
        card = self.card_of(message_id)
        return list(card.body.links()) if card is not None else []

    def copy(self, start: Place | None, end: Place | None) -> str:
        """The text between two places of this row (None: its start, its end)."""
        parts = []
        for number, card in enumerate(self.cards):
            outside = (start is not None and start.part > number) or (
                end is not None and end.part < number
            )
            if outside or not card.body.text:
                continue
            begin = start.spot if start is not None and start.part == number else None
            stop = end.spot if end is not None and end.part == number else None
            parts.append(card.body.copy_text(begin, stop))
        return "\n\n".join(parts)

    def formula_ready(self, tex: str) -> bool:
        """A formula can be drawn now; True when a card shows it."""
        hits = [card.body.formula_ready(tex) for card in self.cards]  # every card must hear of it
        return any(hits)
