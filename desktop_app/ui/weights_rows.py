"""The rows of the weights page with facts and buttons: headings, suggestions, downloads, files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QEvent, QObject, QRect, QRectF, Qt
from PySide6.QtGui import (
    QFontMetrics,
    QKeyEvent,
    QPainter,
    QPaintEvent,
)
from PySide6.QtWidgets import QAbstractButton, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.controls import (
    ChoiceButton,
    IconButton,
    name_control,
    push_button,
    tip,
)
from desktop_app.ui.rows_view import Row, RowWidget
from desktop_app.ui.weights_words import Verdict
from desktop_app.ui.words import tr

EDGE_PX: Final = 20
VERDICT_PX: Final = 340
_NARROW_PX: Final = 560
_LEFT: Final = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
_RIGHT: Final = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight


@dataclass(frozen=True, slots=True)
class Tool:
    """A button with an icon only."""

    action: str
    icon: str
    identifier: str
    name: str
    on: bool = True
    keys: str = ""
    """The shortcut, as Qt writes it."""


@dataclass(frozen=True, slots=True)
class Badge:
    """A pill with a word; `mark` is a dot or an icon before it."""

    text: str
    role: str = "text2"
    surface: str = "hover"
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """What a row says and offers.  `button` is words, action, identifier."""

    title: str
    facts: str = ""
    aside: str = ""
    title_role: str = "text"
    facts_role: str = "text3"
    verdict: Verdict | None = None
    badge: Badge | None = None
    button: tuple[str, str, str] | None = None
    button_tip: str = ""
    button_on: bool = True
    tools: tuple[Tool, ...] = ()
    icon: str = ""
    tip: str = ""
    share: float = -1.0
    share_role: str = "accent"
    end: str = ""
    percent: str = ""
    identifier: str = ""
    indent: int = 0
    opens: str = ""
    slots: int = 0
    """Tools that other rows have at the right and this one lacks: their room is kept."""


class HeadRow(RowWidget):
    """A section's heading, a fact at the right, and sometimes a quiet button there."""

    def __init__(self) -> None:
        super().__init__()
        self._button = push_button("", "", kind="link", on_click=self._pressed)
        self._button.setParent(self)
        self._button.hide()

    def _pressed(self) -> None:
        assert isinstance(self.row, Row)
        assert isinstance(self.row.facts, Line)
        if self.row.facts.button is not None:
            self.act(self.row.facts.button[1])

    def show_facts(self, row: Row) -> None:
        assert isinstance(row.facts, Line)
        name_control(self, row.facts.identifier, f"{row.facts.title}, {row.facts.facts}")
        self._button.setVisible(row.facts.button is not None)
        if row.facts.button is not None:
            words, _action, identifier = row.facts.button
            self._button.setText(words)
            name_control(self._button, identifier, words)

    def place(self) -> None:
        size = self._button.sizeHint()
        self._button.setGeometry(self.width() - size.width(), self.height() - 30, size.width(), 22)

    def paint(self, painter: QPainter) -> None:
        assert self.row is not None
        assert isinstance(self.row.facts, Line)
        look = theme.current()
        area = QRect(0, self.height() - 34, self.width(), 28)
        painter.setFont(look.font("heading"))
        painter.setPen(look.color("text"))
        painter.drawText(area, _LEFT, self.row.facts.title)
        painter.setFont(look.font("small", tabular=True))
        painter.setPen(look.color("text3"))
        painter.drawText(area, _RIGHT, self.row.facts.facts)


class _Opener(QAbstractButton):
    """The whole row as a button, below its other buttons; the row itself paints."""

    def __init__(self, row: RowWidget, on_click: Callable[[], object]) -> None:
        super().__init__(row)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.clicked.connect(lambda _on=False: on_click())

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Nothing of its own."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            event.ignore()  # the list's: to the next row
        else:
            super().keyPressEvent(event)


