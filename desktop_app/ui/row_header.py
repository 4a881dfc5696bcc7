"""The header of a message: node, name, time, pager, state; actions at the right.

It sticks to the top of the view while a long message scrolls, so it paints its own ground.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QRect, QRectF, Qt
from PySide6.QtGui import QCursor, QFont, QFontMetricsF, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.row_content import GUTTER, NODE_X
from desktop_app.ui.row_parts import (
    CountButton,
    LinkButton,
    RowButton,
    badge_width,
    paint_badge,
    paint_node,
)
from desktop_app.ui.row_view import RowState, RowView
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    from desktop_app.ui.row import Row

_ICONS = {
    "again": "rotate-ccw",
    "count": "chevron-down",
    "edit": "pencil",
    "copy": "copy",
    "star": "star",
    "fork": "git-branch",
    "more": "ellipsis",
}
_REPLY = ("again", "drafts", "count", "edit", "copy", "star", "more")
_TOGETHER = {"drafts": -2, "count": 6}
"""Halves of a split button: how far they stand from what is at their right."""
_PROMPT = ("edit", "copy", "fork", "star", "more")
_PAGER_ARROW = 22
_GAP = 9.0
_ROOMY = 460
"""A header narrower than this shows only More, whose menu holds all actions."""


class RowHeader(QWidget):
    """The controls of one message; what they ask for goes to the row's host."""

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self._row = row
        self._view: RowView | None = None
        self._stuck = False
        self._active = False
        self._items: list[tuple[str, float, float, str]] = []
        self.setCursor(Qt.CursorShape.ArrowCursor)
        self.previous = RowButton(self, "chevron-left", "message.previous", side=22, size=14)
        self.next = RowButton(self, "chevron-right", "message.next", side=22, size=14)
        self.previous.clicked.connect(lambda: self._turn(-1))
        self.next.clicked.connect(lambda: self._turn(1))
        self.previous.role = self.next.role = "text"
        self.buttons: dict[str, RowButton] = {}
        for verb, icon in _ICONS.items():
            made = RowButton(self, icon, f"message.{verb}")
            made.clicked.connect(lambda _on=False, verb=verb: self._ask(verb))
            made.reveal(False)
            self.buttons[verb] = made
        self.buttons["count"].resize(18, 28)
        self.drafts = CountButton(self, "message.drafts")
        self.drafts.clicked.connect(lambda: self._ask("drafts"))
        self.drafts.reveal(False)
        self.buttons["drafts"] = self.drafts
        for verb in ("again", "drafts", "count"):
            self.buttons[verb].pointed.connect(self._point)
        self.resume = LinkButton(self, "message.continue")
        self.resume.clicked.connect(lambda: self._ask("continue"))
        self.renew = LinkButton(self, "message.stale")
        self.renew.clicked.connect(lambda: self._ask("again"))

    def _ask(self, verb: str) -> None:
        verb = {"fork": "copy_to_chat", "count": "drafts_menu"}.get(verb, verb)
        self._row.host.act(self._row.message_id, verb)

    def _point(self, at: bool) -> None:
        """The pointer or the keyboard is at Ask again: what would that take?"""
        if self._row.content is not None:
            self._row.host.act(self._row.message_id, "point_again", at)

    def tell_wait(self, words: str) -> None:
        """What asking again would read; stands in the tooltips of its buttons."""
        for verb in ("again", "drafts"):
            button = self.buttons[verb]
            tip = button.toolTip().split("\n")[0] + (f"\n{words}" if words else "")
            button.setToolTip(tip)
            if QToolTip.isVisible() and button.underMouse():
                QToolTip.showText(QCursor.pos(), tip, button)

    def _turn(self, step: int) -> None:
        if self._view is not None:
            self._row.host.act(self._view.message_id, "version", self._view.version + step)

    def set_view(self, view: RowView) -> None:
        """Show a message's facts."""
        self._view = view
        paged = view.versions > 1
        self.previous.setVisible(paged)
        self.next.setVisible(paged)
        if paged:
            self.previous.setEnabled(view.version > 1)
            self.next.setEnabled(view.version < view.versions)
        self.previous.describe(tr("row.previous_version"))
        self.next.describe(tr("row.next_version"))
        self.resume.setAccessibleName(tr("row.continue"))
        self.renew.setAccessibleName(f"{tr('row.stale')}: {tr('row.ask_again')}")
        self.setAccessibleName(tr("row.actions"))
        self._describe_actions(view)
        halted = view.state in (RowState.STOPPED, RowState.INTERRUPTED)
        self.resume.setVisible(halted and view.can_continue and not view.is_user)
        self.renew.setVisible(view.stale and not view.state.is_live)
        self.setToolTip("")
        self.update()

    def _describe_actions(self, view: RowView) -> None:
        wanted = _PROMPT if view.is_user else _REPLY
        names = {
            "again": (tr("row.ask_again"), "Ctrl+R"),
            "drafts": (tr("row.ask_drafts", count=self._row.host.draft_count), "Ctrl+Shift+R"),
            "count": (tr("row.ask_count"), ""),
            "edit": (tr("row.edit"), "Ctrl+E"),
            "copy": (tr("row.copy"), ""),
            "star": (tr("row.unstar" if view.starred else "row.star"), ""),
            "fork": (tr("row.copy_to_new_chat"), ""),
            "more": (tr("row.more"), ""),
        }
        for verb, button in self.buttons.items():
            if verb not in wanted:
                button.hide()
            button.describe(*names[verb])
        live = view.state.is_live
        self.drafts.set_words(tr("row.times", count=self._row.host.draft_count))
        for verb in ("again", "drafts", "count"):
            self.buttons[verb].setEnabled(view.can_ask_again and not live)
        self.buttons["edit"].setEnabled(not live)
        starred = view.starred
        self.buttons["star"].set_icon(
            "star-filled" if starred else "star", "star" if starred else "text2"
        )
        self.set_active(self._active)

    def set_active(self, active: bool) -> None:
        """Show the actions, or only keep their room; a star that is set is always shown."""
        self._active = active
        starred = self._view is not None and self._view.starred
        for verb, button in self.buttons.items():
            button.reveal(active or (verb == "star" and starred))
        for button in (self.previous, self.next):
            policy = Qt.FocusPolicy.TabFocus if active else Qt.FocusPolicy.NoFocus
            button.setFocusPolicy(policy)

    def arrange(self, box: QRect, *, stuck: bool) -> None:
        """Stand at a place of the row and lay out for its width."""
        if stuck != self._stuck:
            self._stuck = stuck
            self.update()
        if stuck:
            self.raise_()
        self.setGeometry(box)
        self._lay_out()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            text = self._tip_at(event.pos().x())
            if text:
                QToolTip.showText(event.globalPos(), text, self)
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def _tip_at(self, x: float) -> str:
        view = self._view
        for kind, left, width, _text in self._items:
            if view is not None and left <= x <= left + width:
                return {"time": view.time_tip, "pager": view.version_tip}.get(kind, "")
        return ""

    # Layout

    def _lay_out(self) -> None:
        view = self._view
        if view is None:
            return
        right = self.width() + 4
        wanted = _PROMPT if view.is_user else _REPLY
        shown = wanted if self.width() >= _ROOMY else ("more",)
        for verb in reversed(wanted):
            button = self.buttons[verb]
            button.setVisible(verb in shown)
            if verb in shown:
                right -= button.width() + _TOGETHER.get(verb, 2)
                button.move(right, 0)
        self._items = self._facts(view, right - 8)

    def _facts(self, view: RowView, right: float) -> list[tuple[str, float, float, str]]:
        """(kind, x, width, text) of what is painted; dropped from the end where room is short."""
        items: list[tuple[str, float, float, str]] = []
        x = GUTTER
        look = theme.current()
        for kind, whole, natural in self._wanted(view):
            room, text, width = right - x, whole, natural
            if kind == "name" and width > room:
                metrics = QFontMetricsF(look.font("name"))
                text = metrics.elidedText(whole, Qt.TextElideMode.ElideRight, max(20.0, room))
                width = metrics.horizontalAdvance(text)
            elif width > room and kind in ("time", "edited", "detail"):
                continue
            if kind == "pager":
                self.previous.move(round(x), 3)
                self.next.move(round(x + width - _PAGER_ARROW), 3)
            elif kind in ("resume", "renew"):
                button = self.resume if kind == "resume" else self.renew
                button.move(round(x), 3)
            items.append((kind, x, width, text))
            x += width + _GAP
        return items

    def _wanted(self, view: RowView) -> list[tuple[str, str, float]]:
        look = theme.current()
        name = QFontMetricsF(look.font("name"))
        small = QFontMetricsF(look.font("small", tabular=True))
        items: list[tuple[str, str, float]] = []

        def add(kind: str, text: str, metrics: QFontMetricsF) -> None:
            items.append((kind, text, metrics.horizontalAdvance(text)))

        from desktop_app.ui.row import author_of

        add("name", author_of(view), name)
        if view.time:
            add("time", view.time, small)
        if view.versions > 1:
            text = tr("row.version_of", version=view.version, versions=view.versions)
            width = QFontMetricsF(look.font("small", tabular=True)).horizontalAdvance(text)
            items.append(("pager", text, width + 2 * _PAGER_ARROW + 2))
        if view.edited:
            add("edited", tr("row.edited"), small)
        self._wanted_state(view, items)
        return items

    def _wanted_state(self, view: RowView, items: list[tuple[str, str, float]]) -> None:
        look = theme.current()
        small = QFontMetricsF(look.font("small", tabular=True))
        state = view.state
        detail = (view.detail, small.horizontalAdvance(view.detail))
        if state is RowState.WRITING and view.detail:
            items.append(("read", detail[0], detail[1] + 18))
        badge = badge_of(view)
        if badge is not None:
            text, kind, icon = badge
            items.append((f"badge:{kind}:{icon}", text, badge_width(text, kind=kind, icon=icon)))
        if state in (RowState.READING, RowState.LOADING) and view.detail:
            items.append(("detail", *detail))
        if not self.resume.isHidden():
            self.resume.set_words(tr("row.continue"))
            items.append(("resume", "", float(self.resume.width())))
        if not self.renew.isHidden():
            text = tr("row.stale")
            items.append(("stale", text, small.horizontalAdvance(text) + 20))
            self.renew.set_words(tr("row.ask_again"))
            items.append(("renew", "", float(self.renew.width())))

    # Painting

    def paintEvent(self, _event: QPaintEvent) -> None:
        view = self._view
        if view is None:
            return
        look = theme.current()
        painter = QPainter(self)
        middle = self.height() / 2
        if self._stuck:
            painter.fillRect(self.rect(), look.color("canvas"))
            line = QRectF(GUTTER, self.height() - 1, self.width() - GUTTER, 1)
            painter.fillRect(line, look.color("line"))
            painter.fillRect(QRectF(NODE_X - 1, 0, 2, self.height()), look.color("line2"))
        self._paint_node(painter, view, middle)
        for kind, x, width, text in self._items:
            self._paint_item(painter, kind, QRectF(x, 0, width, self.height()), text)

    def _paint_node(self, painter: QPainter, view: RowView, middle: float) -> None:
        canvas = theme.current().color("canvas")
        halo = view.state.is_live
        gap = 11.0 if halo else 8.0
        painter.fillRect(QRectF(NODE_X - 2, middle - gap, 4, 2 * gap), canvas)
        lit = view.versions > 1 or halo
        paint_node(painter, NODE_X, middle, square=view.is_user, lit=lit, halo=halo)

    def _paint_item(self, painter: QPainter, kind: str, box: QRectF, text: str) -> None:
        look = theme.current()
        middle = box.center().y()
        centred = int(Qt.AlignmentFlag.AlignVCenter)
        wide = box.adjusted(0, 0, 4, 0)
        if kind.startswith("badge:"):
            _badge, look_name, icon = kind.split(":")
            paint_badge(painter, box.x(), middle, text, kind=look_name, icon=icon)
        elif kind == "name":
            self._write(painter, wide, text, look.font("name"), "text")
        elif kind in ("time", "edited", "detail"):
            self._write(painter, wide, text, look.font("small", tabular=True), "text3")
        elif kind == "read":
            icons.draw(painter, "check", "text2", box.x(), middle - 7, 14)
            room = wide.adjusted(18, 0, 0, 0)
            self._write(painter, room, text, look.font("small", tabular=True), "text3")
        elif kind == "stale":
            icons.draw(painter, "history", "ochre", box.x(), middle - 7, 14)
            room = wide.adjusted(20, 0, 0, 0)
            self._write(painter, room, text, look.font("small"), "ochre")
        elif kind == "pager":
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(look.color("line2"), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            edge = QRectF(box.x() + 0.5, middle - 10.5, box.width() - 1, 21)
            painter.drawRoundedRect(edge, 6, 6)
            painter.setFont(look.font("small", tabular=True))
            painter.setPen(look.color("text"))
            painter.drawText(box, centred | int(Qt.AlignmentFlag.AlignHCenter), text)

    @staticmethod
    def _write(painter: QPainter, box: QRectF, text: str, font: QFont, role: str) -> None:
        painter.setFont(font)
        painter.setPen(theme.current().color(role))
        painter.drawText(box, int(Qt.AlignmentFlag.AlignVCenter), text)


def badge_of(view: RowView) -> tuple[str, str, str] | None:
    """Words, kind and icon of the state's badge."""
    return {
        RowState.LOADING: (tr("row.loading"), "live", ""),
        RowState.READING: (tr("row.reading"), "live", ""),
        RowState.WRITING: (tr("row.writing"), "live", ""),
        RowState.STOPPED: (tr("row.stopped"), "fact", "stop"),
        RowState.INTERRUPTED: (tr("row.interrupted"), "caution", "unplug"),
        RowState.FAILED: (view.error_badge or tr("row.failed"), "failure", "circle-alert"),
    }.get(view.state)
