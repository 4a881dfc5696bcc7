"""The sidebar's groups, hits, badges and keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit
from pytestqt.qtbot import QtBot

from desktop_app.ui.chats_model import OPEN_ROLE, WRITING_ROLE, Kind, group_of, grouped
from desktop_app.ui.sidebar import Sidebar

KST = timezone(timedelta(hours=9))


@dataclass
class Chat:
    id: int
    title: str
    updated_at: int
    pinned: bool = False


@dataclass
class Hit:
    chat_id: int
    message_id: int
    snippet: str
    chat_title: str
    spans: tuple[tuple[int, int], ...] = ()


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def test_groups_follow_the_users_own_midnight() -> None:
    now = datetime(2026, 11, 23, 0, 30, tzinfo=KST)
    # In Korea it is half past midnight: half an hour ago was today, an hour ago yesterday.
    assert group_of(ms(now - timedelta(minutes=20)), False, now) == "today"
    assert group_of(ms(now - timedelta(minutes=40)), False, now) == "yesterday"
    assert group_of(ms(now - timedelta(days=3)), False, now) == "week"
    assert group_of(ms(now - timedelta(days=8)), False, now) == "older"
    assert group_of(ms(now - timedelta(days=90)), True, now) == "pinned"
    assert group_of(ms(now + timedelta(days=2)), False, now) == "today"


def test_rows_stand_in_groups_newest_first() -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    chats = [
        Chat(1, "one", ms(now - 3 * hour)),
        Chat(2, "two", ms(now - hour)),
        Chat(3, "", ms(now - timedelta(days=1))),
        Chat(4, "pin", ms(now - timedelta(days=40)), pinned=True),
    ]
    rows = grouped(chats, now)
    assert [(row.kind, row.text) for row in rows] == [
        (Kind.GROUP, "Pinned"),
        (Kind.CHAT, "pin"),
        (Kind.GROUP, "Today"),
        (Kind.CHAT, "two"),
        (Kind.CHAT, "one"),
        (Kind.GROUP, "Yesterday"),
        (Kind.CHAT, "New chat"),
    ]


def make(qtbot: QtBot) -> Sidebar:
    side = Sidebar()
    qtbot.addWidget(side)
    side.resize(248, 600)
    now = ms(datetime.now(UTC))
    side.show_chats([Chat(1, "First", now), Chat(2, "Second", now - 1000)])
    side.show()
    return side


def test_the_badge_stands_only_on_chats_that_are_not_open(qtbot: QtBot) -> None:
    side = make(qtbot)
    side.rows.set_writing(frozenset({1, 2}))
    side.show_open(1)
    first = side.rows.index(side.rows.row_of_chat(1))
    second = side.rows.index(side.rows.row_of_chat(2))
    assert not first.data(WRITING_ROLE)
    assert first.data(OPEN_ROLE)
    assert second.data(WRITING_ROLE)
    spoken = second.data(Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "Second, Writing"


def test_enter_opens_and_delete_asks_for_the_trash_but_backspace_does_nothing(
    qtbot: QtBot,
) -> None:
    side = make(qtbot)
    chosen: list[tuple[int, int]] = []
    deleted: list[int] = []
    side.list.chosen.connect(lambda chat, message: chosen.append((chat, message)))
    side.list.delete_wanted.connect(deleted.append)
    side.list.step_into()
    QTest.keyClick(side.list, Qt.Key.Key_Return)
    QTest.keyClick(side.list, Qt.Key.Key_Down)
    QTest.keyClick(side.list, Qt.Key.Key_Backspace)
    assert deleted == []
    QTest.keyClick(side.list, Qt.Key.Key_Delete)
    assert chosen == [(1, 0)]
    assert deleted == [2]


def test_renaming_in_the_row(qtbot: QtBot) -> None:
    side = make(qtbot)
    renamed: list[tuple[int, str]] = []
    side.list.renamed.connect(lambda chat, title: renamed.append((chat, title)))
    side.list.rename(2)
    editor = side.list.viewport().findChild(QLineEdit, "sidebar.rename")
    assert isinstance(editor, QLineEdit)
    QTest.keyClicks(editor, "Better name")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: renamed == [(2, "Better name")])


def test_search_is_asked_after_a_pause_and_old_hits_are_dropped(qtbot: QtBot) -> None:
    side = make(qtbot)
    asked: list[str] = []
    side.search_wanted.connect(asked.append)
    with qtbot.waitSignal(side.search_wanted):
        QTest.keyClicks(side.search, "rate")
    assert asked == ["rate"]
    side.show_hits("rat", [Hit(9, 9, "old", "old")])
    assert side.rows.row_of_chat(1) >= 0
    side.show_hits("rate", [Hit(5, 77, "the rate of\ninterest", "Loan", ((4, 8),))])
    rows = [side.rows.item(side.rows.index(n)) for n in range(side.rows.rowCount())]
    assert [(row.kind, row.text, row.message_id) for row in rows] == [
        (Kind.GROUP, "1 found", 0),
        (Kind.HIT, "Loan", 77),
    ]
    side.search.clear()
    assert side.rows.row_of_chat(1) >= 0


def test_chats_that_change_meanwhile_do_not_replace_the_hits(qtbot: QtBot) -> None:
    side = make(qtbot)
    with qtbot.waitSignal(side.search_wanted):
        QTest.keyClicks(side.search, "x")
    side.show_hits("x", [])
    side.show_chats([Chat(8, "Newest", ms(datetime.now(UTC)))])
    assert side.rows.item(side.rows.index(0)).kind is Kind.NOTE
    side.search.clear()
    assert side.rows.row_of_chat(8) >= 0
