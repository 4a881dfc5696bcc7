"""The whole window, from keys to disk: real library and session, an engine child by script."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, QSize, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from desktop_app.conversation import Role, State
from desktop_app.ui.row_view import EditMode
from desktop_app.ui.settings_window import SettingsWindow
from desktop_app.ui.trash import TrashWindow
from desktop_app.ui.window import first_size
from tests.ui.desk import Desk, Open


def test_ask_ask_again_switch_and_come_back(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 3")
    assert desk.texts() == [("user", "count 3"), ("assistant", "0 1 2")]
    assert desk.chat.chat.title == "count 3"
    first = desk.last()
    desk.window.page.transcript.again_requested.emit(first)
    desk.wait_quiet()
    second = desk.last()
    assert second != first
    assert desk.chat.tree.siblings(first) == (first, second)
    QTest.keyClick(desk.window, Qt.Key.Key_Left, Qt.KeyboardModifier.AltModifier)
    assert desk.last() == first
    desk.say("count 2")
    leaf = desk.last()
    QTest.keyClick(desk.window, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    chat_id = desk.chat.chat.id
    # Switching back leads to the leaf that was read there last.
    desk.window.page.transcript.version_requested.emit(second, 1)
    assert desk.last() == leaf
    texts = desk.texts()
    desk.close()
    again = open_desk()
    again.wait(lambda: again.window.page.chat_id == chat_id)
    assert again.texts() == texts


def test_stop_and_continue(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("wait", wait=False)
    page = desk.window.page
    desk.wait(page.composer.stop_button.isVisible)
    desk.wait(lambda: desk.chat.tree.text(desk.last()).strip() == "0 1")
    QTest.keyClick(page.composer.text, Qt.Key.Key_Escape)
    desk.wait_quiet()
    assert desk.chat.tree.node(desk.last()).state is State.STOPPED
    assert page.composer.send_button.isVisible()
    page.transcript.continue_requested.emit(desk.last())
    desk.wait(lambda: desk.chat.tree.text(desk.last()).strip() == "0 1 2 3")
    QTest.keyClick(page.composer.text, Qt.Key.Key_Escape)
    desk.wait_quiet()


def test_save_and_ask_again_then_delete_then_undo_all_and_redo_all(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 2")
    desk.say("count 1")
    prompt = desk.chat.path()[0]
    rows = desk.window.page.transcript
    rows.edit_saved.emit(prompt, "count 4", EditMode.ASK_AGAIN.value)
    desk.wait_quiet()
    assert desk.texts() == [("user", "count 4"), ("assistant", "0 1 2 3")]
    rows.edit_saved.emit(desk.last(), "Mine.", EditMode.IN_PLACE.value)
    assert desk.texts()[-1] == ("assistant", "Mine.")
    rows.delete_requested.emit(desk.chat.path()[0])
    toast = desk.find(QWidget, "toast")
    desk.wait(toast.isVisible)
    assert desk.find(QLabel, "toast.text").text() == "Deleted version 2 and 1 below"
    assert desk.texts()[0] == ("user", "count 2")
    desk.find(QPushButton, "toast.action").click()
    assert desk.texts() == [("user", "count 4"), ("assistant", "Mine.")]
    tree = {i: (desk.chat.tree.node(i).parent_id, desk.chat.tree.text(i)) for i in desk.chat.path()}
    undo, redo = desk.window.actions_by_key["undo"], desk.window.actions_by_key["redo"]
    steps = 0
    while desk.chat.can_undo:
        desk.wait(undo.isEnabled)
        QTest.keyClick(desk.window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        steps += 1
    assert len(desk.chat.tree) == 0
    assert steps >= 4
    control_shift = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    for _ in range(steps):
        desk.wait(redo.isEnabled)
        QTest.keyClick(desk.window, Qt.Key.Key_Z, control_shift)
    assert desk.chat.redo_name == "remove"  # the deletion that the toast took back
    again = {i: (desk.chat.tree.node(i).parent_id, desk.chat.tree.text(i)) for i in tree}
    assert again == tree


def test_an_undo_of_text_comes_before_an_undo_of_the_tree(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    field = desk.window.page.composer.text
    field.setFocus()
    QTest.keyClicks(field, "words")
    QTest.keyClick(field, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert field.toPlainText() == ""
    assert len(desk.chat.path()) == 2
    QTest.keyClick(field, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert desk.chat.path() == []


def test_a_click_on_a_row_that_is_gone_already_does_nothing(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    reply, rows = desk.last(), desk.window.page.transcript
    rows.delete_requested.emit(reply)
    rows.delete_requested.emit(reply)
    rows.again_requested.emit(reply)
    rows.continue_requested.emit(reply)
    rows.star_requested.emit(reply, True)
    rows.version_requested.emit(reply, 1)
    rows.edit_saved.emit(reply, "late", EditMode.IN_PLACE.value)
    assert len(desk.chat.path()) == 1
    QTest.keyClick(desk.window, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
    desk.wait_quiet()
    assert desk.texts() == [("user", "count 1"), ("assistant", "0")]


def test_switch_chats_while_writing_and_see_the_badge(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("wait", wait=False)
    first = desk.window.page.chat_id
    desk.wait(lambda: desk.texts()[-1] == ("assistant", "0 1"))
    desk.find(QPushButton, "sidebar.new").click()
    assert desk.window.page.chat_id == 0
    assert desk.window.sidebar.rows._writing == {first}
    desk.say("count 2")
    assert desk.texts()[-1] == ("assistant", "0 1")
    desk.window.page.open_chat(first)
    desk.wait(lambda: desk.window.page.chat_id == first)
    desk.wait(lambda: desk.texts()[-1] == ("assistant", "0 1"))
    desk.wait(desk.window.page.composer.stop_button.isVisible)
    desk.find(QPushButton, "composer.stop").click()
    desk.wait_quiet()
    assert desk.window.sidebar.rows._writing == frozenset()


def test_deleting_a_prompt_while_its_reply_streams(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("wait", wait=False)
    desk.wait(lambda: desk.chat.tree.text(desk.last()).strip() == "0 1")
    desk.window.page.transcript.delete_requested.emit(desk.last(Role.USER))
    assert desk.chat.path() == []
    desk.wait(lambda: not desk.session.writing())
    desk.find(QPushButton, "toast.action").click()
    assert desk.texts() == [("user", "wait"), ("assistant", "0 1")]
    assert desk.chat.tree.node(desk.last()).state is State.STOPPED


@pytest.mark.expects_log
def test_a_crash_of_the_engine_is_a_row_with_a_next_step(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("crash")
    assert desk.chat.tree.node(desk.last()).state is State.FAILED
    assert desk.window.sidebar.card.state == "stopped"
    assert desk.texts()[-1] == ("assistant", "0 1")
    desk.find(QPushButton, "weights.again").click()
    desk.wait(lambda: desk.window.sidebar.card.state == "ready")
    desk.say("count 2")
    assert desk.texts()[-1] == ("assistant", "0 1")


@pytest.mark.expects_log
def test_engine_kills_while_a_person_types_cost_no_keystroke(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("wait", wait=False)
    field = desk.window.page.composer.text
    prompt = desk.last(Role.USER)
    typed = ""
    for number in range(8):
        desk.wait(lambda: desk.chat.tree.text(desk.last()).strip() == "0 1")
        for child in psutil.Process().children():
            if "engine_child" in " ".join(child.cmdline()):
                child.kill()
        while desk.session.writing():
            letter = "abcdefgh"[number]
            QTest.keyClicks(field, letter)
            typed += letter
            QTest.qWait(5)
        assert desk.chat.tree.node(desk.last()).state is State.FAILED
        desk.window.page.transcript.again_requested.emit(prompt)
    desk.wait(lambda: desk.chat.tree.text(desk.last()).strip() == "0 1")
    assert field.toPlainText() == typed
    assert typed
    assert len(desk.chat.tree.children(prompt)) == 9
    QTest.keyClick(field, Qt.Key.Key_Escape)
    desk.wait_quiet()


def test_a_failure_keeps_the_text_and_offers_to_try_again(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("fail")
    reply = desk.last()
    assert desk.chat.tree.node(reply).state is State.FAILED
    desk.window.page.transcript.failure_action.emit(reply, "retry")
    desk.wait_quiet()
    assert desk.chat.tree.node(reply).state is State.FAILED


def test_unsent_text_is_kept_for_each_chat_and_for_the_new_one(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    chat_id = desk.window.page.chat_id
    field = desk.window.page.composer.text
    field.setPlainText("half a thought")
    desk.find(QPushButton, "sidebar.new").click()
    assert field.toPlainText() == ""
    field.setPlainText("another chat's beginning")
    desk.window.page.open_chat(chat_id)
    desk.wait(lambda: field.toPlainText() == "half a thought")
    desk.close()
    again = open_desk()
    field = again.window.page.composer.text
    again.wait(lambda: field.toPlainText() == "half a thought")
    again.find(QPushButton, "sidebar.new").click()
    assert field.toPlainText() == "another chat's beginning"


def test_each_branch_comes_back_where_it_was_read(open_desk: Open) -> None:
    desk = open_desk()
    for _ in range(3):
        desk.say("count 400")
    page = desk.window.page
    prompt = desk.chat.path()[0]
    page.transcript.set_position(desk.chat.path()[2], 40)
    place = page.transcript.position()
    page.transcript.edit_saved.emit(prompt, "count 300", EditMode.ASK_AGAIN.value)
    desk.wait_quiet()
    page.transcript.elsewhere_requested.emit(desk.chat.path()[0], 1)
    desk.wait(lambda: page.transcript.position() == place)
    desk.close()
    again = open_desk()
    again.wait(lambda: again.window.page.conversation is not None)
    again.wait(lambda: again.window.page.transcript.position() == place)


def test_quit_while_writing_keeps_what_was_written(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("wait", wait=False)
    desk.wait(lambda: desk.chat.tree.text(desk.last()).strip() == "0 1")
    desk.close()
    again = open_desk()
    again.wait(lambda: again.window.page.conversation is not None)
    assert again.texts() == [("user", "wait"), ("assistant", "0 1")]
    assert again.chat.tree.node(again.last()).state in (State.STOPPED, State.INTERRUPTED)


def test_a_chat_goes_to_the_trash_and_comes_back(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    chat_id = desk.window.page.chat_id
    desk.window.delete_chat(chat_id)
    desk.wait(lambda: desk.window.sidebar.rows.row_of_chat(chat_id) < 0)
    assert desk.window.page.chat_id == 0
    trash = TrashWindow(desk.window, desk.session, desk.bridge)
    desk.wait(lambda: trash.list.count() == 1)
    trash.list.item(0).setSelected(True)
    trash.restore_button.click()
    desk.wait(lambda: trash.list.count() == 0)
    desk.window.reload_chats()
    desk.wait(lambda: desk.window.sidebar.rows.row_of_chat(chat_id) >= 0)
    trash.close()


def test_removed_messages_come_back_from_the_trash_after_a_restart(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    desk.say("count 2")
    texts = desk.texts()
    desk.window.page.transcript.delete_requested.emit(desk.chat.path()[2])
    desk.close()
    again = open_desk()
    again.wait(lambda: again.window.page.conversation is not None)
    assert len(again.chat.path()) == 2
    trash = TrashWindow(again.window, again.session, again.bridge)
    again.wait(lambda: trash.list.count() == 1)
    assert "count 2" in trash.list.item(0).text()
    trash.list.item(0).setSelected(True)
    trash.restore_button.click()
    again.wait(lambda: again.texts() == texts)
    trash.close()


def test_search_opens_the_hits_own_path(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 2")
    prompt = desk.last(Role.USER)
    desk.window.page.transcript.edit_saved.emit(prompt, "zebra three", EditMode.ASK_AGAIN.value)
    desk.wait_quiet()
    desk.window.page.transcript.version_requested.emit(desk.last(Role.USER), 1)
    assert desk.last(Role.USER) == prompt
    desk.find(QPushButton, "sidebar.new").click()
    QTest.keyClick(desk.window, Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier)
    side = desk.window.sidebar
    QTest.keyClicks(side.search, "zebra")
    desk.wait(lambda: side.rows.rowCount() == 2 and side.rows._rows[1].message_id > 0)
    QTest.keyClick(side.search, Qt.Key.Key_Down)
    QTest.keyClick(side.list, Qt.Key.Key_Return)
    desk.wait(lambda: desk.window.page.conversation is not None)
    assert desk.texts()[0] == ("user", "zebra three")


def test_drafts_are_written_side_by_side(open_desk: Open) -> None:
    desk = open_desk()
    desk.settings.send_drafts = 3
    desk.say("count 2")
    replies = desk.chat.tree.children(desk.last(Role.USER))
    desk.wait(lambda: all(desk.chat.tree.text(i).strip() == "0 1" for i in replies))
    assert len(replies) == 3
    assert desk.last() == replies[0]


def test_settings_are_in_force_and_kept(open_desk: Open) -> None:
    desk = open_desk()
    settings = SettingsWindow(desk.window, desk.session)
    settings.show()
    switch = settings.findChild(QWidget, "settings.offline")
    assert switch is not None
    QTest.mouseClick(switch, Qt.MouseButton.LeftButton)
    assert desk.settings.offline
    line = desk.window.sidebar.connection
    names = [line.accessibleName(), *(w.accessibleName() for w in line.findChildren(QWidget))]
    assert any("Offline" in name for name in names)
    flash = settings.findChild(QComboBox, "settings.flash_attention")
    assert flash is not None
    flash.setFocus()
    QTest.keyClick(flash, Qt.Key.Key_End)
    assert desk.settings.flash_attention == "off"
    settings.close()
    desk.close()
    again = open_desk().settings
    assert again.offline
    assert again.flash_attention == "off"


def test_settings_that_cannot_be_written_are_told_in_one_sentence(
    open_desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk()

    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(desk.settings, "save", refuse)
    desk.window.weights.choose_preset("precise")
    assert "settings could not be saved" in desk.window.page.toast.text
    assert desk.settings.preset == "precise"


def test_a_weights_file_dropped_on_the_window_is_loaded(open_desk: Open, tmp_path: Path) -> None:
    desk = open_desk()
    other = Desk.weights(tmp_path / "more", "Other.gguf")
    files, words = QMimeData(), QMimeData()
    files.setUrls([QUrl.fromLocalFile(str(other))])
    words.setText("words")
    copy, left = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton
    none = Qt.KeyboardModifier.NoModifier
    middle = QPoint(600, 400)
    refused = QDragEnterEvent(middle, copy, words, left, none)
    refused.ignore()
    desk.window.dragEnterEvent(refused)
    assert not refused.isAccepted()
    entered = QDragEnterEvent(middle, copy, files, left, none)
    desk.window.dragEnterEvent(entered)
    assert entered.isAccepted()
    assert "Other.gguf" in desk.window.page.toast.text
    desk.window.dropEvent(QDropEvent(QPointF(middle), copy, files, left, none))
    desk.wait(lambda: desk.engine.loaded is not None and desk.engine.loaded.name == "Other")
    desk.wait(lambda: desk.window.page.composer.weights.choice() == "Other")
    assert desk.settings.weights_path == str(other)


def test_the_system_prompt_is_a_message_and_can_be_undone(open_desk: Open) -> None:
    desk = open_desk()
    settings = desk.window.dock.settings
    settings.system.setPlainText("Be brief.")
    settings.system.kept.emit()
    desk.wait(lambda: desk.window.page.conversation is not None)
    assert desk.chat.system_text == "Be brief."
    desk.say("count 1")
    assert desk.texts()[0] == ("system", "Be brief.")
    desk.wait(lambda: settings.system.toPlainText() == "Be brief.")
    settings.system.setPlainText("")
    settings.system.kept.emit()
    assert desk.chat.system_text == ""
    desk.window.verbs.undo()
    assert desk.chat.system_text == "Be brief."


def test_every_control_has_a_name_and_the_keyboard_reaches_the_buttons(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    nameless = [
        f"{type(widget).__name__} {widget.objectName()}"
        for widget in desk.window.findChildren(QWidget)
        if widget.focusPolicy() != Qt.FocusPolicy.NoFocus
        and widget.isVisible()
        and not widget.accessibleName()
        and not widget.objectName().startswith("qt_")
        and widget.focusProxy() is None
    ]
    assert nameless == []


def test_tab_reaches_every_control_of_the_window(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    desk.window.activateWindow()
    desk.wait(desk.window.isActiveWindow)
    composer = desk.window.page.composer
    composer.text.setPlainText("text")  # Send can be pressed
    composer.text.setFocus()
    reached: set[str] = set()
    for _ in range(80):
        focused = QApplication.focusWidget()
        assert focused is not None
        reached.add(focused.objectName())
        QTest.keyClick(focused, Qt.Key.Key_Tab)
    wanted = {
        "message", "message.copy", "message.more",
        "composer.text", "composer.weights", "composer.preset", "composer.drafts",
        "composer.send", "sidebar.new", "sidebar.search", "sidebar.chats", "sidebar.hide",
        "sidebar.settings", "header.undo", "header.find", "header.more", "dock.tabs", "dock.hide",
        "dock.outline",
    }  # fmt: skip
    assert wanted - reached == set()


def test_tab_goes_through_the_window_in_the_order_of_sight(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 1")
    desk.window.activateWindow()
    desk.wait(desk.window.isActiveWindow)
    page = desk.window.page

    def tab(back: bool = False) -> QWidget:
        focused = QApplication.focusWidget()
        assert focused is not None
        QTest.keyClick(focused, Qt.Key.Key_Backtab if back else Qt.Key.Key_Tab)
        now = QApplication.focusWidget()
        assert now is not None
        return now

    # From the composer back to the newest message, and from there to the header.
    page.composer.text.setFocus()
    assert tab(back=True) is page.transcript.row_of(desk.last())
    assert page.header.isAncestorOf(tab(back=True))
    # And forth: the message, its buttons, the composer.
    assert tab() is page.transcript.row_of(desk.last())
    passed = [tab() for _ in range(14)]
    assert page.composer.text in passed
    before = passed[: passed.index(page.composer.text)]
    assert before
    assert all(page.transcript.isAncestorOf(one) for one in before)
    # Round the window: from the dock to the sidebar.
    desk.window.dock.outline.setFocus()
    assert desk.window.sidebar.isAncestorOf(tab())
    assert not desk.window.sidebar.isAncestorOf(tab(back=True))


def test_found_words_are_marked_until_the_bar_closes(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 3")
    bar, looks = desk.window.page.find_bar, desk.window.page.transcript._looks
    bar.start()
    field = desk.find(QLineEdit, "find.text")
    QTest.keyClicks(field, "count")
    desk.wait(lambda: looks.find == "count")
    QTest.keyClick(field, Qt.Key.Key_Escape)
    assert looks.find == ""
    bar.start()
    desk.wait(lambda: looks.find == "count")
    desk.window.new_chat()
    assert looks.find == ""


def test_a_first_window_fits_its_screen() -> None:
    small = QSize(1280, 820)
    size = first_size(small)
    assert size.width() < small.width()
    assert size.height() <= small.height() - 40
    assert first_size(QSize(2560, 1440)) == QSize(1280, 820)


def test_ctrl_e_edits_the_message_with_the_keyboard_also_the_last_one(open_desk: Open) -> None:
    desk = open_desk()
    desk.say("count 3")
    rows, reply = desk.window.page.transcript, desk.last()
    row = rows.row_of(reply)
    assert row is not None
    row.setFocus()
    desk.wait(lambda: rows.keys.focused_row() == 1)
    QTest.keyClick(row, Qt.Key.Key_E, Qt.KeyboardModifier.ControlModifier)
    desk.wait(lambda: list(rows.editing()) == [reply])
    QTest.keyClick(desk.window.focusWidget(), Qt.Key.Key_Escape)
    desk.window.page.composer.text.setFocus()
    QTest.keyClick(desk.window, Qt.Key.Key_E, Qt.KeyboardModifier.ControlModifier)
    desk.wait(lambda: list(rows.editing()) == [desk.chat.path()[0]])
