"""Hostile replies in the transcript: nothing lost, nothing asked for, nothing stuck."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QUrl
from PySide6.QtGui import QTextDocument
from pytestqt.qtbot import QtBot

from desktop_app.ui import maths
from desktop_app.ui.block_stream import BlockStream
from desktop_app.ui.row_view import RowView
from desktop_app.ui.safe_text import visible
from desktop_app.ui.transcript import Transcript
from tests.ui.hostile import replies

HIDDEN = "\x00\x07\x1b\u202e\u2066\u200f\ufdd0\ufffc\u2028\u2029\U000e0041"


def shown_of(stream: BlockStream) -> str:
    """Everything that is on screen or one hover away."""
    parts = []
    for block in stream.blocks:
        parts += [block.plain(), block.language, block.marker]
        cells = [block.runs]
        if block.table is not None:
            cells += [cell for row in (block.table.head, *block.table.rows) for cell in row]
        parts += [run.link + run.tip for cell in cells for run in cell]
    return "\n".join(parts)


@pytest.mark.parametrize("number", range(29, 150))
def test_nothing_is_lost_or_hidden(number: int) -> None:
    source = replies()[number]
    stream = BlockStream()
    stream.feed(source)
    shown = shown_of(stream)
    assert not any(char in shown for char in HIDDEN)
    letters = "".join(sorted(filter(str.isalnum, source)))
    kept = dict.fromkeys(letters, 0)
    for char in shown:
        if char in kept:
            kept[char] += 1
    entity_letters = set("nbspzwjltgx0123456789#8fd")  # decoded on purpose
    for char in set(letters):
        if "&" in source and char in entity_letters:
            continue
        assert kept[char] >= source.count(char), repr(char)


def test_hostile_replies_are_laid_out_and_ask_for_no_resource(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(_document: QTextDocument, _kind: int, address: QUrl) -> object:
        asked.append(address.toString())
        return None

    monkeypatch.setattr(QTextDocument, "loadResource", load)
    view = Transcript()
    qtbot.addWidget(view)
    view.resize(728, 690)
    view.show()
    rows = [
        RowView(number, "assistant", "Llama", text=text)
        for number, text in enumerate(replies()[29:120], 1)
    ]
    view.set_rows(rows)
    for row in rows[::3]:
        view.set_position(row.message_id, 0)
        view.grab()
    maths.maths().wait()
    qtbot.wait(1)
    view.grab()
    assert [one for one in asked if not one.startswith("grove-formula:")] == []


def test_a_row_never_shows_raw_controls_in_its_author(qtbot: QtBot) -> None:
    assert "\u202e" not in visible("x\u202ey")
