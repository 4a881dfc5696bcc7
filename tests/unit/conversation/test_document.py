"""The verbs of a conversation, one by one."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from desktop_app.conversation import (
    ChatInfo,
    Conversation,
    Role,
    State,
    Streamed,
    Tree,
    new_uid,
    text_parts,
)
from desktop_app.conversation.memory import MemoryStore
from desktop_app.conversation.store import Commit
from desktop_app.errors import KnownError
from tests.fakes.hand import Hand, picture


@pytest.fixture
def chat() -> Conversation:
    return Conversation.in_memory("Test")


def say(chat: Conversation, prompt: str, reply: str) -> tuple[int, int]:
    """A prompt and its finished reply."""
    user_id, reply_id = chat.send(prompt, author="tiny")
    chat.stream_text(reply_id, text_parts(reply))
    chat.finish_stream(reply_id, State.DONE, finish="stop", turn={"seed": 1})
    return user_id, reply_id


def texts(chat: Conversation) -> list[str]:
    return [chat.tree.text(i) for i in chat.path()]


def test_send_hangs_a_prompt_and_a_streaming_reply_below_the_head(chat: Conversation) -> None:
    user, reply = chat.send("hello", author="tiny")
    assert chat.path() == [user, reply]
    assert list(chat.streaming_ids) == [reply]
    assert chat.tree.node(reply).author == "tiny"
    chat.stream_text(reply, text_parts("so "))
    chat.stream_text(reply, text_parts("so far"))
    assert texts(chat) == ["hello", "so far"]
    chat.finish_stream(reply, State.DONE, finish="stop")
    assert not chat.streaming_ids
    assert (chat.tree.node(reply).state, chat.tree.node(reply).finish) == (State.DONE, "stop")
    assert chat.undo_name == "send"


def test_late_words_of_a_reply_that_ended_or_went_are_ignored(chat: Conversation) -> None:
    _, reply = say(chat, "a", "b")
    chat.stream_text(reply, text_parts("late"))
    chat.finish_stream(reply, State.FAILED)
    assert chat.tree.text(reply) == "b"
    assert chat.tree.node(reply).state is State.DONE
    _, other = chat.send("c")
    chat.undo()
    chat.stream_text(other, text_parts("late"))
    chat.finish_stream(other, State.DONE)
    assert other not in chat.tree
    chat.redo()
    assert chat.tree.node(other).state is State.STOPPED
    assert chat.tree.text(other) == ""


def test_ask_again_makes_siblings_of_a_reply_and_children_of_a_prompt(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    drafts = chat.ask_again(reply, drafts=3)
    assert chat.tree.children(user) == (reply, *drafts)
    assert chat.head_id == drafts[0]
    (below,) = chat.ask_again(user)
    assert chat.tree.parent(below) == user
    assert len(chat.streaming_ids) == 4
    chat.undo()
    chat.undo()
    assert chat.tree.children(user) == (reply,)
    assert chat.head_id == reply


def test_sending_with_drafts_is_one_step(chat: Conversation) -> None:
    say(chat, "a", "b")
    before = picture(chat)
    user, *drafts = chat.send("c", drafts=3, author="tiny")
    assert chat.tree.children(user) == tuple(drafts)
    assert list(chat.streaming_ids) == drafts
    assert chat.head_id == drafts[0]
    chat.set_head(user)
    assert chat.tree.leaf_below(user) == drafts[0]  # the choice is remembered, not the newest
    chat.undo()
    assert picture(chat) == before
    chat.redo()
    assert chat.tree.children(user) == tuple(drafts)


def test_copying_a_path_in_is_one_step(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    _, halted = chat.send("c", author="tiny")
    chat.finish_stream(halted, State.FAILED, text_parts("half"))
    copy = Conversation.in_memory("Copy")
    ids = copy.copy_in([(chat.tree.node(i), chat.tree.parts(i)) for i in chat.path()])
    assert texts(copy) == texts(chat)
    assert copy.path() == list(ids)
    assert [copy.tree.node(i).state for i in ids[1::2]] == [State.DONE, State.STOPPED]
    assert copy.tree.node(ids[1]).author == "tiny"
    assert copy.undo_name == "copy"
    copy.undo()
    assert (len(copy.tree), copy.can_undo) == (0, False)
    copy.redo()
    assert texts(copy) == texts(chat)
    # Below a head that has children already, the copy is what is shown.
    chat.set_head(user)
    below = chat.copy_in([(chat.tree.node(reply), chat.tree.parts(reply))])
    assert chat.path() == [user, *below]
    assert chat.tree.chosen_child(user) == below[0]


def test_save_and_ask_again_is_one_step_beside_the_old_prompt(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    new_user, new_reply = chat.save_and_ask_again(user, "a2")
    assert chat.tree.siblings(new_user) == (user, new_user)
    assert chat.path() == [new_user, new_reply]
    with pytest.raises(ValueError, match="assistant"):
        chat.save_and_ask_again(reply, "x")
    chat.undo()
    assert chat.path() == [user, reply]


def test_edit_in_place_keeps_a_revision_and_marks_what_follows(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    assert not chat.is_stale(reply)
    chat.edit_in_place(user, "a better")
    assert texts(chat) == ["a better", "b"]
    assert chat.tree.node(user).revisions == 1
    assert chat.is_stale(reply)
    assert not chat.is_stale(user)
    chat.edit_in_place(user, "a better")  # no change, no step
    assert chat.tree.node(user).revisions == 1
    chat.undo()
    assert texts(chat) == ["a", "b"]
    assert not chat.is_stale(reply)
    assert chat.tree.node(user).revisions == 0


def test_continue_goes_on_and_undo_gives_the_shorter_text_back(chat: Conversation) -> None:
    _, reply = say(chat, "a", "b")
    chat.continue_reply(reply)
    assert chat.streaming_ids == (reply,)
    chat.stream_text(reply, text_parts("b and more"))
    chat.finish_stream(reply, State.DONE, finish="stop", turn={"seed": 2})
    node = chat.tree.node(reply)
    assert (node.turns, node.revisions) == (2, 1)
    chat.undo()
    node = chat.tree.node(reply)
    assert (chat.tree.text(reply), node.turns, node.revisions) == ("b", 1, 0)
    chat.redo()
    node = chat.tree.node(reply)
    assert (chat.tree.text(reply), node.turns, node.state) == ("b and more", 2, State.DONE)


def test_remove_takes_the_branch_and_the_head_goes_beside(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    (second,) = chat.ask_again(reply)
    chat.finish_stream(second, State.DONE)
    below, last = say(chat, "c", "d")
    chat.remove(second)
    assert chat.path() == [user, reply]
    assert second not in chat.tree
    assert last not in chat.tree
    chat.undo()
    assert chat.path() == [user, second, below, last]
    chat.remove(user)
    assert chat.path() == []
    chat.undo()
    assert chat.path() == [user, second, below, last]


def test_remove_and_keep_below_lifts_the_children_into_the_place(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    (other,) = chat.ask_again(reply)
    chat.finish_stream(other, State.DONE)
    third, fourth = say(chat, "c", "d")
    chat.remove(user, keep_below=True)
    assert chat.tree.children(None) == (reply, other)
    assert chat.path() == [other, third, fourth]
    chat.undo()
    assert chat.path() == [user, other, third, fourth]


def test_keep_only_path(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    (other,) = chat.ask_again(reply)
    chat.finish_stream(other, State.DONE)
    assert chat.keep_only_path() == 1
    assert chat.tree.children(user) == (other,)
    assert chat.keep_only_path() == 0
    chat.undo()
    assert chat.tree.children(user) == (reply, other)


def test_insert_between_and_at_an_index(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    between = chat.insert(user, Role.ASSISTANT, "between", adopt=True)
    assert chat.path() == [user, between, reply]
    first = chat.insert(user, Role.ASSISTANT, "first", 0)
    assert chat.tree.children(user) == (first, between)
    assert chat.path() == [user, between, reply], "the head stays"
    end = chat.insert(reply, Role.USER, "end")
    assert chat.head_id == end
    with pytest.raises(KeyError):
        chat.insert(12345, Role.USER, "nowhere")


def test_move_takes_the_branch_along_and_never_below_itself(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    user2, reply2 = say(chat, "c", "d")
    with pytest.raises(KnownError) as caught:
        chat.move(user, reply2)
    assert caught.value.code == "move-into-itself"
    chat.move(user2, None, 0)
    assert chat.tree.children(None) == (user2, user)
    assert chat.path() == [user2, reply2]
    chat.undo()
    assert chat.path() == [user, reply, user2, reply2]
    with pytest.raises(KeyError):
        chat.move(user2, 999)


def test_the_system_prompt_is_a_message_on_top(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    chat.set_system("Be brief.")
    assert chat.system_text == "Be brief."
    assert texts(chat) == ["Be brief.", "a", "b"]
    chat.set_system("Be kind.")
    assert chat.tree.node(chat.path()[0]).revisions == 1
    chat.set_system("")
    assert chat.path() == [user, reply]
    for _ in range(3):
        assert chat.undo_name in {"system", "remove"}
        chat.undo()
    assert chat.path() == [user, reply]
    assert chat.system_text == ""


def test_versions_are_remembered_per_fork_and_are_no_step(chat: Conversation) -> None:
    user, reply = say(chat, "a", "b")
    (other,) = chat.ask_again(reply)
    chat.finish_stream(other, State.DONE)
    deep, leaf = say(chat, "c", "d")
    (deep_other,) = chat.ask_again(leaf)
    chat.finish_stream(deep_other, State.DONE)
    chat.choose_version(leaf)
    name = chat.undo_name
    chat.choose_version(reply)
    assert chat.path() == [user, reply]
    chat.choose_version(other)
    assert chat.path() == [user, other, deep, leaf], "the leaf last used there"
    assert chat.undo_name == name


def test_marks_and_stars(chat: Conversation) -> None:
    _, reply = say(chat, "a", "b")
    chat.mark(reply, rating=1, labels={"quality": 0.75})
    chat.mark(reply, rating=None)
    chat.star(reply, True)
    node = chat.tree.node(reply)
    assert dict(node.marks) == {"labels": {"quality": 0.75}}
    assert node.starred
    chat.star(reply, True)
    assert [chat.undo() is not None for _ in range(3)] == [True] * 3
    assert chat.undo_name == "send"


def test_undo_stops_the_reply_it_touches_first(chat: Conversation) -> None:
    _, reply = chat.send("a")
    asked: list[tuple[int, ...]] = []

    def stop(ids: tuple[int, ...]) -> None:
        asked.append(ids)
        chat.finish_stream(reply, State.STOPPED, text_parts("as far as it came"))

    chat.on_stop_streams = stop
    chat.undo()
    assert asked == [(reply,)]
    chat.redo()
    assert chat.tree.text(reply) == "as far as it came"


def test_a_new_step_forgets_what_could_be_redone(chat: Conversation) -> None:
    say(chat, "a", "b")
    chat.undo()
    assert chat.redo_name == "send"
    say(chat, "c", "d")
    assert not chat.can_redo
    assert chat.redo() is None


def test_watchers_hear_of_streaming(chat: Conversation) -> None:
    heard: list[object] = []

    class Ear:
        def before(self, change: object) -> None:
            pass

        def after(self, change: object) -> None:
            heard.append(change)

    _, reply = chat.send("a")
    ear = Ear()
    chat.tree.add_watcher(ear)
    chat.stream_text(reply, text_parts("x"))
    assert heard == [Streamed(reply)]
    chat.tree.remove_watcher(ear)
    chat.stream_text(reply, text_parts("xy"))
    assert len(heard) == 1


class SlowStore(MemoryStore):
    """A store whose answers come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Commit, Future[None]]] = []

    def commit(self, commit: Commit) -> Future[None]:
        future: Future[None] = Future()
        self.waiting.append((commit, future))
        return future

    def fail(self) -> None:
        """The oldest commit fails, and with it all that build on it."""
        error = KnownError("disk-full", "The disk is full.")
        waiting, self.waiting = self.waiting, []
        for _, future in waiting:
            future.set_exception(error)


