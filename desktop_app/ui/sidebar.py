"""The left side: new chat, search over everything, the chats, and the weights' state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from PySide6.QtCore import QRect, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.chat_list import ChatList
from desktop_app.ui.chats_model import ChatFacts, ChatsModel, HitFacts, Row, found, grouped
from desktop_app.ui.controls import IconButton, label, line, name_control
from desktop_app.ui.weights_card import ConnectionLine, WeightsCard
from desktop_app.ui.words import tr

SEARCH_WAIT_MS = 150


class _NewChat(QPushButton):
    """Icon, words, and the shortcut at the right end."""

    def __init__(self) -> None:
        super().__init__(tr("sidebar.new"))
        name_control(self, "sidebar.new", tr("sidebar.new"))
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setMinimumHeight(36)

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(look.color("line2"))
        role = "press" if self.isDown() else "hover" if self.underMouse() else "raised"
        painter.setBrush(look.color(role))
        painter.drawRoundedRect(self.rect().adjusted(0, 0, -1, -1), 8, 8)
        icons.draw(painter, "square-pen", "text", 11, (self.height() - 16) / 2)
        painter.setFont(look.font("button"))
        painter.setPen(look.color("text"))
        inner = self.rect().adjusted(36, 0, -10, 0)
        painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter, self.text())
        paint_hint(painter, inner, "Ctrl+N", painter.fontMetrics().horizontalAdvance(self.text()))

    def sizeHint(self) -> QSize:
        return QSize(160, round(theme.current().px(36)))


class _Search(QLineEdit):
    """A search field with its icon and shortcut; Down goes to the list, Escape leaves."""

    down = Signal()
    left = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setPlaceholderText(tr("sidebar.search"))
        name_control(self, "sidebar.search", tr("sidebar.search"))
        self.setClearButtonEnabled(False)
        self._restyle()
        theme.current().changed.connect(self._restyle)

    def _restyle(self) -> None:
        look = theme.current()
        self.setStyleSheet(
            "QLineEdit { padding-left: 32px; border: 1px solid transparent; background: "
            f"{look.color('hover').name()}; }} QLineEdit:focus {{ border: 1px solid "
            f"{look.color('accent').name()}; background: {look.color('raised').name()}; }}"
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        painter = QPainter(self)
        icons.draw(painter, "search", "text3", 11, (self.height() - 16) / 2)
        if not self.text() and not self.hasFocus():
            words = theme.current().font("interface")
            painter.setFont(words)
            used = painter.fontMetrics().horizontalAdvance(self.placeholderText())
            paint_hint(painter, self.rect().adjusted(36, 0, -10, 0), "Ctrl+K", used)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.down.emit()
        elif event.key() == Qt.Key.Key_Escape:
            self.clear()
            self.left.emit()
        else:
            super().keyPressEvent(event)


class Sidebar(QWidget):
    """Shows what it is told and says what is wanted; it holds no chat itself."""

    new_wanted = Signal()
    hide_wanted = Signal()
    settings_wanted = Signal()
    search_wanted = Signal(str)
    """A search text after a short pause; empty when the search ended."""
    search_left = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("surface", "window")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        name_control(self, "sidebar", tr("sidebar.name"))
        self._chat_rows: list[Row] = []
        self._searching = False
        self.rows = ChatsModel()
        self.list = ChatList(self.rows)
        self.new_button = _NewChat()
        self.new_button.clicked.connect(self._new_clicked)
        self.search = _Search()
        self.search.textChanged.connect(self._typed)
        self.search.down.connect(self._into_list)
        self.search.left.connect(self.search_left)
        self.card = WeightsCard()
        self.connection = ConnectionLine()
        self._wait = QTimer(self, interval=SEARCH_WAIT_MS, singleShot=True)
        self._wait.timeout.connect(self._ask)
        self._lay_out()
        self.setTabOrder(self.new_button, self.search)
        self.setTabOrder(self.search, self.list)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        head = QHBoxLayout()
        head.setContentsMargins(16, 0, 10, 0)
        head.setSpacing(9)
        self._logo = label()
        self._draw_logo()
        theme.current().changed.connect(self._draw_logo)
        head.addWidget(self._logo)
        head.addWidget(label("Grove", "name"), 1)
        self.hide_button = IconButton(
            "panel-left",
            "sidebar.hide",
            tr("sidebar.hide"),
            shortcut="Ctrl+B",
            on_click=self.hide_wanted.emit,
        )
        head.addWidget(self.hide_button)
        holder = QWidget()
        holder.setFixedHeight(48)
        holder.setLayout(head)
        column.addWidget(holder)
        fields = QVBoxLayout()
        fields.setContentsMargins(12, 0, 12, 8)
        fields.setSpacing(8)
        fields.addWidget(self.new_button)
        fields.addWidget(self.search)
        column.addLayout(fields)
        column.addWidget(self.list, 1)
        column.addWidget(line())
        column.addWidget(self.card)
        self.settings_button = IconButton(
            "settings",
            "sidebar.settings",
            tr("settings.title"),
            shortcut="Ctrl+,",
            on_click=self.settings_wanted.emit,
        )
        self.connection.row.addWidget(self.settings_button)
        column.addWidget(self.connection)

    def show_chats(self, chats: Sequence[ChatFacts]) -> None:
        """The chats there are now; kept back while hits of a search are shown."""
        self._chat_rows = grouped(chats, datetime.now().astimezone())
        if not self._searching:
            self._put(self._chat_rows)

    def show_hits(self, text: str, hits: Sequence[HitFacts]) -> None:
        """The hits for `text`; dropped when the field holds something else by now."""
        if self._searching and text == self.search.text().strip():
            self._put(found(hits))

    def chat_ids(self) -> list[int]:
        """The chats in the order of the list."""
        return [row.chat_id for row in self._chat_rows if row.chat_id]

    def start_search(self) -> None:
        """Put the cursor into the search field."""
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def show_open(self, chat_id: int) -> None:
        """Mark the chat that the page shows."""
        self.rows.set_open_chat(chat_id)
        row = self.rows.row_of_chat(chat_id)
        if row >= 0 and not self._searching:
            self.list.setCurrentIndex(self.rows.index(row))

    def _put(self, rows: list[Row]) -> None:
        scroll = self.list.verticalScrollBar().value()
        current = self.list.currentIndex()
        kept = self.rows.item(current).chat_id if current.isValid() else 0
        self.rows.show_rows(rows)
        row = self.rows.row_of_chat(kept)
        if row >= 0:
            self.list.setCurrentIndex(self.rows.index(row))
        self.list.verticalScrollBar().setValue(scroll)

    def _new_clicked(self) -> None:
        self.new_wanted.emit()

    def _typed(self, text: str) -> None:
        if text.strip():
            self._searching = True
            self._wait.start()
            return
        self._wait.stop()
        self._searching = False
        self._put(self._chat_rows)
        self.search_wanted.emit("")

    def _ask(self) -> None:
        self.search_wanted.emit(self.search.text().strip())

    def _into_list(self) -> None:
        if self._wait.isActive():
            self._wait.stop()
            self._ask()
        self.list.step_into()

    def _draw_logo(self) -> None:
        self._logo.setPixmap(icons.pixmap("grove", "accent", 20))


def paint_hint(painter: QPainter, area: QRect, keys: str, used_px: int) -> None:
    """A shortcut at the right end of `area`, when `used_px` of text leave room for it."""
    look = theme.current()
    painter.setFont(look.font("hint"))
    painter.setPen(look.color("text3"))
    text = QKeySequence(keys).toString(QKeySequence.SequenceFormat.NativeText)
    if used_px + painter.fontMetrics().horizontalAdvance(text) + 12 < area.width():
        painter.drawText(area, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, text)
