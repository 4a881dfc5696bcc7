"""Small controls that the look asks for and Qt does not bring."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, QPoint, QRect, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFontMetrics,
    QKeyEvent,
    QKeySequence,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QFrame,
    QLabel,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QTabBar,
    QToolButton,
    QWidget,
)

from desktop_app.ui import icons, theme


def name_control(widget: QWidget, identifier: str, name: str) -> None:
    """Give a control its stable identifier for tests and its name for screen readers."""
    widget.setObjectName(identifier)
    widget.setAccessibleIdentifier(identifier)
    widget.setAccessibleName(name)


def tip(name: str, shortcut: str = "") -> str:
    """A tooltip of a name and, grey behind it, the shortcut as this platform writes it."""
    if not shortcut:
        return name
    keys = QKeySequence(shortcut).toString(QKeySequence.SequenceFormat.NativeText)
    return f"{name}   {keys}"


def _call(on_click: Callable[[], object]) -> None:
    """Swallow the `checked` that Qt hands to a slot with room for it."""
    on_click()


def restyle(widget: QWidget) -> None:
    """Make the style sheet look again at a widget's dynamic properties."""
    style = widget.style()
    style.unpolish(widget)
    style.polish(widget)
    widget.update()


def label(text: str = "", kind: str = "", *, wrap: bool = False) -> QLabel:
    """A plain-text label in one of the style sheet's kinds."""
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setWordWrap(wrap)
    if kind:
        made.setProperty("kind", kind)
    return made


def bare_number(spin: QAbstractSpinBox, *, buttons: bool = False) -> None:
    """Let the number in a spin box be text only: the box itself has the edge.

    Without `buttons` it is a plain field; Qt's own NoButtons leaves no room for the number once a
    style sheet is in force.
    """
    field = "QLineEdit { border: 0; padding: 0; min-height: 0; background: transparent; }"
    hidden = "QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { width: 0; border: 0; }"
    arrows = "QAbstractSpinBox::up-arrow, QAbstractSpinBox::down-arrow { width: 0; height: 0; }"
    low = "QAbstractSpinBox { min-height: 24px; }"
    spin.setStyleSheet(field if buttons else f"{low} {field} {hidden} {arrows}")
    spin.lineEdit().setTextMargins(9, 0, 9, 0)


def line(kind: str = "line") -> QFrame:
    """A hairline between two areas: ``"line"`` lies, ``"vline"`` stands."""
    made = QFrame()
    made.setProperty("kind", kind)
    return made


