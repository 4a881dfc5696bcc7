"""The session over a real engine process that writes by script, and conversations in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from desktop_app.cli.loop import MainLoop
from desktop_app.conversation.document import Conversation
from desktop_app.conversation.memory import MemoryStore
from desktop_app.conversation.node import State
from desktop_app.conversation.store import Commit
from desktop_app.conversation.tree import Tree
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.paths import Profile
from desktop_app.session import Reading, Session, SessionListener, loading, title_of
from desktop_app.settings import Settings

CHILD = Path(__file__).parents[2] / "fakes" / "engine_child.py"


class Chats:
    """What a session needs of a library, in memory."""

    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStore()
        self.count = 0

    def new_chat(self, title: str = "") -> Future[Conversation]:
        self.count += 1
        plain = Conversation.in_memory(title)
        chat = replace(plain.chat, id=self.count)
        future: Future[Conversation] = Future()
        future.set_result(Conversation(chat, Tree(complete=True), self.store))
        return future


class Told(SessionListener):
    """What the session told, as (name, message or code)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def loaded(self, info: Any) -> None:
        self.events.append(("loaded", info.name))

    def engine_failed(self, error: KnownError) -> None:
        self.events.append(("engine_failed", error.code))

    def waiting(self, _chat_id: int, message_id: int) -> None:
        self.events.append(("waiting", message_id))

    def finished(self, _chat_id: int, message_id: int) -> None:
        self.events.append(("finished", message_id))

    def failed(self, _chat_id: int, _message_id: int, error: KnownError) -> None:
        self.events.append(("failed", error.code))

    def storage_failed(self, error: KnownError) -> None:
        self.events.append(("storage_failed", error.code))


class Stage:
    """A session with everything around it."""

    def __init__(self, folder: Path) -> None:
        self.profile = Profile(folder)
        self.profile.create()
        self.loop = MainLoop()
        self.chats = Chats()
        self.engine = Engine(command=(sys.executable, str(CHILD)), log_dir=self.profile.logs)
        self.settings = Settings.load(self.profile)
        self.weights = folder / "tale.gguf"
        self.weights.touch()
        self.settings.weights_path = str(self.weights)
        self.session = Session(
            cast("Any", self.chats),
            self.engine,
            self.settings,
            self.loop.post,
            profile=self.profile,
            later=self.loop.later,
        )
        self.told = Told()
        self.session.add_listener(self.told)

    def chat(self) -> Conversation:
        return self.loop.wait(self.session.new_chat())

    def until_idle(self) -> None:
        self.loop.run_until(lambda: not self.session.writing())

    def until_text(self, conversation: Conversation, node_id: int, words: int) -> None:
        """Until the reply has at least so many words."""
        self.loop.run_until(lambda: len(conversation.tree.text(node_id).split()) >= words)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    # The script's weights are empty files; what a real file must hold is tested elsewhere.
    monkeypatch.setattr(loading, "check_file", lambda *_: cast("Any", None))
    stage = Stage(tmp_path)
    yield stage
    stage.session.close()


def words(n: int) -> str:
    return "".join(f"{i} " for i in range(n))


def test_a_reply_from_prompt_to_end(stage: Stage) -> None:
    chat = stage.chat()
    user, reply = stage.session.send(chat, "count 500")
    assert chat.tree.node(reply).state is State.STREAMING
    stage.until_idle()
    assert chat.tree.text(user) == "count 500"
    assert chat.tree.text(reply) == words(500)
    node = chat.tree.node(reply)
    assert (node.state, node.finish, node.author, node.turns) == (State.DONE, "stop", "tale", 1)
    assert chat.chat.title == "count 500"
    assert stage.session.context_use(chat) == (510, 4096)
    assert stage.session.speed(reply) == 20.0
    assert [name for name, _ in stage.told.events] == ["waiting", "loaded", "finished"]
    saved = Settings.load(stage.profile)
    assert saved.weights_path == str(stage.weights)


def test_stop_keeps_the_text(stage: Stage) -> None:
    chat = stage.chat()
    _, reply = stage.session.send(chat, "wait")
    stage.until_text(chat, reply, 2)
    stage.session.stop(reply)
    stage.until_idle()
    node = chat.tree.node(reply)
    assert (node.state, node.finish, chat.tree.text(reply)) == (State.STOPPED, "cancelled", "0 1 ")
    assert node.turns == 1


