"""A message as a widget: header with its controls, painted text, gutter with trunk and node.

Rows are made only for messages on screen and used again for others.  No layouts: a hundred nested
layouts answer every change with a storm of LayoutRequest events, so boxes are computed by
`RowContent` and children are placed by hand.
"""

from __future__ import annotations

from typing import Protocol

from PySide6.QtCore import QPoint, QPointF, QRect, QRectF, Qt, QTimer
from PySide6.QtGui import (
    QEnterEvent,
    QFocusEvent,
    QFontMetricsF,
    QKeyEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QPushButton, QWidget

from desktop_app.ui import icons, theme
from desktop_app.ui.body import Spot
from desktop_app.ui.controls import push_button
from desktop_app.ui.row_content import BODY, BOTTOM, GUTTER, HEADER, NODE_X, REASONING, RowContent
from desktop_app.ui.row_editor import RowEditor
from desktop_app.ui.row_header import RowHeader
from desktop_app.ui.row_parts import FoldButton, LinkButton, paint_bar
from desktop_app.ui.row_view import RowState, RowView
from desktop_app.ui.words import tr

DESCRIPTION_CHARS = 2000
"""How much of a text a row hands to screen readers at once."""


FLASH_MS = 900
STICKS_FROM = 120
"""A message higher than this keeps its header in view while it scrolls."""


class RowHost(Protocol):
    """What a row asks of the transcript."""

    draft_count: int

    def act(self, message_id: int, verb: str, value: object = None) -> None: ...

    def row_key(self, row: Row, event: QKeyEvent) -> bool: ...

    def row_focused(self, row: Row) -> None: ...

    def row_resized(self, row: Row) -> None: ...

    def row_entered(self, row: Row | None) -> None: ...

    def selected_in(self, message_id: int, part: int) -> tuple[Spot, Spot] | None: ...

    def code_under_pointer(self, message_id: int) -> tuple[int, bool]: ...


class Row(QWidget):
    """One message on screen."""

    def __init__(self, parent: QWidget, host: RowHost) -> None:
        super().__init__(parent)
        self.host = host
        self.content: RowContent | None = None
        self.left = 0.0
        self.is_first = False
        self.is_last = False
        self.header = RowHeader(self)
        self.editor: RowEditor | None = None
        self._fold: FoldButton | None = None
        self._show: LinkButton | None = None
        self._buttons: list[QWidget] = []
        self._buttons_for: object = None
        self._ring = False
        self._flash = QTimer(self, interval=FLASH_MS, singleShot=True)
        self._flash.timeout.connect(self.update)
        self.setObjectName("message")
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setProperty("ring", "own")
        self.setAttribute(Qt.WidgetAttribute.WA_Hover, False)
        self.setMouseTracking(True)

    # Content

    @property
    def view(self) -> RowView:
        """What is shown."""
        assert self.content is not None
        return self.content.view

    @property
    def message_id(self) -> int:
        """The message that is shown, 0 for none."""
        return self.content.view.message_id if self.content is not None else 0

    def message_at(self, _point: QPointF) -> int:
        """The message under a point of the row."""
        return self.message_id

    def more_button(self, _message_id: int) -> QWidget:
        """The button that opens a message's menu."""
        return self.header.buttons["more"]

    @property
    def acting_id(self) -> int:
        """The message that keys pressed in the row mean."""
        return self.message_id

    def show_content(self, content: RowContent) -> None:
        """Show a message."""
        if content is not self.content:
            self.close_editor()
            self.content = content
            self._ring = False
        self.refresh()

    def refresh(self) -> None:
        """Take over what changed in the content's view."""
        view = self.view
        self.header.set_view(view)
        self._set_fold()
        self._set_notice()
        self._set_failure()
        author = author_of(view)
        key = "row.label_version" if view.versions > 1 else "row.label"
        name = tr(key, author=author, time=view.time, version=view.version, versions=view.versions)
        name = name.rstrip(", ")  # a reply being written has no time yet
        if name != self.accessibleName():
            self.setAccessibleName(name)
        self.setAccessibleDescription(view.text[:DESCRIPTION_CHARS])
        self.setAccessibleIdentifier(f"message.{view.message_id}")

    def place(self, left: float, column: float, sticky_y: float) -> None:
        """Place the children for a column; the header stands at `sticky_y` in the row."""
        content = self.content
        assert content is not None
        self.left = left
        boxes = content.boxes
        lowest = boxes.height - HEADER - 24
        sticks = lowest > STICKS_FROM
        top = min(max(0.0, sticky_y), lowest) if sticks else 0.0
        box = QRect(round(left), round(top), round(column), round(HEADER))
        self.header.arrange(box, stuck=0.5 < top < lowest)
        x = round(left + GUTTER)
        if self._fold is not None:
            self._fold.move(x - 5, round(boxes.reasoning_top) + 1)
        if self._show is not None:
            self._show.move(round(left + self._notice_right()), round(boxes.notice_top) - 1)
        at = x
        for button in self._buttons:
            button.move(at, round(boxes.actions_top))
            at += button.width() + 12
        if self.editor is not None:
            self.editor.move(x, round(boxes.editor_top))

    def _set_fold(self) -> None:
        content = self.content
        assert content is not None
        if content.reasoning is None:
            if self._fold is not None:
                self._fold.hide()
            return
        if self._fold is None:
            self._fold = FoldButton(self, "message.reasoning")
            self._fold.clicked.connect(lambda: self._ask("fold"))
            self._fold.show()
        thinking = self.view.state is RowState.WRITING and not content.body.text
        words = tr("row.reasoning_live")
        if not thinking:
            words = tr("row.reasoning_show", count=len(content.reasoning.text.split()))
        self._fold.set_words(words)
        self._fold.setChecked(content.reasoning_open)
        self._fold.setVisible(True)

    def _set_notice(self) -> None:
        view = self.view
        if not view.elsewhere:
            if self._show is not None:
                self._show.hide()
            return
        if self._show is None:
            self._show = LinkButton(self, "message.show")
            self._show.clicked.connect(lambda: self._ask("elsewhere"))
        self._show.set_words(tr("row.show"), "button")
        self._show.setAccessibleName(f"{tr('row.show')}: {notice_words(view)}")
        self._show.setVisible(True)

    def _notice_right(self) -> float:
        metrics = QFontMetricsF(theme.current().font("interface"))
        return GUTTER + metrics.horizontalAdvance(notice_words(self.view) + "  –  ")

    def _set_failure(self) -> None:
        view = self.view
        wanted = (view.actions, bool(view.error_detail)) if view.state is RowState.FAILED else None
        if wanted == self._buttons_for:
            return
        self._buttons_for = wanted
        for button in self._buttons:
            button.hide()
            button.deleteLater()
        self._buttons = []
        if wanted is None:
            return
        if not view.actions:
            self._add_button(tr("row.try_again"), "", "message.retry", "retry", None)
        for number, action in enumerate(view.actions):
            kind = "" if action.main or not number else "plain"
            name = f"message.action.{action.key}"
            self._add_button(action.label, kind, name, "failure", action.key)
        if view.error_detail:
            link = LinkButton(self, "message.details")
            link.set_words(tr("row.details"), "button")
            link.resize(link.width(), 32)
            link.clicked.connect(lambda: self._ask("details"))
            link.show()
            self._buttons.append(link)

    def _add_button(self, text: str, kind: str, name: str, verb: str, value: object) -> None:
        made: QPushButton = push_button(text.replace("&", "&&"), name, kind=kind)
        made.setAccessibleName(text)
        made.setParent(self)
        made.clicked.connect(lambda: self._ask(verb, value))
        made.resize(made.sizeHint().width(), 32)
        made.show()
        self._buttons.append(made)

    def _ask(self, verb: str, value: object = None) -> None:
        self.host.act(self.message_id, verb, value)

    # Editing

    def open_editor(self, text: str) -> RowEditor:
        """Edit the message in place."""
        assert self.content is not None
        self.close_editor()
        self.editor = RowEditor(self, self.view, text)
        self.content.is_editing = True
        self.editor.saved.connect(lambda text, mode: self._ask("save", (text, mode)))
        self.editor.cancelled.connect(lambda: self._ask("cancel"))
        self.editor.resized.connect(lambda: self.host.row_resized(self))
        self.arrange_editor()
        self.editor.show()
        return self.editor

    def arrange_editor(self) -> None:
        """Measure the editor at the column's width."""
        if self.editor is not None and self.content is not None and self.content.width:
            width = round(self.content.width - GUTTER)
            self.content.editor_height = self.editor.arrange(width)

    def close_editor(self) -> None:
        """Leave editing; unsaved text is gone."""
        if self.editor is None:
            return
        self.editor.hide()
        self.editor.deleteLater()
        self.editor = None
        if self.content is not None:
            self.content.is_editing = False

    # Events

    def flash(self) -> None:
        """Stand out for a moment."""
        self._flash.start()
        self.update()

    def set_active(self, active: bool) -> None:
        """Show the actions: the pointer is here, or the focus."""
        self.header.set_active(active)

    def enterEvent(self, _event: QEnterEvent) -> None:
        self.host.row_entered(self)

    def focusInEvent(self, event: QFocusEvent) -> None:
        reasons = (Qt.FocusReason.MouseFocusReason, Qt.FocusReason.ActiveWindowFocusReason)
        self._ring = event.reason() not in reasons
        self.host.row_focused(self)
        self.update()

    def focusOutEvent(self, _event: QFocusEvent) -> None:
        self._ring = False
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if not self.host.row_key(self, event):
            super().keyPressEvent(event)

    # Painting

    def paintEvent(self, event: QPaintEvent) -> None:
        content = self.content
        if content is None:
            return
        painter = QPainter(self)
        clip = QRectF(event.rect())
        self._paint_trunk(painter)
        painter.translate(self.left, 0)
        if self._flash.isActive():
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.current().color("select"))
            painter.drawRoundedRect(self._around(), 8, 8)
        clip.translate(-self.left, 0)
        self._paint_text(painter, clip, content)
        self._paint_extras(painter, content)
        if self._ring:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(theme.current().color("accent"), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(self._around(), 8, 8)

    def _around(self) -> QRectF:
        """The box round the text, inside the row, in the column."""
        assert self.content is not None
        width = self.content.width - GUTTER + 18
        return QRectF(GUTTER - 10, 1, width, self.height() - BOTTOM + 6)

    def _paint_trunk(self, painter: QPainter) -> None:
        colour = theme.current().color("line2")
        x = self.left + NODE_X - 1
        top = HEADER / 2 if self.is_first else 0.0
        bottom = HEADER / 2 if self.is_last else float(self.height())
        if bottom > top:
            painter.fillRect(QRectF(x, top, 2, bottom - top), colour)

    def _paint_text(self, painter: QPainter, clip: QRectF, content: RowContent) -> None:
        look = theme.current()
        view = content.view
        if content.reasoning is not None and content.reasoning_open:
            top = content.boxes.reasoning_top + 28
            bar = QRectF(GUTTER + 2, top, 2, content.reasoning.height)
            painter.fillRect(bar, look.color("line2"))
            self._paint_part(painter, clip, content, REASONING)
        if content.is_editing:
            return
        if view.is_user:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.color("you"))
            painter.drawRoundedRect(content.boxes.ground, 8, 8)
        if content.shows_no_text:
            painter.setFont(look.font("reading"))
            painter.setPen(look.color("text3"))
            room = QRectF(
                content.body_left, content.boxes.body_top, 400, look.line_height("reading")
            )
            painter.drawText(room, int(Qt.AlignmentFlag.AlignVCenter), tr("row.no_text"))
            return
        self._paint_part(painter, clip, content, BODY)
        if view.state is RowState.WRITING:
            self._paint_caret(painter, content)

    def _paint_part(self, painter: QPainter, clip: QRectF, content: RowContent, part: int) -> None:
        body = content.part(part)
        if body is None:
            return
        origin = content.part_origin(part)
        painter.save()
        painter.translate(origin)
        inner = clip.translated(-origin).intersected(QRectF(-60, 0, 2000, body.height + 8))
        if not inner.isEmpty():
            body.paint(painter, inner, self.host.selected_in(self.message_id, part))
            if part == BODY:
                self._paint_code_button(painter, content)
        painter.restore()

    def _paint_code_button(self, painter: QPainter, content: RowContent) -> None:
        first, copied = self.host.code_under_pointer(self.message_id)
        if first < 0:
            return
        box = content.body.code_button(first)
        icons.draw(
            painter,
            "check" if copied else "copy",
            "accent" if copied else "text2",
            box.x() + 5,
            box.y() + 5,
            14,
        )

    def _paint_caret(self, painter: QPainter, content: RowContent) -> None:
        pieces = content.body.pieces
        point = QPointF(0, 3.0)
        if pieces and pieces[-1].is_built and content.body.text:
            point = pieces[-1].end_point()
            point += QPointF(0, content.body.top(len(pieces) - 1))
        origin = content.part_origin(BODY)
        box = QRectF(origin + point, QPointF(0, 0))
        box.setSize(QRectF(0, 0, 2, theme.current().px(18)).size())
        painter.fillRect(box, theme.current().color("accent"))

    def _paint_extras(self, painter: QPainter, content: RowContent) -> None:
        look, view, boxes = theme.current(), content.view, content.boxes
        if view.state in (RowState.READING, RowState.LOADING):
            paint_bar(painter, QRectF(GUTTER, boxes.bar_top, 240, 4), view.progress)
        if view.state is RowState.FAILED and view.error:
            painter.setFont(look.font("interface"))
            painter.setPen(look.color("clay"))
            room = QRectF(GUTTER, boxes.error_top, content.width - GUTTER, 10_000)
            painter.drawText(room, int(Qt.TextFlag.TextWordWrap), view.error)
        if view.elsewhere:
            self._paint_notice(painter, content)

    def _paint_notice(self, painter: QPainter, content: RowContent) -> None:
        look = theme.current()
        top = content.boxes.notice_top
        middle = top + 10
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(look.color("line2"), 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        elbow = QRectF(NODE_X, middle - 18, 18, 18)
        painter.drawArc(elbow, 180 * 16, 90 * 16)
        painter.drawLine(QPointF(NODE_X + 9, middle), QPointF(GUTTER - 15, middle))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(look.color("edge"))
        for x in (GUTTER - 12, GUTTER - 7):
            painter.drawEllipse(QPointF(x, middle), 1.5, 1.5)
        painter.setFont(look.font("interface"))
        painter.setPen(look.color("text2"))
        room = QRectF(GUTTER, top, content.width, 20)
        painter.drawText(
            room, int(Qt.AlignmentFlag.AlignVCenter), notice_words(content.view) + "  –"
        )

    def code_hit(self, point: QPointF) -> tuple[int, bool]:
        """The code block under a point of the row, and whether its copy button is hit."""
        content = self.content
        return content.code_hit(self.column_point(point)) if content is not None else (-1, False)

    def column_point(self, point: QPoint | QPointF) -> QPointF:
        """A point of the row in the column's coordinates."""
        return QPointF(point.x() - self.left, point.y())


def author_of(view: RowView) -> str:
    """The name that stands in the header."""
    if view.author and not view.is_user:
        return view.author
    words = {"user": "row.author_you", "system": "row.author_system", "tool": "row.author_tool"}
    return view.author if view.author else tr(words.get(view.role, "row.author_reply"))


def notice_words(view: RowView) -> str:
    """What continues on other versions."""
    total = sum(other.messages for other in view.elsewhere)
    if len(view.elsewhere) == 1:
        return tr("row.elsewhere_one", count=total, version=view.elsewhere[0].version)
    return tr("row.elsewhere_many", count=total, versions=len(view.elsewhere))