class IconButton(QToolButton):
    """A square button with an icon that follows the theme."""

    def __init__(  # each argument is one visible fact of the button
        self,
        icon: str,
        identifier: str,
        name: str,
        *,
        shortcut: str = "",
        size: int = 18,
        on_click: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._icon = icon
        self._size = size
        self.setProperty("kind", "icon")
        name_control(self, identifier, name)
        self.setToolTip(tip(name, shortcut))
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        theme.current().changed.connect(self.update)
        if on_click is not None:
            self.clicked.connect(lambda: _call(on_click))

    def set_icon(self, icon: str) -> None:
        """Show another icon."""
        self._icon = icon
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        # Drawn here, not by a QIcon: that would render every state at every ratio at the start.
        super().paintEvent(event)
        role = "disabled" if not self.isEnabled() else "text" if self.underMouse() else "text2"
        left, top = (self.width() - self._size) / 2, (self.height() - self._size) / 2
        icons.draw(QPainter(self), self._icon, role, left, top, self._size)


def push_button(
    text: str,
    identifier: str,
    *,
    kind: str = "",
    small: bool = False,
    on_click: Callable[[], object] | None = None,
) -> QPushButton:
    """A button with a text; `kind` is ``""``, ``"main"``, ``"soft"``, ``"plain"``, ``"link"``."""
    made = QPushButton(text)
    name_control(made, identifier, text)
    made.setAutoDefault(False)
    if kind:
        made.setProperty("kind", kind)
    if small:
        made.setProperty("small", "true")
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    if on_click is not None:
        made.clicked.connect(lambda: _call(on_click))
    return made


class ElidedLabel(QLabel):
    """One line that ends in an ellipsis when there is no room, with the whole in its tooltip."""

    def __init__(self, text: str = "", kind: str = "") -> None:
        super().__init__()
        self._full = text
        if kind:
            self.setProperty("kind", kind)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.set_full_text(text)

    @property
    def full_text(self) -> str:
        """The text without an ellipsis."""
        return self._full

    def set_full_text(self, text: str) -> None:
        """Show another text, cut to what fits."""
        self._full = text
        self.setAccessibleName(text)
        self.updateGeometry()
        self._cut()

    def sizeHint(self) -> QSize:
        width = QFontMetrics(self.font()).horizontalAdvance(self._full)
        return QSize(width + 2, super().sizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._cut()

    def _cut(self) -> None:
        metrics = QFontMetrics(self.font())
        shown = metrics.elidedText(self._full, Qt.TextElideMode.ElideRight, max(self.width(), 1))
        self.setText(shown)
        self.setToolTip(self._full if shown != self._full else "")


def open_above(widget: QWidget, menu: QMenu) -> None:
    """Run a menu above a widget near the window's bottom, or below it where there is no room."""
    above = widget.mapToGlobal(QPoint(0, -menu.sizeHint().height() - 4))
    below = widget.mapToGlobal(QPoint(0, widget.height() + 4))
    screen = widget.screen().availableGeometry()
    menu.exec(above if above.y() >= screen.top() else below)


class ChoiceButton(QPushButton):
    """A quiet text with a small chevron that opens a menu, as below the composer."""

    def __init__(self, identifier: str, name: str, *, fixed: bool = False) -> None:
        super().__init__()
        name_control(self, identifier, name)
        self._name = name
        self._full = ""
        self._fixed = fixed
        self._menu_open = False
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAutoDefault(False)
        self.setSizePolicy(
            QSizePolicy.Policy.Fixed if fixed else QSizePolicy.Policy.Maximum,
            QSizePolicy.Policy.Fixed,
        )
        self.setMinimumWidth(44)

    def set_choice(self, text: str) -> None:
        """The choice that stands."""
        self._full = text
        self.setAccessibleName(f"{self._name}: {text}")
        self.setToolTip(f"{self._name}: {text}")
        self.updateGeometry()
        self.update()

    def open_menu(self, menu: QMenu) -> None:
        """Show a menu above the button and keep the button lit meanwhile."""
        self._menu_open = True
        self.update()
        open_above(self, menu)
        self._menu_open = False
        self.update()

    def choice(self) -> str:
        """The choice that stands."""
        return self._full

    def sizeHint(self) -> QSize:
        text = QFontMetrics(theme.current().font("interface")).horizontalAdvance(self._full)
        return QSize(min(text, 180) + 16 + 20, 28)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint() if self._fixed else QSize(60, 28)

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        lit = self.underMouse() or self.isDown() or self._menu_open
        if lit and self.isEnabled():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("press" if self.isDown() else "hover"))
            painter.drawRoundedRect(self.rect(), 6, 6)
        role = "disabled" if not self.isEnabled() else "text" if lit else "text2"
        painter.setPen(look.color(role))
        painter.setFont(look.font("interface"))
        room = self.rect().adjusted(8, 0, -26, 0)
        text = painter.fontMetrics().elidedText(
            self._full, Qt.TextElideMode.ElideRight, room.width()
        )
        painter.drawText(room, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
        icons.draw(painter, "chevron-down", role, self.width() - 22, (self.height() - 14) / 2, 14)


class Switch(QAbstractButton):
    """On or off, as a pill with a knob."""

    def __init__(self, identifier: str, name: str) -> None:
        super().__init__()
        self.setCheckable(True)
        name_control(self, identifier, name)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setFixedSize(32, 18)

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        track = "line2" if not self.isEnabled() else "fill" if self.isChecked() else "ctl"
        painter.setBrush(look.color(track))
        painter.drawRoundedRect(self.rect(), 9, 9)
        painter.setBrush(QColor("#FFFFFF"))
        left = self.width() - 16 if self.isChecked() else 2
        painter.drawEllipse(QRect(left, 2, 14, 14))


class Bar(QWidget):
    """A thin bar from 0 to 1 in a theme role's colour."""

    def __init__(self, width: int = 0, height: int = 4) -> None:
        super().__init__()
        self._share = 0.0
        self._role = "accent"
        self.setFixedHeight(height)
        if width:
            self.setFixedWidth(width)

    def set_share(self, share: float, role: str = "accent") -> None:
        """Fill this share (clamped to 0 … 1) in this role's colour."""
        share = min(1.0, max(0.0, share))
        if (share, role) != (self._share, self._role):
            self._share, self._role = share, role
            self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        radius = self.height() / 2
        whole = QRectF(self.rect())
        painter.setBrush(look.color("line2"))
        painter.drawRoundedRect(whole, radius, radius)
        if self._share > 0:
            whole.setWidth(max(self.height(), whole.width() * self._share))
            painter.setBrush(look.color(self._role))
            painter.drawRoundedRect(whole, radius, radius)


# What stands for a character in Qt's rich text; the module html would cost every start some ms.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_NO_RING = (QLineEdit, QPlainTextEdit, QAbstractItemView, QTabBar)


class FocusRing(QWidget):
    """The one ring on screen: round the control that got focus from the keyboard.

    Text fields show focus by their edge, lists by their row.
    """

    def __init__(self, app: QApplication) -> None:
        super().__init__()
        self._round: QWidget | None = None
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide()
        app.focusChanged.connect(self._moved)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._round:
            if event.type() in (QEvent.Type.Hide, QEvent.Type.Destroy):
                self._leave()
            elif event.type() in (QEvent.Type.Move, QEvent.Type.Resize):
                self._place()
        return False

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        width = theme.current().ring_px
        painter.setPen(QPen(theme.current().color("accent"), width))
        half = width / 2
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(half, half, -half, -half), 9, 9)

    def _moved(self, _old: QWidget | None, now: QWidget | None) -> None:
        self._leave()
        if now is None or isinstance(now, _NO_RING) or now.property("ring") == "own":
            return
        window = now.window()
        if not window.testAttribute(Qt.WidgetAttribute.WA_KeyboardFocusChange):
            return
        if not isinstance(now, QAbstractButton) and now.property("ring") != "outer":
            return
        self._round = now
        now.installEventFilter(self)
        self.setParent(window)
        self._place()
        self.show()
        self.raise_()

    def _place(self) -> None:
        if self._round is None:
            return
        corner = self._round.mapTo(self._round.window(), QPoint(0, 0))
        self.setGeometry(QRect(corner, self._round.size()).adjusted(-4, -4, 4, 4))

    def _leave(self) -> None:
        if self._round is not None:
            self._round.removeEventFilter(self)
            self._round = None
        self.hide()
        self.setParent(None)


def paragraph(text: str = "", kind: str = "", style: str = "interface") -> QLabel:
    """A label of several lines with the line height that the look gives its style."""
    made = _Paragraph(style)
    if kind:
        made.setProperty("kind", kind)
    made.setText(text)
    return made


class _Paragraph(QLabel):
    """Plain text, set as rich text: a plain label knows no line height."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self._style = style
        self._plain = ""
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setWordWrap(True)
        theme.current().changed.connect(self._restyle)  # a method's connection ends with the label

    def _restyle(self) -> None:
        self.setText(self._plain)

    def text(self) -> str:
        return self._plain

    def setText(self, text: str) -> None:
        self._plain = text
        look = theme.current()
        self.setFont(look.font(self._style))
        self.setAccessibleName(text)
        height = round(look.line_height(self._style))
        super().setText(f'<p style="line-height: {height}px">{text.translate(_ENTITIES)}</p>')


class ClickCard(QAbstractButton):
    """The card that is a button: its edge says the focus, its surface the pointer.

    By click, Enter and Space.  What stands on it is laid out in it.
    """

    def __init__(self, identifier: str, name: str, on_click: Callable[[], object]) -> None:
        super().__init__()
        name_control(self, identifier, name)
        self.setProperty("ring", "own")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.clicked.connect(lambda: _call(on_click))

    def sizeHint(self) -> QSize:
        layout = self.layout()
        return layout.sizeHint() if layout is not None else super().sizeHint()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        lit = self.hasFocus()
        painter.setPen(QPen(look.color("accent" if lit else "line2"), 2 if lit else 1))
        painter.setBrush(look.color("hover" if self.underMouse() else "raised"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 12, 12)
        self.paint(painter)

    def paint(self, painter: QPainter) -> None:
        """For subclasses: whatever is not a widget."""
