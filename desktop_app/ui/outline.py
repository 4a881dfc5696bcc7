"""The outline: fork points and stars of the open path, with their other versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPointF, QRect, QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent, QPainter, QPainterPath, QPen
from PySide6.QtWidgets import (
    QAbstractItemView,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
)

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role, State
from desktop_app.ui import icons, theme
from desktop_app.ui.chats_model import Index
from desktop_app.ui.controls import name_control
from desktop_app.ui.path_rows import counts_below
from desktop_app.ui.safe_text import visible
from desktop_app.ui.words import tr

POINT_ROLE = Qt.ItemDataRole.UserRole + 1
_LABEL_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Point:
    """One line: a message of the path, or (`on_path` False) another version of the one below.

    `number` counts messages from the top; `below` those under another version.
    """

    message_id: int
    number: int
    text: str
    is_user: bool
    on_path: bool = True
    starred: bool = False
    version: int = 1
    versions: int = 1
    below: int = 0
    replies: int = 0
    current: bool = False

    @property
    def fact(self) -> str:
        """What stands small at the right end."""
        if not self.on_path:
            key = "version_below" if self.below else "version"
            return tr(f"outline.{key}", version=self.version, count=self.below)
        if self.versions > 1:
            return tr("outline.versions", count=self.versions)
        if self.replies > 1:
            return tr("outline.answers", count=self.replies)
        return ""


def points_of(conversation: Conversation) -> list[Point]:
    """The points of the open path, top to bottom.

    A point is a message with versions or a star, and the last message.  Texts that are not in
    memory are shown as an ellipsis until they are read.
    """
    tree = conversation.tree
    path = conversation.path()
    below = counts_below(tree)
    points: list[Point] = []
    for number, node_id in enumerate(path, 1):
        node = tree.node(node_id)
        siblings = tree.siblings(node_id)
        last = node_id == path[-1]
        if len(siblings) < 2 and not node.starred and not last:
            continue
        is_user = node.role is Role.USER
        points += [
            Point(
                sibling,
                number,
                first_words(conversation, sibling),
                is_user,
                on_path=False,
                starred=tree.node(sibling).starred,
                version=version,
                versions=len(siblings),
                below=below.get(sibling, 0),
            )
            for version, sibling in enumerate(siblings, 1)
            if sibling != node_id
        ]
        points.append(
            Point(
                node_id,
                number,
                first_words(conversation, node_id),
                is_user,
                starred=node.starred,
                version=siblings.index(node_id) + 1,
                versions=len(siblings),
                current=last,
            )
        )
    return points


def first_words(conversation: Conversation, node_id: int) -> str:
    """The beginning of a message on one line, without Markdown's marks."""
    tree = conversation.tree
    if not tree.is_loaded(node_id):
        return "…"
    text = tree.text(node_id)[: _LABEL_CHARACTERS * 2]
    words = " ".join(visible(text).replace("#", " ").replace("*", "").replace("`", "").split())
    if not words and tree.node(node_id).state is State.STREAMING:
        return "…"
    return words[:_LABEL_CHARACTERS] or tr("outline.empty")


class _PointsModel(QAbstractListModel):
    def __init__(self) -> None:
        super().__init__()
        self.points: list[Point] = []

    def show_points(self, points: list[Point]) -> None:
        if points != self.points:
            self.beginResetModel()
            self.points = points
            self.endResetModel()

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.points)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if not index.isValid():
            return None
        point = self.points[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return point.text
        if role == Qt.ItemDataRole.ToolTipRole:
            return point.text
        if role == Qt.ItemDataRole.AccessibleTextRole:
            speaker = tr("outline.you" if point.is_user else "outline.reply")
            star = tr("outline.starred") if point.starred else ""
            here = tr("outline.here") if point.current else ""
            facts = (f"{point.number}", speaker, point.text, point.fact, star, here)
            return ", ".join(fact for fact in facts if fact)
        if role == POINT_ROLE:
            return point
        return None


class _Delegate(QStyledItemDelegate):
    """Trunk and nodes at the left as in the transcript, words, and a fact at the right."""

    def sizeHint(self, _option: QStyleOptionViewItem, _index: Index) -> QSize:
        return QSize(120, round(theme.current().px(30)))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        point: Point = index.data(POINT_ROLE)
        view = self.parent()
        assert isinstance(view, Outline)
        look = theme.current()
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect: QRect = option.rect
        area = rect.adjusted(8, 0, -8, 0)
        hovered = bool(option.state & QStyle.StateFlag.State_MouseOver)
        if point.current or hovered:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("select" if point.current else "hover"))
            painter.drawRoundedRect(area, 6, 6)
        if view.keyboard_focus and index.row() == view.currentIndex().row():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(look.color("accent"), 2))
            painter.drawRoundedRect(area.adjusted(1, 1, -1, -1), 5, 5)
        left = rect.left() + (22 if point.on_path else 42)
        last = index.row() == index.model().rowCount() - 1
        _paint_lane(painter, rect, point, first=index.row() == 0, last=last)
        right = area.right() - 10
        if point.starred:
            icons.draw(painter, "star-filled", "star", right - 14, rect.center().y() - 7, 14)
            right -= 22
        painter.setFont(look.font("small", tabular=True))
        painter.setPen(look.color("text3"))
        fact_width = painter.fontMetrics().horizontalAdvance(point.fact)
        flags = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
        painter.drawText(QRect(left, rect.top(), right - left, rect.height()), flags, point.fact)
        words = QRect(left + 18, rect.top(), right - fact_width - left - 26, rect.height())
        painter.setFont(look.font("button" if point.current else "interface"))
        painter.setPen(look.color("text" if point.on_path else "text2"))
        text = painter.fontMetrics().elidedText(
            point.text, Qt.TextElideMode.ElideRight, words.width()
        )
        painter.drawText(words, Qt.AlignmentFlag.AlignVCenter, text)
        painter.restore()


