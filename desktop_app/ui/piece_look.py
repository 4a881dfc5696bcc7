"""Fonts, formats and measures that pieces of text share."""

from __future__ import annotations

from functools import cached_property

from PySide6.QtGui import QColor, QFont, QFontMetricsF, QTextCharFormat

from desktop_app.ui.blocks import Look
from desktop_app.ui.theme import Theme

_HEADINGS = {1: (20, 30), 2: (17, 26), 3: (15, 24), 4: (15, 24), 5: (14, 22), 6: (14, 22)}


class PieceLook:
    """Fonts and formats of one theme, text style and pixel ratio, made once for many pieces."""

    def __init__(
        self, theme: Theme, *, style: str = "reading", role: str = "text", ground: str = "sunken"
    ) -> None:
        self.theme = theme
        self.ground = ground
        self.style = style
        self.role = role
        self.ratio = 1.0
        self.find = ""  # words that are searched for: shown on a ground of their own
        self._formats: dict[tuple[Look, bool, int], QTextCharFormat] = {}

    def color(self, role: str) -> QColor:
        """A role's colour."""
        return self.theme.color(role)

    @cached_property
    def font(self) -> QFont:
        """The font of running text."""
        return self.theme.font(self.style)

    @cached_property
    def line(self) -> float:
        """The line height of running text."""
        return self.theme.line_height(self.style)

    @cached_property
    def code_font(self) -> QFont:
        """The font of code."""
        return self.theme.font("code")

    @cached_property
    def code_line(self) -> float:
        """The line height of code."""
        return self.theme.line_height("code")

    @cached_property
    def step(self) -> float:
        """How far a list level is indented."""
        return round(self.theme.px(24))

    @cached_property
    def letter(self) -> float:
        """About the width of a letter, for guesses."""
        return QFontMetricsF(self.font).averageCharWidth()

    def maths_size(self, heading: int = 0) -> int:
        """The px size of formulas beside this text: serif italics look smaller."""
        size = self.font.pixelSize() if not heading else round(self.theme.px(_HEADINGS[heading][0]))
        return round(size * 1.1)

    def heading(self, level: int) -> tuple[QFont, float]:
        """Font and line height of a heading."""
        size, line = _HEADINGS[level]
        font = self.theme.font("heading")
        font.setPixelSize(round(self.theme.px(size)))
        return font, self.theme.px(line)

    def format(self, look: Look, *, link: bool = False, heading: int = 0) -> QTextCharFormat:
        """The character format of a look."""
        key = (look, link, heading)
        if key not in self._formats:
            self._formats[key] = self._make_format(look, link, heading)
        return self._formats[key]

    def _make_format(self, look: Look, link: bool, heading: int) -> QTextCharFormat:
        made = QTextCharFormat()
        role = self.role
        if look & (Look.CODE | Look.MATH):
            font = QFont(self.code_font)
            if heading:
                font.setPixelSize(round(self.heading(heading)[0].pixelSize() * 0.87))
            if look & Look.MATH:
                role = "text2"
        elif look & Look.QUIET:
            font, role = self.theme.font("small"), "text3"
        elif heading:
            font = self.heading(heading)[0]
        else:
            font = QFont(self.font)
        if look & Look.BOLD or heading:
            font.setWeight(QFont.Weight.DemiBold)
        if look & Look.ITALIC:
            font.setItalic(True)
        if look & Look.STRIKE:
            font.setStrikeOut(True)
        if link:
            role = "accent"
        made.setFont(font)
        made.setForeground(self.color(role))
        if link:
            made.setFontUnderline(True)
            made.setUnderlineColor(self.color("soft2"))
        return made

    @cached_property
    def pad(self) -> QTextCharFormat:
        """A space of 4 px on both sides of inline code."""
        made = QTextCharFormat()
        font = QFont("Inter")
        font.setPixelSize(round(self.theme.px(15)))
        made.setFont(font)
        return made
