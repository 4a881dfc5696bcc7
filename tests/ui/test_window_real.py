"""The window with llama.cpp itself, on tiny random weights: a day with one chat, then a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot

from desktop_app.conversation import Role, State
from desktop_app.ui.row_view import EditMode
from tests.fakes import tiny_gguf
from tests.ui.desk import Desk, Open, opener

ALT = Qt.KeyboardModifier.AltModifier
CONTROL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def open_desk(qtbot: QtBot, tmp_path: Path) -> Iterator[Open]:
    # Slow enough to be caught in the middle of a reply, which never ends by itself.
    (tmp_path / "files").mkdir()
    weights = tiny_gguf.write(tmp_path / "files" / "Tiny.gguf", "slow")
    short = {"temperature": 1.0, "max_tokens": 24}

    def make() -> Desk:
        return Desk(
            qtbot,
            tmp_path / "profile",
            engine=None,
            weights_path=str(weights),
            presets={"Short": short, "Long": {"temperature": 0.0, "max_tokens": 0}},
            preset="Short",
        )

    with opener(make) as start:
        yield start


def dump(desk: Desk) -> Any:
    """The chat as it is on disk, without the times at which it was last touched."""
    desk.chat.saved().result()
    return desk.library.export_chat(desk.chat.chat.id).result()


def test_a_day_with_one_chat_and_a_restart(open_desk: Open) -> None:
    desk = open_desk()
    page = desk.window.page
    desk.say("Once upon a time")
    first = desk.last()
    assert desk.chat.tree.node(first).state is State.DONE
    # Ask again twice: three versions, the newest open.
    for _ in range(2):
        QTest.keyClick(desk.window, Qt.Key.Key_R, CONTROL)
        desk.wait_quiet()
    assert len(desk.chat.tree.siblings(first)) == 3
    QTest.keyClick(desk.window, Qt.Key.Key_Left, ALT)
    QTest.keyClick(desk.window, Qt.Key.Key_Left, ALT)
    assert desk.last() == first
    desk.say("And then")
    # A long reply, stopped and continued.
    desk.window.weights.choose_preset("Long")
    desk.say("Tell me everything", wait=False)
    reply = desk.last()
    desk.wait(lambda: len(desk.chat.tree.text(reply)) > 10)
    QTest.keyClick(page.composer.text, Qt.Key.Key_Escape)
    desk.wait_quiet()
    assert desk.chat.tree.node(reply).state is State.STOPPED
    stopped = desk.chat.tree.text(reply)
    page.transcript.continue_requested.emit(reply)
    desk.wait(lambda: len(desk.chat.tree.text(reply)) > len(stopped) + 5)
    desk.find(QPushButton, "composer.stop").click()
    desk.wait_quiet()
    assert desk.chat.tree.text(reply).startswith(stopped)
    # Another beginning, an edited reply, a deleted version.
    desk.window.weights.choose_preset("Short")
    prompt = desk.chat.path()[0]
    page.transcript.edit_saved.emit(prompt, "Twice upon a time", EditMode.ASK_AGAIN.value)
    desk.wait_quiet()
    page.transcript.edit_saved.emit(desk.last(), "Mine.", EditMode.AS_VERSION.value)
    assert desk.texts()[-1] == ("assistant", "Mine.")
    page.transcript.delete_requested.emit(desk.last())
    assert len(desk.chat.path()) == 2
    page.transcript.version_requested.emit(desk.chat.path()[0], 1)
    assert desk.last() == reply
    # Quit while writing; what the library holds is what comes back.
    desk.window.weights.choose_preset("Long")
    QTest.keyClick(desk.window, Qt.Key.Key_R, CONTROL)
    desk.wait(lambda: len(desk.chat.tree.text(desk.last())) > 5)
    newest, path = desk.last(), desk.chat.path()
    desk.close()
    again = open_desk()
    again.wait(lambda: again.window.page.conversation is not None)
    assert again.chat.path() == path
    assert again.chat.tree.node(newest).state in (State.STOPPED, State.INTERRUPTED)
    assert again.chat.tree.text(newest)
    before = dump(again)
    again.close()
    third = open_desk()
    third.wait(lambda: third.window.page.conversation is not None)
    assert dump(third) == before


def test_the_prompt_window_shows_text_and_tokens(open_desk: Open) -> None:
    from desktop_app.ui.prompt_window import PromptWindow

    desk = open_desk()
    desk.say("Hello there")
    shown = PromptWindow(desk.window, desk.session, desk.bridge, desk.chat, None)
    desk.wait(lambda: "Hello there" in shown._text.toPlainText())
    assert "<|im_start|>user" in shown._text.toPlainText()
    assert "token" in shown._facts.text()
    tokens = shown._tokens.toPlainText()
    assert "<|im_start|>" in tokens
    assert desk.last(Role.USER)
    shown.close()


def test_the_details_window_says_how_a_reply_was_made(open_desk: Open) -> None:
    from desktop_app.ui.details_window import DetailsWindow

    desk = open_desk()
    desk.say("Hello there")
    shown = DetailsWindow(desk.window, desk.bridge, desk.chat, desk.last())
    # Random weights may end their turn before the 24 tokens that the preset allows.
    desk.wait(lambda: bool(re.search(r"Written: [1-9]", shown._text.toPlainText())))
    assert re.search(r"Seed: \d", shown._text.toPlainText())
    assert "Hello" not in shown._text.toPlainText()
    shown.close()
