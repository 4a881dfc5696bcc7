"""The rows of a transcript as a column: contents, heights measured or guessed, their sums.

Knows nothing of widgets.  Heights of rows that were never in view are guesses of a few µs each;
contents are made for rows in view and kept for the last few dozen.  y is in px from the top of
the whole column.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from desktop_app.ui.drafts_content import Card, DraftsContent
from desktop_app.ui.row_content import GUTTER, MEASURE, Looks, RowContent, guess_row_height
from desktop_app.ui.row_view import RowView

TOP = 10.0
OVERSCAN = 120.0
_KEPT_CONTENTS = 80


@dataclass(frozen=True, slots=True)
class Anchor:
    """What stands still while heights change: a row, a piece of its text (-1: the row's top)."""

    message_id: int
    row: int
    piece: int
    y: float  # below the top of the view


class RowStack:
    """The rows, top to bottom."""

    def __init__(self, looks: Looks) -> None:
        self.rows: list[RowView] = []
        self.index: dict[int, int] = {}
        self.column = 0.0
        self._left = 0.0
        self._view_width = 0.0
        self._drafts: dict[int, int] = {}
        self._looks = looks
        self._heights: list[float] = []
        self._tops: list[float] = [TOP]
        self._contents: OrderedDict[int, RowContent] = OrderedDict()

    # Rows

    def set_rows(self, rows: Sequence[RowView]) -> None:
        """Take other rows; those of the same text keep their height, their content its layout."""
        before = {
            view.message_id: (view, height)
            for view, height in zip(self.rows, self._heights, strict=True)
        }
        self.rows = list(rows)
        self._number_rows()
        self._heights = []
        for view in self.rows:
            same = before.get(view.message_id)
            known = same is not None and same[0].text == view.text
            self._heights.append(same[1] if same is not None and known else self._guess(view))
        for message_id, content in self._contents.items():
            if message_id in self.index:
                content.set_view(self.rows[self.index[message_id]])
        self._sum()

    def _number_rows(self) -> None:
        self.index = {view.message_id: index for index, view in enumerate(self.rows)}
        self._drafts = {
            draft.message_id: index for index, view in enumerate(self.rows) for draft in view.drafts
        }
        for view in self.rows:
            content = self._contents.get(view.message_id)
            if content is not None and isinstance(content, DraftsContent) != bool(view.drafts):
                del self._contents[view.message_id]  # a reply became drafts, or the other way

    def row_id(self, message_id: int) -> int:
        """The row in which a message is shown: its own, or that of the drafts it is one of."""
        if message_id in self._drafts:
            return self.rows[self._drafts[message_id]].message_id
        return message_id

    def update(self, view: RowView) -> None:
        """Take another state of a row that is there."""
        index = self.index[view.message_id]
        self.rows[index] = view
        content = self._contents.get(view.message_id)
        if content is None:
            self._heights[index] = self._guess(view)
        else:
            content.set_view(view)
            self._heights[index] = content.guess_height()
        self._sum()

    def stream(self, message_id: int, text: str, reasoning: str) -> RowContent | None:
        """Take the text so far of a row; its content when it has one."""
        index = self.index[message_id]
        self.rows[index] = replace(self.rows[index], text=text, reasoning=reasoning)
        content = self._contents.get(message_id)
        if content is not None:
            content.view = self.rows[index]
            content.stream(text, reasoning)
        return content

    def stream_draft(self, draft: RowView) -> tuple[int, DraftsContent | None, Card | None] | None:
        """Take another state of a draft while it grows: its row, content and card; None when it is
        not shown as a draft."""
        index = self._drafts.get(draft.message_id)
        if index is None:
            return None
        view = self.rows[index]
        drafts = tuple(draft if d.message_id == draft.message_id else d for d in view.drafts)
        if draft.message_id == view.shown_draft:
            view = replace(view, text=draft.text, reasoning=draft.reasoning)
        self.rows[index] = view = replace(view, drafts=drafts)
        content = self._contents.get(view.message_id)
        if not isinstance(content, DraftsContent):
            return index, None, None
        content.view = view
        return index, content, content.stream_draft(draft)

    def view_of(self, message_id: int) -> RowView | None:
        """What is shown of a message, a draft included."""
        at = self._drafts.get(message_id)
        if at is not None:
            return next(d for d in self.rows[at].drafts if d.message_id == message_id)
        index = self.index.get(message_id)
        return None if index is None else self.rows[index]

    def _guess(self, view: RowView) -> float:
        content = self._contents.get(view.message_id)
        if content is None and view.drafts and self.column:
            content = self.content(view)
        if content is not None and content.width == self.column:
            return content.guess_height()
        look = self._looks.reading
        return guess_row_height(view, self.column or MEASURE + GUTTER, look.line, look.letter)

    # Contents

    def content(self, view: RowView) -> RowContent:
        """The content of a row, made when it was not seen lately."""
        content = self._contents.get(view.message_id)
        if content is None:
            made = DraftsContent if view.drafts else RowContent
            content = made(view, self._looks)
            self._fit(content)
            self._contents[view.message_id] = content
        else:
            self._contents.move_to_end(view.message_id)
        return content

    def _fit(self, content: RowContent) -> None:
        content.set_room(self.column or MEASURE + GUTTER, self._left, self._view_width)

    def content_of(self, message_id: int) -> RowContent | None:
        """The content of a message that was seen lately."""
        return self._contents.get(self.row_id(message_id))

    def contents(self) -> Iterator[tuple[int, RowContent]]:
        """All contents there are, by message id."""
        return iter(self._contents.items())

    def trim(self, needed: Collection[int]) -> None:
        """Drop the contents that were not seen for longest."""
        for message_id in list(self._contents):
            if len(self._contents) <= _KEPT_CONTENTS:
                return
            if message_id not in needed:
                del self._contents[message_id]

    # Heights

    @property
    def bottom(self) -> float:
        """Where the last row ends."""
        return self._tops[-1]

    @property
    def drafts_height(self) -> float:
        """The height of the drafts that stand last; 0 where a message does."""
        return self._heights[-1] if self.rows and self.rows[-1].drafts else 0.0

    def top_of(self, index: int) -> float:
        """Where a row begins; the index after the last gives its end."""
        return self._tops[index]

    def row_at(self, y: float) -> int:
        """The index of the row at a height, 0 when there is none."""
        return min(max(0, bisect_right(self._tops, y) - 1), max(0, len(self.rows) - 1))

    def set_height(self, index: int, height: float) -> bool:
        """A row got a height; True when it is another one."""
        if height == self._heights[index]:
            return False
        self._heights[index] = height
        start = self._tops[index]
        below = accumulate(self._heights[index:])
        self._tops[index + 1 :] = [start + total for total in below]
        return True

    def _sum(self) -> None:
        self._tops = [TOP, *(TOP + total for total in accumulate(self._heights))]

    def set_column(self, column: float, left: float, view_width: float) -> bool:
        """Lay out for another width, lazily; True when it is another one."""
        if (column, left, view_width) == (self.column, self._left, self._view_width):
            return False
        same = column == self.column
        self.column, self._left, self._view_width = column, left, view_width
        if same and not self._drafts:
            return False
        for content in self._contents.values():
            self._fit(content)
        self._heights = [self._guess(view) for view in self.rows]
        self._sum()
        return True

    def set_looks(self, looks: Looks) -> None:
        """Use other fonts and colours; the next `set_column` lays out again."""
        self._looks = looks
        self.column = 0.0
        for content in self._contents.values():
            content.set_looks(looks)

    def lay_out(self, scroll: float, height: float) -> bool:
        """Lay out the rows in view; True when a height was not what it was thought to be."""
        if not self.rows:
            return False
        index = self.row_at(scroll - OVERSCAN)
        top, changed = self._tops[index], False
        while index < len(self.rows) and top - scroll < height + OVERSCAN:
            content = self.content(self.rows[index])
            self._fit(content)
            offset = scroll - top
            found = content.layout(offset - OVERSCAN, offset + height + OVERSCAN)
            if found != self._heights[index]:
                self._heights[index] = found
                changed = True
            top += found
            index += 1
        if changed:
            self._sum()
        return changed

    # Standing still

    def anchor(self, scroll: float) -> Anchor | None:
        """The piece of text at the top of a view; None without rows."""
        if not self.rows:
            return None
        index = self.row_at(scroll)
        view = self.rows[index]
        piece, y = -1, self._tops[index] - scroll
        content = self._contents.get(view.message_id)
        if content is not None and y < 0 and content.body.pieces:
            piece = content.body.piece_at(-y - content.boxes.body_top)
            y += content.boxes.body_top + content.body.top(piece)
        return Anchor(view.message_id, index, piece, y)

    def anchor_for(self, keep: int, rows: Sequence[RowView], scroll: float) -> Anchor | None:
        """A message's row, or the row in whose place it comes with `rows`, where it is now."""
        index = self.index.get(keep, -1)
        if index < 0:
            index = next((n for n, view in enumerate(rows) if view.message_id == keep), -1)
        if not 0 <= index < len(self.rows):
            return None
        return Anchor(keep, index, -1, self._tops[index] - scroll)

    def anchor_to(self, index: int, words: str, height: float) -> Anchor:
        """A row near the top of a view, or the first of these words in it a third down."""
        message_id = self.rows[index].message_id
        piece = self.content(self.rows[index]).body.piece_with(words) if words else -1
        if piece >= 0:
            return Anchor(message_id, index, piece, height * 0.3)
        return Anchor(message_id, index, -1, 24.0 if index else TOP)

    def still_there(self, anchor: Anchor | None) -> Anchor | None:
        """The anchor, None when its message is not shown any more."""
        if anchor is None or self.row_id(anchor.message_id) not in self.index:
            return None
        return anchor

    def anchored(self, anchor: Anchor) -> float:
        """How far to scroll so that the anchor stands where it stood."""
        known = self.row_id(anchor.message_id)
        index = self.index.get(known, min(anchor.row, len(self.rows) - 1))
        top = self._tops[index]
        content = self._contents.get(self.rows[index].message_id)
        if anchor.piece >= 0 and content is not None:
            top += content.boxes.body_top + content.body.top(anchor.piece)
        return top - anchor.y
