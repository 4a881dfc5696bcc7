"""The list in the sidebar: how its rows are painted, renamed in place, and acted upon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PySide6.QtCore import QEvent, QModelIndex, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent, QPainter, QPen
from PySide6.QtWidgets import (
    QAbstractItemView,
    QLineEdit,
    QListView,
    QMenu,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from desktop_app.ui import icons, theme
from desktop_app.ui.chats_model import (
    OPEN_ROLE,
    ROW_ROLE,
    WRITING_ROLE,
    ChatsModel,
    Index,
    Kind,
    Row,
)
from desktop_app.ui.controls import name_control
from desktop_app.ui.safe_text import visible
from desktop_app.ui.words import tr

_DOTS_PX = 28


class _Delegate(QStyledItemDelegate):
    """Paints groups, chats and hits; edits a title in a line field."""

    def sizeHint(self, _option: QStyleOptionViewItem, index: Index) -> QSize:
        row: Row = index.data(ROW_ROLE)
        look = theme.current()
        height = {Kind.GROUP: 34, Kind.CHAT: 30, Kind.HIT: 50, Kind.NOTE: 40}[row.kind]
        return QSize(120, round(look.px(height)))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        row: Row = index.data(ROW_ROLE)
        if row.kind in (Kind.GROUP, Kind.NOTE):
            _paint_group(painter, _rect_of(option), row)
        else:
            self._paint_row(painter, option, index, row)
        painter.restore()

    def _paint_row(
        self, painter: QPainter, option: QStyleOptionViewItem, index: Index, row: Row
    ) -> None:
        look = theme.current()
        view = self.parent()
        assert isinstance(view, ChatList)
        state: QStyle.StateFlag = option.state
        area = _rect_of(option).adjusted(8, 0, -8, 0)
        hovered = bool(state & QStyle.StateFlag.State_MouseOver)
        is_open = bool(index.data(OPEN_ROLE))
        if is_open or hovered:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("select" if is_open else "hover"))
            painter.drawRoundedRect(area, 6, 6)
        if view.keyboard_focus and index.row() == view.currentIndex().row():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(look.color("accent"), 2))
            painter.drawRoundedRect(area.adjusted(1, 1, -1, -1), 5, 5)
        text_area = area.adjusted(8, 0, -8, 0)
        if row.kind is Kind.HIT:
            _paint_hit(painter, text_area, row)
            return
        if index.data(WRITING_ROLE):
            text_area.setRight(_paint_writing(painter, text_area) - 8)
        elif hovered:
            icons.draw(painter, "ellipsis", "text2", area.right() - 22, area.center().y() - 7, 16)
            text_area.setRight(area.right() - _DOTS_PX)
        painter.setFont(look.font("button" if is_open else "interface"))
        painter.setPen(look.color("text"))
        _draw_elided(painter, text_area, row.text)

    def createEditor(
        self, parent: QWidget, _option: QStyleOptionViewItem, _index: Index
    ) -> QWidget:
        editor = QLineEdit(parent)
        name_control(editor, "sidebar.rename", tr("chat.rename"))
        editor.setMaxLength(200)
        return editor

    def updateEditorGeometry(
        self, editor: QWidget, option: QStyleOptionViewItem, _index: Index
    ) -> None:
        editor.setGeometry(_rect_of(option).adjusted(6, -1, -6, 1))

    def setEditorData(self, editor: QWidget, index: Index) -> None:
        assert isinstance(editor, QLineEdit)
        editor.setText(str(index.data(Qt.ItemDataRole.EditRole)))
        editor.selectAll()

    def setModelData(self, editor: QWidget, _model: object, index: Index) -> None:
        assert isinstance(editor, QLineEdit)
        view = self.parent()
        assert isinstance(view, ChatList)
        title = editor.text().strip()
        row: Row = index.data(ROW_ROLE)
        if title and title != row.text:
            view.renamed.emit(row.chat_id, title)


class ChatList(QListView):
    """Chats or hits.  Click or Enter opens, F2 renames, Delete moves to the trash."""

    chosen = Signal(int, int)
    """chat id, message id (0: where the reader was last)."""
    renamed = Signal(int, str)
    pin_wanted = Signal(int, bool)
    delete_wanted = Signal(int)

    def __init__(self, rows: ChatsModel) -> None:
        super().__init__()
        self.rows = rows
        self.keyboard_focus = False
        self.setModel(rows)
        self.setItemDelegate(_Delegate(self))
        self.setMouseTracking(True)
        self.setUniformItemSizes(False)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._menu_at)
        name_control(self, "sidebar.chats", tr("sidebar.chats"))
        theme.current().changed.connect(self.scheduleDelayedItemsLayout)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        index = self.currentIndex()
        self.keyboard_focus = True
        if index.isValid() and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._choose(index)
        elif index.isValid() and event.key() == Qt.Key.Key_F2:
            self.rename(self.rows.item(index).chat_id)
        elif index.isValid() and event.key() == Qt.Key.Key_Delete:
            # Backspace deletes nothing: people press it when they think that a field has focus.
            if self.rows.item(index).kind is Kind.CHAT:
                self.delete_wanted.emit(self.rows.item(index).chat_id)
        elif event.key() == Qt.Key.Key_Menu or (
            event.key() == Qt.Key.Key_F10 and event.modifiers() & Qt.KeyboardModifier.ShiftModifier
        ):
            self._menu_at(self.visualRect(index).center())
        else:
            super().keyPressEvent(event)
        self.viewport().update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.keyboard_focus = False
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        index = self.indexAt(event.position().toPoint())
        if not index.isValid() or event.button() != Qt.MouseButton.LeftButton:
            return
        row = self.rows.item(index)
        on_dots = event.position().x() > self.viewport().width() - 8 - _DOTS_PX
        if row.kind is Kind.CHAT and on_dots and not index.data(WRITING_ROLE):
            self._menu_at(event.position().toPoint())
        else:
            self._choose(index)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        keys = (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        self.keyboard_focus = event.reason() in (*keys, Qt.FocusReason.ShortcutFocusReason)
        if not self.currentIndex().isValid():
            self._step_to_first()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self.keyboard_focus = False
        super().focusOutEvent(event)

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Leave:
            self.viewport().update()
        return super().viewportEvent(event)

    def rename(self, chat_id: int) -> None:
        """Open the title's field in its row."""
        row = self.rows.row_of_chat(chat_id)
        if row >= 0:
            self.setCurrentIndex(self.rows.index(row))
            self.edit(self.rows.index(row))

    def step_into(self) -> None:
        """Give the list the focus, on its first row that can be opened."""
        self.setFocus(Qt.FocusReason.TabFocusReason)
        self._step_to_first()

    def menu_for(self, row: Row) -> QMenu:
        """The context menu of a chat."""
        menu = QMenu(self)
        name_control(menu, "sidebar.menu", row.text)
        rename = menu.addAction(tr("chat.rename"), lambda: self.rename(row.chat_id))
        pin = menu.addAction(
            tr("chat.unpin" if row.pinned else "chat.pin"),
            lambda: self.pin_wanted.emit(row.chat_id, not row.pinned),
        )
        menu.addSeparator()
        delete = menu.addAction(tr("chat.delete"), lambda: self.delete_wanted.emit(row.chat_id))
        rename.setIcon(icons.icon("pencil"))
        pin.setIcon(icons.icon("pin-off" if row.pinned else "pin"))
        delete.setIcon(icons.icon("trash-2", "clay"))
        return menu

    def _menu_at(self, place: QPoint) -> None:
        index = self.indexAt(place)
        if index.isValid() and self.rows.item(index).kind is Kind.CHAT:
            menu = self.menu_for(self.rows.item(index))
            menu.exec(self.viewport().mapToGlobal(place))
            menu.deleteLater()

    def _choose(self, index: QModelIndex) -> None:
        row = self.rows.item(index)
        if row.kind in (Kind.CHAT, Kind.HIT):
            self.chosen.emit(row.chat_id, row.message_id)

    def _step_to_first(self) -> None:
        for row in range(self.rows.rowCount()):
            if self.rows.flags(self.rows.index(row)) & Qt.ItemFlag.ItemIsSelectable:
                self.setCurrentIndex(self.rows.index(row))
                return


