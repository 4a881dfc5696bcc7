"""Show the prompt: what the weights see, as text and as tokens."""

from __future__ import annotations

from PySide6.QtGui import QGuiApplication, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QPlainTextEdit,
    QStackedWidget,
    QTabBar,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role
from desktop_app.errors import KnownError
from desktop_app.inference.protocol import Rendered
from desktop_app.session import Session
from desktop_app.ui import theme
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.controls import label, name_control, push_button
from desktop_app.ui.words import tr

_MOST_TOKENS = 20_000


class PromptWindow(QDialog):
    """Reads the prompt once when it opens; nothing in it changes the chat."""

    def __init__(
        self,
        parent: QWidget,
        session: Session,
        bridge: Bridge,
        conversation: Conversation,
        head: int | None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("prompt.title"))
        name_control(self, "prompt", tr("prompt.title"))
        self.resize(720, 620)
        self._text = _reader("prompt.text", tr("prompt.text"))
        self._tokens = QTextEdit()
        self._tokens.setReadOnly(True)
        self._tokens.setFont(theme.current().font("code"))
        self._tokens.document().setDocumentMargin(10)
        name_control(self._tokens, "prompt.tokens", tr("prompt.tokens"))
        self._facts = label(tr("prompt.reading"), "secondary", wrap=True)
        name_control(self._facts, "prompt.facts", "")
        self._tabs = QTabBar()
        self._tabs.setDrawBase(False)
        self._tabs.setExpanding(False)
        name_control(self._tabs, "prompt.tabs", tr("prompt.title"))
        self._tabs.addTab(tr("prompt.text"))
        self._tabs.addTab(tr("prompt.tokens"))
        stack = QStackedWidget()
        stack.addWidget(self._text)
        stack.addWidget(self._tokens)
        self._tabs.currentChanged.connect(stack.setCurrentIndex)
        buttons = QHBoxLayout()
        buttons.addWidget(self._facts, 1)
        buttons.addWidget(push_button(tr("prompt.copy"), "prompt.copy", on_click=self._copy))
        buttons.addWidget(push_button(tr("app.close"), "prompt.close", on_click=self.close))
        column = QVBoxLayout(self)
        column.setContentsMargins(20, 8, 20, 16)
        column.setSpacing(10)
        column.addWidget(self._tabs)
        column.addWidget(stack, 1)
        column.addLayout(buttons)
        try:
            preview = session.prompt_preview(conversation, _asked(conversation, head))
        except KnownError as error:
            self._failed(error)
        else:
            bridge.when_done(preview, self._show, self._failed)

    def _show(self, rendered: Rendered) -> None:
        self._text.setPlainText(rendered.text)
        facts = [tr("prompt.count", count=len(rendered.tokens))]
        if rendered.template_family:
            facts.append(tr("prompt.template", family=rendered.template_family))
        if rendered.left_out:
            facts.append(tr("prompt.left_out", count=rendered.left_out))
        self._facts.setText(" · ".join(facts))
        self._show_tokens(rendered)

    def _show_tokens(self, rendered: Rendered) -> None:
        """Every token on its own tint in turn, its number behind it."""
        look = theme.current()
        even, odd, small = QTextCharFormat(), QTextCharFormat(), QTextCharFormat()
        for fmt in (even, odd, small):
            fmt.setFont(look.font("code"))
        even.setBackground(look.color("soft"))
        odd.setBackground(look.color("hover"))
        for fmt in (even, odd):
            fmt.setForeground(look.color("text"))
        small.setFont(look.font("hint", tabular=True))
        small.setForeground(look.color("text3"))
        cursor = QTextCursor(self._tokens.document())
        cursor.beginEditBlock()
        pairs = zip(rendered.tokens, rendered.pieces, strict=False)
        for number, (token, piece) in enumerate(pairs):
            if number == _MOST_TOKENS:
                cursor.insertText("…", small)
                break
            shown = piece.replace("\n", "⏎").replace("\t", "⇥") or "∅"
            cursor.insertText(shown, odd if number % 2 else even)
            cursor.insertText(f" {token} ", small)
            if "\n" in piece:
                cursor.insertText("\n", small)
        cursor.endEditBlock()

    def _failed(self, error: KnownError) -> None:
        self._facts.setText(error.sentence)
        self._facts.setToolTip(error.detail)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self._text.toPlainText())


def _reader(identifier: str, name: str) -> QPlainTextEdit:
    made = QPlainTextEdit()
    made.setReadOnly(True)
    made.setFont(theme.current().font("code"))
    made.document().setDocumentMargin(10)
    name_control(made, identifier, name)
    return made


def _asked(conversation: Conversation, head: int | None) -> int | None:
    """The end of the prompt: of a reply it is the message that it answers."""
    node_id = conversation.head_id if head is None else head
    if node_id is None or conversation.tree.node(node_id).role is not Role.ASSISTANT:
        return node_id
    return conversation.tree.parent(node_id)
