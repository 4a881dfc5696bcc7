"""One draft as a card: what it does, its words, what it took, and Keep.

Head and foot stay in view while a long card scrolls, so Stop and Keep are always at hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QObject, QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QFontMetricsF, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QPushButton, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.controls import push_button, restyle
from desktop_app.ui.drafts_content import PAD, Card
from desktop_app.ui.row_header import badge_of
from desktop_app.ui.row_parts import RowButton, badge_width, paint_badge
from desktop_app.ui.row_view import RowState, RowView
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    from desktop_app.ui.drafts_row import DraftsRow

_DESCRIPTION_CHARS = 2000
_RADIUS = 12.0


class _Strip(QWidget):
    """Head or foot of a card: painted ground, so that text scrolls away below it."""

    def __init__(self, card: DraftCard, *, top: bool) -> None:
        super().__init__(card)
        self._card = card
        self._top = top
        self.setMouseTracking(True)

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        look = theme.current()
        box = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        # The corners of the card's own end are round, those over text are not.
        whole = box.adjusted(0, 0, 0, _RADIUS) if self._top else box.adjusted(0, -_RADIUS, 0, 0)
        painter.setPen(QPen(look.color("line2"), 1))
        painter.setBrush(look.color("raised"))
        painter.fillRect(self.rect(), look.color("canvas"))
        painter.drawRoundedRect(whole, _RADIUS, _RADIUS)
        if self._top:
            if self.y():
                painter.fillRect(
                    QRectF(1, self.height() - 1, self.width() - 2, 1), look.color("line")
                )
            self._card.paint_head(painter, self.rect())
        else:
            painter.fillRect(QRectF(1, 0, self.width() - 2, 1), look.color("line"))
            self._card.paint_foot(painter, self.rect())


class DraftCard(QWidget):
    """The card of one draft, in a row of drafts."""

    def __init__(self, row: DraftsRow) -> None:
        super().__init__(row)
        self._row = row
        self._card: Card | None = None
        self._number = 0
        self._name = ""
        self.setObjectName("draft")
        self.setMouseTracking(True)
        self.head = _Strip(self, top=True)
        self.foot = _Strip(self, top=False)
        self.stop = RowButton(self.head, "stop", "", size=14)
        self.more = RowButton(self.head, "ellipsis", "")
        self.resume = push_button("", "", kind="plain", small=True)
        self.keep = push_button("", "", small=True)
        self.stop.clicked.connect(lambda: self._ask("stop"))
        self.more.clicked.connect(lambda: self._ask("more"))
        self.resume.clicked.connect(lambda: self._ask("continue"))
        self.keep.clicked.connect(lambda: self._ask("keep_draft"))
        for button in (self.resume, self.keep):
            button.setParent(self.foot)
        for control in (self.stop, self.more, self.resume, self.keep):
            control.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            control.installEventFilter(self)

    # ---- what is shown -----------------------------------------------------------------------

    @property
    def message_id(self) -> int:
        """The draft that is shown, 0 for none."""
        return self._card.view.message_id if self._card is not None else 0

    @property
    def view(self) -> RowView:
        """What is shown."""
        assert self._card is not None
        return self._card.view

    def show_card(self, card: Card, *, chosen: bool) -> None:
        """Show a draft; the `chosen` one is the open path."""
        view = card.view
        self._card = card
        if view.draft != self._number:
            self._number = view.draft
            self._identify()
        self._describe(view, chosen=chosen)
        live = view.state.is_live
        self.stop.setVisible(live)
        self.more.setVisible(not live)
        halted = view.state in (RowState.STOPPED, RowState.INTERRUPTED, RowState.FAILED)
        self.resume.setVisible(halted)
        failed = view.state is RowState.FAILED
        self._word(self.resume, tr("row.try_again" if failed else "row.continue"))
        self._word(self.keep, tr("draft.keep"))
        kind = "main" if chosen else ""
        if self.keep.property("kind") != kind:
            self.keep.setProperty("kind", kind)
            restyle(self.keep)
        self.update()
        self.head.update()
        self.foot.update()

    def _identify(self) -> None:
        number = self._number
        self.setAccessibleIdentifier(f"draft.{number}")
        for name, control in (
            ("stop", self.stop),
            ("more", self.more),
            ("continue", self.resume),
            ("keep", self.keep),
        ):
            control.setObjectName(f"draft.{number}.{name}")
            control.setAccessibleIdentifier(f"draft.{number}.{name}")

    def _describe(self, view: RowView, *, chosen: bool) -> None:
        """Names for screen readers."""
        badge = badge_of(view)
        facts = (tr("draft.title", number=view.draft), badge[0] if badge else "", view.facts)
        name = ", ".join(fact for fact in facts if fact)
        if chosen:
            name = tr("draft.chosen", name=name)
        if name != self._name:
            self._name = name
            self.setAccessibleName(name)
        self.setAccessibleDescription(view.text[:_DESCRIPTION_CHARS])
        self.stop.describe(tr("draft.stop", number=view.draft))
        self.more.describe(tr("row.more"))
        again = "draft.try_again" if view.state is RowState.FAILED else "draft.continue"
        self.resume.setAccessibleName(tr(again, number=view.draft))
        self.keep.setAccessibleName(tr("draft.keep_number", number=view.draft))
        self.keep.setToolTip(tr("draft.keep_tip"))

    @staticmethod
    def _word(button: QPushButton, text: str) -> None:
        if button.text() != text:
            button.setText(text)

    def place(self, left: float, seen: QRectF) -> None:
        """Stand in the row; `seen` is what the view shows of the row."""
        card, content = self._card, self._row.drafts
        assert card is not None
        box = card.box.translated(left, 0).toAlignedRect()
        self.setGeometry(box)
        head, foot = round(content.head_height), round(content.foot_height)
        low = max(head, box.height() - foot)
        top = min(max(0, round(seen.top()) - box.y()), low - head)
        bottom = max(min(low, round(seen.bottom()) - foot - box.y()), min(head, low))
        self.head.setGeometry(QRect(0, top, box.width(), head))
        self.foot.setGeometry(QRect(0, bottom, box.width(), foot))
        middle = (head - 28) // 2
        for button in (self.stop, self.more):
            button.move(box.width() - 28 - 9, middle)
        right = box.width() - 12
        for made in (self.keep, self.resume):
            if made.isHidden():
                continue
            made.resize(made.sizeHint())
            right -= made.width()
            made.move(right, (foot - made.height()) // 2)
            right -= 4

    # ---- events ------------------------------------------------------------------------------

    def _ask(self, verb: str) -> None:
        self._row.host.act(self.message_id, verb)

    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
        """The card whose control has the keyboard becomes the open path."""
        if event.type() == QEvent.Type.FocusIn:
            self._ask("show_draft")
        return False

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A click on a card shows its path; selecting text goes on in the transcript."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._ask("show_draft")
        event.ignore()

    # ---- painting ----------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        card = self._card
        if card is None:
            return
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(look.color("line2"), 1))
        painter.setBrush(look.color("raised"))
        box = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.drawRoundedRect(box, _RADIUS, _RADIUS)
        self._paint_notes(painter, card)
        painter.translate(PAD, card.body_top)
        clip = QRectF(event.rect()).translated(-PAD, -card.body_top)
        clip = clip.intersected(QRectF(-8, 0, card.body.width + 16, card.body.height + 8))
        if not clip.isEmpty() and card.body.text:
            part = self._row.drafts.cards.index(card)
            card.body.paint(painter, clip, self._row.host.selected_in(self._row.message_id, part))
            self._paint_code_button(painter, card, part)
        if card.view.state is RowState.WRITING:
            self._paint_caret(painter, card)

    def _paint_notes(self, painter: QPainter, card: Card) -> None:
        """Reasoning in one line, the sentence of a failure, or that there is no text."""
        look, view = theme.current(), card.view
        width = self.width() - 2 * PAD
        middle = int(Qt.AlignmentFlag.AlignVCenter)
        if view.reasoning:
            painter.setFont(look.font("small"))
            painter.setPen(look.color("text3"))
            live = view.state is RowState.WRITING and not view.text
            key = "row.reasoning_live" if live else "row.reasoning_show"
            words = tr(key, count=len(view.reasoning.split()))
            top = card.body_top - look.px(22)
            painter.drawText(QRectF(PAD, top, width, look.px(16)), middle, words)
        if card.shows_no_text and not card.error_top:
            painter.setFont(look.font("draft"))
            painter.setPen(look.color("text3"))
            room = QRectF(PAD, card.body_top, width, look.line_height("draft"))
            painter.drawText(room, middle, tr("row.no_text"))
        if card.error_top:
            painter.setFont(look.font("interface"))
            painter.setPen(look.color("clay"))
            room = QRectF(PAD, card.error_top, width, 10_000)
            painter.drawText(room, int(Qt.TextFlag.TextWordWrap), view.error)

    def _paint_code_button(self, painter: QPainter, card: Card, part: int) -> None:
        name, copied = self._row.host.code_under_pointer(self._row.message_id)
        if name < 0:
            return
        number, first = self._row.drafts.code_in(name)
        if number == part:
            box = card.body.code_button(first)
            icon, role = ("check", "accent") if copied else ("copy", "text2")
            icons.draw(painter, icon, role, box.x() + 5, box.y() + 5, 14)

    @staticmethod
    def _paint_caret(painter: QPainter, card: Card) -> None:
        pieces = card.body.pieces
        point = QPointF(0, 2.0)
        if pieces and pieces[-1].is_built and card.body.text:
            point = pieces[-1].end_point()
            point += QPointF(0, card.body.top(len(pieces) - 1))
        look = theme.current()
        painter.fillRect(QRectF(point.x(), point.y(), 2, look.px(17)), look.color("accent"))

    def paint_head(self, painter: QPainter, box: QRect) -> None:
        """Its name, its seed, what it does."""
        look, view = theme.current(), self.view
        middle = box.height() / 2
        flags = int(Qt.AlignmentFlag.AlignVCenter)
        right = box.width() - 28 - 9 - 8
        badge = badge_of(view)
        if badge is not None:
            text, kind, icon = badge
            width = badge_width(text, kind=kind, icon=icon)
            right -= round(width)
            paint_badge(painter, right, middle, text, kind=kind, icon=icon)
            right -= 8
        title = tr("draft.title", number=view.draft)
        x = PAD
        name = look.font("name")
        painter.setFont(name)
        painter.setPen(look.color("text"))
        painter.drawText(QRectF(x, 0, right - x, box.height()), flags, title)
        x += QFontMetricsF(name).horizontalAdvance(title) + 8
        if view.seed is None:
            return
        small = look.font("small", tabular=True)
        seed = tr("draft.seed", seed=str(view.seed))
        if QFontMetricsF(small).horizontalAdvance(seed) <= right - x:
            painter.setFont(small)
            painter.setPen(look.color("text3"))
            painter.drawText(QRectF(x, 0, right - x, box.height()), flags, seed)

    def paint_foot(self, painter: QPainter, box: QRect) -> None:
        """Its tokens and speed."""
        look = theme.current()
        shown = [button.x() for button in (self.keep, self.resume) if not button.isHidden()]
        room = min(shown, default=box.width()) - PAD - 8
        font = look.font("small", tabular=True)
        words = self.view.facts
        metrics = QFontMetricsF(font)
        if metrics.horizontalAdvance(words) > room:
            words = words.split(",")[0]
        words = metrics.elidedText(words, Qt.TextElideMode.ElideRight, max(room, 10.0))
        painter.setFont(font)
        painter.setPen(look.color("text3"))
        painter.drawText(
            QRectF(PAD, 0, room, box.height()), int(Qt.AlignmentFlag.AlignVCenter), words
        )
