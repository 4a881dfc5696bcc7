"""What a new chat shows: a few ways to begin, or how to get weights when there are none."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.controls import ClickFrame, label, name_control
from desktop_app.ui.weights_card import size_text
from desktop_app.ui.words import tr

SUGGESTIONS = ("explain", "write", "plan", "code")
GUIDE_SUGGESTIONS = ("abilities", "edit", "private", "bigger")
"""The built-in guide knows Grove only: what one can ask it."""


class _Card(ClickFrame):
    """Icon in a soft square, a heading, a line below, and an arrow."""

    def __init__(self, key: str, icon: str, on_click: object, *, main: bool = False) -> None:
        assert callable(on_click)
        super().__init__(f"empty.{key}", tr(f"empty.{key}"), on_click)
        self._icon = icon
        self._main = main
        self.setAccessibleDescription(tr(f"empty.{key}_hint"))
        texts = QVBoxLayout()
        texts.setSpacing(2)
        texts.addWidget(label(tr(f"empty.{key}"), "heading"))
        texts.addWidget(label(tr(f"empty.{key}_hint"), "secondary", wrap=True))
        row = QHBoxLayout(self)
        row.setContentsMargins(77, 14, 52, 14)
        row.addLayout(texts)
        self.setMinimumHeight(round(theme.current().px(80)))

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        edge = "accent" if self._main or self.hasFocus() else "line2"
        painter.setPen(QPen(look.color(edge), 2 if self._main or self.hasFocus() else 1))
        painter.setBrush(look.color("hover" if self.underMouse() else "raised"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 12, 12)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(look.color("soft"))
        top = (self.height() - 40) / 2
        painter.drawRoundedRect(QRectF(21, top, 40, 40), 8, 8)
        icons.draw(painter, self._icon, "accent", 31, top + 10, 20)
        icons.draw(
            painter, "chevron-right", "text2", self.width() - 38, (self.height() - 18) / 2, 18
        )


class _Suggestion(ClickFrame):
    """One line that puts a beginning into the composer."""

    def __init__(self, key: str, on_click: object) -> None:
        assert callable(on_click)
        super().__init__(f"empty.suggest_{key}", tr(f"empty.suggest_{key}"), on_click)
        column = QVBoxLayout(self)
        column.setContentsMargins(16, 12, 16, 12)
        column.setSpacing(2)
        column.addWidget(label(tr(f"empty.suggest_{key}"), "name", wrap=True))
        column.addWidget(label(tr(f"empty.suggest_{key}_hint"), "small", wrap=True))

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        focused = self.hasFocus()
        painter.setPen(QPen(look.color("accent" if focused else "line2"), 2 if focused else 1))
        painter.setBrush(look.color("hover" if self.underMouse() else "raised"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), 12, 12)


class EmptyPage(QWidget):
    """Two faces: suggestions when weights are there, ways to get some when not."""

    suggested = Signal(str)
    """Text for the composer."""
    guide_wanted = Signal()
    file_wanted = Signal()
    weights_page_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        name_control(self, "empty", tr("empty.title"))
        self._face = ""
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(24, 24, 24, 24)
        self._body = QWidget()
        self._column.addStretch(2)
        self._column.addWidget(self._body, 0, Qt.AlignmentFlag.AlignHCenter)
        self._column.addStretch(3)

    def show_suggestions(self, *, guide: bool = False) -> None:
        """Weights are loaded, loading or chosen; `guide`: they are the built-in guide."""
        if self._swap(f"suggestions/{guide}"):
            return
        column = self._fresh()
        column.addWidget(_centred(tr("empty.hello"), "title"))
        column.addSpacing(8)
        column.addWidget(_centred(tr("empty.hello_hint"), "secondary"))
        column.addSpacing(24)
        grid = QGridLayout()
        grid.setSpacing(12)
        for number, key in enumerate(GUIDE_SUGGESTIONS if guide else SUGGESTIONS):
            text = tr(f"empty.suggest_{key}_text")
            card = _Suggestion(key, lambda text=text: self.suggested.emit(text))
            grid.addWidget(card, number // 2, number % 2)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        column.addLayout(grid)

    def show_no_weights(self, *, has_guide: bool, has_weights_page: bool, computer: str) -> None:
        """There is nothing to talk to: offer what exists here."""
        if self._swap(f"none/{has_guide}/{has_weights_page}/{computer}"):
            return
        column = self._fresh()
        column.addWidget(label(tr("empty.title"), "title", wrap=True))
        column.addSpacing(6)
        column.addWidget(label(tr("empty.intro"), "secondary", wrap=True))
        column.addSpacing(28)
        cards = []
        if has_guide:
            cards.append(_Card("guide", "message-square", self.guide_wanted.emit, main=True))
        if has_weights_page:
            cards.append(_Card("get", "download", self.weights_page_wanted.emit))
        cards.append(_Card("file", "file-up", self.file_wanted.emit, main=not has_guide))
        for card in cards:
            column.addWidget(card)
            column.addSpacing(12)
        column.addSpacing(6)
        column.addWidget(label(computer, "small"))

    def _swap(self, face: str) -> bool:
        """Whether this face stands already."""
        if face == self._face:
            return True
        self._face = face
        return False

    def _fresh(self) -> QBoxLayout:
        old, self._body = self._body, QWidget()
        self._column.replaceWidget(old, self._body)
        self._column.setAlignment(self._body, Qt.AlignmentFlag.AlignHCenter)
        old.deleteLater()
        self._fit()
        column = QVBoxLayout(self._body)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        return column

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self._body.setFixedWidth(min(600, max(280, self.width() - 48)))


def computer_facts(folder: Path) -> str:
    """Cores, memory and free disk of this computer in one line."""
    import shutil

    import psutil

    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        free = 0
    return tr(
        "empty.computer",
        count=os.cpu_count() or 1,
        memory=size_text(psutil.virtual_memory().total),
        disk=size_text(free),
    )


def _centred(text: str, kind: str) -> QWidget:
    made = label(text, kind, wrap=True)
    made.setAlignment(Qt.AlignmentFlag.AlignHCenter)
    return made
