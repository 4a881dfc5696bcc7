"""What is told before asking and after: the wait, how a reply was made; and Ctrl+Z for a chat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QMenu, QPlainTextEdit, QPushButton
from pytestqt.qtbot import QtBot

from desktop_app.conversation import Role
from desktop_app.session import Reading
from desktop_app.ui import words
from desktop_app.ui.details_window import DetailsWindow, facts_of
from desktop_app.ui.waiting_hint import reads_words
from tests.ui.desk import Desk

CONTROL = Qt.KeyboardModifier.ControlModifier
CONTROL_SHIFT = CONTROL | Qt.KeyboardModifier.ShiftModifier
LONG = "count 1 " + "word " * 120


@pytest.fixture
def desk(qtbot: QtBot, tmp_path: Path) -> Iterator[Desk]:
    weights = Desk.weights(tmp_path / "files")
    made = Desk(qtbot, tmp_path / "profile", weights_path=str(weights))
    made.wait(lambda: made.engine.loaded is not None)
    yield made
    made.close()


def hint(desk: Desk) -> str:
    return desk.find(QLabel, "composer.waiting").text()


def settled(desk: Desk) -> str:
    """The line once nothing is being asked."""
    desk.wait(lambda: not desk.window.page.hint.asking)
    return hint(desk)


def test_the_wait_is_foretold_below_the_composer_and_at_ask_again(desk: Desk) -> None:
    composer = desk.window.page.composer
    composer.text.insertPlainText(LONG)
    assert settled(desk) == ""  # never measured: nothing is foretold
    composer.clear()
    desk.say(LONG)
    assert settled(desk) == ""  # all of it is in the cache
    composer.text.insertPlainText("x" * 400)
    desk.wait(lambda: hint(desk).startswith("Reads 4"))
    assert hint(desk).endswith("about 4 s")
    line = desk.find(QLabel, "composer.waiting")
    height = line.height()
    assert line.sizeHint().height() <= height  # not cut
    # While an answer is still to come, a change drops it: what stands at the end is of the end.
    composer.text.insertPlainText("y")
    composer.clear()
    desk.wait(lambda: hint(desk) == "")
    assert line.height() == height  # its room is kept, so that nothing moves
    # Another chat fills the cache: now this one must be read again, which Ask again tells.
    first, chat_id = desk.last(), desk.chat.chat.id
    desk.window.new_chat()
    desk.say("count 2")
    desk.window.page.open_chat(chat_id)
    desk.wait(lambda: desk.window.page.chat_id == chat_id)
    desk.wait(lambda: hint(desk).startswith("Reads 6"))
    rows = desk.window.page.transcript
    row = rows.row_of(first)
    assert row is not None
    button = row.header.buttons["again"]
    rows.focus_message(first)
    button.setFocus(Qt.FocusReason.TabFocusReason)
    desk.wait(lambda: hint(desk).startswith("Ask again reads 6"))
    assert "reads 6" in button.toolTip()
    assert button.toolTip().startswith("Ask again   Ctrl+R\n")
    composer.text.setFocus()
    desk.wait(lambda: hint(desk).startswith("Reads 6"))
    # While something is being written there is nothing to foretell.
    desk.say("wait", wait=False)
    desk.wait(lambda: hint(desk) == "")
    desk.session.stop_all()
    desk.wait_quiet()


def test_the_words_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads_words(None) == ""
    assert reads_words(Reading(3100, 12.3)) == "reads 3,100 tokens, about 12 s"
    assert reads_words(Reading(31000, 300.0)) == "reads 31,000 tokens, about 5 min"
    words.set_language("ko")
    assert reads_words(Reading(3100, 12.3)) == "3,100토큰 읽기, 약 12초"
    words.set_language("en")


@pytest.mark.qt_log_ignore("does not support")  # menus, on the offscreen platform
def test_how_a_reply_was_made_is_read_and_copied(desk: Desk) -> None:
    desk.say("count 3")
    reply = desk.last()
    rows = desk.window.page.transcript
    row = rows.row_of(reply)
    assert row is not None
    row.header.buttons["more"].click()
    menu = next(m for m in rows.findChildren(QMenu) if m.isVisible())
    next(a for a in menu.actions() if a.objectName() == "message.menu.details").trigger()
    menu.close()
    window = desk.find(DetailsWindow, "details")
    text = window.findChild(QPlainTextEdit)
    assert text is not None
    desk.wait(lambda: "Tokens" in text.toPlainText())
    shown = text.toPlainText()
    for line in (
        "  Written by: Tiny",
        "  Ended: the weights ended their turn",
        "  Preset: Balanced",
        "  Seed: 7",
        "  Written: 3",
        "  Engine: fake",
        "  Messages read: 1",
    ):
        assert line in shown.splitlines(), line
    copy = window.findChild(QPushButton, "details.copy")
    assert copy is not None
    copy.click()
    assert QGuiApplication.clipboard().text() == shown
    window.close()


def test_no_fact_of_a_turn_is_left_out() -> None:
    turn = {
        "weights": "Llama", "weights_hash": "ab" * 32, "quantisation": "Q4_0", "app": "1.0",
        "engine": "llama.cpp b1", "threads": 2, "gpu_layers": 0, "kv_type": "f16", "preset": "own",
        "flash_attention": True, "sampling": {"temperature": 0.7, "seed": 5, "steps": ["a", "b"]},
        "seed": 5, "drafts": 3, "draft": 1, "times": {"read_s": 1.25, "tokens_per_s": 8.9},
        "tokens_read": 40, "left_out": 2, "ancestors": [["u", 0], ["v", 1]], "odd": {"new": "fact"},
    }  # fmt: skip
    lines = [f"{name}: {value}" for _, facts in facts_of(turn) for name, value in facts]
    for line in (
        "Name: Llama", "Fingerprint: " + "ab" * 32, "Grove: 1.0", "Engine: llama.cpp b1",
        "Temperature: 0.7", "Steps of choosing: a → b", "Seed: 5", "Draft: 2 of 3",
        "Reading: 1.25 s", "Tokens a second: 8.9", "Read: 40", "Messages left out: 2",
        "Messages read: 2", "Flash attention: yes", "odd.new: fact", "Preset: own", "Threads: 2",
    ):  # fmt: skip
        assert line in lines, (line, lines)
    assert len([line for line in lines if line.startswith("Seed")]) == 1


def test_undo_brings_a_deleted_chat_back_when_that_was_the_last_thing(desk: Desk) -> None:
    desk.say("count 1")
    first = desk.chat.chat.id
    desk.window.new_chat()
    desk.say("count 2")
    second = desk.chat.chat.id
    undo = desk.window.actions_by_key["undo"]

    def chats() -> set[int]:
        return {chat.id for chat in desk.window._chats}

    desk.wait(lambda: chats() == {first, second})
    # The open chat goes; Ctrl+Z brings it back and opens it, Ctrl+Shift+Z takes it again.
    desk.window.delete_chat(second)
    desk.wait(lambda: chats() == {first} and undo.isEnabled())
    assert desk.window.page.conversation is None
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    desk.wait(lambda: chats() == {first, second} and desk.window.page.chat_id == second)
    assert desk.texts() == [("user", "count 2"), ("assistant", "0 1")]
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL_SHIFT)
    desk.wait(lambda: chats() == {first} and desk.window.page.conversation is None)
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    desk.wait(lambda: desk.window.page.chat_id == second)
    # Another chat goes, then something is done here: that is undone first, then the deletion.
    desk.window.delete_chat(first)
    desk.wait(lambda: chats() == {second} and undo.isEnabled())
    star = desk.last(Role.USER)
    desk.chat.star(star, True)
    desk.wait(lambda: desk.window.verbs.can_undo)
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    assert not desk.chat.tree.node(star).starred
    assert chats() == {second}
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    desk.wait(lambda: chats() == {first, second})
    assert desk.window.page.chat_id == second  # it was not open, so it does not open
    assert desk.texts()[0] == ("user", "count 2")


def test_copying_to_a_new_chat_is_one_step(desk: Desk) -> None:
    desk.say("count 1")
    desk.say("count 2")
    texts, old = desk.texts(), desk.chat.chat.id
    desk.window.verbs.copy_to_new_chat(desk.last())
    desk.wait(lambda: desk.window.page.chat_id not in (0, old))
    assert desk.texts() == texts
    assert desk.chat.tree.node(desk.last()).author == "Tiny"
    QTest.keyClick(desk.window, Qt.Key.Key_Z, CONTROL)
    assert (desk.chat.path(), desk.chat.can_undo) == ([], False)
