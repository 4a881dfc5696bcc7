"""What a window does not need for its first look waits until it has been painted once."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtWidgets import QWidget


class _FirstPaint(QObject):
    """Waits for a window's first expose event, in which it is painted."""

    def __init__(self, window: QWidget, then: Callable[[], object]) -> None:
        super().__init__(window)
        self._then = then
        handle = window.windowHandle()
        assert handle is not None
        handle.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.Expose, QEvent.Type.Paint):
            watched.removeEventFilter(self)
            QTimer.singleShot(0, self, self._then)
        return False


def after_first_paint(window: QWidget, then: Callable[[], object]) -> None:
    """Call `then` once, after a window that was just shown has been painted."""
    _FirstPaint(window, then)
