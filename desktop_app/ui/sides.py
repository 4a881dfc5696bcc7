"""Sidebar, page and dock beside each other; on a narrow window the sides slide over the page."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QEasingCurve, QEvent, QObject, QPoint, QPropertyAnimation, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QWidget

from desktop_app.ui import theme

NARROW_PX = 1000
SIDEBAR_PX = 248
DOCK_PX = 304
_SLIDE_MS = 160


@dataclass(slots=True)
class _Side:
    """One side: whether it is wanted beside the page, its width, whether it lies over the page."""

    widget: QWidget
    width_px: int
    wanted: bool
    over: bool = False


class _Scrim(QWidget):
    """A veil over the page while a side lies over it: a click takes the side away."""

    clicked = Signal()

    def paintEvent(self, _event: QPaintEvent) -> None:
        dark = theme.current().is_dark
        QPainter(self).fillRect(self.rect(), QColor(0, 0, 0, 110 if dark else 40))

    def mousePressEvent(self, _event: QMouseEvent) -> None:
        self.clicked.emit()


class Sides(QWidget):
    """Owns the splitter.  `changed` tells that a side came or went."""

    changed = Signal()

    def __init__(self, sidebar: QWidget, page: QWidget, dock: QWidget) -> None:
        super().__init__()
        self._sidebar = _Side(sidebar, SIDEBAR_PX, wanted=True)
        self._dock = _Side(dock, DOCK_PX, wanted=True)
        self._page = page
        self._narrow: bool | None = None
        sidebar.setMinimumWidth(200)
        dock.setMinimumWidth(240)
        page.setMinimumWidth(360)
        self.splitter = QSplitter(Qt.Orientation.Horizontal)
        self.splitter.setHandleWidth(1)
        self.splitter.setChildrenCollapsible(False)
        for widget in (sidebar, page, dock):
            self.splitter.addWidget(widget)
        self.splitter.setStretchFactor(1, 1)
        self.splitter.splitterMoved.connect(lambda _pos, _index: self._note_widths())
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.splitter)
        self._scrim = _Scrim(self)
        self._scrim.clicked.connect(self.close_overlay)
        self._scrim.hide()
        self._slide = QPropertyAnimation(self, b"pos", self)
        self._slide.setDuration(_SLIDE_MS)
        self._slide.setEasingCurve(QEasingCurve.Type.OutCubic)
        for side in (sidebar, dock):
            side.installEventFilter(self)

    # ---- state that is remembered -------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """Widths and which sides are wanted, for the settings."""
        return {
            "sidebar": self._sidebar.wanted,
            "dock": self._dock.wanted,
            "sidebar_px": self._sidebar.width_px,
            "dock_px": self._dock.width_px,
        }

    def restore(self, state: dict[str, object]) -> None:
        """Take over a remembered state; strange values are ignored."""
        for side, key in ((self._sidebar, "sidebar"), (self._dock, "dock")):
            wanted, width_px = state.get(key), state.get(f"{key}_px")
            if isinstance(wanted, bool):
                side.wanted = wanted
            if isinstance(width_px, int) and 160 <= width_px <= 800:
                side.width_px = width_px
        self._arrange(force=True)

    # ---- showing and hiding -------------------------------------------------------------------

    @property
    def sidebar_shown(self) -> bool:
        """Whether the sidebar can be seen, beside or over the page."""
        return self._shown(self._sidebar)

    @property
    def dock_shown(self) -> bool:
        """Whether the dock can be seen, beside or over the page."""
        return self._shown(self._dock)

    def show_sidebar(self, shown: bool) -> None:
        """Show or hide the sidebar."""
        self._set(self._sidebar, shown)

    def show_dock(self, shown: bool) -> None:
        """Show or hide the dock."""
        self._set(self._dock, shown)

    def close_overlay(self) -> bool:
        """Take away what lies over the page; whether there was something."""
        closed = False
        for side in (self._sidebar, self._dock):
            if side.over:
                self._put_over(side, shown=False)
                closed = True
        return closed

    def _shown(self, side: _Side) -> bool:
        return side.over if self._narrow else side.wanted

    def _set(self, side: _Side, shown: bool) -> None:
        if self._narrow:
            self.close_overlay()
            if shown:
                self._put_over(side, shown=True)
        else:
            side.wanted = shown
            side.widget.setVisible(shown)
            self._apply_widths()
        self.changed.emit()

    def _put_over(self, side: _Side, *, shown: bool) -> None:
        side.over = shown
        widget = side.widget
        self._scrim.setVisible(shown)
        if not shown:
            self._slide.stop()
            widget.hide()
            self.changed.emit()
            return
        at_left = side is self._sidebar
        width = min(side.width_px, self.width() - 60)
        home = QPoint(0 if at_left else self.width() - width, 0)
        away = QPoint(-width if at_left else self.width(), 0)
        self._scrim.setGeometry(self.rect())
        self._scrim.raise_()
        widget.setParent(self)
        widget.setGeometry(home.x(), 0, width, self.height())
        widget.show()
        widget.raise_()
        self._slide.stop()
        self._slide.setTargetObject(widget)
        self._slide.setStartValue(away)
        self._slide.setEndValue(home)
        self._slide.start()

    def _arrange(self, *, force: bool = False) -> None:
        narrow = self.width() < NARROW_PX
        if narrow == self._narrow and not force:
            return
        self._narrow = narrow
        self._scrim.hide()
        for side, place in ((self._sidebar, 0), (self._dock, 2)):
            side.over = False
            if narrow:
                side.widget.setParent(self)
                side.widget.hide()
            else:
                if self.splitter.indexOf(side.widget) < 0:
                    self.splitter.insertWidget(place, side.widget)
                side.widget.setVisible(side.wanted)
        self._apply_widths()
        self.changed.emit()

    def _apply_widths(self) -> None:
        if self._narrow:
            return
        left = self._sidebar.width_px if self._sidebar.wanted else 0
        right = self._dock.width_px if self._dock.wanted else 0
        self.splitter.setSizes([left, max(360, self.width() - left - right), right])

    def _note_widths(self) -> None:
        sizes = self.splitter.sizes()
        if not self._narrow and len(sizes) == 3:
            if self._sidebar.wanted and sizes[0]:
                self._sidebar.width_px = sizes[0]
            if self._dock.wanted and sizes[2]:
                self._dock.width_px = sizes[2]

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()
        for side in (self._sidebar, self._dock):
            if side.over:
                width = min(side.width_px, self.width() - 60)
                left = 0 if side is self._sidebar else self.width() - width
                side.widget.setGeometry(left, 0, width, self.height())
                self._scrim.setGeometry(self.rect())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.KeyPress and self._narrow:
            key = event.key()  # type: ignore[attr-defined]  # a key press is a QKeyEvent
            if key == Qt.Key.Key_Escape and self.close_overlay():
                return True
        return super().eventFilter(watched, event)
