"""Where the dock stands: the offline switch, and every connection that Grove has made."""

from __future__ import annotations

from PySide6.QtCore import QRect, QRectF, Qt, Signal
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.controls import IconButton, Switch, label, line, name_control, paragraph
from desktop_app.ui.rows_view import Row, RowsView, RowWidget
from desktop_app.ui.weights_words import day_words, hosts_words, purpose_words, time_words
from desktop_app.ui.words import tr
from desktop_app.weights.connections import ConnectionEntry
from desktop_app.weights.fit import size_text

_SHOWN = 500


class _Day(RowWidget):
    """A day's name."""

    def show_facts(self, row: Row) -> None:
        name_control(self, row.key, str(row.facts))

    def paint(self, painter: QPainter) -> None:
        assert self.row is not None
        look = theme.current()
        painter.setFont(look.font("badge"))
        painter.setPen(look.color("text3"))
        area = self.rect().adjusted(0, 8, 0, 0)
        painter.drawText(area, Qt.AlignmentFlag.AlignVCenter, str(self.row.facts))


class _Connection(RowWidget):
    """Time, what for, with whom, how many bytes."""

    def show_facts(self, row: Row) -> None:
        entry = row.facts
        assert isinstance(entry, tuple)
        name_control(self, row.key, ", ".join(str(part) for part in entry if part))

    def paint(self, painter: QPainter) -> None:
        assert self.row is not None
        assert isinstance(self.row.facts, tuple)
        time, what, hosts, size, is_open, is_last = self.row.facts
        look = theme.current()
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.setFont(look.font("small", tabular=True))
        painter.setPen(look.color("text2"))
        high, low = QRect(0, 6, self.width(), 20), QRect(52, 26, self.width() - 52, 18)
        painter.drawText(high, middle, time)
        painter.drawText(high, middle | Qt.AlignmentFlag.AlignRight, size)
        used = painter.fontMetrics().horizontalAdvance(size) + 12
        if is_open:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("accent"))
            painter.drawEllipse(QRectF(self.width() - used - 2, 13, 6, 6))
            used += 12
        painter.setFont(look.font("interface"))
        painter.setPen(look.color("text"))
        room = high.adjusted(52, 0, -used, 0)
        elide = Qt.TextElideMode.ElideRight
        painter.drawText(room, middle, painter.fontMetrics().elidedText(what, elide, room.width()))
        painter.setFont(look.font("small"))
        painter.setPen(look.color("text3"))
        painter.drawText(low, middle, painter.fontMetrics().elidedText(hosts, elide, low.width()))
        if not is_last:
            painter.fillRect(0, self.height() - 1, self.width(), 1, look.color("line2"))


class ConnectionsPanel(QWidget):
    """Shows what it is told; says when the switch was moved."""

    hide_wanted = Signal()
    offline_chosen = Signal(bool)
    clear_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("surface", "window")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        name_control(self, "connections", tr("connections.title"))
        self.switch = Switch("connections.offline", tr("settings.offline"))
        self.switch.clicked.connect(self.offline_chosen)
        self._shield = label()
        self._hint = paragraph(tr("connections.hint"), "secondary")
        self.log = RowsView(
            "connections.log",
            tr("connections.log"),
            {"day": _Day, "connection": _Connection},
            margin_px=18,
            surface="window",
        )
        self._none = label(tr("connections.none"), "small", wrap=True)
        name_control(self._none, "connections.none", tr("connections.none"))
        self._lay_out()
        theme.current().changed.connect(self._draw)
        self._draw()

    def _lay_out(self) -> None:
        head = QHBoxLayout()
        head.setContentsMargins(18, 0, 10, 0)
        head.addWidget(label(tr("connections.title"), "name"), 1)
        clear = IconButton("trash-2", "connections.clear", tr("connections.clear"), size=16)
        clear.clicked.connect(lambda _on=False: self.clear_wanted.emit())
        head.addWidget(clear)
        hide = IconButton(
            "panel-right", "connections.hide", tr("dock.hide"), shortcut="Ctrl+Shift+B"
        )
        hide.clicked.connect(lambda _on=False: self.hide_wanted.emit())
        head.addWidget(hide)
        holder = QWidget()
        holder.setFixedHeight(48)
        holder.setLayout(head)
        offline = QHBoxLayout()
        offline.setContentsMargins(0, 0, 0, 0)
        offline.setSpacing(8)
        offline.addWidget(self._shield)
        offline.addWidget(label(tr("settings.offline"), "name"), 1)
        offline.addWidget(self.switch)
        top = QVBoxLayout()
        top.setContentsMargins(18, 14, 14, 14)
        top.setSpacing(8)
        top.addLayout(offline)
        top.addWidget(self._hint)
        none = QHBoxLayout()
        none.setContentsMargins(18, 14, 14, 0)
        none.addWidget(self._none)
        foot = QVBoxLayout()
        foot.setContentsMargins(18, 12, 14, 14)
        foot.addWidget(label(tr("connections.promise"), "small", wrap=True))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(holder)
        column.addWidget(line())
        column.addLayout(top)
        column.addWidget(line())
        column.addLayout(none)
        column.addWidget(self.log, 1)
        column.addWidget(line())
        column.addLayout(foot)

    def show_state(self, *, offline: bool, entries: list[ConnectionEntry]) -> None:
        """The switch, and the log with the newest first."""
        if self.switch.isChecked() != offline:
            self.switch.setChecked(offline)
        self._draw()
        self._none.setVisible(not entries)
        self.log.setVisible(True)
        rows: list[Row] = []
        day = ""
        shown = [entry for entry in entries if entry.hosts or entry.is_open][:_SHOWN]
        for at, entry in enumerate(shown):
            if day_words(entry.at_ms) != day:
                day = day_words(entry.at_ms)
                rows.append(Row(f"connections.day.{day}", "day", 36, day, on_card=False))
            following = shown[at + 1] if at + 1 < len(shown) else None
            is_last = following is None or day_words(following.at_ms) != day
            size = size_text(entry.sent_bytes + entry.received_bytes)
            what, hosts = purpose_words(entry), hosts_words(entry)
            fact = (time_words(entry.at_ms), what, hosts, size, entry.is_open, is_last)
            key = f"connections.entry.{entry.at_ms}.{entry.purpose}.{entry.subject}"
            rows.append(Row(key, "connection", 53, fact, on_card=False))
        self.log.set_rows(rows)

    def _draw(self) -> None:
        on = self.switch.isChecked()
        name, role = ("shield-check", "accent") if on else ("shield", "text")
        self._shield.setPixmap(icons.pixmap(name, role, 18))