def slow() -> tuple[Conversation, SlowStore]:
    store = SlowStore()
    return Conversation(ChatInfo(1, new_uid()), Tree(complete=True), store), store


def test_a_failed_write_takes_its_step_and_all_later_ones_back() -> None:
    chat, store = slow()
    said: list[KnownError] = []
    chat.on_take_back = said.append
    hand = Hand(5)
    for _ in range(10):
        hand.act(chat)
        hand.finish(chat)
    for _, future in store.waiting:
        future.set_result(None)
    store.waiting.clear()
    chat.undo()
    chat.redo()
    chat.undo()
    for _, future in store.waiting:
        future.set_result(None)
    store.waiting.clear()
    before, undo, redo = picture(chat), chat.undo_name, chat.redo_name
    chat.undo()
    hand.act(chat)
    hand.act(chat)
    epoch = store.waiting[0][0].epoch
    store.fail()
    assert picture(chat) == before
    assert (chat.undo_name, chat.redo_name) == (undo, redo)
    assert [error.code for error in said] == ["disk-full"]
    chat.send("again")
    assert store.waiting[0][0].epoch > epoch, "later steps do not build on what failed"


def test_saved_fails_with_what_stopped_it() -> None:
    chat, store = slow()
    chat.send("a")
    saved = chat.saved()
    store.fail()
    with pytest.raises(KnownError):
        saved.result(1)
    assert chat.saved().result(1) is None
    assert len(chat.tree) == 0
