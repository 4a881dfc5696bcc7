"""The ids a reply was written with: kept on disk beside its text, gone with an edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from desktop_app.cli.loop import MainLoop
from desktop_app.conversation import Part, PartKind
from desktop_app.conversation.node import Json, State
from desktop_app.paths import Profile
from desktop_app.session.token_ids import ids_of, with_ids
from desktop_app.storage import Library

WHO = "weights 1"


def test_ids_stand_for_these_weights_only() -> None:
    parts = with_ids((Part(text="Hello"),), (5, 6), WHO)
    assert parts[0].text == "Hello"
    assert ids_of(parts, WHO) == (5, 6)
    assert ids_of(parts, "others") == ()
    assert ids_of((Part(text="Hello"),), WHO) == ()


def test_nothing_is_kept_where_the_ids_say_more_than_the_text() -> None:
    parts = (Part(PartKind.REASONING, "Hm"), Part(text="Hello"))
    assert with_ids(parts, (5, 6), WHO) == parts
    for tokens, who in (((), WHO), ((5,), ""), ((5,), None)):
        assert with_ids(parts[1:], tokens, who) == parts[1:]


@pytest.mark.parametrize("ids", ["56", [5, "6"], [5, -1], [5, 2**40], [True, 5], {"5": 6}, None])
def test_what_somebody_wrote_into_a_file_is_no_id(ids: Json) -> None:
    part = Part(text="Hello", meta={"token_ids": ids, "weights_hash": WHO})
    assert ids_of((part,), WHO) == ()


def test_they_are_there_after_a_restart_and_gone_after_an_edit(tmp_path: Path) -> None:
    profile = Profile(tmp_path)
    profile.create()
    loop = MainLoop()
    library = Library.open(profile, post=loop.post)
    try:
        chat = loop.wait(library.new_chat("a"))
        _, reply = chat.send("Ask")
        chat.finish_stream(reply, State.DONE, with_ids((Part(text="Answer"),), (7, 8, 9), WHO))
        loop.wait(chat.saved())
        chat_id = chat.chat.id
        del chat
    finally:
        library.close()
    library = Library.open(profile, post=loop.post)
    try:
        chat = loop.wait(library.load(chat_id))
        loop.wait(chat.need(chat.path()))
        assert ids_of(chat.tree.parts(reply), WHO) == (7, 8, 9)
        chat.edit_in_place(reply, "Another answer")
        assert ids_of(chat.tree.parts(reply), WHO) == ()
        chat.undo()
        assert ids_of(chat.tree.parts(reply), WHO) == (7, 8, 9)
        loop.wait(chat.saved())
    finally:
        library.close()
