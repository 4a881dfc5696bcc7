"""Import and export from the menus: what is asked, written, read, told, and taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from desktop_app.ui.exchange_desk import file_name
from tests.ui.desk import Desk


@pytest.fixture
def desk(qtbot: QtBot, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(
        qtbot,
        tmp_path / "profile",
        weights_path=str(Desk.weights(tmp_path / "files")),
        language="en",
    )
    made.wait(lambda: made.engine.loaded is not None)
    yield made
    made.close()


class Asked:
    """Stands for the person at the file dialogs, and notes what was offered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = ""
        self.form = 0
        self.suggested = ""
        self.filters: list[str] = []
        monkeypatch.setattr(QFileDialog, "getSaveFileName", self.save)
        monkeypatch.setattr(QFileDialog, "getOpenFileName", self.open)

    def save(self, _parent: object, _title: str, suggested: str, filters: str) -> tuple[str, str]:
        self.suggested, self.filters = suggested, filters.split(";;")
        return self.name, self.filters[self.form]

    def open(self, _parent: object, _title: str, _folder: str, filters: str) -> tuple[str, str]:
        self.filters = [filters]
        return self.name, filters


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def told(desk: Desk, start: str) -> str:
    toast = desk.window.page.toast
    desk.wait(lambda: toast.text.startswith(start))
    return toast.text


def test_this_chat_as_json_and_back(desk: Desk, asked: Asked, tmp_path: Path) -> None:
    desk.say("Hello there")
    # The second chat is open: the first stays out of its file.
    desk.window.new_chat()
    desk.say("Another: with a \\ title?")
    asked.name = str(tmp_path / "out")
    desk.window.actions_by_key["export_chat"].trigger()
    assert told(desk, "out.json holds") == "out.json holds 1 chat"
    assert Path(asked.suggested).name == "Another with a title.json"
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [chat["chat"]["title"] for chat in written["chats"]] == ["Another: with a \\ title?"]
    # Read again, it is known; read after it was changed there, it stands beside the other.
    asked.name = str(tmp_path / "out.json")
    desk.window.actions_by_key["import_chats"].trigger()
    assert told(desk, "Everything in this file")
    written["chats"][0]["messages"][0]["parts"][0]["text"] = "Another, changed"
    (tmp_path / "out.json").write_text(json.dumps(written), encoding="utf-8")
    before = desk.chat.chat.id
    desk.window.actions_by_key["import_chats"].trigger()
    assert told(desk, "Added 1 chat.").endswith("stands beside it.")
    desk.wait(lambda: desk.window.page.chat_id not in (0, before))
    assert desk.texts()[0] == ("user", "Another, changed")
    # Undo puts it into the trash.
    added = desk.chat.chat.id
    desk.window.page.toast._button.click()
    desk.wait(lambda: added not in [chat.id for chat in desk.library.chats().result()])
    assert added in [chat.id for chat in desk.library.chats(deleted=True).result()]


def test_the_path_as_markdown(desk: Desk, asked: Asked, tmp_path: Path) -> None:
    desk.say("Hello there")
    desk.window.verbs.ask_again_last()
    desk.wait_quiet()
    asked.name, asked.form = str(tmp_path / "path"), 1
    desk.window.files.export_chat()
    assert told(desk, "path.md holds")
    text = (tmp_path / "path.md").read_text(encoding="utf-8")
    assert text.startswith("# Hello there\n\n## You\n\nHello there\n\n## ")
    assert text.count("\n## ") == 2  # the open version only
    assert text.rstrip().endswith(desk.texts()[-1][1])


def test_everything_and_the_ending_that_was_typed(desk: Desk, asked: Asked, tmp_path: Path) -> None:
    desk.say("Hello there")
    desk.window.new_chat()
    desk.say("Another one")
    asked.name = str(tmp_path / "all.jsonl")
    desk.window.actions_by_key["export_all"].trigger()
    assert told(desk, "all.jsonl holds") == "all.jsonl holds 2 chats"
    assert len(asked.filters) == 2
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert lines[0]["prompt"]["text"] == "Hello there" or "message_tree_id" in lines[0]
    asked.name = str(tmp_path / "all.json")
    desk.window.files.export_all()
    told(desk, "all.json holds")
    assert json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["format"] == "grove"


def test_open_assistants_trees_come_in(desk: Desk, asked: Asked, tmp_path: Path) -> None:
    reply = {"message_id": "b", "parent_id": "a", "text": "Four.", "role": "assistant"}
    prompt = {"message_id": "a", "text": "Two and two?", "role": "prompter", "replies": [reply]}
    file = tmp_path / "trees.jsonl"
    file.write_text(json.dumps({"message_tree_id": "a", "prompt": prompt}), encoding="utf-8")
    asked.name = str(file)
    desk.window.files.import_file()
    assert told(desk, "Added") == "Added 1 chat."
    desk.wait(lambda: desk.window.page.conversation is not None)
    assert desk.texts() == [("user", "Two and two?"), ("assistant", "Four.")]


def test_what_goes_wrong_is_one_sentence(desk: Desk, asked: Asked, tmp_path: Path) -> None:
    desk.say("Hello there")
    asked.name = str(tmp_path / "gone" / "chat.json")
    desk.window.files.export_chat()
    assert "could not be written there" in told(desk, "chat.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    asked.name = str(tmp_path / "bad.json")
    desk.window.files.import_file()
    desk.wait(lambda: desk.window.page.toast.text not in ("", "Reading bad.json"))
    assert len(desk.library.chats().result()) == 1


def test_nothing_happens_when_the_dialog_is_left(desk: Desk, asked: Asked) -> None:
    export = desk.window.actions_by_key["export_chat"]
    assert not export.isEnabled()  # no chat is open
    desk.say("Hello there")
    assert export.isEnabled()
    shown = desk.window.page.toast.text
    export.trigger()
    desk.window.files.export_all()
    desk.window.files.import_file()
    assert desk.window.page.toast.text == shown


@pytest.mark.parametrize(
    ("title", "name"),
    [("a/b: c?", "a b c"), ("...", "Grove"), ("x" * 99, "x" * 60), ("안녕 \n 세상", "안녕 세상")],
)
def test_titles_become_file_names(title: str, name: str) -> None:
    assert file_name(title) == name
