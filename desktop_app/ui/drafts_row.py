"""The drafts of one prompt as a row of the transcript: the trunk splits, one lane to each card."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QFontMetricsF, QKeyEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QPushButton, QWidget

from desktop_app.ui import theme
from desktop_app.ui.controls import push_button
from desktop_app.ui.draft_card import DraftCard
from desktop_app.ui.drafts_content import LANES, Card, DraftsContent
from desktop_app.ui.row import Row, RowHost, author_of
from desktop_app.ui.row_content import GUTTER, HEADER, NODE_X, RowContent
from desktop_app.ui.row_parts import paint_bar, paint_node
from desktop_app.ui.words import tr

_BEND = 9.0
_DROP = 22.0  # where a lane meets its card, from the card's left edge


class DraftsRow(Row):
    """Drafts that are compared; one `DraftCard` for each."""

    def __init__(self, parent: QWidget, host: RowHost) -> None:
        super().__init__(parent, host)
        self.header.hide()
        self.cards: list[DraftCard] = []
        self.stop_all: QPushButton = push_button("", "drafts.stop", kind="soft", small=True)
        self.stop_all.setParent(self)
        self.stop_all.clicked.connect(lambda: self._ask("stop_drafts"))
        self._seen = QRectF()

    @property
    def drafts(self) -> DraftsContent:
        """What is shown."""
        assert isinstance(self.content, DraftsContent)
        return self.content

    @property
    def acting_id(self) -> int:
        """The draft on the open path."""
        return self.drafts.view.shown_draft

    def more_button(self, message_id: int) -> QWidget:
        """The button that opens a draft's menu."""
        return next(card for card in self.cards if card.message_id == message_id).more

    def message_at(self, point: QPointF) -> int:
        """The draft under a point of the row."""
        inner = self.column_point(point)
        under = (c.view.message_id for c in self.drafts.cards if c.box.contains(inner))
        return next(under, self.acting_id)

    def show_content(self, content: RowContent) -> None:
        """Show other drafts."""
        self.content = content
        self._ring = False
        self.refresh()

    def refresh(self) -> None:
        """Take over what changed in the drafts."""
        content = self.drafts
        view = content.view
        while len(self.cards) < len(content.cards):
            self.cards.append(DraftCard(self))
        for number, card in enumerate(self.cards):
            if number < len(content.cards):
                shown = content.cards[number]
                card.show_card(shown, chosen=shown.view.message_id == view.shown_draft)
            card.setVisible(number < len(content.cards))
        self.stop_all.setVisible(any(card.view.state.is_live for card in content.cards))
        self.stop_all.setText(tr("draft.stop_all"))
        self.stop_all.setAccessibleName(tr("draft.stop_all"))
        name = tr("draft.row_name", count=len(content.cards), author=author_of(view))
        self.setAccessibleName(name)
        self.setAccessibleDescription(self._note())
        self.setAccessibleIdentifier(f"message.{view.message_id}")

    def refresh_draft(self, card: Card) -> None:
        """One draft has grown."""
        number = self.drafts.cards.index(card)
        chosen = card.view.message_id == self.drafts.view.shown_draft
        self.cards[number].show_card(card, chosen=chosen)
        self.cards[number].place(self.left, self._seen)

    def place(self, left: float, column: float, sticky_y: float) -> None:
        """Place the cards; the view begins at `sticky_y` in the row."""
        self.left = left
        parent = self.parentWidget()
        assert parent is not None
        self._seen = QRectF(0, sticky_y, parent.width(), parent.height())
        for number in range(len(self.drafts.cards)):
            self.cards[number].place(left, self._seen)
        self.stop_all.resize(self.stop_all.sizeHint())
        self.stop_all.move(round(left + column) - self.stop_all.width(), 0)

    def arrange_editor(self) -> None:
        """Drafts are not edited in their cards."""

    def set_active(self, active: bool) -> None:
        """The controls of cards are always shown."""

    # ---- keys --------------------------------------------------------------------------------

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Left and Right go from card to card."""
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        if step is None or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            super().keyPressEvent(event)
            return
        ids = [card.view.message_id for card in self.drafts.cards]
        shown = self.drafts.view.shown_draft
        at = ids.index(shown) + step if shown in ids else 0
        if 0 <= at < len(ids):
            self.cards[at].keep.setFocus(Qt.FocusReason.TabFocusReason)

    # ---- painting ----------------------------------------------------------------------------

    def paintEvent(self, _event: QPaintEvent) -> None:
        content = self.drafts
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.translate(self.left, 0)
        self._paint_lanes(painter, content)
        self._paint_head(painter, content)
        if self._ring:
            painter.setPen(QPen(theme.current().color("accent"), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            box = QRectF(GUTTER - 10, 1, content.width - GUTTER + 10, HEADER - 2)
            painter.drawRoundedRect(box, 8, 8)

    def _paint_head(self, painter: QPainter, content: DraftsContent) -> None:
        look = theme.current()
        live = any(card.view.state.is_live for card in content.cards)
        canvas = look.color("canvas")
        gap = 11.0 if live else 8.0
        painter.fillRect(QRectF(NODE_X - 2, HEADER / 2 - gap, 4, 2 * gap), canvas)
        paint_node(painter, NODE_X, HEADER / 2, square=False, lit=True, halo=live)
        name, small = look.font("name"), look.font("small", tabular=True)
        flags = int(Qt.AlignmentFlag.AlignVCenter)
        title = tr("draft.count", count=len(content.cards))
        painter.setFont(name)
        painter.setPen(look.color("text"))
        painter.drawText(QRectF(GUTTER, 0, content.width, HEADER), flags, title)
        x = GUTTER + QFontMetricsF(name).horizontalAdvance(title) + 12
        right = content.width
        if not self.stop_all.isHidden():
            right -= self.stop_all.width() + 12
        metrics = QFontMetricsF(small)
        note = metrics.elidedText(self._note(), Qt.TextElideMode.ElideRight, max(10.0, right - x))
        painter.setFont(small)
        painter.setPen(look.color("text3"))
        painter.drawText(QRectF(x, 0, right - x + 2, HEADER), flags, note)
        if content.boxes.bar_top:
            paint_bar(painter, QRectF(GUTTER, content.boxes.bar_top - 4, 240, 4), self._read())

    def _read(self) -> float:
        return max(card.view.progress for card in self.drafts.cards)

    def _note(self) -> str:
        """How far reading is, or that nothing is lost by keeping one."""
        cards = self.drafts.cards
        if self.drafts.boxes.bar_top:
            return next((card.view.detail for card in cards if card.view.detail), "")
        read = next((card.view.detail for card in cards if card.view.detail), "")
        stay = tr("draft.note_versions")
        return f"{read}. {stay}" if read else stay

    def _paint_lanes(self, painter: QPainter, content: DraftsContent) -> None:
        """The trunk, and a lane to each card; the open path's is green and lies on top."""
        look = theme.current()
        painter.setBrush(Qt.BrushStyle.NoBrush)
        shown = content.view.shown_draft
        lanes = [(card.view.message_id == shown, card) for card in content.cards]
        for chosen, card in sorted(lanes, key=lambda lane: lane[0]):
            painter.setPen(QPen(look.color("accent" if chosen else "line2"), 2))
            painter.drawPath(_lane(card.box))
        # Above the node the trunk is everybody's.
        painter.setPen(QPen(look.color("line2"), 2))
        if not self.is_first:
            painter.drawLine(QPointF(NODE_X, 0), QPointF(NODE_X, HEADER / 2))


def _lane(box: QRectF) -> QPainterPath:
    """From the node down the trunk, along above the cards, and down into one."""
    drop, top = box.x() + _DROP, box.y()
    along = top - LANES / 2 + 2
    path = QPainterPath(QPointF(NODE_X, HEADER / 2))
    way = drop - NODE_X
    bend = min(_BEND, abs(way) / 2) * (1 if way >= 0 else -1)
    path.lineTo(NODE_X, along - _BEND)
    path.quadTo(NODE_X, along, NODE_X + bend, along)
    path.lineTo(drop - bend, along)
    path.quadTo(drop, along, drop, min(along + _BEND, top))
    path.lineTo(drop, top)
    return path
