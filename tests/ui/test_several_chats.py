"""Replies go on while another chat is open, and the list shows which chats write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from desktop_app.conversation import State
from desktop_app.inference.protocol import ReadAhead
from desktop_app.ui.chats_model import WRITING_ROLE
from tests.ui.desk import Desk


@pytest.fixture
def desk(qtbot: QtBot, tmp_path: Path) -> Iterator[Desk]:
    weights = Desk.weights(tmp_path / "files")
    made = Desk(qtbot, tmp_path / "profile", weights_path=str(weights), read_ahead="always")
    made.wait(lambda: made.engine.loaded is not None)
    yield made
    made.close()


def badge(desk: Desk, chat_id: int) -> bool:
    """Whether the list shows that this chat writes."""
    rows = desk.window.sidebar.rows
    row = rows.row_of_chat(chat_id)
    return row >= 0 and bool(rows.data(rows.index(row), WRITING_ROLE))


def test_replies_go_on_while_another_chat_is_open(desk: Desk) -> None:
    desk.say("wait for me", wait=False)
    first = desk.chat
    reply = desk.last()
    desk.wait(lambda: bool(first.tree.text(reply)))
    desk.window.new_chat()
    desk.say("wait as well", wait=False)
    second = desk.chat
    assert second is not first
    desk.wait(lambda: bool(second.tree.text(desk.last())))
    assert len(desk.session.writing()) == 2
    desk.wait(lambda: badge(desk, first.chat.id))
    assert not badge(desk, second.chat.id), "the open chat shows it itself"
    desk.window.page.open_chat(first.chat.id)
    desk.wait(lambda: desk.window.page.conversation is first)
    desk.wait(lambda: badge(desk, second.chat.id))
    assert desk.window.page.composer.writing
    # A stop here harms nobody there.
    desk.window.verbs.stop()
    desk.wait_quiet()
    assert first.tree.node(reply).state is State.STOPPED
    assert desk.session.writing(second.chat.id)
    assert badge(desk, second.chat.id)
    desk.session.stop_all()
    desk.wait(lambda: not desk.session.writing())
    desk.wait(lambda: not badge(desk, second.chat.id))


def test_the_composer_is_read_ahead_in_its_chat(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ReadAhead] = []
    real = desk.engine.read_ahead

    def watched(request: ReadAhead) -> object:
        asked.append(request)
        return real(request)

    monkeypatch.setattr(desk.engine, "read_ahead", watched)
    desk.window.page.composer.text.insertPlainText("Something pasted into a new chat")
    desk.wait(lambda: bool(asked))
    assert asked[-1].messages[-1].text == "Something pasted into a new chat"
    assert asked[-1].chat == ""
    desk.window.page.composer.clear()
    desk.say("count 3")
    desk.window.page.composer.text.insertPlainText("And something more in this one")
    desk.wait(lambda: asked[-1].chat == desk.chat.chat.uid and len(asked[-1].messages) == 3)
    desk.window.page.composer.clear()
    desk.wait(lambda: asked[-1] == ReadAhead())