def _paint_lane(painter: QPainter, rect: QRect, point: Point, *, first: bool, last: bool) -> None:
    """The open path as a green trunk; other versions leave it to the right."""
    look = theme.current()
    trunk_x, middle = rect.left() + 22, rect.center().y()
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(look.color("accent"), 2))
    top = middle if first and point.on_path else rect.top()
    bottom = middle if last else rect.bottom() + 1
    painter.drawLine(trunk_x, top, trunk_x, bottom)
    role = "accent" if point.on_path else "mapedge"
    node_x = trunk_x
    if not point.on_path:
        node_x = trunk_x + 20
        painter.setPen(QPen(look.color("mapedge"), 1.5))
        elbow = QPainterPath(QPointF(trunk_x, rect.top() + 2))
        elbow.cubicTo(
            QPointF(trunk_x, middle), QPointF(trunk_x + 4, middle), QPointF(node_x - 6, middle)
        )
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(elbow)
    painter.setPen(QPen(look.color(role), 2))
    if point.is_user:
        painter.setBrush(look.color("select" if point.current else "window"))
        painter.drawRoundedRect(node_x - 4, middle - 4, 9, 9, 3, 3)
        return
    painter.setBrush(look.color(role))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawEllipse(node_x - 5, middle - 5, 11, 11)
    if point.current:
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(look.color("accent"), 1.5))
        painter.drawEllipse(node_x - 8, middle - 8, 17, 17)


class Outline(QListView):
    """Click or Enter goes there."""

    chosen = Signal(int, bool)
    """message id, whether it stands on the open path."""

    def __init__(self) -> None:
        super().__init__()
        self._points = _PointsModel()
        self.keyboard_focus = False
        self.setModel(self._points)
        self.setItemDelegate(_Delegate(self))
        self.setMouseTracking(True)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setUniformItemSizes(True)
        name_control(self, "dock.outline", tr("dock.outline"))
        theme.current().changed.connect(self.scheduleDelayedItemsLayout)

    def show_points(self, points: Sequence[Point]) -> None:
        """Show these, with the last message of the path as the current one."""
        scroll = self.verticalScrollBar().value()
        kept = self.currentIndex().row()
        self._points.show_points(list(points))
        if 0 <= kept < len(points):
            self.setCurrentIndex(self._points.index(kept))
        self.verticalScrollBar().setValue(scroll)

    def points(self) -> list[Point]:
        """What is shown."""
        return self._points.points

    def keyPressEvent(self, event: QKeyEvent) -> None:
        self.keyboard_focus = True
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._choose(self.currentIndex())
        else:
            super().keyPressEvent(event)
        self.viewport().update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self.keyboard_focus = False
        super().mouseReleaseEvent(event)
        if event.button() == Qt.MouseButton.LeftButton:
            self._choose(self.indexAt(event.position().toPoint()))

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        keys = (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        self.keyboard_focus = event.reason() in (*keys, Qt.FocusReason.ShortcutFocusReason)
        if not self.currentIndex().isValid() and self._points.points:
            self.setCurrentIndex(self._points.index(0))

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self.keyboard_focus = False
        super().focusOutEvent(event)

    def _choose(self, index: QModelIndex) -> None:
        if index.isValid():
            point = self._points.points[index.row()]
            self.chosen.emit(point.message_id, point.on_path)
