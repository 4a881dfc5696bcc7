"""Text selection over messages: two places in the transcript and what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from desktop_app.ui.body import Spot
from desktop_app.ui.row_content import Place, RowContent
from desktop_app.ui.row_view import RowView

ContentOf = Callable[[RowView], RowContent]


class TranscriptSelection:
    """An anchor and a cursor.  Rows are kept by message id, so the list may change below it."""

    def __init__(self) -> None:
        self._anchor: tuple[int, Place] | None = None
        self._cursor: tuple[int, Place] | None = None
        self._order: dict[int, int] = {}

    def set_order(self, order: dict[int, int]) -> None:
        """The index of each message; a selection with an end that is gone is dropped."""
        self._order = order
        ends = (self._anchor, self._cursor)
        if any(end is not None and end[0] not in order for end in ends):
            self.clear()

    def clear(self) -> None:
        """Select nothing."""
        self._anchor = self._cursor = None

    def begin(self, message_id: int, place: Place) -> None:
        """Begin at a place."""
        self._anchor = self._cursor = (message_id, place)

    def extend(self, message_id: int, place: Place) -> None:
        """Move the cursor."""
        if self._anchor is None:
            self._anchor = (message_id, place)
        self._cursor = (message_id, place)

    def select(self, message_id: int, part: int, start: Spot, end: Spot) -> None:
        """Select inside one message."""
        row = self._order.get(message_id, 0)
        self._anchor = (message_id, Place(row, part, start))
        self._cursor = (message_id, Place(row, part, end))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is selected."""
        return self._anchor is None or self._anchor == self._cursor

    def _ends(self) -> tuple[Place, Place] | None:
        if self._anchor is None or self._cursor is None:
            return None
        first = self._placed(self._anchor)
        second = self._placed(self._cursor)
        return (first, second) if first <= second else (second, first)

    def _placed(self, end: tuple[int, Place]) -> Place:
        message_id, place = end
        return Place(self._order.get(message_id, place.row), place.part, place.spot)

    def inside(self, message_id: int, part: int, content: RowContent) -> tuple[Spot, Spot] | None:
        """What of a part is selected, to paint it."""
        ends = self._ends()
        row = self._order.get(message_id, -1)
        if self.is_empty or ends is None or row < 0:
            return None
        start, end = ends
        here = (row, part)
        if not (start.row, start.part) <= here <= (end.row, end.part):
            return None
        body = content.part(part)
        if body is None:
            return None
        begin = start.spot if (start.row, start.part) == here else Spot(0, 0)
        stop = end.spot if (end.row, end.part) == here else body.end()
        return begin, stop

    def rows(self) -> range:
        """The indexes of rows with something selected."""
        ends = self._ends()
        return range(0) if self.is_empty or ends is None else range(ends[0].row, ends[1].row + 1)

    def text(self, rows: Sequence[RowView], content_of: ContentOf) -> str:
        """The selected text.

        Rows between the ends are copied as they were written, so that a selection over thousands
        of messages lays out only its two ends.
        """
        ends = self._ends()
        if self.is_empty or ends is None:
            return ""
        start, end = ends
        parts = []
        for index in range(start.row, min(end.row, len(rows) - 1) + 1):
            if start.row < index < end.row:
                parts.append(rows[index].text.strip("\n"))
                continue
            content = content_of(rows[index])
            begin = start if index == start.row else None
            stop = end if index == end.row else None
            text = content.copy(begin, stop)
            parts.append(text)
        return "\n\n".join(part for part in parts if part)

    def select_all(self, rows: Sequence[RowView], content_of: ContentOf) -> None:
        """Select everything."""
        if not rows:
            return
        last = content_of(rows[-1])
        self._anchor = (rows[0].message_id, Place(0, 0, Spot(0, 0)))
        self._cursor = (rows[-1].message_id, last.last_place(len(rows) - 1))
