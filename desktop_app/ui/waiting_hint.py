"""The truth about waiting, before it begins: what must be read again, and for about how long."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtWidgets import QLabel

from desktop_app.conversation import Conversation, Role
from desktop_app.session import Reading, Session
from desktop_app.ui import theme
from desktop_app.ui.controls import label, name_control
from desktop_app.ui.words import tr

ASK_AFTER_MS = 300
_NOTHING_TYPED = "?"  # stands for the message that is not written yet
_MINUTES_FROM_S = 100


class WaitingHint(QObject):
    """A quiet line below the composer.  Empty when the wait is short or not known.

    It asks a short while after the last change, one question at a time, and drops an answer that
    comes too late.  Main thread only.
    """

    told = Signal(int, str)
    """A message whose Ask again is pointed at, and what that would read ("" = nothing to say)."""

    def __init__(
        self,
        parent: QObject,
        session: Session,
        conversation: Callable[[], Conversation | None],
        typed: Callable[[], str],
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._conversation = conversation
        self._typed = typed
        self._pointed = 0
        self._drop: Callable[[], None] | None = None
        self.line: QLabel = label("", "small")
        name_control(self.line, "composer.waiting", "")
        self.line.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._timer = QTimer(self, interval=ASK_AFTER_MS, singleShot=True)
        self._timer.timeout.connect(self._ask)
        theme.current().changed.connect(self.restyle)
        self.restyle()

    def restyle(self) -> None:
        """Take the size of the text: the line keeps its room, so that nothing moves."""
        self.line.setFont(theme.current().font("small", tabular=True))
        self.line.setFixedHeight(max(15, round(theme.current().px(15))))

    def changed(self, *, elsewhere: bool = False) -> None:
        """The text changed, or, `elsewhere`, the path: what was foretold may be wrong."""
        self.stop()
        if elsewhere:
            self._show("")
        self._timer.start()

    def point(self, message_id: int) -> None:
        """Pointer or keyboard came to Ask again of a message, or left (0)."""
        if message_id != self._pointed:
            self._pointed = message_id
            self.changed(elsewhere=True)

    def stop(self) -> None:
        """Ask nothing until the next change."""
        self._timer.stop()
        if self._drop is not None:
            self._drop()
            self._drop = None

    @property
    def asking(self) -> bool:
        """Whether an answer is still to come."""
        return self._timer.isActive() or self._drop is not None

    def _ask(self) -> None:
        session, conversation = self._session, self._conversation()
        if session.writing() or session.engine.loaded is None:
            self._show("")
            return
        pointed, head, text = self._pointed, None, ""
        if conversation is not None and pointed in conversation.tree:
            node = conversation.tree.node(pointed)
            head = node.parent_id if node.role is Role.ASSISTANT else pointed
        else:
            pointed = 0
            text = self._typed().strip()
            if not text and (conversation is None or not conversation.path()):
                self._show("")
                return
            text = text or _NOTHING_TYPED

        def answered(reading: Reading | None) -> None:
            self._drop = None
            self._show(reads_words(reading), pointed)

        self._drop = session.foretell(conversation, answered, head=head, text=text)

    def _show(self, words: str, pointed: int = 0) -> None:
        shown = tr("composer.again_reads", words=words) if words and pointed else words
        shown = shown[:1].upper() + shown[1:]
        if shown != self.line.text():
            self.line.setText(shown)
            self.line.setAccessibleName(shown)
        if pointed:
            self.told.emit(pointed, words)


def reads_words(reading: Reading | None) -> str:
    """ "reads 3,100 tokens, about 12 s"; empty for None."""
    if reading is None:
        return ""
    if reading.seconds >= _MINUTES_FROM_S:
        minutes = round(reading.seconds / 60)
        return tr("composer.reads_minutes", tokens=reading.tokens, minutes=minutes)
    seconds = max(1, round(reading.seconds))
    return tr("composer.reads", tokens=reading.tokens, seconds=seconds)
