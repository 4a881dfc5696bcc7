"""Whole chats out and in, without loss."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from desktop_app.conversation import Conversation, Part, PartKind
from desktop_app.errors import KnownError
from desktop_app.storage import Library
from tests.fakes.hand import Hand, picture
from tests.fakes.profiles import WAIT_S, library

SAMPLE = Path(__file__).parents[4] / "shared" / "oasst" / "en_100_tree.jsonl"


def edited(lib: Library, seed: int, acts: int = 80) -> Conversation:
    """A chat after many random acts."""
    chat, hand = lib.new_chat(f"Seed {seed}", extra={"α": [1, None]}).result(WAIT_S), Hand(seed)
    for n in range(acts):
        hand.act(chat)
        hand.finish(chat)
        if n % 9 == 0:
            hand.navigate(chat)
    chat.saved().result(WAIT_S)
    return chat


@pytest.mark.parametrize("removed", [False, True])
def test_another_library_exports_the_same(tmp_path: Path, removed: bool) -> None:
    with library(tmp_path / "one") as one, library(tmp_path / "two") as two:
        digest = one.add_blob(b"\x00picture").result(WAIT_S)
        chat = edited(one, 4)
        chat.send("see", attachments=(Part(PartKind.IMAGE, "", digest, {"w": 1}),))
        Hand(1).finish(chat)
        assert chat.undo() is not None
        assert chat.redo() is not None
        out = one.export_chat(chat.chat.id, removed=removed).result(WAIT_S)
        through_json = json.loads(json.dumps(out))
        number = two.import_chat(through_json).result(WAIT_S)
        again = two.export_chat(number, removed=removed).result(WAIT_S)
        assert again == out
        assert any("deleted_at" in message for message in out["messages"]) == removed
        assert two.blob(digest).result(WAIT_S) == b"\x00picture"
        if not removed:
            copy = two.load(number).result(WAIT_S)
            assert [copy.tree.text(i) for i in copy.path()] == [
                chat.tree.text(i) for i in chat.path()
            ]
            assert len(picture(copy)) == len(picture(chat))
            assert not copy.can_undo


def test_a_copy_in_the_same_library_has_names_of_its_own(tmp_path: Path) -> None:
    with library(tmp_path) as lib:
        chat = edited(lib, 5, 20)
        out = lib.export_chat(chat.chat.id).result(WAIT_S)
        number = lib.import_chat(out).result(WAIT_S)
        again = lib.export_chat(number).result(WAIT_S)
        names = {message["uid"]: n for n, message in enumerate(again["messages"])}
        assert not names.keys() & {message["uid"] for message in out["messages"]}
        assert [m["parts"] for m in again["messages"]] == [m["parts"] for m in out["messages"]]
        old = {message["uid"]: n for n, message in enumerate(out["messages"])}
        assert [names.get(m["parent"]) for m in again["messages"]] == [
            old.get(m["parent"]) for m in out["messages"]
        ]
        assert lib.history().result(WAIT_S)[0] == "import"
        lib.undo().result(WAIT_S)
        assert [info.id for info in lib.chats().result(WAIT_S)] == [chat.chat.id]


def test_fields_that_are_not_known_survive(tmp_path: Path) -> None:
    dump: dict[str, Any] = {
        "chat": {"title": "T", "later": {"x": 1}},
        "messages": [
            {"uid": "b", "parent": "a", "role": "assistant", "parts": [], "score": 0.5},
            {"uid": "a", "role": "user", "parts": [{"kind": "text", "text": "hi"}]},
            {"uid": "c", "parent": "lost", "role": "user", "extra": {"k": [2]}},
        ],
    }
    with library(tmp_path) as lib:
        out = lib.export_chat(lib.import_chat(dump).result(WAIT_S)).result(WAIT_S)
        assert out["chat"]["extra"] == {"later": {"x": 1}}
        found = {message["uid"]: message for message in out["messages"]}
        assert found["b"]["extra"] == {"score": 0.5}
        assert found["b"]["parent"] == "a"
        assert found["c"]["extra"] == {"missing_parent": "lost", "k": [2]}
        assert found["c"]["parent"] is None


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"messages": 5},
        {"messages": [{"role": "user"}]},
        {"messages": [{"uid": "a", "role": "nobody"}]},
        {"messages": [{"uid": 7, "role": "user"}]},
        {"messages": [{"uid": "a", "role": "user", "parts": [{"kind": "smell"}]}]},
        {"messages": [{"uid": "a", "role": "user", "parts": ["x"]}]},
        {"messages": [], "blobs": {"00": "eA=="}},
        {"messages": [], "blobs": {"00": "§"}},
        {"messages": [], "version": 99},
        {"messages": [], "chat": ["x"]},
        {"messages": [{"uid": "a", "role": "user", "created_at": float("inf")}]},
        {"messages": [{"uid": "a", "role": "user", "created_at": 2**70}]},
        {"messages": [{"uid": "a", "role": "user", "marks": [1]}]},
        {"messages": [{"uid": "a", "role": "user", "extra": 5}]},
        {"messages": [{"uid": "a", "role": "user", "parts": [{"kind": "text", "text": 5}]}]},
        {"messages": [{"uid": "a", "role": "user", "parts": [{"kind": "file", "blob": []}]}]},
        {"messages": [{"uid": "a", "role": "user", "turns": [5]}]},
        {"messages": [{"uid": "a", "role": "user", "parent": {}}]},
    ],
)
def test_a_broken_dump_changes_nothing(tmp_path: Path, broken: dict[str, Any]) -> None:
    fine = {"messages": [{"uid": "x", "role": "user"}]}
    with library(tmp_path) as lib:
        with pytest.raises(KnownError) as caught:
            lib.import_chats([fine, broken]).result(WAIT_S)
        assert caught.value.code in ("import-damaged", "import-newer")
        assert lib.counts().result(WAIT_S)["messages"] == 0


def test_cycles_and_doubles_are_taken_in(tmp_path: Path) -> None:
    dump = {
        "messages": [
            {"uid": "a", "parent": "b", "role": "user"},
            {"uid": "b", "parent": "a", "role": "user"},
            {"uid": "b", "parent": "a", "role": "assistant"},
        ]
    }
    with library(tmp_path) as lib:
        number = lib.import_chat(dump).result(WAIT_S)
        chat = lib.load(number).result(WAIT_S)
        assert len(chat.tree) == 3
        assert chat.path()
        assert len(lib.export_chat(number).result(WAIT_S)["messages"]) == 3


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shared sample is not beside the checkout")
@pytest.mark.skipif("CI" in os.environ, reason="a time on a shared machine says nothing")
def test_a_hundred_trees_are_in_within_two_seconds(tmp_path: Path) -> None:
    dumps = []
    for line in SAMPLE.read_text("utf-8").splitlines():
        messages: list[dict[str, Any]] = []
        todo = [(json.loads(line)["prompt"], None)]
        while todo:
            found, parent = todo.pop()
            role = "user" if found["role"] == "prompter" else "assistant"
            part = {"kind": "text", "text": found["text"]}
            uid = found["message_id"]
            messages.append({"uid": uid, "parent": parent, "role": role, "parts": [part]})
            todo += [(reply, uid) for reply in found["replies"]]
        dumps.append({"messages": messages})
    with library(tmp_path) as lib:
        start = time.perf_counter()
        assert len(lib.import_chats(dumps).result(WAIT_S)) == 100
        seconds = time.perf_counter() - start
        assert lib.counts().result(WAIT_S)["messages"] == 1167
    assert seconds < 2
