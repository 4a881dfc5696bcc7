"""One short notice at the bottom of the window, with one action: mostly Undo."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEasingCurve, QEvent, QPropertyAnimation, QRect, QRectF, Qt, QTimer
from PySide6.QtGui import (
    QAccessible,
    QAccessibleAnnouncementEvent,
    QColor,
    QEnterEvent,
    QPainter,
    QPaintEvent,
)
from PySide6.QtWidgets import QGraphicsOpacityEffect, QHBoxLayout, QLabel, QPushButton, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.controls import name_control

SHOWN_MS = 8000
_FADE_MS = 120
_SHADOW_PX = 3


class Toast(QWidget):
    """Shows the newest notice only.  It stays while the pointer or the focus is on it.

    `place` gives the area, in the parent's coordinates, at whose bottom centre it stands.
    """

    def __init__(self, parent: QWidget, place: Callable[[], QRect]) -> None:
        super().__init__(parent)
        self._place = place
        self._action: Callable[[], object] | None = None
        self._icon = QLabel()
        self._text = QLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._button = QPushButton()
        self._button.setAutoDefault(False)
        self._button.clicked.connect(self._act)
        self._button.setCursor(Qt.CursorShape.PointingHandCursor)
        self._button.installEventFilter(self)
        name_control(self, "toast", "")
        name_control(self._text, "toast.text", "")
        name_control(self._button, "toast.action", "")
        row = QHBoxLayout(self)
        row.setContentsMargins(16 + _SHADOW_PX, _SHADOW_PX, 16 + _SHADOW_PX, _SHADOW_PX + 2)
        row.setSpacing(12)
        row.addWidget(self._icon)
        row.addWidget(self._text, 1)
        row.addWidget(self._button)
        self._timer = QTimer(self, interval=SHOWN_MS, singleShot=True)
        self._timer.timeout.connect(self._leave)
        # An opacity effect stays off but while fading: it costs a copy of each paint.
        self._fade_effect = QGraphicsOpacityEffect(self)
        self._fade_effect.setEnabled(False)
        self.setGraphicsEffect(self._fade_effect)
        self._fade = QPropertyAnimation(self._fade_effect, b"opacity", self)
        self._fade.setDuration(_FADE_MS)
        self._fade.setEasingCurve(QEasingCurve.Type.OutCubic)
        self._fade.finished.connect(self._faded)
        theme.current().changed.connect(self._restyle)
        self._restyle()
        self.hide()

    def tell(
        self,
        text: str,
        action_text: str = "",
        action: Callable[[], object] | None = None,
        *,
        icon: str = "",
    ) -> None:
        """Show `text`, in place of what stood there, with `action` behind `action_text`."""
        self._action = action
        self._text.setText(text)
        self._text.setAccessibleName(text)
        self._button.setText(action_text)
        self._button.setAccessibleName(action_text)
        self._button.setVisible(bool(action_text))
        self._icon.setVisible(bool(icon))
        if icon:
            self._icon.setPixmap(icons.pixmap(icon, "toastlink", 16))
        self.setAccessibleName(text)
        self.show()
        self.raise_()
        self.put()
        self._run_fade(0.0, 1.0)
        self._timer.start()
        QAccessible.updateAccessibility(QAccessibleAnnouncementEvent(self, text))

    def move_to(self, parent: QWidget, place: Callable[[], QRect]) -> None:
        """Stand on another page from now on; what is shown goes along."""
        shown = self.isVisible()
        self._place = place
        self.setParent(parent)
        if shown:
            self.show()
            self.raise_()
            self.put()

    def dismiss(self) -> None:
        """Take it away now."""
        self._timer.stop()
        if self.isVisible():
            self._run_fade(1.0, 0.0)

    @property
    def text(self) -> str:
        """What it shows; empty while hidden."""
        return self._text.text() if self.isVisible() else ""

    def put(self) -> None:
        """Stand at the bottom centre of the area again, after a resize."""
        area = self._place()
        self._text.setWordWrap(False)
        room = area.width() - 32
        wide = self.sizeHint().width() > room
        self._text.setWordWrap(wide)
        width = min(self.sizeHint().width(), room) if wide else self.sizeHint().width()
        height = max(44 + 2 * _SHADOW_PX + 2, self.heightForWidth(width) if wide else 0)
        left = area.x() + (area.width() - width) // 2
        self.setGeometry(left, area.bottom() - height - 8, width, height)

    def enterEvent(self, event: QEnterEvent) -> None:
        self._timer.stop()
        super().enterEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        if not self._button.hasFocus():
            self._timer.start()
        super().leaveEvent(event)

    def eventFilter(self, watched: object, event: QEvent) -> bool:
        if watched is self._button and event.type() == QEvent.Type.FocusIn:
            self._timer.stop()
        elif watched is self._button and event.type() == QEvent.Type.FocusOut:
            self._timer.start()
        return False

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        inner = QRectF(self.rect()).adjusted(_SHADOW_PX, _SHADOW_PX, -_SHADOW_PX, -_SHADOW_PX - 2)
        for grow in range(_SHADOW_PX, 0, -1):
            painter.setBrush(QColor(0, 0, 0, 10))
            painter.drawRoundedRect(inner.adjusted(-grow, 1 - grow, grow, grow + 2), 9, 9)
        painter.setBrush(theme.current().color("toast"))
        painter.drawRoundedRect(inner, 8, 8)

    def _act(self) -> None:
        action, self._action = self._action, None
        self.dismiss()
        if action is not None:
            action()

    def _leave(self) -> None:
        if self.underMouse() or self._button.hasFocus():
            self._timer.start()
        else:
            self.dismiss()

    def _run_fade(self, start: float, end: float) -> None:
        self._fade.stop()
        self._fade_effect.setEnabled(True)
        self._fade.setStartValue(start)
        self._fade.setEndValue(end)
        self._fade.start()

    def _faded(self) -> None:
        self._fade_effect.setEnabled(False)
        if self._fade.endValue() == 0.0:
            self.hide()

    def _restyle(self) -> None:
        look = theme.current()
        self._text.setStyleSheet(f"color: {look.color('toasttext').name()}")
        link = look.color("toastlink").name()
        self._button.setStyleSheet(
            f"QPushButton {{ background: transparent; border: 0; padding: 0 4px; color: {link};"
            " font-weight: 600; min-height: 26px; }"
            " QPushButton:hover, QPushButton:focus { text-decoration: underline; }"
        )
