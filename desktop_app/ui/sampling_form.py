"""Sliders with numbers for the sampler's options."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QHBoxLayout,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from desktop_app.inference.sampling import MAX_SEED, Sampling
from desktop_app.ui.controls import bare_number, label, name_control
from desktop_app.ui.words import tr

# option, lowest, highest of the slider, step, digits behind the point
_SLIDERS: Final = (
    ("temperature", 0.0, 2.0, 0.05, 2),
    ("top_p", 0.0, 1.0, 0.01, 2),
    ("top_k", 0.0, 200.0, 1.0, 0),
    ("min_p", 0.0, 0.5, 0.01, 2),
    ("typical_p", 0.0, 1.0, 0.01, 2),
    ("repetition_penalty", 1.0, 2.0, 0.01, 2),
)


class _CalmSlider(QSlider):
    """The wheel scrolls the page; only a focused slider takes it."""

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class _CalmNumber(QDoubleSpinBox):
    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class SliderRow(QWidget):
    """A name, a number, and a slider below."""

    changed = Signal(float)

    def __init__(
        self, key: str, name: str, low: float, high: float, step: float, digits: int
    ) -> None:
        super().__init__()
        self._step = step
        self.number = _CalmNumber()
        self.number.setDecimals(digits)
        # The number may leave the slider's range: what people were told to set must be settable.
        self.number.setRange(low, max(high, 1000.0) if key == "top_k" else high)
        self.number.setSingleStep(step)
        self.number.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.number.setFixedWidth(72)
        self.number.setKeyboardTracking(False)
        bare_number(self.number)
        self.slider = _CalmSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(round(low / step), round(high / step))
        self.slider.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        name_control(self.number, f"sampling.{key}", name)
        name_control(self.slider, f"sampling.{key}.slider", name)
        caption = label(name)
        caption.setBuddy(self.number)
        hint = tr(f"sampling.{key}_hint")
        for widget in (caption, self.number, self.slider):
            widget.setToolTip(hint)
        head = QHBoxLayout()
        head.addWidget(caption, 1)
        head.addWidget(self.number)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(head)
        column.addWidget(self.slider)
        self.slider.valueChanged.connect(self._slid)
        self.number.valueChanged.connect(self._typed)

    def set_value(self, value: float) -> None:
        """Show a value without telling anyone."""
        with QSignalBlocker(self.number), QSignalBlocker(self.slider):
            self.number.setValue(value)
            self.slider.setValue(round(value / self._step))

    def _slid(self, position: int) -> None:
        value = position * self._step
        with QSignalBlocker(self.number):
            self.number.setValue(value)
        self.changed.emit(self.number.value())

    def _typed(self, value: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(value / self._step))
        self.changed.emit(value)


class SamplingForm(QWidget):
    """All options of a `Sampling`; tells the whole after each change by the user."""

    changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._sampling = Sampling()
        self._rows: dict[str, SliderRow] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        for key, low, high, step, digits in _SLIDERS:
            row = SliderRow(key, tr(f"sampling.{key}"), low, high, step, digits)
            row.changed.connect(lambda value, key=key: self._set(key, value))
            self._rows[key] = row
            column.addWidget(row)
        self._max_tokens = self._number("max_tokens", 0, 1_000_000, tr("sampling.no_limit"))
        self._seed = self._number("seed", -1, min(MAX_SEED, 2**31 - 1), tr("sampling.random"))
        column.addLayout(_line(tr("sampling.max_tokens"), self._max_tokens))
        column.addLayout(_line(tr("sampling.seed"), self._seed))

    def _number(self, key: str, low: int, high: int, lowest: str) -> QSpinBox:
        made = QSpinBox()
        made.setRange(low, high)
        made.setSpecialValueText(lowest)
        made.setAlignment(Qt.AlignmentFlag.AlignRight)
        made.setKeyboardTracking(False)
        bare_number(made)
        made.setFixedWidth(110)
        made.setToolTip(tr(f"sampling.{key}_hint"))
        name_control(made, f"sampling.{key}", tr(f"sampling.{key}"))
        made.valueChanged.connect(lambda value: self._set(key, value))
        return made

    def show_sampling(self, sampling: Sampling) -> None:
        """Show these options without telling anyone."""
        self._sampling = sampling
        for key, row in self._rows.items():
            row.set_value(float(getattr(sampling, key)))
        with QSignalBlocker(self._max_tokens), QSignalBlocker(self._seed):
            self._max_tokens.setValue(sampling.max_tokens)
            self._seed.setValue(-1 if sampling.seed is None else sampling.seed)

    def _set(self, key: str, value: float) -> None:
        new: float | int | None = value
        if key in ("top_k", "max_tokens", "seed"):
            new = int(value)
        if key == "seed" and new == -1:
            new = None
        changed = replace(self._sampling, **{key: new})  # type: ignore[arg-type]  # the key picks the field and its type
        if changed != self._sampling:
            self._sampling = changed
            self.changed.emit(changed)


def _line(text: str, field: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    caption = label(text)
    caption.setBuddy(field)
    row.addWidget(caption, 1)
    row.addWidget(field)
    return row
