"""The row widgets of a transcript: those on screen, and spare ones to be used again."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from desktop_app.ui.drafts_content import DraftsContent
from desktop_app.ui.drafts_row import DraftsRow
from desktop_app.ui.row import Row, RowHost
from desktop_app.ui.row_content import RowContent

_KEPT = 12


class RowPool:
    """Rows by message id; a row of drafts is another kind of widget."""

    def __init__(self, parent: QWidget, host: RowHost) -> None:
        self.live: dict[int, Row] = {}
        self._parent = parent
        self._host = host
        self._spare: dict[type[Row], list[Row]] = {Row: [], DraftsRow: []}

    def take(self, message_id: int, content: RowContent) -> Row:
        """A row that shows this, and counts as on screen."""
        kind = DraftsRow if isinstance(content, DraftsContent) else Row
        spare = self._spare[kind]
        row = spare.pop() if spare else kind(self._parent, self._host)
        row.show_content(content)
        self.live[message_id] = row
        return row

    def release(self, message_id: int) -> None:
        """A row is not needed any more; the keyboard must be elsewhere already."""
        row = self.live.pop(message_id)
        row.hide()
        row.close_editor()
        row.content = None
        spare = self._spare[type(row)]
        if len(spare) < _KEPT:
            spare.append(row)
        else:
            row.deleteLater()

    def is_of_kind(self, message_id: int, *, drafts: bool) -> bool:
        """Whether the row on screen can show a reply, or drafts."""
        return isinstance(self.live[message_id], DraftsRow) == drafts
