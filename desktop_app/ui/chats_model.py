"""The sidebar's list: chats in groups by age, or the hits of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Protocol

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, Qt

from desktop_app.ui.words import tr

Index = QModelIndex | QPersistentModelIndex


class ChatFacts(Protocol):
    """What a row needs to know of a chat."""

    @property
    def id(self) -> int: ...
    @property
    def title(self) -> str: ...
    @property
    def pinned(self) -> bool: ...
    @property
    def updated_at(self) -> int: ...


class HitFacts(Protocol):
    """What a row needs to know of a search hit."""

    @property
    def chat_id(self) -> int: ...
    @property
    def message_id(self) -> int | None: ...
    @property
    def snippet(self) -> str: ...
    @property
    def spans(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def chat_title(self) -> str: ...


class Kind(IntEnum):
    """What a row of the list is."""

    GROUP = 0
    CHAT = 1
    HIT = 2
    NOTE = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list; `chat_id` and `message_id` are 0 where they make no sense.

    `spans` are the found words, as (start, end) in `snippet`.
    """

    kind: Kind
    text: str
    chat_id: int = 0
    message_id: int = 0
    snippet: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    pinned: bool = False


ROW_ROLE = Qt.ItemDataRole.UserRole + 1
WRITING_ROLE = Qt.ItemDataRole.UserRole + 2
OPEN_ROLE = Qt.ItemDataRole.UserRole + 3


def group_of(updated_at_ms: int, pinned: bool, now: datetime) -> str:
    """The group key of a chat: pinned, today, yesterday, week (the last 7 days) or older.

    `now` carries the user's time zone: days begin at their midnight.
    """
    if pinned:
        return "pinned"
    day = datetime.fromtimestamp(updated_at_ms / 1000, UTC).astimezone(now.tzinfo).date()
    age = now.date() - day
    if age <= timedelta(0):
        return "today"
    if age == timedelta(days=1):
        return "yesterday"
    return "week" if age <= timedelta(days=7) else "older"


def grouped(chats: Sequence[ChatFacts], now: datetime) -> list[Row]:
    """Rows with a heading before each group; newest first, pinned ones by title."""
    groups: dict[str, list[ChatFacts]] = {
        key: [] for key in ("pinned", "today", "yesterday", "week", "older")
    }
    for chat in sorted(chats, key=lambda chat: -chat.updated_at):
        groups[group_of(chat.updated_at, chat.pinned, now)].append(chat)
    rows: list[Row] = []
    for key, members in groups.items():
        if members:
            rows.append(Row(Kind.GROUP, tr(f"sidebar.group_{key}")))
        rows += [
            Row(
                Kind.CHAT,
                chat.title or tr("chat.untitled"),
                chat_id=chat.id,
                pinned=chat.pinned,
            )
            for chat in members
        ]
    return rows


def found(hits: Sequence[HitFacts]) -> list[Row]:
    """Rows of search hits: a heading with the count, then each hit with its chat's title."""
    if not hits:
        return [Row(Kind.NOTE, tr("sidebar.nothing_found"))]
    rows = [Row(Kind.GROUP, tr("sidebar.hits", count=len(hits)))]
    for hit in hits:
        title = hit.chat_title or tr("chat.untitled")
        if hit.message_id is None:  # the chat's title has the words
            rows.append(Row(Kind.CHAT, title, chat_id=hit.chat_id))
            continue
        rows.append(
            Row(
                Kind.HIT,
                title,
                chat_id=hit.chat_id,
                message_id=hit.message_id,
                snippet=hit.snippet.replace("\n", " "),
                spans=hit.spans,
            )
        )
    return rows


class ChatsModel(QAbstractListModel):
    """Holds `Row`s.  Main thread only."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Row] = []
        self._writing: frozenset[int] = frozenset()
        self._open_chat = 0

    def show_rows(self, rows: list[Row]) -> None:
        """Replace everything, without a reset when nothing changed."""
        if rows == self._rows:
            return
        self.beginResetModel()
        self._rows = rows
        self.endResetModel()

    def set_writing(self, chat_ids: frozenset[int]) -> None:
        """The chats in which a reply is being written."""
        if chat_ids != self._writing:
            self._writing = chat_ids
            self._touch_all()

    def set_open_chat(self, chat_id: int) -> None:
        """The chat in the page; 0 for none."""
        if chat_id != self._open_chat:
            self._open_chat = chat_id
            self._touch_all()

    def row_of_chat(self, chat_id: int) -> int:
        """The row of a chat, -1 when it is not in the list."""
        for row, item in enumerate(self._rows):
            if item.kind is Kind.CHAT and item.chat_id == chat_id:
                return row
        return -1

    def item(self, index: Index) -> Row:
        """The row behind a valid index."""
        return self._rows[index.row()]

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if not index.isValid():
            return None
        row = self._rows[index.row()]
        writing = row.kind is Kind.CHAT and row.chat_id in self._writing
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return row.text
        if role == Qt.ItemDataRole.AccessibleTextRole:
            badge = tr("state.writing") if writing else ""
            return ", ".join(part for part in (row.text, row.snippet, badge) if part)
        if role == ROW_ROLE:
            return row
        if role == WRITING_ROLE:
            return writing and row.chat_id != self._open_chat
        if role == OPEN_ROLE:
            return row.kind is Kind.CHAT and row.chat_id == self._open_chat
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid() or self._rows[index.row()].kind in (Kind.GROUP, Kind.NOTE):
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if self._rows[index.row()].kind is Kind.CHAT:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def _touch_all(self) -> None:
        if self._rows:
            self.dataChanged.emit(self.index(0), self.index(len(self._rows) - 1))
