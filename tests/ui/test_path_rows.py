"""What the transcript is told: versions, what continues elsewhere, stale marks, failures."""

from __future__ import annotations

from desktop_app.conversation import Conversation, State, text_parts
from desktop_app.errors import KnownError
from desktop_app.ui.outline import points_of
from desktop_app.ui.path_rows import Live, counts_below, row_of, rows_of
from desktop_app.ui.row_view import Elsewhere, RowState


def talk(conversation: Conversation, prompt: str, reply: str = "Yes.") -> tuple[int, int]:
    asked, answered = conversation.send(prompt, author="Weights")
    conversation.finish_stream(answered, State.DONE, text_parts(reply), finish="stop")
    return asked, answered


def test_a_switch_never_looks_like_a_deletion() -> None:
    chat = Conversation.in_memory()
    first, _ = talk(chat, "one")
    talk(chat, "two")
    again, reply = chat.save_and_ask_again(first, "one, better", author="Weights")
    chat.finish_stream(reply, State.DONE, text_parts("Better."), finish="stop")
    rows = rows_of(chat, {})
    assert [row.message_id for row in rows] == [again, reply]
    assert (rows[0].version, rows[0].versions) == (2, 2)
    assert rows[0].elsewhere == (Elsewhere(version=1, messages=3),)
    assert rows[1].elsewhere == ()
    assert rows[0].below == 1


def test_replies_written_before_an_edit_above_are_marked() -> None:
    chat = Conversation.in_memory()
    first, _ = talk(chat, "one")
    talk(chat, "two")
    assert not any(row.stale for row in rows_of(chat, {}))
    chat.edit_in_place(first, "one, changed")
    rows = rows_of(chat, {})
    assert [row.stale for row in rows] == [False, True, False, True]
    assert rows[0].edited
    assert [row.stale for row in rows] == [row_of(chat, row.message_id, None).stale for row in rows]


def test_a_failed_reply_says_why_and_what_next() -> None:
    chat = Conversation.in_memory()
    _, reply = chat.send("one", author="Weights")
    chat.stream_text(reply, text_parts("Half"))
    error = KnownError("engine-memory", "Memory ran out.")
    chat.finish_stream(reply, State.FAILED, None, failure=error)
    row = rows_of(chat, {})[-1]
    assert (row.state, row.text, row.error) == (RowState.FAILED, "Half", "Memory ran out.")
    assert [action.key for action in row.actions] == ["retry", "smaller-context", "other-weights"]
    assert row.actions[0].main


def test_what_the_engine_does_stands_in_the_row() -> None:
    chat = Conversation.in_memory()
    _, reply = chat.send("one", author="Weights")
    reading = Live(RowState.READING, done=500, total=1000, kept=100, seconds=4.0)
    row = row_of(chat, reply, reading)
    assert (row.state, row.progress) == (RowState.READING, 0.5)
    # 400 tokens took 4 s, 500 are left.
    assert row.detail == "50% of 1,000 tokens, about 5 s left"
    writing = Live(RowState.WRITING, done=1000, total=1000, kept=954)
    assert row_of(chat, reply, writing).detail == "Read 46 tokens, 954 kept"
    instant = Live(RowState.WRITING, done=1000, total=1000, kept=999)
    assert row_of(chat, reply, instant).detail == "Instant, 999 tokens kept"


def test_counts_agree_with_the_tree_and_a_deep_chat_is_no_recursion() -> None:
    chat = Conversation.in_memory()
    for number in range(1200):
        talk(chat, f"{number}")
    counts = counts_below(chat.tree)
    path = chat.path()
    assert counts[path[0]] == len(path) - 1
    assert all(counts[i] == chat.tree.descendants_count(i) for i in path[::97])


def test_the_outline_has_forks_stars_and_the_end() -> None:
    chat = Conversation.in_memory()
    first, reply = talk(chat, "one", "# *Answer* `one`")
    _, starred = talk(chat, "two")
    third, last = talk(chat, "three")
    chat.star(starred, True)
    other = chat.ask_again(last, author="Weights")[0]
    chat.finish_stream(other, State.DONE, text_parts("Other."), finish="stop")
    points = points_of(chat)
    assert [(p.message_id, p.on_path, p.number) for p in points] == [
        (starred, True, 4),
        (last, False, 6),
        (other, True, 6),
    ]
    assert points[0].starred
    assert points[1].fact == "version 1"
    assert points[2].fact == "2 versions"
    assert points[2].current
    assert first not in [p.message_id for p in points]
    assert reply not in [p.message_id for p in points]
    assert third not in [p.message_id for p in points]