def test_stop_before_the_weights_are_there(stage: Stage) -> None:
    chat = stage.chat()
    _, reply = stage.session.send(chat, "count 5")
    stage.session.stop(reply)
    assert stage.session.writing() == ()
    assert chat.tree.node(reply).state is State.STOPPED


def test_a_crash_keeps_the_text_and_retry_goes_on(stage: Stage) -> None:
    chat = stage.chat()
    user, reply = stage.session.send(chat, "crash")
    stage.until_idle()
    node = chat.tree.node(reply)
    assert (node.state, node.failure) == (State.FAILED, "engine-crashed")
    assert "Ask again" in node.failure_text
    assert chat.tree.text(reply) == "0 1 "
    assert ("engine_failed", "engine-crashed") in stage.told.events

    chat.edit_in_place(user, "count 3")
    stage.session.continue_reply(chat, reply)
    stage.until_idle()
    assert chat.tree.text(reply) == words(5)
    assert chat.tree.node(reply).state is State.DONE
    assert chat.tree.node(reply).failure == ""


def test_an_engine_killed_between_replies_starts_anew(stage: Stage) -> None:
    chat = stage.chat()
    stage.session.send(chat, "count 1")
    stage.until_idle()
    stage.session.send(chat, "crash")
    stage.until_idle()
    _, reply = stage.session.send(chat, "count 4")
    stage.until_idle()
    assert chat.tree.text(reply) == words(4)


def test_after_a_crash_no_other_weights_write_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = stage.chat()
    stage.session.send(chat, "crash")
    stage.until_idle()
    starter = stage.profile.root / "starter.gguf"
    starter.touch()
    monkeypatch.setattr(loading, "starter_weights", lambda: starter)
    moved = stage.weights.rename(stage.profile.root / "bad-moved.gguf")

    def check(spec: Any, *_: object) -> Any:
        if not Path(spec.path).exists():
            raise KnownError("weights-missing", "The file is gone.")

    monkeypatch.setattr(loading, "check_file", check)
    _, reply = stage.session.send(chat, "count 3")
    stage.until_idle()
    assert chat.tree.node(reply).failure == "weights-missing"
    moved.rename(stage.weights)
    stage.session.continue_reply(chat, reply)
    stage.until_idle()
    assert (chat.tree.text(reply), chat.tree.node(reply).author) == (words(3), "tale")


def test_removing_undoing_and_redoing_a_streaming_reply(stage: Stage) -> None:
    chat = stage.chat()
    user, reply = stage.session.send(chat, "wait")
    stage.until_text(chat, reply, 2)
    stage.session.remove(chat, user)
    assert stage.session.writing() == ()
    assert user not in chat.tree
    stage.session.undo(chat)
    assert (chat.tree.node(reply).state, chat.tree.text(reply)) == (State.STOPPED, "0 1 ")

    _, other = stage.session.send(chat, "wait")
    stage.until_text(chat, other, 2)
    stage.session.undo(chat)
    assert other not in chat.tree
    assert chat.head_id == reply
    stage.session.redo(chat)
    assert (chat.tree.node(other).state, chat.tree.text(other)) == (State.STOPPED, "0 1 ")
    stage.loop.run_waiting()
    assert not any(name == "failed" for name, _ in stage.told.events)


def test_chats_stream_side_by_side(stage: Stage) -> None:
    first, second = stage.chat(), stage.chat()
    _, a = stage.session.send(first, "wait")
    stage.until_text(first, a, 2)
    _, b = stage.session.send(second, "count 20")
    stage.loop.run_until(lambda: not stage.session.writing(second.chat.id))
    assert second.tree.text(b) == words(20)
    assert stage.session.writing(first.chat.id) == (a,)
    stage.session.close_chat(first.chat.id)
    assert stage.session.conversation(first.chat.id) is first
    stage.session.stop_chat(first.chat.id)
    stage.until_idle()
    stage.session.close_chat(first.chat.id)
    assert stage.session.conversation(first.chat.id) is None


def test_requests_wait_when_the_engine_is_full(stage: Stage) -> None:
    chat = stage.chat()
    replies = [stage.session.send(chat, "wait")[1] for _ in range(6)]
    for reply in replies[:4]:
        stage.until_text(chat, reply, 2)
    assert [i for name, i in stage.told.events if name == "waiting"] == replies
    assert [len(chat.tree.text(i)) > 0 for i in replies] == [True] * 4 + [False] * 2
    stage.session.stop(replies[0])
    stage.until_text(chat, replies[4], 2)
    stage.session.stop_all()
    stage.until_idle()
    assert {chat.tree.node(i).state for i in replies} == {State.STOPPED}


