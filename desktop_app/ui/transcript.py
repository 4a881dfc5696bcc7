"""The transcript: the messages of the active path, only those on screen as real widgets.

Heights of all rows are prefix-summed; rows that were never seen have guessed heights.  Whatever
changes (a guess that turns out wrong, a formula that gets ready, another width), the piece of text
at the top of the view stays where it is: see `Anchor` and `_restore`.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, Qt, QTimer
from PySide6.QtGui import (
    QGuiApplication,
    QKeyEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QFrame, QWidget

from desktop_app.ui import theme
from desktop_app.ui.body import Spot
from desktop_app.ui.controls import name_control
from desktop_app.ui.drafts_row import DraftsRow
from desktop_app.ui.maths import maths
from desktop_app.ui.row import Row
from desktop_app.ui.row_content import Looks, Place, RowContent, column_in
from desktop_app.ui.row_pool import RowPool
from desktop_app.ui.row_stack import OVERSCAN, Anchor, RowStack
from desktop_app.ui.row_view import RowView
from desktop_app.ui.transcript_frame import TranscriptFrame
from desktop_app.ui.transcript_keys import Keys
from desktop_app.ui.transcript_pointer import JumpButton, Pointer
from desktop_app.ui.transcript_selection import TranscriptSelection
from desktop_app.ui.transcript_verbs import Verbs
from desktop_app.ui.words import tr

_AT_END_PX = 6


class Transcript(TranscriptFrame):
    """Shows `RowView`s and asks for everything else by signal; it changes no message itself."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._looks = Looks(theme.current(), self.devicePixelRatioF())
        self._stack = RowStack(self._looks)
        self._pool = RowPool(self.viewport(), self)
        self._live = self._pool.live
        self._left = 0.0
        self._at_end = True
        self._hold: Anchor | None = None  # stands there until the user scrolls, whatever grows
        self._placing = False
        self._current = 0
        self._hovered = 0
        self.selection = TranscriptSelection()
        self.draft_count = 3
        self.pointer = Pointer(self)
        self._verbs = Verbs(self)
        self.keys = Keys(self)
        self._settle = QTimer(self, interval=0, singleShot=True)
        self._settle.timeout.connect(self._parse_more)
        self._build()

    def _build(self) -> None:
        name_control(self, "transcript", tr("row.transcript"))
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.viewport().setMouseTracking(True)
        self.verticalScrollBar().valueChanged.connect(self._scrolled)
        self.verticalScrollBar().setSingleStep(40)
        self._jump = JumpButton(self)
        self._jump.clicked.connect(self.scroll_to_end)
        self._jump.hide()
        theme.current().changed.connect(self._restyle)
        maths().ready.connect(self._formula_ready)

    # Rows

    def set_rows(self, rows: Sequence[RowView], *, keep: int = 0) -> None:
        """Show these messages.

        Rows of the same message keep their layout and editor.  What stands at the top of the view
        stays there; with `keep` (a message id, such as the one whose version was switched) the
        first row that changed at or after it keeps its place on screen.
        """
        scroll = self._scroll()
        anchor = self._stack.anchor_for(keep, rows, scroll) if keep else None
        if anchor is not None:
            self._at_end, self._hold = False, None
        else:
            anchor = self._stack.anchor(scroll)
        focused = self.keys.focused_row()
        self._stack.set_rows(rows)
        self._hold = self._stack.still_there(self._hold)
        index = self._stack.index
        self.selection.set_order(index)
        for message_id in list(self._live):
            at = index.get(message_id, -1)
            if at < 0 or not self._pool.is_of_kind(message_id, drafts=bool(rows[at].drafts)):
                self._release(message_id)
        for message_id, row in self._live.items():
            row.content = self._stack.content(rows[index[message_id]])
            row.refresh()
            row.update()
        if self._current not in index:
            self._current = 0
        self._restore(anchor)
        if focused >= 0 and self.keys.focused_row() < 0 and rows:
            # The message with the keyboard is gone: the one in its place takes over.
            self.focus_message(rows[min(focused, len(rows) - 1)].message_id)

    def update_row(self, row: RowView) -> None:
        """Show another state of one message; a message that is not shown is ignored."""
        if row.message_id not in self._stack.index:
            return
        anchor = self._stack.anchor(self._scroll())
        self._stack.update(row)
        live = self._live.get(row.message_id)
        if live is not None:
            live.refresh()
            live.update()
        self._restore(anchor)

    def stream(self, message_id: int, text: str, reasoning: str = "") -> None:
        """The whole text so far of a reply being written; only its end is laid out again."""
        view = self._stack.view_of(message_id)
        if view is None:
            return
        began = bool(text) != bool(view.text)
        content = self._stack.content_of(message_id)
        before = content.body.height if content is not None else 0.0
        count = len(content.body.pieces) if content is not None else 0
        self._stack.stream(message_id, text, reasoning)
        if content is None:
            return
        index = self._stack.index[message_id]
        row = self._live.get(message_id)
        if row is None:
            if self._stack.set_height(index, content.guess_height()):
                self._changed_below()
            return
        if began or reasoning != view.reasoning:
            row.refresh()
        self._streamed(index, row, content, before, count)

    def stream_draft(self, draft: RowView) -> None:
        """Another state of one of the compared drafts, while it grows."""
        found = self._stack.stream_draft(draft)
        if found is None:
            return
        index, content, card = found
        if content is None or card is None:
            return
        offset = self._scroll() - self._stack.top_of(index)
        tall = content.layout(offset - OVERSCAN, offset + self.viewport().height() + OVERSCAN)
        if self._stack.set_height(index, tall):
            self._changed_below()
        row = self._live.get(content.view.message_id)
        if isinstance(row, DraftsRow):
            row.refresh_draft(card)

    def _streamed(
        self, index: int, row: Row, content: RowContent, before: float, count: int
    ) -> None:
        """Lay out the end of a row that grew, and paint only that."""
        offset = self._scroll() - self._stack.top_of(index)
        height = self.viewport().height()
        found = content.layout(offset - OVERSCAN, offset + height + OVERSCAN)
        first = max(0, min(count, len(content.body.pieces)) - 1)
        if self._stack.set_height(index, found):
            self._changed_below()
        dirty = content.boxes.body_top + min(content.body.top(first), before) - 30
        if content.reasoning is not None and content.reasoning_open:
            dirty = content.boxes.reasoning_top
        row.update(0, round(dirty), row.width(), row.height())

    def _changed_below(self) -> None:
        """A row got another height: rows below move, and the end stays in view if it was."""
        stick = self._at_end
        self._set_range()
        if stick:
            self._set_scroll(self.verticalScrollBar().maximum())
        elif self._hold is not None:
            self._set_scroll(self._stack.anchored(self._hold))
        self._realise()

    def content_of(self, message_id: int) -> RowContent | None:
        """The content of a message that was seen lately."""
        return self._stack.content_of(message_id)

    # Geometry

    def _scroll(self) -> int:
        return self.verticalScrollBar().value()

    def _set_range(self) -> None:
        self._placing = True
        bar = self.verticalScrollBar()
        page = self.viewport().height()
        bar.setPageStep(page)
        bar.setRange(0, max(0, round(self._stack.bottom) + 8 - page))
        self._jump.slack = self._stack.drafts_height
        self._placing = False

    def _set_scroll(self, value: float) -> None:
        self._placing = True
        self.verticalScrollBar().setValue(round(value))
        self._placing = False
        bar = self.verticalScrollBar()
        self._at_end = self._hold is None and bar.value() >= bar.maximum() - _AT_END_PX
        self._jump.follow(bar)

    def _measure_column(self) -> None:
        """Take the view's width; the scroll bar stands in the margin and changes nothing."""
        self._left, column = column_in(self.width(), theme.current().text_scale)
        if self._stack.set_column(column, self._left, self.width()):
            for row in self._live.values():
                row.arrange_editor()

    def _restore(self, anchor: Anchor | None) -> None:
        """Lay out what is in view with the anchor where it was, or at the end."""
        if not self.viewport().width():
            return
        self._measure_column()
        stick, anchor = self._at_end, self._hold or anchor
        for _pass in range(4):
            self._set_range()
            if stick:
                self._set_scroll(self.verticalScrollBar().maximum())
            elif anchor is not None and self._stack.rows:
                self._set_scroll(self._stack.anchored(anchor))
            if not self._stack.lay_out(self._scroll(), self.viewport().height()):
                break
        self._place_rows()

    def _parse_more(self) -> None:
        """Parse a stretch of the first long text that is needed, then lay out again."""
        anchor = self._stack.anchor(self._scroll())
        for message_id in list(self._live):
            content = self.content_of(message_id)
            if content is not None and content.wants_more:
                content.parse_more()
                break
        self._restore(anchor)

    def relayout(self) -> None:
        """Lay out the view again with what is at its top standing still."""
        self._restore(self._stack.anchor(self._scroll()))

    # Widgets

    def _realise(self) -> None:
        """Lay out and place the rows in view."""
        for _pass in range(3):
            anchor = self._hold or self._stack.anchor(self._scroll())
            stick = self._at_end
            if not self._stack.lay_out(self._scroll(), self.viewport().height()):
                break
            self._set_range()
            if stick:
                self._set_scroll(self.verticalScrollBar().maximum())
            elif anchor is not None:
                self._set_scroll(self._stack.anchored(anchor))
        self._place_rows()

    def _place_rows(self) -> None:
        stack, height, scroll = self._stack, self.viewport().height(), self._scroll()
        wanted: dict[int, int] = {}
        index = stack.row_at(scroll)
        while index < len(stack.rows) and stack.top_of(index) - scroll < height:
            wanted[stack.rows[index].message_id] = index
            index += 1
        for message_id in [one for one in self._live if one not in wanted]:
            if not self._is_pinned(message_id):
                self._release(message_id)
            elif message_id in stack.index:
                wanted[message_id] = stack.index[message_id]
        for message_id, index in wanted.items():
            self._place_row(message_id, index, scroll)
        stack.trim(self._live)
        seen = (self.content_of(one) for one in wanted)
        if any(content is not None and content.wants_more for content in seen):
            self._settle.start()

    def _place_row(self, message_id: int, index: int, scroll: int) -> None:
        row, stack = self._live.get(message_id), self._stack
        content = stack.content(stack.rows[index])
        if row is None:
            row = self._pool.take(message_id, content)
            row.set_active(message_id == (self._hovered or self._current))
            if message_id in self._verbs.drafts:
                row.open_editor(self._verbs.drafts[message_id])
        edges = (index == 0, index == len(stack.rows) - 1)
        if (row.is_first, row.is_last) != edges:
            row.is_first, row.is_last = edges
            row.update()
        top = round(stack.top_of(index)) - scroll
        size = round(stack.top_of(index + 1)) - scroll - top
        box = QRect(0, top, self.viewport().width(), size)
        if row.geometry() != box:
            row.setGeometry(box)
        row.place(self._left, stack.column, -top)
        if row.isHidden():
            row.show()

    def _is_pinned(self, message_id: int) -> bool:
        row = self._live[message_id]
        has_focus = self.keys.focus_inside(row) is not None
        return row.editor is not None or has_focus or self.pointer.holds(row)

    def _release(self, message_id: int) -> None:
        self.keys.take_focus_from(self._live[message_id])  # else Qt would hand it to what is next
        self._pool.release(message_id)

    # Scrolling

    def _scrolled(self) -> None:
        if self._placing:
            return
        bar = self.verticalScrollBar()
        self._hold = None
        self._at_end = bar.value() >= bar.maximum() - _AT_END_PX
        self._realise()
        self._jump.follow(bar)
        self.position_changed.emit()

    def position(self) -> tuple[int, int]:
        """What stands at the top of the view: message id (0 when empty) and px into it."""
        if not self.rows:
            return 0, 0
        top = self._scroll()
        index = self._stack.row_at(top)
        return self.rows[index].message_id, round(top - self._stack.top_of(index))

    def set_position(self, message_id: int, offset: int) -> None:
        """Scroll so that this message stands `offset` px above the top."""
        index = self._stack.index.get(self._stack.row_id(message_id))
        if index is None:
            return
        self._at_end, self._hold = False, None
        self._restore(Anchor(message_id, index, -1, float(-offset)))

    def show_from(self, message_id: int) -> None:
        """Stand still with the beginning of this message near the top."""
        index = self._stack.index.get(self._stack.row_id(message_id), -1)
        if index >= 0:
            y, near = self._stack.top_of(index) - self._scroll(), self.viewport().height() * 0.16
            self._hold = Anchor(message_id, index, -1, y if 0 <= y <= near else near)
            self._at_end = False
            self._restore(None)

    @property
    def rows(self) -> Sequence[RowView]:
        """What is shown, top to bottom."""
        return self._stack.rows

    def view_of(self, message_id: int) -> RowView | None:
        """What is shown of a message."""
        return self._stack.view_of(message_id)

    def index_of(self, message_id: int) -> int:
        """The place of a message in the path, 0 for one that is not shown."""
        return self._stack.index.get(message_id, 0)

    def stay_here(self) -> None:
        """From now on the top of the view stands still, not its end."""
        self._at_end, self._hold = False, None

    @property
    def is_at_end(self) -> bool:
        """Whether the end is in view, so that a growing reply keeps it there."""
        return self._at_end

    def reveal(self, message_id: int) -> None:
        """Scroll a message into view, make it current and let it stand out for a moment."""
        message_id = self._stack.row_id(message_id)
        index = self._stack.index.get(message_id)
        if index is None:
            return
        self._at_end, self._hold = False, None
        self._restore(self._stack.anchor_to(index, self._looks.find, self.viewport().height()))
        self._make_current(message_id)
        self._set_active()
        self._live[message_id].flash()

    def set_find(self, words: str) -> None:
        """Mark these words in all messages ("" for none); `reveal` then goes to the first."""
        self._looks.set_find(words.strip())
        self.update_rows()

    def scroll_to_end(self) -> None:
        """Scroll to the last message and stay at the end while it grows."""
        self._at_end, self._hold = True, None
        self._restore(None)

    def paintEvent(self, event: QPaintEvent) -> None:
        QPainter(self.viewport()).fillRect(event.rect(), theme.current().color("canvas"))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._restore(self._stack.anchor(self._scroll()))
        self._jump.place()

    def wheelEvent(self, event: QWheelEvent) -> None:
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            event.ignore()  # the window may scale its text
            return
        super().wheelEvent(event)

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.DevicePixelRatioChange:
            self._restyle()
        return super().event(event)

    def _restyle(self) -> None:
        anchor = self._stack.anchor(self._scroll())
        self._looks = Looks(theme.current(), self.devicePixelRatioF(), self._looks.find)
        self._stack.set_looks(self._looks)
        self._refresh_rows()
        self._restore(anchor)
        self.viewport().update()

    def _refresh_rows(self) -> None:
        for row in self._live.values():
            row.refresh()
            row.update()

    def _formula_ready(self, tex: str) -> None:
        hit = {one for one, content in self._stack.contents() if content.formula_ready(tex)}
        for message_id in self._live.keys() & hit:
            self._live[message_id].update()
        if hit:
            self._settle.start()

    # Current message, keys

    def current(self) -> int:
        """The id of the message with the focus, else of the last one; 0 when empty."""
        if self._current:
            return self._current
        return self.rows[-1].message_id if self.rows else 0

    def _make_current(self, message_id: int) -> None:
        if message_id != self._current:
            self._current = message_id
            self.current_changed.emit(message_id)

    def _set_active(self) -> None:
        active, current = self._hovered or self._current, self.current()
        for message_id, row in self._live.items():
            row.set_active(message_id == active)
            is_stop = message_id == current  # one stop for Tab, the others by Up and Down
            row.setFocusPolicy(Qt.FocusPolicy.StrongFocus if is_stop else Qt.FocusPolicy.ClickFocus)

    def focus_current(self) -> None:
        """Give the keyboard to the current message, or the last one in view."""
        message_id = self._current
        if not message_id and self.rows:
            bottom = self._scroll() + self.viewport().height() - 1
            message_id = self.rows[self._stack.row_at(bottom)].message_id
        self.focus_message(message_id)

    def focus_message(self, message_id: int) -> None:
        """Scroll a message into view and give it the keyboard."""
        message_id = self._stack.row_id(message_id)
        index = self._stack.index.get(message_id)
        if index is None:
            return
        height, scroll = self.viewport().height(), self._scroll()
        top, bottom = self._stack.top_of(index), self._stack.top_of(index + 1)
        if top < scroll or bottom > scroll + height:
            y = 0.0 if bottom - top > height or top < scroll else height - (bottom - top)
            self._hold = None
            self._at_end = index == len(self.rows) - 1 and y > 0
            self._restore(Anchor(message_id, index, -1, y))
        if message_id in self._live:
            self._live[message_id].setFocus(Qt.FocusReason.TabFocusReason)

    def row_focused(self, row: Row) -> None:
        """A row got the focus."""
        self._make_current(row.message_id)
        self._set_active()

    def row_key(self, row: Row, event: QKeyEvent) -> bool:
        """A key pressed in a row; True when it was for us."""
        return self.keys.pressed(row, event)

    def row_entered(self, row: Row | None) -> None:
        """The pointer came over a row, or left all of them."""
        hovered = row.message_id if row is not None else 0
        if hovered != self._hovered:
            self._hovered = hovered
            self._set_active()

    def row_resized(self, row: Row) -> None:
        """An editor grew."""
        self._verbs.editor_grew(row)

    # What rows ask for

    def act(self, message_id: int, verb: str, value: object = None) -> None:
        """Do what a row's control asks for."""
        view = self.view_of(message_id)
        if view is not None:
            self._verbs.act(view, verb, value)

    def copy_code(self, message_id: int, first: int) -> None:
        """Put the code block that begins with this piece on the clipboard."""
        self.pointer.copy_code(message_id, first)

    def open_menu(self, message_id: int, at: QPoint) -> None:
        """The menu of a message at a global point."""
        self._verbs.open_menu(message_id, at)

    def start_editing(self, message_id: int) -> None:
        """Open the editor in a row."""
        self._verbs.start_editing(message_id)

    def editing(self) -> dict[int, str]:
        """Unsaved texts of open editors, by message id."""
        return dict(self._verbs.drafts)

    # Selection and pointer

    def selected_text(self) -> str:
        """The selected text over all messages, also those off screen."""
        return self.selection.text(self.rows, self._stack.content)

    def copy_selection(self) -> bool:
        """Put the selected text on the clipboard; False when nothing is selected."""
        if self.selection.is_empty:
            return False
        QGuiApplication.clipboard().setText(self.selected_text())
        return True

    def select_all(self) -> None:
        """Select the text of all messages."""
        self.selection.select_all(self.rows, self._stack.content)
        self.update_rows()

    def clear_selection(self) -> None:
        """Select nothing."""
        self.selection.clear()
        self.update_rows()

    def set_draft_count(self, count: int) -> None:
        """How many drafts Ask again ×3 asks for."""
        self.draft_count = count
        self._refresh_rows()

    def update_rows(self) -> None:
        """Paint the rows in view again."""
        for row in self._live.values():
            row.update()

    def selected_in(self, message_id: int, part: int) -> tuple[Spot, Spot] | None:
        """What of a row's part is selected."""
        content = self.content_of(message_id)
        return self.selection.inside(message_id, part, content) if content else None

    def code_under_pointer(self, message_id: int) -> tuple[int, bool]:
        """The code block under the pointer in a row (-1: none), and whether it was just copied."""
        return self.pointer.code_in(message_id)

    def place_at(self, point: QPointF) -> tuple[int, Place] | None:
        """The text place nearest to a point of the viewport, with its message."""
        if not self.rows:
            return None
        y = point.y() + self._scroll()
        index = self._stack.row_at(y)
        view = self.rows[index]
        inner = QPointF(point.x() - self._left, y - self._stack.top_of(index))
        return view.message_id, self._stack.content(view).place_at(index, inner)

    def row_id(self, message_id: int) -> int:
        """The message by whose id the row of this message goes: see `RowView.drafts`."""
        return self._stack.row_id(message_id)

    def row_of(self, message_id: int) -> Row | None:
        """The widget of a message on screen."""
        return self._live.get(message_id)

    def row_under(self, point: QPointF) -> Row | None:
        """The row widget at a point of the viewport."""
        under = (row for row in self._live.values() if row.geometry().contains(point.toPoint()))
        return next(under, None)

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Leave:
            self.row_entered(None)
            self.pointer.leave()
        return super().viewportEvent(event)
