"""A long list of real controls: only the rows near the view exist, and they are used again.

Every row is a widget with buttons of its own, so that each has a name, an identifier and its place
in the order of the Tab key; a list of 15,000 rows costs no more than one of fifty.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QApplication, QScrollArea, QWidget

from desktop_app.ui import tab_order, theme
from desktop_app.ui.controls import name_control

COLUMN_PX: Final = 760
MARGIN_PX: Final = 24
_OVERSCAN_PX: Final = 160
_RADIUS: Final = 12.0
_NO_FOCUS: Final = Qt.FocusPolicy.NoFocus


@dataclass(frozen=True, slots=True)
class Row:
    """One row.  `key` stays the same while its facts change; `kind` names the widget to use.

    `facts` may be a function without arguments, called when the row comes near the view.
    `height_px` at 100 % text size.  Rows from a `first` to a `last` one lie on one card; one that
    is neither lies on none when `on_card` is false.
    """

    key: str
    kind: str
    height_px: int
    facts: object
    first: bool = False
    last: bool = False
    on_card: bool = True


class RowWidget(QWidget):
    """The base of all rows: paints its part of the card, then what `paint` adds."""

    acted = Signal(str, str)
    """The row's key and what is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.row: Row | None = None

    def bind(self, row: Row) -> None:
        """Show another row, or the same one with other facts."""
        self.row = row
        self.show_facts(row)
        self.place()
        self.update()

    def show_facts(self, row: Row) -> None:
        """For subclasses: texts, buttons, names."""

    def place(self) -> None:
        """For subclasses: where the controls stand; whenever the facts or the size change."""

    def paint(self, painter: QPainter) -> None:
        """For subclasses: whatever is not a control."""

    def act(self, what: str) -> None:
        """Tell the page what is wanted of this row."""
        if self.row is not None:
            self.acted.emit(self.row.key, what)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self.row is not None:
            self.place()

    def paintEvent(self, _event: QPaintEvent) -> None:
        row = self.row
        if row is None:
            return
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if row.on_card:
            card = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
            card.setTop(card.top() if row.first else -2 * _RADIUS)
            card.setBottom(card.bottom() if row.last else self.height() + 2 * _RADIUS)
            painter.setPen(QPen(look.color("line2"), 1))
            painter.setBrush(look.color("raised"))
            painter.drawRoundedRect(card, _RADIUS, _RADIUS)
            if not row.first:
                painter.fillRect(1, 0, self.width() - 2, 1, look.color("line"))
        self.paint(painter)


class _Ground(QWidget):
    """What the rows lie on.  It paints all of itself, so scrolling moves pixels."""

    def __init__(self, surface: str) -> None:
        super().__init__()
        self._surface = surface
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def paintEvent(self, event: QPaintEvent) -> None:
        QPainter(self).fillRect(event.rect(), theme.current().color(self._surface))


Maker = Callable[[], RowWidget]


