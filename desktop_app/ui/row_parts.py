"""Light buttons of a message row: painted, not styled, because a screen holds a hundred of them."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QEnterEvent, QFocusEvent, QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.controls import name_control


class RowButton(QAbstractButton):
    """An icon button.  While it is not `revealed` it keeps its room and paints nothing.

    It stays a child of its row then, so that screen readers can press it on every message.
    """

    pointed = Signal(bool)
    """Pointer or keyboard came to it, or left."""

    def __init__(
        self, parent: QWidget, icon: str, identifier: str, *, side: int = 28, size: int = 16
    ) -> None:
        super().__init__(parent)
        self.icon_name = icon
        self.role = "text2"
        self._size = size
        self._revealed = True
        self._corners = 6.0
        name_control(self, identifier, "")
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.resize(side, side)

    def describe(self, name: str, shortcut: str = "") -> None:
        """Name for screen readers, and the tooltip."""
        if self.accessibleName() != name:
            self.setAccessibleName(name)
            self.setToolTip(f"{name}   {shortcut}" if shortcut else name)

    def set_icon(self, icon: str, role: str = "text2") -> None:
        """Show another icon."""
        if (icon, role) != (self.icon_name, self.role):
            self.icon_name, self.role = icon, role
            self.update()

    @property
    def revealed(self) -> bool:
        """Whether it is painted."""
        return self._revealed

    def reveal(self, shown: bool) -> None:
        """Paint it, and let Tab reach it, or not."""
        if shown != self._revealed:
            self._revealed = shown
            self.update()
        policy = Qt.FocusPolicy.TabFocus if shown else Qt.FocusPolicy.NoFocus
        if self.focusPolicy() != policy:
            self.setFocusPolicy(policy)

    def sizeHint(self) -> QSize:
        return self.size()

    def paintEvent(self, _event: QPaintEvent) -> None:
        if not self._revealed and not self.hasFocus():
            return
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        lit = self.isEnabled() and self.underMouse()
        if lit or self.isDown():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("press" if self.isDown() else "hover"))
            painter.drawRoundedRect(self.rect(), self._corners, self._corners)
        role = self.role if self.isEnabled() else "disabled"
        if role == "text2" and (lit or self.isDown()):
            role = "text"
        self.paint_face(painter, role)

    def paint_face(self, painter: QPainter, role: str) -> None:
        """The icon."""
        left, top = (self.width() - self._size) / 2, (self.height() - self._size) / 2
        icons.draw(painter, self.icon_name, role, left, top, self._size)

    def enterEvent(self, event: QEnterEvent) -> None:
        super().enterEvent(event)
        self.pointed.emit(True)

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.pointed.emit(False)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.pointed.emit(True)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.pointed.emit(False)
        self.update()


class CountButton(RowButton):
    """The second half of a split button: "×3" acts, beside it an arrow opens the numbers."""

    def __init__(self, parent: QWidget, identifier: str) -> None:
        super().__init__(parent, "", identifier)
        self._words = ""

    def set_words(self, words: str) -> None:
        """Show a text, and take its size."""
        if words != self._words:
            self._words = words
            self.update()
        self.resize(self.sizeHint())

    def sizeHint(self) -> QSize:
        metrics = QFontMetricsF(theme.current().font("badge"))
        return QSize(round(metrics.horizontalAdvance(self._words)) + 12, self.height())

    def paint_face(self, painter: QPainter, role: str) -> None:
        """The text."""
        painter.setFont(theme.current().font("badge"))
        painter.setPen(theme.current().color(role))
        painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignCenter), self._words)


class LinkButton(QAbstractButton):
    """A word in green that acts."""

    def __init__(self, parent: QWidget, identifier: str, *, role: str = "accent") -> None:
        super().__init__(parent)
        self._role = role
        self._style = "small" if role == "accent" else "interface"
        name_control(self, identifier, "")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def set_words(self, text: str, style: str = "badge") -> None:
        """Show a text in a text style, and take its size."""
        if (text, style) != (self.text(), self._style):
            self._style = style
            self.setText(text)
            if not self.accessibleName():
                self.setAccessibleName(text)
        self.resize(self.sizeHint())

    def sizeHint(self) -> QSize:
        metrics = QFontMetricsF(theme.current().font(self._style))
        return QSize(int(metrics.horizontalAdvance(self.text())) + 3, 22)

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        font = look.font(self._style)
        font.setUnderline(self.underMouse())
        painter.setFont(font)
        painter.setPen(look.color(self._role))
        middle = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.drawText(self.rect(), int(middle), self.text())


class FoldButton(QAbstractButton):
    """A chevron and a quiet text that fold something below open or shut."""

    def __init__(self, parent: QWidget, identifier: str) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        name_control(self, identifier, "")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def set_words(self, text: str) -> None:
        """Show a text and take its size."""
        if text != self.text():
            self.setText(text)
            self.setAccessibleName(text)
        self.resize(self.sizeHint())

    def sizeHint(self) -> QSize:
        metrics = QFontMetricsF(theme.current().font("interface"))
        return QSize(int(metrics.horizontalAdvance(self.text())) + 34, 24)

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        role = "text" if self.underMouse() else "text2"
        if self.underMouse():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("hover"))
            painter.drawRoundedRect(self.rect(), 6, 6)
        chevron = "chevron-down" if self.isChecked() else "chevron-right"
        icons.draw(painter, chevron, role, 5, 5, 14)
        painter.setFont(look.font("interface"))
        painter.setPen(look.color(role))
        middle = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.drawText(self.rect().adjusted(24, 0, 0, 0), int(middle), self.text())


def paint_badge(
    painter: QPainter, x: float, middle: float, text: str, *, kind: str = "live", icon: str = ""
) -> float:
    """Paint a badge 20 high round a middle line; returns its width.

    `kind` is ``"live"`` (green, with a dot), ``"fact"``, ``"caution"`` or ``"failure"``.
    """
    look = theme.current()
    ground, ink = {
        "live": ("soft", "accent"),
        "fact": ("hover", "text2"),
        "caution": ("ochresoft", "ochre"),
        "failure": ("claysoft", "clay"),
    }[kind]
    font = look.font("badge")
    width = badge_width(text, kind=kind, icon=icon)
    height = look.px(20)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(look.color(ground))
    box = QRectF(x, middle - height / 2, width, height)
    painter.drawRoundedRect(box, height / 2, height / 2)
    left = x + 8
    if kind == "live":
        painter.setBrush(look.color("accent"))
        painter.drawEllipse(QRectF(left, middle - 3, 6, 6))
        left += 12
    elif icon == "stop":
        painter.setBrush(look.color(ink))
        painter.drawRoundedRect(QRectF(left, middle - 4.5, 9, 9), 2, 2)
        left += 15
    elif icon:
        icons.draw(painter, icon, ink, left - 1, middle - 7, 14)
        left += 19
    painter.setFont(font)
    painter.setPen(look.color(ink))
    room = QRectF(left, box.top(), width, height)
    painter.drawText(room, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), text)
    return width


def badge_width(text: str, *, kind: str = "live", icon: str = "") -> float:
    """How wide `paint_badge` paints."""
    metrics = QFontMetricsF(theme.current().font("badge"))
    lead = 12 if kind == "live" else 15 if icon == "stop" else 19 if icon else 0
    return 8 + lead + metrics.horizontalAdvance(text) + 9


def paint_bar(painter: QPainter, box: QRectF, share: float) -> None:
    """A progress bar."""
    look = theme.current()
    radius = box.height() / 2
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(look.color("line2"))
    painter.drawRoundedRect(box, radius, radius)
    if share > 0:
        done = QRectF(box)
        done.setWidth(max(box.height(), box.width() * min(1.0, share)))
        painter.setBrush(look.color("accent"))
        painter.drawRoundedRect(done, radius, radius)


def paint_node(
    painter: QPainter, x: float, y: float, *, square: bool, lit: bool, halo: bool
) -> None:
    """A node of the trunk, centred on a point."""
    look = theme.current()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if halo:
        painter.setPen(QPen(look.color("soft2"), 1.5))
        painter.setBrush(look.color("soft"))
        painter.drawEllipse(QRectF(x - 9.25, y - 9.25, 18.5, 18.5))
    ink = look.color("accent" if lit else "text3")
    if square:
        painter.setPen(QPen(ink, 2))
        painter.setBrush(look.color("canvas"))
        painter.drawRoundedRect(QRectF(x - 4, y - 4, 8, 8), 2, 2)
    else:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ink)
        painter.drawEllipse(QRectF(x - 5, y - 5, 10, 10))
