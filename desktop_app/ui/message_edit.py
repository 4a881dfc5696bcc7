"""A text field for messages: grows with its text and never breaks a syllable of an input method."""

from __future__ import annotations

import sys
from collections.abc import Callable

from PySide6.QtCore import QEvent, QMimeData, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QFocusEvent,
    QGuiApplication,
    QInputMethodEvent,
    QKeyEvent,
    QKeySequence,
    QResizeEvent,
    QTextOption,
)
from PySide6.QtWidgets import QPlainTextEdit, QSizePolicy, QWidget

COMMIT_WAIT_MS = 150
"""How long an input method may take to commit what it shows before we take it as it stands."""

_LATE_MS = 700
"""A commit this late, equal to what we took ourselves and with no key in between, is an echo."""


class MessageEdit(QPlainTextEdit):
    """Grows from `lines_min` to `lines_max` lines.  Enter submits, Shift+Enter breaks the line.

    Input methods (Korean, Japanese, Chinese) show a *preedit*: text that is not in the document
    yet.  An action that comes while one is open waits until it is committed: see `when_composed`.
    Main thread only, like every widget.
    """

    submitted = Signal()
    grown = Signal()
    focused = Signal(bool)
    up_in_empty = Signal()
    preedit_changed = Signal()

    def __init__(
        self, parent: QWidget | None = None, *, lines_min: int = 1, lines_max: int = 10
    ) -> None:
        super().__init__(parent)
        self._lines_min = lines_min
        self._lines_max = lines_max
        self._preedit = ""
        self._taken = ""
        self._waiting: list[Callable[[], None]] = []
        self._commit_timer = QTimer(self, interval=COMMIT_WAIT_MS, singleShot=True)
        self._commit_timer.timeout.connect(self._take_preedit)
        self._echo_timer = QTimer(self, interval=_LATE_MS, singleShot=True)
        self._echo_timer.timeout.connect(self._forget_taken)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setTabChangesFocus(True)
        self.setFrameShape(QPlainTextEdit.Shape.NoFrame)
        self.document().setDocumentMargin(0)
        self.document().documentLayout().documentSizeChanged.connect(self._refit)
        self._refit()

    @property
    def composing(self) -> bool:
        """Whether an input method shows text that is not committed yet."""
        return bool(self._preedit)

    @property
    def has_words(self) -> bool:
        """Whether there is anything to send, a syllable that is still open included."""
        return bool(self._preedit or self.toPlainText().strip())

    def when_composed(self, action: Callable[[], None]) -> None:
        """Run `action` once nothing is half-typed: at once without a preedit.

        With one open, the input method is asked to commit.  If it has not after
        `COMMIT_WAIT_MS`, the preedit is inserted as it is shown; an echo of it that comes later
        is swallowed.  So the text is never partial, lost or doubled.
        """
        if not self._preedit:
            action()
            return
        self._waiting.append(action)
        if self._commit_timer.isActive():
            return
        self._taken = self._preedit
        self._commit_timer.start()
        method = QGuiApplication.inputMethod()
        if sys.platform in ("win32", "darwin"):
            method.commit()
        else:
            # On Linux Qt's commit() inserts the preedit itself and then resets the input method,
            # which commits it a second time (ibus-hangul).  A reset alone commits it once.
            method.reset()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        self._forget_taken_unless_waiting()
        if event.key() == Qt.Key.Key_Up and not self._preedit and self.document().isEmpty():
            self.up_in_empty.emit()
            event.accept()
            return
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if not enter:
            super().keyPressEvent(event)
            return
        event.accept()
        if event.modifiers() & (
            Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.AltModifier
        ):
            self.when_composed(lambda: self.insertPlainText("\n"))
        else:
            self.when_composed(self.submitted.emit)

    def inputMethodEvent(self, event: QInputMethodEvent) -> None:
        committed = event.commitString()
        if committed and not self._waiting and committed == self._taken:
            self._forget_taken()
            event.accept()
            return
        self._preedit = event.preeditString()
        super().inputMethodEvent(event)
        self.preedit_changed.emit()
        self.update_placeholder()
        if committed and self._waiting:
            self._taken = ""
            self._act()

    def update_placeholder(self) -> None:
        """Repaint: Qt hides the placeholder only when the document has text, not for a preedit."""
        self.viewport().update()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ShortcutOverride and self._leaves_to_window(event):
            event.ignore()
            return False
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            QTimer.singleShot(0, self, self._refit)
        return super().event(event)

    def _leaves_to_window(self, event: QEvent) -> bool:
        """With nothing to undo here, Ctrl+Z means the conversation."""
        if not isinstance(event, QKeyEvent):
            return False
        undo = event.matches(QKeySequence.StandardKey.Undo)
        redo = event.matches(QKeySequence.StandardKey.Redo)
        document = self.document()
        return (undo and not document.isUndoAvailable()) or (
            redo and not document.isRedoAvailable()
        )

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._refit()

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.focused.emit(True)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.focused.emit(False)

    def canInsertFromMimeData(self, source: QMimeData) -> bool:
        # Files dropped on the field are for the window, which loads weights.
        return source.hasText() and not source.hasUrls()

    def sizeHint(self) -> QSize:
        return QSize(200, self.height_for(self._lines_min))

    def height_for(self, lines: int) -> int:
        """The height in pixels of that many lines."""
        margins = self.contentsMargins()
        return int(lines * self.fontMetrics().lineSpacing()) + margins.top() + margins.bottom() + 2

    def set_text(self, text: str) -> None:
        """Replace all text, with the cursor at its end."""
        self.setPlainText(text)
        cursor = self.textCursor()
        cursor.movePosition(cursor.MoveOperation.End)
        self.setTextCursor(cursor)

    def _take_preedit(self) -> None:
        """The input method kept silent: insert what it shows, then act."""
        text, self._preedit = self._taken, ""
        clear = QInputMethodEvent()
        super().inputMethodEvent(clear)
        self.insertPlainText(text)
        self._echo_timer.start()
        self._act()

    def _act(self) -> None:
        self._commit_timer.stop()
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()

    def _forget_taken_unless_waiting(self) -> None:
        if not self._waiting:
            self._forget_taken()

    def _forget_taken(self) -> None:
        self._taken = ""
        self._echo_timer.stop()

    def _refit(self) -> None:
        lines = max(self._lines_min, int(self.document().size().height()))
        height = self.height_for(min(lines, self._lines_max))
        self.setVerticalScrollBarPolicy(
            Qt.ScrollBarPolicy.ScrollBarAsNeeded
            if lines > self._lines_max
            else Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        )
        if height != self.height():
            self.setFixedHeight(height)
            self.grown.emit()
