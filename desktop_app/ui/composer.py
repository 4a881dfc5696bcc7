"""Where a message is written: the text, what answers it, how full the context is, and Send."""

from __future__ import annotations

from PySide6.QtCore import QLocale, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QFontMetrics,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
)
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout

from desktop_app.ui import icons, theme, words
from desktop_app.ui.controls import Bar, ChoiceButton, label, name_control, tip
from desktop_app.ui.message_edit import MessageEdit
from desktop_app.ui.words import tr

CAUTION = 0.75
ALARM = 0.90


class _SendButton(QPushButton):
    """Send or Stop: two faces of one place, so that the pointer never hits the wrong one."""

    def __init__(self, *, stop: bool) -> None:
        super().__init__(tr("composer.stop" if stop else "composer.send"))
        self._stop = stop
        name_control(self, "composer.stop" if stop else "composer.send", self.text())
        self.setToolTip(
            tip(tr("composer.stop_tip"), "Esc") if stop else tip(tr("composer.send_tip"), "Return")
        )
        # No focus by click: it would leave the text and with it an open input method.
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def sizeHint(self) -> QSize:
        look = theme.current()
        width = QFontMetrics(look.font("name")).horizontalAdvance(self.text()) + 46
        if self._stop:
            width += QFontMetrics(look.font("hint")).horizontalAdvance("Esc") + 9
        return QSize(round(width), max(28, round(look.px(28))))

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        fill, ink = self._colours()
        painter.setBrush(look.color(fill))
        painter.drawRoundedRect(self.rect(), 8, 8)
        top = (self.height() - 16) / 2
        icons.draw(painter, "stop" if self._stop else "arrow-up", ink, 11, top)
        painter.setPen(look.color(ink))
        painter.setFont(look.font("name"))
        inner = self.rect().adjusted(33, 0, -10, 0)
        painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter, self.text())
        if self._stop:
            painter.setFont(look.font("hint"))
            flags = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
            painter.drawText(inner, flags, "Esc")

    def _colours(self) -> tuple[str, str]:
        lit = self.underMouse() and self.isEnabled()
        if not self.isEnabled():
            return "hover", "disabled"
        if self._stop:
            return ("soft2" if lit or self.isDown() else "soft"), "accent"
        return ("fillpress" if self.isDown() else "fillhover" if lit else "fill"), "onfill"


