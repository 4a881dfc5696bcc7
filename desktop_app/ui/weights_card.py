"""The bottom of the sidebar: what the weights are doing, and one way on."""

from __future__ import annotations

from PySide6.QtCore import QLocale, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from desktop_app.errors import KnownError
from desktop_app.inference.protocol import LoadedWeights
from desktop_app.ui import icons, theme
from desktop_app.ui.controls import Bar, ElidedLabel, name_control, push_button
from desktop_app.ui.words import tr


class _Dot(QWidget):
    """A ring while loading, a disc when ready, a square when stopped: shape says it too."""

    def __init__(self) -> None:
        super().__init__()
        self._state = "none"
        self.setFixedSize(10, 20)

    def set_state(self, state: str) -> None:
        self._state = state
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        role = {"ready": "accent", "loading": "accent", "stopped": "claymark"}.get(
            self._state, "ctl"
        )
        painter.setBrush(look.color(role))
        if self._state == "stopped":
            painter.drawRoundedRect(1, 6, 8, 8, 2, 2)
            return
        painter.drawEllipse(1, 6, 8, 8)
        if self._state != "ready":
            painter.setBrush(look.color("window"))
            painter.drawEllipse(3, 8, 4, 4)


class WeightsCard(QWidget):
    """Name, state, and a bar or a button.  A click on it chooses weights."""

    choose_wanted = Signal()
    again_wanted = Signal()
    cancel_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.state = "none"
        self._name = ElidedLabel("", "name")
        self._facts = ElidedLabel("", "small")
        self._bar = Bar()
        self._dot = _Dot()
        self._again = push_button(
            tr("weights_card.again"), "weights.again", small=True, on_click=self._button
        )
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        name_control(self, "weights.card", tr("weights_card.name"))
        lines = QVBoxLayout()
        lines.setSpacing(1)
        lines.addWidget(self._name)
        lines.addWidget(self._bar)
        lines.addWidget(self._facts)
        row = QHBoxLayout(self)
        row.setContentsMargins(15, 12, 12, 6)
        row.setSpacing(9)
        row.addWidget(self._dot, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(lines, 1)
        row.addWidget(self._again)
        self.show_none()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self.choose_wanted.emit()

    def show_none(self) -> None:
        """No weights are chosen."""
        self._put("none", tr("weights_card.none"), tr("weights_card.none_hint"))
        self._again.setText(tr("weights_card.open"))
        self._again.setVisible(True)

    def show_idle(self, name: str) -> None:
        """Weights are chosen and not loaded."""
        self._put("idle", name, tr("weights_card.idle"))
        self._again.setText(tr("weights_card.load"))
        self._again.setVisible(True)

    def show_loading(self, name: str, fraction: float) -> None:
        """`fraction` of the file is read, 0 … 1."""
        percent = QLocale().toString(round(fraction * 100))
        self._put("loading", name, tr("weights_card.loading", percent=percent))
        self._bar.set_share(fraction)
        self._bar.setVisible(True)

    def show_ready(self, info: LoadedWeights) -> None:
        """The weights answer."""
        size = size_text(info.memory_bytes or info.size_bytes)
        facts = [info.quantisation, tr("weights_card.ready"), tr("weights_card.in_use", size=size)]
        self._put("ready", info.name, " · ".join(fact for fact in facts if fact))

    def show_stopped(self, name: str, error: KnownError | None = None) -> None:
        """The engine died or the file could not be loaded."""
        loading_failed = error is not None and error.code.startswith("weights")
        key = "not_loaded" if loading_failed else "stopped"
        self._put("stopped", name, tr(f"weights_card.{key}"), "error")
        self.setToolTip(error.sentence if error is not None else tr("weights_card.stopped_tip"))
        self.setAccessibleDescription(f"{name}, {self.toolTip()}")
        self._again.setText(tr("weights_card.again"))
        self._again.setVisible(True)

    def _put(self, state: str, name: str, facts: str, kind: str = "small") -> None:
        self.state = state
        self._name.set_full_text(name)
        if self._facts.property("kind") != kind:
            self._facts.setProperty("kind", kind)
            self._facts.setFont(theme.current().font("small"))
            self._facts.style().unpolish(self._facts)
            self._facts.style().polish(self._facts)
        self._facts.set_full_text(facts)
        self._dot.set_state(state)
        self._bar.setVisible(False)
        self._again.setVisible(False)
        self.setAccessibleDescription(f"{name}, {facts}")
        self.setToolTip(tr("weights_card.tip"))

    def _button(self) -> None:
        if self.state == "none":
            self.choose_wanted.emit()
        else:
            self.again_wanted.emit()


class ConnectionLine(QWidget):
    """Whether Grove talks to anyone, what is being downloaded, and the way to the settings.

    A click on the words shows the connections.
    """

    clicked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._words = _ConnectionWords("sidebar.connections")
        self._words.clicked.connect(lambda _on=False: self.clicked.emit())
        self._twins: list[_ConnectionWords] = []
        self.row = QHBoxLayout(self)
        self.row.setContentsMargins(8, 2, 9, 8)
        self.row.setSpacing(7)
        self.row.addWidget(self._words, 1)

    def show_state(
        self,
        *,
        offline: bool,
        downloads: int = 0,
        paused: int = 0,
        share: float = 0.0,
        connected: bool = False,
    ) -> None:
        """`offline`: the switch that forbids every connection.  `share`: of what is fetched."""
        if offline:
            text = tr("sidebar.offline")
        elif downloads:
            key = "sidebar.connected" if connected else "sidebar.waiting"
            text = f"{tr('sidebar.downloads', count=downloads)} · {tr(key)}"
        elif connected:
            text = tr("sidebar.connected_now")
        else:
            text = tr("sidebar.no_connections")
        if paused and not downloads:
            text = f"{text} · {tr('sidebar.paused', count=paused)}"
        for shown in (self._words, *self._twins):
            shown.show_state(text, offline=offline, share=share if downloads else -1.0)

    def twin(self, identifier: str) -> QAbstractButton:
        """The same without words, for a corner of the window while the sidebar is hidden."""
        made = _ConnectionWords(identifier, bare=True)
        made.clicked.connect(lambda _on=False: self.clicked.emit())
        self._twins.append(made)
        return made


class _ConnectionWords(QAbstractButton):
    """A shield with a tick when offline, a globe while connected; a thin bar for downloads."""

    def __init__(self, identifier: str, *, bare: bool = False) -> None:
        super().__init__()
        self._bare = bare
        self._icon = "shield"
        self._share = -1.0
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setMinimumHeight(28)
        wide = QSizePolicy.Policy.Fixed if bare else QSizePolicy.Policy.Ignored
        self.setSizePolicy(wide, QSizePolicy.Policy.Fixed)
        if bare:
            self.setFixedWidth(30)
        name_control(self, identifier, "")
        theme.current().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(100, round(theme.current().px(28)))

    def show_state(self, text: str, *, offline: bool, share: float) -> None:
        busy = share >= 0 or text == tr("sidebar.connected_now")
        self._icon = "shield-check" if offline else "globe" if busy else "shield"
        self._share = share
        self.setText(text)
        percent = f", {int(share * 100)}%" if share >= 0 else ""
        self.setAccessibleName(text + percent)
        self.setToolTip(f"{text}{percent}")
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.underMouse() or self.isDown():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("press" if self.isDown() else "hover"))
            painter.drawRoundedRect(self.rect(), 6, 6)
        role = "accent" if self._icon == "shield-check" else "text2"
        icons.draw(painter, self._icon, role, 7, (self.height() - 16) / 2, 16)
        painter.setFont(look.font("small", tabular=True))
        painter.setPen(look.color("text2"))
        area = self.rect().adjusted(5 if self._bare else 30, 0, -6, 0)
        text = painter.fontMetrics().elidedText(
            self.text(), Qt.TextElideMode.ElideRight, area.width()
        )
        if not self._bare:
            painter.drawText(area, Qt.AlignmentFlag.AlignVCenter, text)
        if self._share >= 0:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("line2"))
            bar = QRectF(area.x(), self.height() - 3, area.width(), 2)
            painter.drawRoundedRect(bar, 1, 1)
            painter.setBrush(look.color("accent"))
            bar.setWidth(max(2.0, bar.width() * self._share))
            painter.drawRoundedRect(bar, 1, 1)


def size_text(size_bytes: int) -> str:
    """Bytes in the locale's words, decimal units: 2.6 GB."""
    formats = QLocale.DataSizeFormat.DataSizeSIFormat
    return QLocale().formattedDataSize(size_bytes, 1, formats)
