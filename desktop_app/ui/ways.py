"""The ways to begin, as cards: the built-in guide, recommended weights, a file of one's own."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.controls import ClickCard, label, name_control, paragraph
from desktop_app.ui.words import tr


class _Way(ClickCard):
    """Icon in a soft square, a heading, a line below, and an arrow."""

    def __init__(
        self, identifier: str, icon: str, title: str, hint: str, on_click: Callable[[], object]
    ) -> None:
        super().__init__(identifier, title, on_click)
        self._icon = icon
        self._hint = paragraph("", "secondary")
        texts = QVBoxLayout()
        texts.setSpacing(0)
        texts.addStretch(1)
        texts.addWidget(label(title, "heading"))
        texts.addSpacing(2)
        texts.addWidget(self._hint)
        texts.addStretch(1)
        row = QHBoxLayout(self)
        row.setContentsMargins(77, 12, 52, 12)
        row.addLayout(texts)
        self.setMinimumHeight(round(theme.current().px(80)))
        self.show_hint(hint)

    def show_hint(self, hint: str) -> None:
        """The line below."""
        self._hint.setText(hint)
        self.setAccessibleDescription(hint)

    def paint(self, painter: QPainter) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.current().color("soft"))
        top = (self.height() - 40) / 2
        painter.drawRoundedRect(QRectF(21, top, 40, 40), 8, 8)
        icons.draw(painter, self._icon, "accent", 31, top + 10, 20)
        role = "accent" if self.hasFocus() else "text2"
        icons.draw(painter, "arrow-right", role, self.width() - 39, (self.height() - 18) / 2, 18)


class Ways(QWidget):
    """Title, what Grove is, the ways that exist here, and the computer in one line.

    `room` begins the identifiers of its controls.  Main thread only.
    """

    guide_wanted = Signal()
    get_wanted = Signal()
    file_wanted = Signal()

    def __init__(self, room: str, *, has_guide: bool, has_get: bool = True) -> None:
        super().__init__()
        self._ways: list[_Way] = []
        self._get: _Way | None = None

        def way(key: str, icon: str, hint: str, on_click: Callable[[], object]) -> _Way:
            made = _Way(f"{room}.{key}", icon, tr(f"first.{key}"), hint, on_click)
            self._ways.append(made)
            return made

        if has_guide:
            way("guide", "message-square", tr("first.guide_hint"), self.guide_wanted.emit)
        if has_get:
            hint = tr("first.get_hint_none")
            self._get = way("get", "download", hint, self.get_wanted.emit)
        way("file", "file-box", tr("first.file_hint"), self.file_wanted.emit)
        self._computer = label("", "small")
        name_control(self._computer, f"{room}.computer", "")
        self._laptop = label()
        self._lay_out()
        theme.current().changed.connect(self._draw)
        self._draw()

    def _lay_out(self) -> None:
        computer = QHBoxLayout()
        computer.setSpacing(8)
        computer.addWidget(self._laptop)
        computer.addWidget(self._computer, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(label(tr("first.title"), "title", wrap=True))
        column.addSpacing(12)
        column.addWidget(paragraph(tr("first.intro"), "secondary", "reading"))
        column.addSpacing(34)
        for made in self._ways:
            column.addWidget(made)
            column.addSpacing(12)
        column.addSpacing(8)
        column.addLayout(computer)

    def _draw(self) -> None:
        self._laptop.setPixmap(icons.pixmap("laptop", "text2", 16))

    def focus_first(self) -> None:
        """The first way has the focus: Enter goes on."""
        self._ways[0].setFocus(Qt.FocusReason.TabFocusReason)

    def show_get_hint(self, hint: str) -> None:
        """What would be got."""
        if self._get is not None:
            self._get.show_hint(hint)

    def show_computer(self, words: str) -> None:
        """What this computer has."""
        self._computer.setText(words)
        self._computer.setAccessibleName(words)
