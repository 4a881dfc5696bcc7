"""How a reply was made: weights, sampler, seed, tokens and times; and why one failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDialog, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Node
from desktop_app.ui import theme, words
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.choices import preset_name
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
        self.resize(600, 620)
        node = conversation.tree.node(node_id)
        self._reply = [
            (tr("details.written"), full_time(node.created_at)),
            (tr("details.author"), visible(node.author)),
            (tr("details.ended"), _ending(node)),
            (tr("details.failure"), node.failure),
        ]
        self._text = QPlainTextEdit(_section(tr("details.reply"), self._reply))
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
        bridge.when_done(conversation.turns(node_id), self._show_turns, lambda _error: None)

    def _show_turns(self, turns: list[dict[str, Any]]) -> None:
        parts = [_section(tr("details.reply"), self._reply)]
        for number, turn in enumerate(turns, 1):
            if len(turns) > 1:
                parts.append(f"{tr('details.turn')} {words.number(number)}")
            parts += [_section(title, facts) for title, facts in facts_of(turn)]
        if not turns:
            parts.append(tr("details.none"))
        self._text.setPlainText("\n\n".join(part for part in parts if part))

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self._text.toPlainText())


Facts = list[tuple[str, str]]

_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "weights": ("weights", "quantisation", "weights_hash"),
    "options": ("preset", "seed", "draft_of", "continues", "template", "template_hash", "notes"),
    "sampling": (),
    "tokens": ("tokens_prompt", "tokens_cached", "tokens_read", "tokens_written", "left_out"),
    "times": (),
    "computer": (
        "app", "engine", "kind", "threads", "gpu_layers", "context_length", "kv_type",
        "flash_attention",
    ),
}  # fmt: skip
"""Which facts stand together, and in which order; whatever else there is follows at the end."""


def facts_of(turn: Mapping[str, Any]) -> list[tuple[str, Facts]]:
    """A reply's provenance in groups: every fact that the turn has, with its name and value."""
    left = dict(turn)
    drafts, draft = left.pop("drafts", 1), left.pop("draft", 0)
    if isinstance(drafts, int) and isinstance(draft, int) and drafts > 1:
        left["draft_of"] = tr("details.draft_of_n", number=draft + 1, count=drafts)
    groups: list[tuple[str, Facts]] = []
    for group, keys in _GROUPS.items():
        inner = left.pop(group, None) if not keys else None
        values = inner if isinstance(inner, Mapping) else {k: left.pop(k, None) for k in keys}
        if group == "sampling" and "seed" in turn:
            values = {k: v for k, v in values.items() if k != "seed"}
        groups.append((tr(f"details.group_{group}"), _facts(values)))
    # What was read for it is named by number: the messages themselves stand in the chat.
    ancestors = left.pop("ancestors", ())
    if isinstance(ancestors, list):
        left["ancestors"] = len(ancestors)
    groups.append((tr("details.group_other"), _facts(left)))
    return [(title, facts) for title, facts in groups if facts]


def _facts(values: Mapping[str, Any], prefix: str = "") -> Facts:
    facts: Facts = []
    for key, value in values.items():
        name = _NAMES.get(key, "")
        shown = tr(f"details.{name}") if name else f"{prefix}{key}"
        if isinstance(value, Mapping):
            facts += _facts(value, f"{prefix}{key}.")
        elif value not in ("", None, [], ()):
            facts.append((shown, _value(key, value)))
    return facts


_NAMES: Final = {
    key: key
    for key in (
        "ancestors", "app", "context_length", "continues", "draft_of", "engine", "first_token_s",
        "flash_attention", "gpu_layers", "kind", "kv_type", "left_out", "max_tokens", "min_p",
        "notes", "penalty_last_n", "preset", "prompt_s", "quantisation", "read_s",
        "repetition_penalty", "seed", "steps", "stops", "temperature", "template",
        "template_hash", "threads", "tokens_cached", "tokens_per_s", "tokens_prompt",
        "tokens_read", "tokens_written", "top_k", "top_p", "typical_p", "weights",
        "weights_hash", "write_s",
    )
}  # fmt: skip
"""Facts with a name in the interface language; others are named by their key."""


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):
        return tr("details.yes" if value else "details.no")
    if key == "preset":
        return preset_name(str(value))
    if isinstance(value, float):
        digits = f"{value:.3f}".rstrip("0").rstrip(".")
        return f"{digits} s" if key.endswith("_s") and not key.endswith("per_s") else digits
    if isinstance(value, list | tuple):
        between = " → " if key == "steps" else ", "
        return visible(between.join(str(item) for item in value))
    return visible(str(value))


def _ending(node: Node) -> str:
    ending = node.finish or node.state.value
    try:
        return tr(f"details.finish_{ending}")
    except KeyError:
        return ending


def _section(title: str, facts: Facts) -> str:
    lines = [f"{name}: {value}" for name, value in facts if value]
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""
