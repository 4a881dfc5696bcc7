"""Find words in the open path of the chat."""

from __future__ import annotations

import functools
from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QWidget

from desktop_app.ui.controls import IconButton, label, name_control
from desktop_app.ui.words import tr


class _Field(QLineEdit):
    stepped = Signal(int)
    left = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            back = event.modifiers() & Qt.KeyboardModifier.ShiftModifier
            self.stepped.emit(-1 if back else 1)
        elif event.key() == Qt.Key.Key_Escape:
            self.left.emit()
        else:
            super().keyPressEvent(event)


class FindBar(QWidget):
    """A field, a count and two arrows.  `texts` gives (message id, text) of the path."""

    found = Signal(int)
    """The message to bring into view."""
    searched = Signal(str)
    """The words to mark; empty when there are none any more."""
    closed = Signal()

    def __init__(self, texts: Callable[[], list[tuple[int, str]]]) -> None:
        super().__init__()
        self._texts = texts
        self._hits: list[int] = []
        self._at = -1
        self.setProperty("surface", "window")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.field = _Field()
        self.field.setPlaceholderText(tr("header.find"))
        name_control(self.field, "find.text", tr("header.find"))
        self._count = label("", "small")
        name_control(self._count, "find.count", "")
        row = QHBoxLayout(self)
        row.setContentsMargins(24, 8, 16, 8)
        row.setSpacing(6)
        row.addWidget(self.field, 1)
        row.addWidget(self._count)
        for icon, key, step in (("chevron-up", "previous", -1), ("chevron-down", "next", 1)):
            button = IconButton(
                icon,
                f"find.{key}",
                tr(f"header.find_{key}"),
                on_click=functools.partial(self._step, step),
            )
            row.addWidget(button)
        row.addWidget(IconButton("x", "find.close", tr("header.find_close"), on_click=self.leave))
        self._wait = QTimer(self, interval=120, singleShot=True)
        self._wait.timeout.connect(self._search)
        self.field.textChanged.connect(lambda _text: self._wait.start())
        self.field.stepped.connect(self._step)
        self.field.left.connect(self.leave)
        self.hide()

    def start(self) -> None:
        """Show the bar and put the cursor into it."""
        self.show()
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.field.selectAll()
        if self.field.text():
            self._wait.start()  # marks what was looked for last

    def leave(self) -> None:
        """Hide the bar and go back to what was done before."""
        self.dismiss()
        self.closed.emit()

    def dismiss(self) -> None:
        """Hide the bar; nothing stays marked."""
        self.hide()
        self._wait.stop()
        self.searched.emit("")

    def _search(self) -> None:
        words = self.field.text().casefold().strip()
        self.searched.emit(self.field.text().strip())
        self._at = -1
        self._hits = (
            [message for message, text in self._texts() if words in text.casefold()]
            if words
            else []
        )
        if self._hits:
            self._step(1)
        else:
            self._count.setText(tr("header.find_none") if words else "")

    def _step(self, step: int) -> None:
        if self._wait.isActive():
            self._wait.stop()
            self._search()
            return
        if not self._hits:
            return
        first = self._at < 0
        self._at = 0 if first else (self._at + step) % len(self._hits)
        self._count.setText(tr("header.find_count", at=self._at + 1, count=len(self._hits)))
        self.found.emit(self._hits[self._at])
