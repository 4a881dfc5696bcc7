"""Drafts with llama.cpp itself, on tiny random weights: one reading of the prompt, whole turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from desktop_app.conversation import Role
from desktop_app.ui.details_window import facts_of
from tests.fakes import tiny_gguf
from tests.ui.desk import Desk

CONTROL_SHIFT = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
WHOLE = {
    "app", "engine", "weights", "weights_hash", "quantisation", "threads", "gpu_layers",
    "context_length", "kv_type", "template", "template_hash", "preset", "sampling", "seed",
    "draft", "drafts", "ancestors", "left_out", "tokens_prompt", "tokens_cached", "tokens_read",
    "tokens_written", "times",
}  # fmt: skip


@pytest.fixture
def desk(qtbot: QtBot, tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "files").mkdir()
    weights = tiny_gguf.write(tmp_path / "files" / "Tiny.gguf")
    short = {"temperature": 1.0, "max_tokens": 16}
    made = Desk(
        qtbot,
        tmp_path / "profile",
        engine=None,
        weights_path=str(weights),
        presets={"Short": short},
        preset="Short",
    )
    made.wait(lambda: made.engine.loaded is not None)
    yield made
    made.close()


def test_three_drafts_read_the_prompt_once_and_tell_how_they_were_made(desk: Desk) -> None:
    field = desk.window.page.composer.text
    field.setFocus()
    field.insertPlainText("Once upon a time there was a tree")
    QTest.keyClick(field, Qt.Key.Key_Return, CONTROL_SHIFT)
    desk.wait(lambda: desk.window.page.conversation is not None and bool(desk.chat.path()))
    desk.wait_quiet()
    drafts = desk.chat.tree.children(desk.last(Role.USER))
    assert len(drafts) == 3
    desk.chat.saved().result()
    turns = [desk.chat.turns(i).result()[-1] for i in drafts]
    for number, turn in enumerate(turns):
        assert turn.keys() >= WHOLE
        assert turn["draft"] == number
        assert turn["seed"] == desk.session.seed(drafts[number])
        # All that was read for all three is one prompt.
        assert turn["tokens_read"] + turn["tokens_cached"] == turn["tokens_prompt"]
        named = [name for _, facts in facts_of(turn) for name, _ in facts]
        assert len(named) > 25
        assert not [name for name in named if "_" in name]  # every fact has a name in words
    assert len({turn["seed"] for turn in turns}) == 3