class RowsView(QScrollArea):
    """See the module."""

    acted = Signal(str, str)

    def __init__(
        self,
        identifier: str,
        name: str,
        makers: Mapping[str, Maker],
        *,
        margin_px: int = MARGIN_PX,
        surface: str = "canvas",
    ) -> None:
        super().__init__()
        self._margin_px = margin_px
        self._makers = dict(makers)
        self._rows: list[Row] = []
        self._tops: list[int] = [0]
        self._index: dict[str, int] = {}
        self._live: dict[str, RowWidget] = {}
        self._free: dict[str, list[RowWidget]] = {}
        self._chained: QWidget | None = None
        """The last control of the rows in the chain of Tab."""
        self._content = _Ground(surface)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWidget(self._content)
        self._content.show()
        name_control(self, identifier, name)
        name_control(self._content, f"{identifier}.rows", name)
        self.verticalScrollBar().valueChanged.connect(lambda _value: self._arrange())
        self.verticalScrollBar().setSingleStep(40)
        theme.current().changed.connect(self._relook)

    # ---- rows --------------------------------------------------------------------------------

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show these; what stands at the top of the view stays there."""
        rows = list(rows)
        if rows == self._rows:
            # Facts that are functions may tell something else by now.
            self._arrange(fresh=True)
            return
        anchor, offset = self._anchor()
        self._rows = rows
        self._measure()
        if anchor and anchor in self._index:
            self.verticalScrollBar().setValue(self._tops[self._index[anchor]] + offset)
        self._arrange(fresh=True)

    def rows(self) -> list[Row]:
        """What is shown, top to bottom."""
        return self._rows

    def row_widget(self, key: str) -> RowWidget | None:
        """The widget of a row, None while it is far from the view."""
        return self._live.get(key)

    def reveal(self, key: str) -> None:
        """Scroll so that a row can be seen."""
        if key in self._index:
            at = self._index[key]
            top, bottom = self._tops[at], self._tops[at + 1]
            bar = self.verticalScrollBar()
            if top < bar.value():
                bar.setValue(top)
            elif bottom > bar.value() + self.viewport().height():
                bar.setValue(bottom - self.viewport().height())
            self._arrange()

    def _anchor(self) -> tuple[str, int]:
        value = self.verticalScrollBar().value()
        if not self._rows or value == 0:
            return "", 0
        at = min(bisect_right(self._tops, value) - 1, len(self._rows) - 1)
        return self._rows[at].key, value - self._tops[at]

    def _measure(self) -> None:
        scale = max(1.0, theme.current().text_scale)
        heights = (round(row.height_px * scale) for row in self._rows)
        self._tops = list(accumulate(heights, initial=0))
        self._index = {row.key: at for at, row in enumerate(self._rows)}
        self._fit_content()

    def _fit_content(self) -> None:
        height = max(self._tops[-1] + MARGIN_PX, self.viewport().height())
        self._content.resize(self.viewport().width(), height)

    def _relook(self) -> None:
        self._measure()
        self._arrange()
        for widget in self._live.values():
            if widget.row is not None:
                widget.bind(widget.row)

    def _arrange(self, *, fresh: bool = False) -> None:
        """Give every row near the view its widget, and take those of all others.

        `fresh`: the facts may have changed.
        """
        value = self.verticalScrollBar().value()
        low = max(0, bisect_right(self._tops, value - _OVERSCAN_PX) - 1)
        end = value + self.viewport().height() + _OVERSCAN_PX
        high = min(len(self._rows), bisect_right(self._tops, end))
        wanted = {row.key: row for row in self._rows[low:high]}
        focus = QApplication.focusWidget()
        for key in [key for key in self._live if key not in wanted]:
            widget = self._live[key]
            kept = self._index.get(key)
            if kept is not None and focus is not None and widget.isAncestorOf(focus):
                wanted[key] = self._rows[kept]
                continue
            del self._live[key]
            widget.hide()
            assert widget.row is not None
            self._free.setdefault(widget.row.kind, []).append(widget)
        # The scroll bar stands in the margin: the column does not move when it comes.
        width = min(COLUMN_PX, self.width() - 2 * self._margin_px)
        left = (self.width() - width) // 2
        for key, row in wanted.items():
            self._put(key, row, left, width, fresh=fresh)

    def _put(self, key: str, row: Row, left: int, width: int, *, fresh: bool) -> None:
        widget = self._live.get(key)
        if callable(row.facts) and (widget is None or fresh):
            row = replace(row, facts=row.facts())
        if widget is not None and widget.row is not None and widget.row.kind != row.kind:
            widget.hide()
            self._free.setdefault(widget.row.kind, []).append(widget)
            widget = None
        if widget is None:
            free = self._free.get(row.kind)
            widget = free.pop() if free else self._make(row.kind)
            self._live[key] = widget
            widget.bind(row)
        elif fresh and widget.row != row:
            widget.bind(row)
        at = self._index[key]
        height = self._tops[at + 1] - self._tops[at]
        widget.setGeometry(left, self._tops[at], width, height)
        widget.show()

    def _make(self, kind: str) -> RowWidget:
        made = self._makers[kind]()
        made.setParent(self._content)
        # Qt puts what is made late at the end of the window's chain of Tab, behind other areas.
        inside = [w for w in made.findChildren(QWidget) if w.focusPolicy() != _NO_FOCUS]
        for widget in inside:
            if self._chained is not None:
                QWidget.setTabOrder(self._chained, widget)
            self._chained = widget
        made.acted.connect(self.acted)
        return made

    # ---- size and focus ----------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_content()
        self._arrange()

    def controls(self) -> list[QWidget]:
        """What takes the focus in the rows that exist, in reading order."""
        found: list[QWidget] = []
        for key in sorted(self._live, key=lambda key: self._index.get(key, 0)):
            widget = self._live[key]
            inside = [widget, *widget.findChildren(QWidget)]
            usable = [w for w in inside if _takes_tab(w)]
            usable.sort(key=lambda w: (w is not widget, w.mapTo(widget, w.rect().topLeft()).x()))
            found += usable
        return found

    def focus_first(self) -> bool:
        """Put the focus on the first control; False when there is none."""
        controls = self.controls()
        if controls:
            controls[0].setFocus(Qt.FocusReason.TabFocusReason)
        return bool(controls)

    def focusNextPrevChild(self, forward: bool) -> bool:
        focus = QApplication.focusWidget()
        controls = self.controls()
        if focus not in controls:
            return super().focusNextPrevChild(forward)
        at = controls.index(focus) + (1 if forward else -1)
        reason = Qt.FocusReason.TabFocusReason if forward else Qt.FocusReason.BacktabFocusReason
        if 0 <= at < len(controls):
            controls[at].setFocus(reason)
            self.ensureWidgetVisible(controls[at], 0, 48)
            return True
        outside = self._outside(self, forward)
        if outside is not None:
            outside.setFocus(reason)
        return outside is not None

    def _outside(self, start: QWidget, forward: bool) -> QWidget | None:
        everything = tab_order.widgets_in(self.window())
        at = everything.index(start)
        beside = everything[at + 1 :] + everything[:at]
        for one in beside if forward else reversed(beside):
            if one is not self and not self.isAncestorOf(one) and _takes_tab(one):
                return one
        return None

    def keyPressEvent(self, event: QKeyEvent) -> None:
        keys = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}
        step = keys.get(Qt.Key(event.key()))
        focus = QApplication.focusWidget()
        if step is None or focus is None:
            super().keyPressEvent(event)
            return
        controls = self.controls()
        if focus in controls:
            row = self._row_of(focus)
            at = controls.index(focus) + step
            while 0 <= at < len(controls) and self._row_of(controls[at]) is row:
                at += step
            if 0 <= at < len(controls):
                other = self._row_of(controls[at])
                first = next(c for c in controls if self._row_of(c) is other)
                first.setFocus(Qt.FocusReason.OtherFocusReason)
                self.ensureWidgetVisible(first, 0, 48)

    def _row_of(self, widget: QWidget) -> RowWidget | None:
        here: QWidget | None = widget
        while here is not None and not isinstance(here, RowWidget):
            here = here.parentWidget()
        return here


def _takes_tab(widget: QWidget) -> bool:
    policy = widget.focusPolicy().value & Qt.FocusPolicy.TabFocus.value
    return bool(policy) and widget.isVisible() and widget.isEnabled()