def _rect_of(option: QStyleOptionViewItem) -> QRect:
    rect: QRect = option.rect
    return rect


def _draw_elided(painter: QPainter, area: QRect, text: str) -> None:
    cut = painter.fontMetrics().elidedText(visible(text), Qt.TextElideMode.ElideRight, area.width())
    painter.drawText(area, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, cut)


def _paint_group(painter: QPainter, area: QRect, row: Row) -> None:
    look = theme.current()
    painter.setFont(look.font("badge" if row.kind is Kind.GROUP else "interface"))
    painter.setPen(look.color("text3"))
    _draw_elided(painter, area.adjusted(16, 6, -16, 0), row.text)


def _paint_writing(painter: QPainter, area: QRect) -> int:
    """The badge at the right end; returns its left edge."""
    look = theme.current()
    painter.setFont(look.font("badge"))
    text = tr("state.writing")
    width = painter.fontMetrics().horizontalAdvance(text) + 32
    badge = QRect(area.right() - width, area.center().y() - 9, width, 20)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(look.color("soft"))
    painter.drawRoundedRect(badge, 10, 10)
    painter.setBrush(look.color("accent"))
    painter.drawEllipse(badge.left() + 9, badge.center().y() - 2, 6, 6)
    painter.setPen(look.color("accent"))
    painter.drawText(badge.adjusted(21, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, text)
    return badge.left()


def _paint_hit(painter: QPainter, area: QRect, row: Row) -> None:
    """Title above, snippet below with the found words on ochre."""
    look = theme.current()
    half = area.height() // 2
    painter.setFont(look.font("button"))
    painter.setPen(look.color("text"))
    _draw_elided(painter, area.adjusted(0, 4, 0, -half), row.text)
    line = area.adjusted(0, half - 1, 0, -5)
    painter.setFont(look.font("small"))
    metrics = painter.fontMetrics()
    left = line.left()
    painter.setClipRect(line)
    for piece, is_hit in _pieces(row.snippet, row.spans):
        width = metrics.horizontalAdvance(piece)
        if is_hit:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("ochresoft"))
            painter.drawRoundedRect(left - 1, line.top() + 1, width + 2, line.height() - 2, 3, 3)
        painter.setPen(look.color("ochre" if is_hit else "text3"))
        painter.drawText(left, line.top(), width + 4, line.height(), 0x80, piece)
        left += width
        if left > line.right():
            break
    painter.setClipping(False)


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """The text cut at the found words, which are marked True.

    The first words before a hit are shortened, so that the hit is in view.
    """
    at = 0
    for start, end in spans:
        before = text[at:start]
        if at == 0 and len(before) > 18:
            before = "…" + before[-16:]
        yield before, False
        yield text[start:end], True
        at = end
    yield text[at:], False
