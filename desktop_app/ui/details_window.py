"""How a reply was made: weights, sampler, seed, tokens and times; and why one failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDialog, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from desktop_app.conversation.document import Conversation
from desktop_app.ui import theme
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.controls import label, name_control, push_button
from desktop_app.ui.path_rows import full_time
from desktop_app.ui.safe_text import visible
from desktop_app.ui.words import tr


class DetailsWindow(QDialog):
    """Facts as text, one a line, to read and to copy into a report.  Nothing anybody wrote."""

    def __init__(
        self, parent: QWidget, bridge: Bridge, conversation: Conversation, node_id: int
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("details.title"))
        name_control(self, "details", tr("details.title"))
        self.resize(560, 440)
        node = conversation.tree.node(node_id)
        self._head = [f"{tr('details.written')}: {full_time(node.created_at)}"]
        if node.author:
            self._head.append(f"{tr('composer.weights')}: {visible(node.author)}")
        if node.failure:
            self._head.append(f"{tr('details.failure')}: {node.failure}")
        self._text = QPlainTextEdit("\n".join(self._head))
        self._text.setReadOnly(True)
        self._text.setFont(theme.current().font("code"))
        self._text.document().setDocumentMargin(10)
        name_control(self._text, "details.text", tr("details.title"))
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(push_button(tr("prompt.copy"), "details.copy", on_click=self._copy))
        buttons.addWidget(push_button(tr("app.close"), "details.close", on_click=self.close))
        column = QVBoxLayout(self)
        column.setContentsMargins(20, 16, 20, 16)
        column.setSpacing(10)
        if node.failure_text:
            column.addWidget(label(node.failure_text, "error", wrap=True))
        column.addWidget(self._text, 1)
        column.addLayout(buttons)
        bridge.when_done(conversation.turns(node_id), self._show_turns)

    def _show_turns(self, turns: list[dict[str, Any]]) -> None:
        lines = list(self._head)
        for number, turn in enumerate(turns, 1):
            lines += ["", f"{tr('details.turn')} {number}"] if len(turns) > 1 else [""]
            lines += _facts(turn)
        self._text.setPlainText("\n".join(lines))

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self._text.toPlainText())


def _facts(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each fact, inner ones with their path; lists are counted, not written out."""
    lines: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines += _facts(value, f"{name}.")
        elif isinstance(value, list | tuple):
            lines.append(f"{name}: {len(value)}")
        elif value not in ("", None):
            shown = f"{value:.3f}" if isinstance(value, float) else str(value)
            lines.append(f"{name}: {visible(shown)}")
    return lines
