"""Search: parts of words in any script, in every branch, and nothing that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop_app.conversation import Conversation, Role, State, text_parts
from desktop_app.storage import Hit, Library
from desktop_app.storage.search import excerpt, fold, terms
from tests.fakes.profiles import WAIT_S, library

TEXTS = [
    "오늘 날씨가 참 좋습니다",
    "東京の天気は晴れです",
    "我们明天去北京大学",
    "The Café Münchner Straße serves ﬁne crêpes",
    "ПРИВЕТ мир",
    "import numpy as np  # noqa",
    "100% of 'quotes' AND \"double\" NEAR(x)",
    "か",
    "が",
]


@pytest.fixture
def lib(tmp_path: Path) -> Iterator[Library]:
    with library(tmp_path) as opened:
        yield opened


@pytest.fixture
def chat(lib: Library) -> Conversation:
    chat = lib.new_chat("Wetter und 기온").result(WAIT_S)
    for text in TEXTS:
        chat.insert(None, Role.USER, text)
    chat.saved().result(WAIT_S)
    return chat


def find(lib: Library, text: str) -> list[Hit]:
    return lib.search(text).result(WAIT_S)


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("날씨", 0),
        ("씨가", 0),
        ("좋", 0),
        ("좋습니다", 0),
        ("天気", 1),
        ("京の", 1),
        ("晴", 1),
        ("北京", 2),
        ("明天去北", 2),
        ("CAFE", 3),
        ("crepe", 3),
        ("strasse", 3),
        ("fine", 3),
        ("munch serves", 3),
        ('"ne cr"', 3),
        ("привет", 4),
        ("мИР", 4),
        ("nump np", 5),
        ("'quotes'", 6),
        ("and near(", 6),
        ("0%", 6),
        ("が", 8),
    ],
)
def test_parts_of_words_are_found(
    lib: Library, chat: Conversation, query: str, number: int
) -> None:
    hits = [hit for hit in find(lib, query) if hit.message_id is not None]
    assert [chat.tree.text(hit.message_id or 0) for hit in hits] == [TEXTS[number]]
    for start, end in hits[0].spans:
        assert fold(hits[0].snippet[start:end]) in terms(query)
    assert hits[0].spans


@pytest.mark.parametrize("query", ["", "   ", '""', "nothing-like-it", "날 북경", '"', "* OR -x"])
def test_nothing_is_found_without_an_error(lib: Library, chat: Conversation, query: str) -> None:
    assert find(lib, query) == []


def test_titles_are_found_and_named(lib: Library, chat: Conversation) -> None:
    hits = find(lib, "기온")
    assert [(hit.chat_id, hit.message_id, hit.chat_title) for hit in hits] == [
        (chat.chat.id, None, "Wetter und 기온")
    ]


def test_every_branch_is_searched_and_follows_each_edit(lib: Library) -> None:
    chat = lib.new_chat().result(WAIT_S)
    user, reply = chat.send("first question")
    chat.finish_stream(reply, State.DONE, text_parts("an answer"))
    chat.save_and_ask_again(user, "second question")
    assert {hit.message_id for hit in find(lib, "question")} == {user, chat.path()[0]}
    chat.edit_in_place(user, "changed words")
    assert [hit.message_id for hit in find(lib, "question")] == [chat.path()[0]]
    assert [hit.message_id for hit in find(lib, "changed")] == [user]
    chat.undo()
    assert len(find(lib, "question")) == 2
    assert find(lib, "changed") == []
    chat.remove(user)
    assert len(find(lib, "question")) == 1
    chat.undo()
    assert len(find(lib, "question")) == 2
    chat.saved().result(WAIT_S)
    lib.delete_chat(chat.chat.id).result(WAIT_S)
    assert find(lib, "question") == []
    lib.undo().result(WAIT_S)
    assert len(find(lib, "question")) == 2


def test_the_newest_come_first_up_to_the_limit(lib: Library) -> None:
    chat = lib.new_chat("same").result(WAIT_S)
    ids = [chat.insert(None, Role.USER, f"same {n}") for n in range(10)]
    chat.saved().result(WAIT_S)
    hits = lib.search("same", 4).result(WAIT_S)
    assert [hit.message_id for hit in hits] == [None, *reversed(ids[-3:])]


def test_a_snippet_shows_the_hit_and_where_it_stands() -> None:
    text = "a" * 500 + " Ünïcode und Straße " + "b" * 500
    snippet, spans = excerpt(text, ["unicode", "strasse"])
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) < 200
    assert [snippet[start:end] for start, end in spans] == ["Ünïcode", "Straße"]
    assert excerpt("short", ["absent"]) == ("short", ())


def test_folding_keeps_letters_that_only_look_like_accents() -> None:
    assert fold("É") == "e"
    assert fold("が") != fold("か")
    assert fold("한") == "한"
    assert fold("\u1112\u1161\u11ab") == "한"
    assert fold("ＦＵＬＬ　ｗｉｄｔｈ") == "full width"