def test_sending_with_drafts_is_one_request_and_one_step(stage: Stage) -> None:
    chat = stage.chat()
    _prompt, *drafts = stage.session.send(chat, "count 3", drafts=3)
    seeds = [stage.session.seed(i) for i in drafts]
    assert len(set(seeds)) == 3
    assert seeds[0] is not None
    stage.until_idle()
    assert [chat.tree.text(i) for i in drafts] == [words(3)] * 3
    # What was shown is what the engine used.
    assert [stage.session.seed(i) for i in drafts] == seeds
    assert [stage.session.written(i) for i in drafts] == [3, 3, 3]
    stage.session.undo(chat)
    assert (len(chat.tree), chat.can_undo) == (0, False)


def test_a_seed_of_the_preset_counts_up_over_the_drafts(stage: Stage) -> None:
    chat = stage.chat()
    options = replace(stage.session.sampling(chat), seed=41)
    _, *drafts = stage.session.send(chat, "count 1", drafts=2, sampling=options)
    assert [stage.session.seed(i) for i in drafts] == [41, 42]
    stage.until_idle()
    assert stage.session.seed(drafts[1]) == 42


def test_what_will_be_read_is_told_once_the_reading_speed_is_known(stage: Stage) -> None:
    chat, long = stage.chat(), "count 1 " + "word " * 100
    answers: list[Reading | None] = []

    def ask(text: str = "", **path: Any) -> Reading | None:
        answers.clear()
        stage.session.foretell(chat, answers.append, text=text, **path)
        stage.loop.run_until(lambda: bool(answers))
        return answers[0]

    assert ask(long) is None  # nothing was read yet: nothing is known
    prompt, reply = stage.session.send(chat, "count 1")
    stage.until_idle()
    assert ask(long) is None  # ten tokens are no measure
    chat.edit_in_place(prompt, long)
    stage.session.ask_again(chat, reply)
    stage.until_idle()
    # 100 tokens a second were measured; the prompt itself is kept, the reply and the rest are not.
    below = len("<assistant>0 <user>") + 300
    assert ask("x" * 300) == Reading(below, below / 100)
    assert ask("x" * 20) is None
    assert ask("", head=prompt) is None
    assert ask("x" * 2900) is None  # so near the end turns may be left out: not known
    dropped = stage.session.foretell(chat, answers.append, text="x" * 400)
    dropped()
    assert ask("x" * 500) is not None
    assert len(answers) == 1
    # Another prompt came between: the whole path must be read again.
    other = stage.chat()
    stage.session.send(other, "count 2")
    stage.until_idle()
    whole = len(f"<user>{long}")
    assert ask("", head=prompt) == Reading(whole - len("<user>count "), (whole - 12) / 100)
    saved = stage.settings.reading_speeds
    assert list(saved.values()) == [100.0]


def test_drafts_are_siblings_and_stop_one_by_one(stage: Stage) -> None:
    chat = stage.chat()
    _, reply = stage.session.send(chat, "wait")
    stage.until_text(chat, reply, 2)
    stage.session.stop_all()
    stage.until_idle()
    drafts = stage.session.ask_again(chat, reply, 3)
    assert chat.tree.siblings(reply) == (reply, *drafts)
    for draft in drafts:
        stage.until_text(chat, draft, 2)
    stage.session.stop(drafts[1])
    stage.loop.run_until(lambda: len(stage.session.writing()) == 2)
    assert stage.session.writing() == (drafts[0], drafts[2])
    chat.remove(drafts[0])
    assert stage.session.writing() == (drafts[2],)
    stage.session.stop(drafts[2])
    stage.until_idle()


def test_without_weights_nothing_is_changed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "starter_weights", lambda: None)
    stage.weights.unlink()
    chat = stage.chat()
    with pytest.raises(KnownError) as caught:
        stage.session.send(chat, "hello")
    assert caught.value.code == "no-weights"
    assert chat.path() == []


def test_weights_that_cannot_be_loaded_fail_what_waits(stage: Stage) -> None:
    bad = stage.profile.root / "bad.gguf"
    bad.touch()
    stage.settings.weights_path = str(bad)
    chat = stage.chat()
    _, reply = stage.session.send(chat, "count 1")
    stage.until_idle()
    node = chat.tree.node(reply)
    assert (node.state, node.failure) == (State.FAILED, "weights-unreadable")
    stage.loop.wait(stage.session.load_weights(stage.weights))
    stage.session.continue_reply(chat, reply)
    stage.until_idle()
    assert chat.tree.text(reply) == "0 "


