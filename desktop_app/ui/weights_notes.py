"""The rows of the weights page that are sentences and small forms: notes, details, tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QRect, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QPainter
from PySide6.QtWidgets import QLineEdit

from desktop_app.ui import icons
from desktop_app.ui.controls import (
    ChoiceButton,
    ElidedLabel,
    label,
    name_control,
    paragraph,
    push_button,
)
from desktop_app.ui.rows_view import Row, RowWidget
from desktop_app.ui.weights_rows import EDGE_PX, Line
from desktop_app.ui.words import tr

DETAILS_PX: Final = 48


@dataclass(frozen=True, slots=True)
class Details:
    """What is known of a file on the hub, and the context length that it is judged by."""

    facts: str
    text: str
    context: str
    identifier: str
    again: bool = False
    """Whether asking once more is the next step."""
    role: str = "text2"


class DetailsRow(RowWidget):
    """Below an open file: facts from its header, why it runs as it does, a choice of context."""

    def __init__(self) -> None:
        super().__init__()
        self._facts = ElidedLabel("", "small")
        self._text = paragraph("", "secondary")
        self._text.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._error = label("", "error", wrap=True)
        self._error.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._context_label = label(tr("weights.context_choice"), "small")
        self._context = ChoiceButton("", tr("weights.context_choice"), fixed=True)
        self._context.clicked.connect(lambda _on=False: self.act("context"))
        self._again = push_button(
            tr("failure.try_again"), "", small=True, on_click=lambda: self.act("again")
        )
        for part in (self._facts, self._text, self._error, self._again):
            part.setParent(self)
        for part in (self._context_label, self._context):
            part.setParent(self)

    @property
    def context_button(self) -> ChoiceButton:
        """Where the menu of lengths opens."""
        return self._context

    def _details(self) -> Details:
        assert self.row is not None
        assert isinstance(self.row.facts, Details)
        return self.row.facts

    def show_facts(self, row: Row) -> None:
        shown = row.facts
        assert isinstance(shown, Details)
        failed = shown.role == "clay"
        self._facts.set_full_text(shown.facts)
        self._text.setText(shown.text)
        self._text.setVisible(not failed)
        self._error.setText(shown.text)
        self._error.setVisible(failed)
        name_control(self, f"weights.details.{shown.identifier}", f"{shown.facts} {shown.text}")
        self._context.set_choice(shown.context)
        words = self._context.accessibleName()
        name_control(self._context, f"weights.context.{shown.identifier}", words)
        again = f"weights.header_again.{shown.identifier}"
        name_control(self._again, again, tr("failure.try_again"))
        self._again.setVisible(shown.again)

    def place(self) -> None:
        left, right, top = EDGE_PX + DETAILS_PX, self.width() - 8, 6
        size = self._context.sizeHint()
        self._context.setGeometry(right - size.width(), top, size.width(), 28)
        right -= size.width()
        words = self._context_label.sizeHint().width()
        # The style sheet decides how high a button is at least: the words stand on its line.
        height = self._context.height()
        self._context_label.setGeometry(right - words, top, words, height)
        right -= words + 12
        if not self._again.isHidden():
            again = self._again.sizeHint()
            self._again.setGeometry(right - again.width(), top, again.width(), again.height())
            right -= again.width() + 12
        self._facts.setGeometry(left, top, max(0, right - left), height)
        # Without facts the sentence begins at the top, beside the choice.
        bare = not self._details().facts
        area = QRect(left, top + 4, right - left, self.height() - top - 10)
        if not bare:
            area = QRect(left, top + 28, self.width() - 16 - left, self.height() - top - 34)
        self._text.setGeometry(area)
        self._error.setGeometry(area)


class NoteRow(RowWidget):
    """A sentence on the page, with an icon and perhaps a button below it."""

    def __init__(self) -> None:
        super().__init__()
        self._text = label("", "secondary", wrap=True)
        self._text.setParent(self)
        self._text.setAlignment(Qt.AlignmentFlag.AlignVCenter)
        self._button = push_button("", "", small=True, on_click=self._pressed)
        self._button.setParent(self)

    def _pressed(self) -> None:
        assert self.row is not None
        assert isinstance(self.row.facts, Line)
        if self.row.facts.button is not None:
            self.act(self.row.facts.button[1])

    def show_facts(self, row: Row) -> None:
        assert isinstance(row.facts, Line)
        self._text.setText(row.facts.title)
        name_control(self, row.facts.identifier or row.key, row.facts.title)
        self._button.setVisible(row.facts.button is not None)
        if row.facts.button is not None:
            words, _action, identifier = row.facts.button
            self._button.setText(words)
            name_control(self._button, identifier, words)

    def place(self) -> None:
        assert self.row is not None
        assert isinstance(self.row.facts, Line)
        right = self.width() - 16
        if not self._button.isHidden():
            size = self._button.sizeHint()
            top = (self.height() - size.height()) // 2
            self._button.setGeometry(right - size.width(), top, size.width(), size.height())
            right -= size.width() + 16
        left = EDGE_PX + (26 if self.row.facts.icon else 0)
        self._text.setGeometry(left, 4, max(60, right - left), self.height() - 8)

    def paint(self, painter: QPainter) -> None:
        assert self.row is not None
        assert isinstance(self.row.facts, Line)
        line = self.row.facts
        if line.icon:
            role = line.facts_role if line.facts_role != "text3" else "text2"
            icons.draw(painter, line.icon, role, EDGE_PX, (self.height() - 16) / 2, 16)


@dataclass(frozen=True, slots=True)
class Gate:
    """Weights whose makers ask for something first: the page to visit, and a token."""

    page: str
    state: str = ""
    """What became of the token: a sentence."""
    state_role: str = "text3"
    busy: bool = False


class GateRow(RowWidget):
    """What to do about gated weights: visit, accept, paste a token."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = paragraph(tr("weights.gate_steps"), "secondary")
        self._field = QLineEdit()
        self._field.setEchoMode(QLineEdit.EchoMode.Password)
        self._field.setPlaceholderText(tr("weights.token"))
        name_control(self._field, "weights.token", tr("weights.token"))
        self._field.returnPressed.connect(self._save)
        self._visit = push_button(
            tr("weights.visit"), "weights.visit", small=True, on_click=self._open_page
        )
        self._keep = push_button(
            tr("weights.keep_token"), "weights.keep_token", small=True, on_click=self._save
        )
        self._state = label("", "small", wrap=True)
        name_control(self._state, "weights.token_state", "")
        for part in (self._steps, self._field, self._visit, self._keep, self._state):
            part.setParent(self)

    @property
    def token(self) -> str:
        """What was typed."""
        return self._field.text().strip()

    def _gate(self) -> Gate:
        assert self.row is not None
        assert isinstance(self.row.facts, Gate)
        return self.row.facts

    def _open_page(self) -> None:
        QDesktopServices.openUrl(QUrl(self._gate().page))

    def _save(self) -> None:
        if self.token:
            self.act("token")
            self._field.clear()

    def show_facts(self, row: Row) -> None:
        gate = self._gate()
        name_control(self, row.key, tr("weights.gate_steps"))
        self._visit.setToolTip(gate.page)
        self._state.setText(gate.state or tr("weights.token_kept_where"))
        self._state.setAccessibleName(self._state.text())
        self._keep.setEnabled(not gate.busy)

    def place(self) -> None:
        left, right = EDGE_PX, self.width() - 16
        self._steps.setGeometry(left, 10, right - left, 40)
        visit, keep = self._visit.sizeHint().width(), self._keep.sizeHint().width()
        self._visit.setGeometry(left, 56, visit, 30)
        self._keep.setGeometry(right - keep, 56, keep, 30)
        self._field.setGeometry(left + visit + 10, 55, right - left - visit - keep - 20, 32)
        self._state.setGeometry(left, 92, right - left, 36)
