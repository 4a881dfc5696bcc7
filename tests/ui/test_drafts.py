"""Drafts in the window, from keys to disk: cards, Stop, Keep, undo, and what goes on meanwhile."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication, QLabel, QMenu, QPushButton, QWidget

from desktop_app.conversation import Role, State
from desktop_app.ui import theme
from desktop_app.ui.draft_card import DraftCard
from desktop_app.ui.drafts_row import DraftsRow
from desktop_app.ui.row_view import RowState
from tests.ui.desk import Desk, Open

CONTROL = Qt.KeyboardModifier.ControlModifier
CONTROL_SHIFT = CONTROL | Qt.KeyboardModifier.ShiftModifier


def row_of(desk: Desk) -> DraftsRow:
    """The row of drafts on screen."""
    found = [
        row
        for row in desk.window.findChildren(DraftsRow)
        if row.isVisibleTo(desk.window) and row.content is not None
    ]
    assert len(found) == 1
    return found[0]


def is_compared(desk: Desk) -> bool:
    return any(view.drafts for view in desk.window.page.transcript.rows)


def cards(desk: Desk) -> list[DraftCard]:
    return [card for card in row_of(desk).cards if not card.isHidden()]


def button(desk: Desk, name: str) -> QAbstractButton:
    """A control of a card by its identifier, such as "draft.2.keep"."""
    found = [
        one
        for one in row_of(desk).findChildren(QAbstractButton)
        if one.accessibleIdentifier() == name
    ]
    assert len(found) == 1, name
    return found[0]


def with_focus() -> QWidget:
    """The control with the keyboard."""
    widget = QApplication.focusWidget()
    assert widget is not None
    return widget


def ask_three(desk: Desk, words: str) -> list[int]:
    """Ask again ×3 by its shortcut; the ids of the drafts, in order."""
    desk.say("count 1")
    first = desk.last()
    prompt = desk.last(Role.USER)
    desk.chat.edit_in_place(prompt, words)
    before = set(desk.chat.tree.siblings(first))
    QTest.keyClick(desk.window, Qt.Key.Key_R, CONTROL_SHIFT)
    desk.wait(lambda: is_compared(desk))
    return [i for i in desk.chat.tree.siblings(first) if i not in before]


def wait_words(desk: Desk, ids: list[int], text: str) -> None:
    desk.wait(lambda: all(desk.chat.tree.text(i).strip() == text for i in ids))


def test_drafts_stand_side_by_side_each_with_its_own_stop(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "wait")
    assert len(drafts) == 3
    wait_words(desk, drafts, "0 1")
    desk.wait(lambda: [card.view.text.strip() for card in cards(desk)] == ["0 1"] * 3)
    shown = cards(desk)
    assert [card.message_id for card in shown] == drafts
    assert [card.view.state for card in shown] == [RowState.WRITING] * 3
    assert len({card.view.seed for card in shown}) == 3
    boxes = [card.geometry() for card in shown]
    assert len({box.top() for box in boxes[:2]}) == 1
    assert boxes[0].right() < boxes[1].left()
    # One draft is stopped; the others go on, and the stopped one keeps its words.
    button(desk, "draft.2.stop").click()
    desk.wait(lambda: desk.chat.tree.node(drafts[1]).state is State.STOPPED)
    assert set(desk.session.writing()) == {drafts[0], drafts[2]}
    desk.wait(lambda: cards(desk)[1].view.state is RowState.STOPPED)
    assert desk.chat.tree.text(drafts[1]).strip() == "0 1"
    assert button(desk, "draft.2.continue").isVisible()
    assert cards(desk)[1].view.facts.startswith("2 tokens")
    button(desk, "drafts.stop").click()
    desk.wait_quiet()
    desk.wait(lambda: not button(desk, "drafts.stop").isVisible())
    assert [desk.chat.tree.node(i).state for i in drafts] == [State.STOPPED] * 3
    # Continue goes on in the card.
    button(desk, "draft.3.continue").click()
    wait_words(desk, [drafts[2]], "0 1 2 3")
    desk.wait(lambda: cards(desk)[2].view.text.strip() == "0 1 2 3")
    button(desk, "draft.3.stop").click()
    desk.wait_quiet()


def test_keep_makes_a_draft_the_path_and_the_others_stay_as_versions(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "count 2")
    desk.wait_quiet()
    desk.wait(lambda: all(card.view.state is RowState.DONE for card in cards(desk)))
    QTest.mouseClick(button(desk, "draft.3.keep"), Qt.MouseButton.LeftButton)
    assert not is_compared(desk)
    assert desk.last() == drafts[2]
    view = desk.window.page.transcript.rows[-1]
    assert (view.message_id, view.version, view.versions) == (drafts[2], 4, 4)
    told = desk.find(QLabel, "toast.text").text()
    assert told == "Kept draft 3. The 2 others stay as versions."
    # The toast leads back; sending goes on from the draft that is shown, and ends the comparison.
    desk.find(QPushButton, "toast.action").click()
    desk.wait(lambda: is_compared(desk))
    placeholder = desk.window.page.composer.text.placeholderText
    assert placeholder() == "Write on from draft 3, or keep another"
    button(desk, "draft.1.more").setFocus(Qt.FocusReason.TabFocusReason)
    desk.wait(lambda: desk.last() == drafts[0])
    desk.wait(lambda: placeholder().startswith("Write on from draft 1"))
    desk.say("count 1")
    assert desk.chat.path()[1] == drafts[0]
    desk.wait(lambda: not is_compared(desk))
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    desk.wait(lambda: desk.last() == drafts[0])
    desk.wait(lambda: len(desk.window.page.transcript.rows) == 2)
    assert not is_compared(desk)  # whoever went on has chosen


def test_keeping_while_others_write_stops_them(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "wait")
    wait_words(desk, drafts, "0 1")
    button(desk, "draft.1.keep").click()
    desk.wait(lambda: desk.session.writing() == (drafts[0],))
    states = [desk.chat.tree.node(i).state for i in drafts]
    assert states == [State.STREAMING, State.STOPPED, State.STOPPED]
    assert [desk.chat.tree.text(i).strip() for i in drafts] == ["0 1"] * 3
    desk.session.stop_all()
    desk.wait_quiet()


def test_sending_with_drafts_is_one_step(open_desk: Open) -> None:
    desk = open_desk()
    desk.settings.drafts = 2
    field = desk.window.page.composer.text
    field.setFocus()
    field.insertPlainText("count 2")
    QTest.keyClick(field, Qt.Key.Key_Return, CONTROL_SHIFT)
    desk.wait(lambda: desk.window.page.conversation is not None and is_compared(desk))
    desk.wait_quiet()
    assert len(cards(desk)) == 2
    assert desk.chat.undo_name == "send"
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    assert (len(desk.chat.tree), desk.chat.can_undo) == (0, False)
    desk.wait(lambda: not is_compared(desk))
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL_SHIFT)
    desk.wait(lambda: is_compared(desk))  # what comes back comes back side by side
    assert len(cards(desk)) == 2


def test_undo_while_drafts_write_takes_them_all(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "wait")
    wait_words(desk, drafts, "0 1")
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    desk.wait_quiet()
    assert not set(drafts) & set(desk.chat.tree.ids())
    desk.wait(lambda: not is_compared(desk))
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL_SHIFT)
    desk.wait(lambda: is_compared(desk))
    assert [desk.chat.tree.text(i).strip() for i in drafts] == ["0 1"] * 3
    assert [desk.chat.tree.node(i).state for i in drafts] == [State.STOPPED] * 3


def test_a_draft_or_its_prompt_is_deleted_while_drafts_write(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "wait")
    wait_words(desk, drafts, "0 1")
    desk.window.verbs.delete(drafts[0])
    desk.wait(lambda: len(cards(desk)) == 2)
    assert set(desk.session.writing()) == {drafts[1], drafts[2]}
    assert [card.message_id for card in cards(desk)] == drafts[1:]
    assert [card.accessibleIdentifier() for card in cards(desk)] == ["draft.1", "draft.2"]
    desk.window.verbs.delete(drafts[2])
    desk.wait(lambda: not is_compared(desk))  # one draft is a reply like any other
    assert desk.last() == drafts[1]
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    desk.wait(lambda: is_compared(desk))
    desk.window.verbs.delete(desk.last(Role.USER))
    desk.wait_quiet()
    assert desk.chat.path() == []
    desk.wait(lambda: not is_compared(desk))


def test_switching_chats_while_drafts_write_and_a_restart(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "wait")
    chat_id = desk.chat.chat.id
    wait_words(desk, drafts, "0 1")
    desk.window.new_chat()
    desk.say("count 2")
    assert desk.texts()[-1] == ("assistant", "0 1")
    assert set(desk.session.writing()) == set(drafts)
    desk.window.page.open_chat(chat_id)
    desk.wait(lambda: desk.chat.chat.id == chat_id and is_compared(desk))
    assert [card.view.text.strip() for card in cards(desk)] == ["0 1"] * 3
    assert [card.view.state for card in cards(desk)] == [RowState.WRITING] * 3
    button(desk, "draft.3.stop").click()
    desk.wait(lambda: desk.chat.tree.node(drafts[2]).state is State.STOPPED)
    desk.window.verbs.show_draft(drafts[1])
    desk.wait(lambda: desk.last() == drafts[1])
    seeds = [card.view.seed for card in cards(desk)]
    desk.session.stop_all()
    desk.wait_quiet()
    desk.close()
    again = open_desk()
    again.wait(lambda: again.window.page.conversation is not None and is_compared(again))
    assert again.last() == drafts[1]
    again.wait(lambda: [card.view.seed for card in cards(again)] == seeds)
    assert all(card.view.facts.startswith("2 tokens") for card in cards(again))


def test_a_failure_is_told_on_each_card_and_leaves_finished_drafts_alone(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "wait")
    wait_words(desk, drafts, "0 1")
    button(desk, "draft.1.stop").click()
    desk.wait(lambda: desk.chat.tree.node(drafts[0]).state is State.STOPPED)
    assert desk.engine.child_pid is not None
    import psutil

    psutil.Process(desk.engine.child_pid).kill()
    desk.wait_quiet()
    desk.wait(lambda: cards(desk)[2].view.state is RowState.FAILED)
    assert [card.view.state for card in cards(desk)] == [
        RowState.STOPPED,
        RowState.FAILED,
        RowState.FAILED,
    ]
    assert all(desk.chat.tree.text(i).strip() == "0 1" for i in drafts)
    assert button(desk, "draft.3.continue").text() == "Try again"
    prompt = desk.last(Role.USER)
    desk.chat.edit_in_place(prompt, "count 2")
    button(desk, "draft.3.continue").click()
    desk.wait_quiet()
    assert desk.chat.tree.node(drafts[2]).state is State.DONE
    assert desk.chat.tree.node(drafts[1]).state is State.FAILED


def test_cards_wrap_in_a_narrow_window_and_nothing_is_cut(open_desk: Open) -> None:
    desk = open_desk()
    ask_three(desk, "count 600")
    desk.wait_quiet()
    page = desk.window.page
    for width in (1600, 1280, 900, 640, 420):
        desk.window.resize(width, 700)
        QApplication.processEvents()
        desk.wait(lambda: page.transcript.width() == page.width())
        shown = cards(desk)
        edges = [card.geometry() for card in shown]
        assert all(box.left() >= 0 and box.right() < page.width() for box in edges), width
        for card in shown:
            assert not any(card.geometry().intersects(b.geometry()) for b in shown if b is not card)
            inner = card.keep.geometry()
            assert inner.right() < card.foot.width()
            assert card.head.geometry().bottom() < card.foot.geometry().top()
    lines = {card.y() for card in cards(desk)}
    assert len(lines) == 3  # one below the other
    # Head and foot of a card higher than the view stay in view.
    view = page.transcript
    view.verticalScrollBar().setValue(row_of(desk).y() + view.verticalScrollBar().value() + 300)
    seen = [
        card
        for card in cards(desk)
        if card.visibleRegion().boundingRect().height() > view.viewport().height() * 0.9
    ]
    for card in seen:
        top = card.head.mapTo(view.viewport(), QPoint(0, 0)).y()
        bottom = card.foot.mapTo(view.viewport(), card.foot.rect().bottomLeft()).y()
        assert top >= 0
        assert bottom <= view.viewport().height()
    assert seen


def test_drafts_begin_at_their_top_and_stand_still_while_they_grow(open_desk: Open) -> None:
    desk = open_desk()
    for _ in range(4):
        desk.say("count 300")
    view = desk.window.page.transcript
    view.scroll_to_end()
    desk.window.verbs.ask_drafts(desk.last(), 3)
    desk.wait(lambda: is_compared(desk))
    desk.wait(lambda: 0 <= row_of(desk).y() <= view.viewport().height() * 0.17)
    top = row_of(desk).y()
    desk.wait_quiet()
    desk.wait(lambda: all(card.view.state is RowState.DONE for card in cards(desk)))
    assert row_of(desk).height() > view.viewport().height()
    assert row_of(desk).y() == top
    assert not view._jump.isVisible()  # nothing covers Keep
    view.verticalScrollBar().setValue(0)
    assert view._jump.isVisible()


def test_every_control_has_a_name_and_the_keyboard_reaches_it(open_desk: Open) -> None:
    desk = open_desk()
    drafts = ask_three(desk, "wait")
    wait_words(desk, drafts, "0 1")
    for number, card in enumerate(cards(desk), 1):
        assert card.accessibleName().startswith(f"Draft {number}, Writing")
        assert card.accessibleIdentifier() == f"draft.{number}"
    assert cards(desk)[0].accessibleName().endswith("open path")
    names = {
        one.accessibleIdentifier(): one.accessibleName()
        for one in row_of(desk).findChildren(QAbstractButton)
        if one.isVisible()
    }
    assert all(names.values())
    assert names["draft.2.keep"] == "Keep draft 2"
    assert names["draft.2.stop"] == "Stop draft 2"
    # From the row to the next card and its Keep, by keys alone.
    desk.window.page.transcript.focus_message(drafts[0])
    QTest.keyClick(row_of(desk), Qt.Key.Key_Right)
    desk.wait(lambda: desk.last() == drafts[1])
    focused = with_focus()
    assert focused.accessibleIdentifier() == "draft.2.keep"
    desk.wait(lambda: focused.property("kind") == "main")
    reached = set()
    for _ in range(14):
        QTest.keyClick(with_focus(), Qt.Key.Key_Tab)
        reached.add(with_focus().accessibleIdentifier())
    assert {"draft.3.stop", "draft.3.keep"} <= reached
    button(desk, "draft.2.keep").setFocus(Qt.FocusReason.TabFocusReason)
    QTest.keyClick(with_focus(), Qt.Key.Key_Space)
    assert not is_compared(desk)
    assert desk.last() == drafts[1]
    desk.session.stop_all()
    desk.wait_quiet()


@pytest.mark.qt_log_ignore("does not support")  # menus, on the offscreen platform
def test_the_split_button_asks_and_remembers_the_number(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    reply = desk.last()
    rows = desk.window.page.transcript
    header = rows.row_of(reply).header  # type: ignore[union-attr]  # it is on screen
    assert header.buttons["drafts"].accessibleName() == "Ask again ×3"
    assert header.buttons["count"].accessibleIdentifier() == "message.count"
    header.buttons["count"].click()
    menu = next(m for m in rows.findChildren(QMenu) if m.isVisible())
    names = [action.text() for action in menu.actions()]
    assert names == [f"{n} drafts" for n in range(2, 9)]
    menu.actions()[0].trigger()
    menu.close()
    desk.wait_quiet()
    desk.wait(lambda: is_compared(desk))
    assert len(cards(desk)) == 2
    assert desk.settings.drafts == 2
    button(desk, "draft.1.keep").click()
    kept = rows.row_of(desk.last())
    assert kept is not None
    assert kept.header.buttons["drafts"].accessibleName() == "Ask again ×2"
    kept.header.buttons["again"].click()
    desk.wait_quiet()
    assert not is_compared(desk)  # Ask again alone is one reply
    desk.close()
    assert open_desk().settings.drafts == 2


def test_text_over_cards_is_selected_and_copied(open_desk: Open) -> None:
    desk = open_desk()
    ask_three(desk, "count 3")
    desk.wait_quiet()
    rows = desk.window.page.transcript
    rows.select_all()
    assert rows.selected_text().split("\n\n")[-3:] == ["0 1 2"] * 3
    box = cards(desk)[1]
    words = box.mapTo(rows.viewport(), QPoint(24, round(row_of(desk).drafts.head_height) + 8))
    QTest.mouseDClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=words)
    assert rows.selected_text() == "0"
    assert rows.copy_selection()
    assert QGuiApplication.clipboard().text() == "0"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_cards_are_painted_in_both_looks(open_desk: Open, mode: str) -> None:
    desk = open_desk()
    ask_three(desk, "count 3")
    desk.wait_quiet()
    theme.current().set_mode(mode)  # type: ignore[arg-type]  # one of its modes
    QApplication.processEvents()
    picture = cards(desk)[0].grab().toImage()
    colours = {picture.pixelColor(x, 22).name() for x in range(0, picture.width(), 2)}
    assert theme.current().color("raised").name() in colours
    assert len(colours) > 3  # letters are there
    theme.current().set_mode("light")
    assert isinstance(desk.window, QWidget)