def test_a_failed_reply_can_be_asked_again(stage: Stage) -> None:
    chat = stage.chat()
    user, reply = stage.session.send(chat, "fail")
    stage.until_idle()
    assert chat.tree.node(reply).failure == "test-failed"
    new_user, new = stage.session.save_and_ask_again(chat, user, "count 2")
    stage.until_idle()
    assert chat.tree.siblings(user) == (user, new_user)
    assert chat.path() == [new_user, new]
    assert chat.tree.text(new) == words(2)


def test_a_step_that_is_taken_back_ends_its_reply(stage: Stage) -> None:
    class Full(MemoryStore):
        """A disk that is full for steps."""

        fails = False

        def commit(self, commit: Commit) -> Future[None]:
            future: Future[None] = Future()
            if self.fails and not commit.soft:
                future.set_exception(KnownError("disk-full", "The disk is full."))
            else:
                future.set_result(None)
            return future

        def post(self, call: Any) -> None:
            stage.loop.post(call)

    store = stage.chats.store = Full()
    chat = stage.chat()
    stage.session.send(chat, "count 1")
    stage.until_idle()
    before = chat.path()
    store.fails = True
    stage.session.send(chat, "wait")
    stage.loop.run_until(lambda: ("storage_failed", "disk-full") in stage.told.events)
    assert chat.path() == before
    assert stage.session.writing() == ()


def test_other_weights_stop_what_is_written(stage: Stage) -> None:
    chat = stage.chat()
    _, reply = stage.session.send(chat, "wait")
    stage.until_text(chat, reply, 2)
    other = stage.profile.root / "other.gguf"
    other.touch()
    assert stage.loop.wait(stage.session.load_weights(other)).name == "other"
    stage.until_idle()
    assert (chat.tree.node(reply).state, chat.tree.text(reply)) == (State.STOPPED, "0 1 ")
    _, new = stage.session.send(chat, "count 3")
    stage.until_idle()
    assert chat.tree.node(new).author == "other"


def test_a_crash_takes_all_running_replies_and_is_told_once(stage: Stage) -> None:
    chats = [stage.chat() for _ in range(3)]
    replies = [stage.session.send(chat, "wait")[1] for chat in chats[:2]]
    for chat, reply in zip(chats, replies, strict=False):
        stage.until_text(chat, reply, 2)
    replies.append(stage.session.send(chats[2], "crash")[1])
    stage.until_idle()
    assert [c.tree.node(i).state for c, i in zip(chats, replies, strict=True)] == [State.FAILED] * 3
    assert [name for name, _ in stage.told.events].count("engine_failed") == 1


def test_loading_can_be_given_up(stage: Stage) -> None:
    chat = stage.chat()
    _, reply = stage.session.send(chat, "count 1")
    future = stage.session.load_weights(stage.weights)
    stage.session.cancel_loading()
    assert future.cancelled()
    assert chat.tree.node(reply).state is State.STOPPED
    assert stage.loop.wait(stage.session.load_weights(stage.weights)).name == "tale"


def test_the_prompt_as_the_weights_read_it(stage: Stage) -> None:
    chat = stage.chat()
    stage.loop.wait(stage.session.load_weights(stage.weights))
    user, reply = stage.session.send(chat, "count 2")
    stage.until_idle()
    preview = stage.loop.wait(stage.session.prompt_preview(chat, reply))
    assert preview.text == "<user>count 2<assistant>0 1 "
    assert stage.loop.wait(stage.session.prompt_preview(chat, user)).text == "<user>count 2"


def test_presets(stage: Stage) -> None:
    stage.settings.presets = {"mine": {"temperature": 0.1}, "broken": {"warmth": 1}}
    assert stage.session.preset("mine").temperature == 0.1
    assert stage.session.sampling() == stage.session.preset("balanced")
    for name, code in (("broken", "preset-damaged"), ("none", "preset-unknown")):
        with pytest.raises(KnownError) as caught:
            stage.session.preset(name)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("\n\n  two   spaces \nmore", "two spaces"),
        ("", ""),
        ("word " * 30, "word word word word word word word word word word word…"),
        ("x" * 80, "x" * 59 + "…"),
        ("가" * 60, "가" * 60),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert title_of(text) == title