class Composer(QFrame):
    """Emits what the user wants; the page decides what becomes of it."""

    submitted = Signal(str)
    """The text to send; the composer keeps it until `clear` is called."""
    stop_wanted = Signal()
    changed = Signal()
    """The text changed: time to keep it on disk."""
    edit_last_wanted = Signal()
    """Up in an empty field."""

    def __init__(self) -> None:
        super().__init__()
        self._writing = False
        self._context = (0, 0)
        self.setObjectName("composer")
        self.text = MessageEdit()
        name_control(self.text, "composer.text", tr("composer.text"))
        self.text.setPlaceholderText(tr("composer.placeholder"))
        self.text.submitted.connect(self._submit)
        self.text.textChanged.connect(self._text_changed)
        self.text.preedit_changed.connect(self._text_changed)
        self.text.up_in_empty.connect(self.edit_last_wanted)
        self.text.focused.connect(lambda _on: self.update())
        self.weights = ChoiceButton("composer.weights", tr("composer.weights"))
        self.preset = ChoiceButton("composer.preset", tr("composer.preset"), fixed=True)
        self.drafts = ChoiceButton("composer.drafts", tr("composer.drafts"), fixed=True)
        self.send_button = _SendButton(stop=False)
        self.send_button.clicked.connect(lambda: self.text.when_composed(self._submit))
        self.stop_button = _SendButton(stop=True)
        self.stop_button.clicked.connect(self._stop_clicked)
        self._speed = label("", "small")
        self._bar = Bar(width=56)
        self._use = label("", "small")
        self._warning = label("", "error", wrap=True)
        name_control(self._speed, "composer.speed", "")
        name_control(self._use, "composer.context", "")
        name_control(self._warning, "composer.warning", "")
        self._lay_out()
        theme.current().changed.connect(self._restyle)
        self._restyle()
        self.set_writing(False)
        self.show_speed(0.0)
        self.show_context(0, 0)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(9, 12, 9, 9)
        column.setSpacing(6)
        # Choices have 8 px of room for their hover fill: their text starts where the text starts.
        texts = QVBoxLayout()
        texts.setContentsMargins(8, 0, 8, 0)
        texts.addWidget(self.text)
        texts.addWidget(self._warning)
        column.addLayout(texts)
        row = QHBoxLayout()
        row.setSpacing(6)
        row.setContentsMargins(0, 0, 0, 0)
        for choice in (self.weights, self.preset, self.drafts):
            row.addWidget(choice)
        row.addStretch(1)
        row.addWidget(self._speed)
        row.addSpacing(6)
        row.addWidget(self._bar)
        row.addSpacing(2)
        row.addWidget(self._use)
        row.addSpacing(6)
        row.addWidget(self.send_button)
        row.addWidget(self.stop_button)
        column.addLayout(row)

    # ---- what the page sets ------------------------------------------------------------------

    def set_writing(self, writing: bool) -> None:
        """Show Stop instead of Send while a reply of this chat is being written."""
        self._writing = writing
        focus = self.send_button.hasFocus() or self.stop_button.hasFocus()
        self.stop_button.setVisible(writing)
        self.send_button.setVisible(not writing)
        if focus:
            (self.stop_button if writing else self.send_button).setFocus()
        self._fit()

    @property
    def writing(self) -> bool:
        """Whether Stop is shown."""
        return self._writing

    def show_speed(self, tokens_per_s: float) -> None:
        """Tokens a second of the last reply; 0 hides it."""
        shown = QLocale().toString(float(tokens_per_s), "f", 1 if tokens_per_s < 100 else 0)
        text = tr("composer.speed", speed=shown) if tokens_per_s > 0 else ""
        self._speed.setText(text)
        self._speed.setAccessibleName(text)
        self._fit()

    def show_context(self, used: int, size: int) -> None:
        """Tokens of the active path, of the context; a size of 0 hides the meter."""
        self._context = (used, size)
        share = used / size if size else 0.0
        level = "alarm" if share >= ALARM else "caution" if share >= CAUTION else ""
        text = tr("composer.context", used=used, size=size) if size else ""
        self._use.setText(text)
        self._use.setAccessibleName(tr("composer.context_name", used=used, size=size))
        role = {"alarm": "clay", "caution": "ochre"}.get(level, "text3")
        self._use.setStyleSheet(f"color: {theme.current().color(role).name()}")
        self._bar.set_share(share, {"alarm": "claymark", "caution": "star"}.get(level, "accent"))
        percent = words.number(round(share * 100))
        self._bar.setToolTip(tr("composer.context_tip", percent=percent))
        self._use.setToolTip(self._bar.toolTip())
        self._warning.setText(tr("composer.alarm") if level == "alarm" else "")
        self._warning.setVisible(level == "alarm")
        self._fit()

    def show_choices(self, weights: str, preset: str, drafts: int) -> None:
        """The choices that stand below the text."""
        self.weights.set_choice(weights)
        self.preset.set_choice(preset)
        self.drafts.set_choice(tr("composer.n_drafts", count=drafts))
        self._fit()

    def set_text(self, text: str) -> None:
        """Put back what was being written."""
        if text != self.text.toPlainText():
            self.text.set_text(text)

    def clear(self) -> None:
        """The message was taken: begin the next."""
        self.text.clear()

    def focus_text(self) -> None:
        """Put the cursor into the text."""
        self.text.setFocus(Qt.FocusReason.OtherFocusReason)

    # ---- inside --------------------------------------------------------------------------------

    def _submit(self) -> None:
        text = self.text.toPlainText()
        if text.strip():
            self.submitted.emit(text)

    def _stop_clicked(self) -> None:
        self.stop_wanted.emit()

    def _text_changed(self) -> None:
        self.send_button.setEnabled(self.text.has_words)
        self.changed.emit()

    def _restyle(self) -> None:
        look = theme.current()
        self.text.setFont(look.font("reading"))
        self.text.setStyleSheet(
            "QPlainTextEdit { background: transparent; border: 0; border-radius: 0; padding: 0; }"
        )
        small = look.font("small", tabular=True)
        for widget in (self._speed, self._use, self._warning):
            widget.setFont(small)
        self.send_button.setEnabled(self.text.has_words)
        self.show_context(*self._context)
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        """Getting narrow, drop the speed first, then the numbers, then the preset."""
        button = self.stop_button if self._writing else self.send_button
        room = self.width() - 44 - button.sizeHint().width() - self._bar.width()
        room -= self.drafts.sizeHint().width() + min(self.weights.sizeHint().width(), 140)
        has_meter = bool(self._use.text())
        self._bar.setVisible(has_meter)
        for widget, wanted in (
            (self.preset, True),
            (self._use, has_meter),
            (self._speed, bool(self._speed.text())),
        ):
            need = widget.sizeHint().width() + 14
            fits = wanted and need <= room
            widget.setVisible(fits)
            if wanted:
                room -= need

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A click on the frame means the text."""
        self.focus_text()
        super().mousePressEvent(event)

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(1.5, 1.5, -1.5, -1.5)
        focused = self.text.hasFocus()
        if focused:
            painter.setPen(QPen(look.color("soft2"), 1))
            painter.drawRoundedRect(area.adjusted(-1, -1, 1, 1), 13, 13)
        painter.setPen(QPen(look.color("accent" if focused else "line2"), 1))
        painter.setBrush(look.color("raised"))
        painter.drawRoundedRect(area, 12, 12)
