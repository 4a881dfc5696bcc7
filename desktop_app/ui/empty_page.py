"""What a new chat shows: a few ways to begin, or how to get weights when there are none."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QGridLayout, QVBoxLayout, QWidget

from desktop_app.ui.controls import ClickCard, label, name_control
from desktop_app.ui.ways import Ways
from desktop_app.ui.weights_card import size_text
from desktop_app.ui.words import tr

SUGGESTIONS = ("explain", "write", "plan", "code")
GUIDE_SUGGESTIONS = ("abilities", "edit", "private", "bigger")
"""The built-in guide knows Grove only: what one can ask it."""


class _Suggestion(ClickCard):
    """One line that puts a beginning into the composer."""

    def __init__(self, key: str, on_click: object) -> None:
        assert callable(on_click)
        super().__init__(f"empty.suggest_{key}", tr(f"empty.suggest_{key}"), on_click)
        column = QVBoxLayout(self)
        column.setContentsMargins(16, 12, 16, 12)
        column.setSpacing(2)
        column.addWidget(label(tr(f"empty.suggest_{key}"), "name", wrap=True))
        column.addWidget(label(tr(f"empty.suggest_{key}_hint"), "small", wrap=True))


class EmptyPage(QWidget):
    """Two faces: suggestions when weights are there, ways to get some when not."""

    suggested = Signal(str)
    """Text for the composer."""
    guide_wanted = Signal()
    file_wanted = Signal()
    weights_page_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        name_control(self, "empty", tr("first.title"))
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
        ways = Ways("empty", has_guide=has_guide, has_get=has_weights_page)
        ways.guide_wanted.connect(self.guide_wanted)
        ways.get_wanted.connect(self.weights_page_wanted)
        ways.file_wanted.connect(self.file_wanted)
        ways.show_computer(computer)
        column.addWidget(ways)

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
        old.hide()
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
