"""The pointer over the transcript: hovering, links, code buttons, selecting by dragging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, Qt, QTimer
from PySide6.QtGui import (
    QContextMenuEvent,
    QGuiApplication,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QApplication, QScrollBar, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.markdown import openable
from desktop_app.ui.row_parts import RowButton
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    from desktop_app.ui.row import Row
    from desktop_app.ui.transcript import Transcript

_SCROLL_MS = 30
_TRIPLE_MS = 400
_COPIED_MS = 1500
_AWAY_PX = 120


class Pointer:
    """Mouse handling of one transcript.  Points are in the viewport."""

    def __init__(self, view: Transcript) -> None:
        self._view = view
        self._row: Row | None = None
        self._selecting = False
        self._pressed_link = ""
        self._pressed_code = (0, -1)
        self._start = QPointF()
        self._last = QPointF()
        self._double_at = -10 * _TRIPLE_MS
        self._code: tuple[int, int, bool] = (0, -1, False)
        self._copied = QTimer(view, interval=_COPIED_MS, singleShot=True)
        self._copied.timeout.connect(self._forget_copied)
        self._scroll = QTimer(view, interval=_SCROLL_MS)
        self._scroll.timeout.connect(self._scroll_on)

    def holds(self, row: Row) -> bool:
        """Whether the mouse was pressed in this row and is still down: it must stay."""
        return row is self._row

    def press(self, event: QMouseEvent) -> None:
        """A button went down."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        view, point = self._view, event.position()
        self._row = view.row_under(point)
        self._start = self._last = point
        self._pressed_link = self._link_at(point)
        self._pressed_code = self._code_button_at(point)
        if self._pressed_code[1] >= 0:
            return
        if self._row is not None:
            self._row.setFocus(Qt.FocusReason.MouseFocusReason)
        found = view.place_at(point)
        if found is None:
            return
        if event.timestamp() - self._double_at < _TRIPLE_MS and self._row is not None:
            self._select_paragraph(*found)
        elif event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            view.selection.extend(*found)
        else:
            view.selection.begin(*found)
            self._selecting = True
        view.update_rows()

    def _select_paragraph(self, message_id: int, place: object) -> None:
        from desktop_app.ui.row_content import Place

        assert isinstance(place, Place)
        content = self._view.content_of(message_id)
        body = content.part(place.part) if content is not None else None
        if body is not None:
            start, end = body.whole_piece(place.spot)
            self._view.selection.select(message_id, place.part, start, end)

    def double_click(self, event: QMouseEvent) -> None:
        """Select a word."""
        found = self._view.place_at(event.position())
        if event.button() != Qt.MouseButton.LeftButton or found is None:
            return
        message_id, place = found
        content = self._view.content_of(message_id)
        body = content.part(place.part) if content is not None else None
        if body is not None:
            start, end = body.word(place.spot)
            self._view.selection.select(message_id, place.part, start, end)
            self._double_at = event.timestamp()
            self._selecting = False
            self._view.update_rows()

    def move(self, event: QMouseEvent) -> None:
        """The pointer moved, with or without a button."""
        point = event.position()
        self._last = point
        if not event.buttons() & Qt.MouseButton.LeftButton:
            self._hover(point)
            return
        if not self._selecting:
            return
        distance = (point - self._start).manhattanLength()
        if self._view.selection.is_empty and distance < QApplication.startDragDistance() / 2:
            return
        self._extend()
        height = self._view.viewport().height()
        outside = point.y() < 0 or point.y() > height
        if outside and not self._scroll.isActive():
            self._scroll.start()
        elif not outside:
            self._scroll.stop()

    def _extend(self) -> None:
        height = self._view.viewport().height()
        y = min(max(self._last.y(), 0.0), height - 1.0)
        found = self._view.place_at(QPointF(self._last.x(), y))
        if found is not None:
            self._view.selection.extend(*found)
            self._view.update_rows()

    def _scroll_on(self) -> None:
        """The pointer is above or below the view while selecting: faster when further."""
        height = self._view.viewport().height()
        over = self._last.y() if self._last.y() < 0 else self._last.y() - height
        bar = self._view.verticalScrollBar()
        bar.setValue(bar.value() + round(max(-60.0, min(60.0, over))))
        self._extend()

    def release(self, event: QMouseEvent) -> None:
        """A button went up."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        view, point = self._view, event.position()
        self._scroll.stop()
        self._row = None
        self._selecting = False
        message_id, first = self._pressed_code
        if first >= 0:
            self._pressed_code = (0, -1)
            if self._code_button_at(point) == (message_id, first):
                self.copy_code(message_id, first)
            return
        link = self._pressed_link
        self._pressed_link = ""
        if link and view.selection.is_empty and self._link_at(point) == link and openable(link):
            view.link_activated.emit(link)

    def open_menu(self, event: QContextMenuEvent) -> None:
        """The menu of the message under the pointer."""
        view = self._view
        point = QPointF(view.viewport().mapFromGlobal(event.globalPos()))
        row = view.row_under(point)
        if row is not None:
            view.open_menu(row.message_at(point - QPointF(row.pos())), event.globalPos())

    # Code blocks

    def code_in(self, message_id: int) -> tuple[int, bool]:
        """The code block under the pointer in a row (-1: none), and whether it was just copied."""
        at, first, copied = self._code
        return (first, copied) if at == message_id else (-1, False)

    def leave(self) -> None:
        """The pointer left the view."""
        self._hover_code(0, -1)

    def _hover_code(self, message_id: int, first: int) -> None:
        if self._code[:2] == (message_id, first):
            return
        changed = {self._code[0], message_id}
        self._code = (message_id, first, False)
        for one in changed:
            self._repaint(one)

    def copy_code(self, message_id: int, first: int) -> None:
        """Put a code block on the clipboard and say so for a moment."""
        content = self._view.content_of(message_id)
        if content is None:
            return
        QGuiApplication.clipboard().setText(content.code_text(first))
        self._code = (message_id, first, True)
        self._copied.start()
        self._repaint(message_id)

    def _forget_copied(self) -> None:
        message_id, first, _copied = self._code
        self._code = (message_id, first, False)
        self._repaint(message_id)

    def _repaint(self, message_id: int) -> None:
        row = self._view.row_of(message_id)
        if row is not None:
            row.update()

    # Looking

    def _hover(self, point: QPointF) -> None:
        view = self._view
        row = view.row_under(point)
        view.row_entered(row)
        link = self._link_at(point)
        shape = Qt.CursorShape.ArrowCursor
        tip = ""
        if row is not None:
            first, on_button = row.code_hit(point - QPointF(row.pos()))
            self._hover_code(row.message_id, first)
            if link or on_button:
                shape = Qt.CursorShape.PointingHandCursor
                tip = link or tr("row.copy_code")
            elif self._over_text(row, point):
                shape = Qt.CursorShape.IBeamCursor
            if row.toolTip() != tip:
                row.setToolTip(tip)
            if row.cursor().shape() != shape:
                row.setCursor(shape)

    def _over_text(self, row: Row, point: QPointF) -> bool:
        inner = row.column_point(point - QPointF(row.pos()))
        return row.content is not None and row.content.text_at(inner)

    def _link_at(self, point: QPointF) -> str:
        row = self._view.row_under(point)
        if row is None or row.content is None:
            return ""
        run = row.content.run_at(row.column_point(point - QPointF(row.pos())))
        return run.link if run is not None else ""

    def _code_button_at(self, point: QPointF) -> tuple[int, int]:
        row = self._view.row_under(point)
        if row is None:
            return 0, -1
        first, on_button = row.code_hit(point - QPointF(row.pos()))
        return (row.message_id, first) if on_button else (0, -1)


class JumpButton(RowButton):
    """A round button over the end of the view that leads to the last message."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "arrow-down", "transcript.end", side=34, size=16)
        self.describe(tr("row.jump_to_end"), "End")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._corners = 17.0
        self.slack = 0.0
        """How far from the end still counts as being there: drafts are compared from their top."""

    def follow(self, bar: QScrollBar) -> None:
        """Show away from the end of what this bar scrolls."""
        away = bar.maximum() - bar.value() > _AWAY_PX + self.slack
        if away == self.isHidden():
            self.setVisible(away)
        if away:
            self.place()

    def place(self) -> None:
        """Stand at the bottom centre of the transcript."""
        parent = self.parentWidget()
        assert parent is not None
        self.move((parent.width() - self.width()) // 2, parent.height() - self.height() - 12)
        self.raise_()

    def paintEvent(self, event: QPaintEvent) -> None:
        del event
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(look.color("line2"), 1))
        ground = "press" if self.isDown() else "hover" if self.underMouse() else "raised"
        painter.setBrush(look.color(ground))
        painter.drawEllipse(self.rect().adjusted(1, 1, -2, -2))
        icons.draw(painter, self.icon_name, "text", 9, 9, 16)