class LineRow(RowWidget):
    """Two lines of text, a verdict or badge, a button and some tools."""

    main = False

    def __init__(self) -> None:
        super().__init__()
        self._opener = _Opener(self, lambda: self.act(self.line.opens))
        self.button = push_button(
            "", "", kind="main" if self.main else "", small=not self.main, on_click=self._pressed
        )
        self.button.setParent(self)
        self._tools: list[IconButton] = []
        self._text_end = 0
        self._over: QRect | None = None
        theme.current().changed.connect(self.update)

    @property
    def line(self) -> Line:
        assert self.row is not None
        assert isinstance(self.row.facts, Line)
        return self.row.facts

    def _pressed(self) -> None:
        if self.line.button is not None:
            self.act(self.line.button[1])

    def show_facts(self, row: Row) -> None:
        line = self.line
        spoken = [line.title, line.aside, line.facts, line.percent, line.end]
        if line.verdict is not None:
            spoken.append(line.verdict.words)
        if line.badge is not None:
            spoken.append(line.badge.text)
        words = ", ".join(part for part in spoken if part)
        name_control(self, line.identifier or row.key, words)
        self.setToolTip(line.tip or (line.verdict.reason if line.verdict is not None else ""))
        self._opener.setVisible(bool(line.opens))
        if line.opens:
            name_control(self._opener, line.identifier or row.key, words)
            name_control(self, row.key, "")
        self._show_button(line)
        self._show_tools(line.tools)

    def _show_button(self, line: Line) -> None:
        button = self.button
        button.setVisible(line.button is not None)
        if line.button is None:
            return
        words, _action, identifier = line.button
        if button.text() != words:
            button.setText(words)
        name_control(button, identifier, f"{words}: {line.title} {line.aside}".strip())
        if button.isEnabled() != line.button_on:
            button.setEnabled(line.button_on)
        button.setToolTip(line.button_tip)

    def _show_tools(self, tools: tuple[Tool, ...]) -> None:
        while len(self._tools) < len(tools):
            made = IconButton("x", "", "", size=16)
            made.setParent(self)
            made.installEventFilter(self)
            QWidget.setTabOrder(self._tools[-1] if self._tools else self.button, made)
            at = len(self._tools)
            made.clicked.connect(lambda _on=False, at=at: self.act(self.line.tools[at].action))
            self._tools.append(made)
        for at, made in enumerate(self._tools):
            made.setVisible(at < len(tools))
            if at < len(tools):
                tool = tools[at]
                made.set_icon(tool.icon)
                name_control(made, tool.identifier, f"{tool.name}: {self.line.title}")
                made.setToolTip(tip(tool.name, tool.keys))
                if made.isEnabled() != tool.on:
                    made.setEnabled(tool.on)

    def tool_button(self, action: str) -> QWidget | None:
        """The button of one of the row's tools: a menu opens at it."""
        for tool, made in zip(self.line.tools, self._tools, strict=False):
            if tool.action == action:
                return made
        return None

    def place(self) -> None:
        self._opener.setGeometry(self.rect())
        right = self.width() - 12 - self.line.slots * 32
        middle = self._middle()
        for made in reversed(self._tools):
            if not made.isHidden():
                made.setGeometry(right - 28, middle - 14, 28, 28)
                right -= 32
        if not self.button.isHidden():
            size = self.button.sizeHint()
            width = max(size.width(), 68)
            self.button.setGeometry(
                right - width, middle - size.height() // 2, width, size.height()
            )
            right -= width + 8
        self._text_end = right

    def _middle(self) -> int:
        return self.height() // 2

    def paint(self, painter: QPainter) -> None:
        line, look = self.line, theme.current()
        if line.opens and self.underMouse():
            painter.fillRect(self.rect().adjusted(1, 1, -1, -1), look.color("hover"))
        left = EDGE_PX + line.indent
        if line.icon:
            icons.draw(painter, line.icon, "text2", left, (self.height() - 16) / 2, 16)
            left += 26
        end = self._paint_end(painter, self._text_end)
        facts, role = line.facts, line.facts_role
        if line.verdict is not None:
            if self.width() >= _NARROW_PX:
                start = self.width() - VERDICT_PX
                start = max(left + 60, min(start, end - verdict_width(line.verdict)))
                paint_verdict(painter, line.verdict, start, self._middle(), end - start)
                end = start - 12
            else:
                facts, role = line.verdict.words, line.verdict.role
        block = look.px(38) if facts else look.px(20)
        top = round((self.height() - block) / 2)
        self._paint_title(painter, QRect(left, top, end - left, round(look.px(20))))
        if facts:
            painter.setFont(look.font("small", tabular=True))
            painter.setPen(look.color(role))
            area = QRect(left, top + round(look.px(20)), end - left, round(look.px(18)))
            _cut(painter, area, facts)

    def _paint_title(self, painter: QPainter, area: QRect) -> None:
        line, look = self.line, theme.current()
        painter.setFont(look.font("button"))
        painter.setPen(look.color(line.title_role))
        used = _cut(painter, area, line.title)
        if line.aside:
            painter.setFont(look.font("small", tabular=True))
            painter.setPen(look.color("text3"))
            _cut(painter, area.adjusted(used + 8, 1, 0, 1), line.aside)

    def _paint_end(self, painter: QPainter, right: int) -> int:
        """A badge or a word before the buttons; returns where the text must end."""
        line, look = self.line, theme.current()
        if line.badge is not None:
            return paint_badge(painter, line.badge, right, self._middle()) - 12
        if line.end:
            painter.setFont(look.font("small", tabular=True))
            painter.setPen(look.color("text3"))
            width = painter.fontMetrics().horizontalAdvance(line.end)
            painter.drawText(QRect(right - width, 0, width, self.height()), _RIGHT, line.end)
            return right - width - 12
        return right - 8


class LeadRow(LineRow):
    """The recommended weights: a heading, a badge, facts, the verdict and the memory it takes."""

    main = True

    def __init__(self) -> None:
        super().__init__()
        self._sizes = ChoiceButton("", tr("weights.other_sizes"), fixed=True)
        self._sizes.setParent(self)
        self._sizes.set_choice(tr("weights.other_sizes"))
        self._sizes.clicked.connect(lambda _on=False: self.act("sizes"))

    def _show_tools(self, tools: tuple[Tool, ...]) -> None:
        """There is room for words: the sizes are not an icon alone here."""
        self._sizes.setVisible(bool(tools))
        for tool in tools:
            name_control(self._sizes, tool.identifier, f"{tool.name}: {self.line.title}")
            self._sizes.setToolTip(tool.name)

    def tool_button(self, action: str) -> QWidget | None:
        return self._sizes if action == "sizes" else super().tool_button(action)

    def place(self) -> None:
        self._opener.setGeometry(self.rect())
        right = self.width() - 16
        size = self.button.sizeHint()
        width = size.width() + 22
        self.button.setGeometry(right - width, 16, width, size.height())
        self._text_end = right - width - 12
        words = self._sizes.sizeHint().width()
        middle = self.height() - 26
        self._sizes.setGeometry(right - words + 8, middle - 14, words, 28)
        self._sizes.move(self._sizes.x(), middle - self._sizes.height() // 2)

    def _show_button(self, line: Line) -> None:
        super()._show_button(line)
        if line.button is not None:
            self.button.setIcon(icons.icon("download", "onfill", 16, disabled_role="disabled"))
            # Qt sets icon and words of a button too close.
            self.button.setText(f" {line.button[0]}")

    def paint(self, painter: QPainter) -> None:
        line, look = self.line, theme.current()
        left, end = EDGE_PX, self._text_end
        painter.setFont(look.font("heading"))
        painter.setPen(look.color("text"))
        used = _cut(painter, QRect(left, 15, end - left, round(look.px(26))), line.title)
        if line.badge is not None:
            metrics = QFontMetrics(look.font("badge"))
            width = metrics.horizontalAdvance(line.badge.text) + 16
            paint_badge(painter, line.badge, left + used + 10 + width, 15 + round(look.px(13)))
        painter.setFont(look.font("small", tabular=True))
        painter.setPen(look.color(line.facts_role))
        top = 15 + round(look.px(26))
        _cut(painter, QRect(left, top, end - left, round(look.px(18))), line.facts)
        if line.verdict is None:
            return
        middle = self.height() - 26
        used = paint_verdict(painter, line.verdict, left, middle, self.width() // 2)
        if line.share >= 0 and self.width() >= _NARROW_PX:
            start = left + used + 24
            paint_bar(painter, QRectF(start, middle - 2, 88, 4), line.share, line.verdict.role)
            painter.setFont(look.font("small", tabular=True))
            painter.setPen(look.color("text3"))
            room = self.width() - 150 - start - 100
            _cut(painter, QRect(start + 100, middle - 10, room, 20), line.end)


_MOVES: Final = {
    Qt.Key.Key_Up: "up",
    Qt.Key.Key_Down: "down",
    Qt.Key.Key_Home: "top",
    Qt.Key.Key_End: "bottom",
}


class DownloadRow(LineRow):
    """A download: name, percent, buttons, a bar, and how far it is.

    Alt with an arrow, Home or End moves it in the queue, whichever of its buttons has the focus.
    """

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # Buttons take the arrows for themselves, with and without Alt.
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            move = _MOVES.get(Qt.Key(event.key()))
            if move is not None and event.modifiers() & Qt.KeyboardModifier.AltModifier:
                self.act(move)
                return True
        return super().eventFilter(watched, event)

    def _middle(self) -> int:
        return round(theme.current().px(27))

    def paint(self, painter: QPainter) -> None:
        line, look = self.line, theme.current()
        left, right = EDGE_PX, self.width() - EDGE_PX
        end = self._text_end - 8
        if line.percent:
            painter.setFont(look.font("name", tabular=True))
            painter.setPen(look.color("text"))
            area = QRect(left, self._middle() - 12, end - left, 24)
            painter.drawText(area, _RIGHT, line.percent)
            end -= painter.fontMetrics().horizontalAdvance(line.percent) + 12
        self._paint_title(painter, QRect(left, self._middle() - 10, end - left, 20))
        bar = self._middle() + 20
        paint_bar(painter, QRectF(left, bar, right - left, 4), line.share, line.share_role)
        painter.setFont(look.font("small", tabular=True))
        area = QRect(left, bar + 9, right - left, round(look.px(18)))
        painter.setPen(look.color("text3"))
        painter.drawText(area, _RIGHT, line.end)
        room = area.adjusted(0, 0, -painter.fontMetrics().horizontalAdvance(line.end) - 12, 0)
        painter.setPen(look.color(line.facts_role))
        if line.facts_role == "clay":
            # What went wrong and what to do is never cut.
            room.setBottom(self.height() - 8)
            painter.drawText(room, Qt.TextFlag.TextWordWrap, line.facts)
        else:
            _cut(painter, room, line.facts)


def verdict_width(found: Verdict) -> int:
    """The room that `paint_verdict` needs."""
    metrics = QFontMetrics(theme.current().font("badge", tabular=True))
    return 24 + metrics.horizontalAdvance(found.words)


def paint_verdict(painter: QPainter, found: Verdict, x: int, middle: int, room: int) -> int:
    """Icon and words in the verdict's colour; returns the width used."""
    look = theme.current()
    icons.draw(painter, found.icon, found.role, x, middle - 8, 16)
    painter.setFont(look.font("badge", tabular=True))
    painter.setPen(look.color(found.role))
    return 22 + _cut(painter, QRect(x + 22, middle - 12, max(0, room - 22), 24), found.words)


def paint_badge(painter: QPainter, badge: Badge, right: int, middle: int) -> int:
    """A pill that ends at `right`; returns its left edge."""
    look = theme.current()
    painter.setFont(look.font("badge"))
    width = painter.fontMetrics().horizontalAdvance(badge.text) + 16
    width += {"": 0, "dot": 12}.get(badge.mark, 18)
    height = round(look.px(20))
    area = QRect(right - width, middle - height // 2, width, height)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(look.color(badge.surface))
    painter.drawRoundedRect(area, height / 2, height / 2)
    left = area.x() + 8
    if badge.mark == "dot":
        painter.setBrush(look.color(badge.role))
        painter.drawEllipse(QRectF(left, middle - 3, 6, 6))
        left += 12
    elif badge.mark:
        icons.draw(painter, badge.mark, badge.role, left - 1, middle - 7, 14)
        left += 18
    painter.setPen(look.color(badge.role))
    painter.drawText(QRect(left, area.y(), area.right() - left, height), _LEFT, badge.text)
    return area.x()


def paint_bar(painter: QPainter, area: QRectF, share: float, role: str) -> None:
    """A thin bar, filled to a share of 0 … 1."""
    look = theme.current()
    radius = area.height() / 2
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(look.color("line2"))
    painter.drawRoundedRect(area, radius, radius)
    if share > 0:
        painter.setBrush(look.color(role))
        width = max(area.height(), area.width() * min(1.0, share))
        painter.drawRoundedRect(QRectF(area.x(), area.y(), width, area.height()), radius, radius)


def _cut(painter: QPainter, area: QRect, text: str) -> int:
    """Draw one line, cut to its room; returns the width used."""
    metrics = painter.fontMetrics()
    shown = metrics.elidedText(text, Qt.TextElideMode.ElideRight, max(0, area.width()))
    painter.drawText(area, _LEFT, shown)
    return metrics.horizontalAdvance(shown)
