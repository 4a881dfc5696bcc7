"""Open-Assistant's files: what comes in goes out again, whatever the writer left out or added."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from desktop_app.errors import KnownError
from desktop_app.exchange import files, oasst

SHARED = Path(__file__).parents[4] / "shared" / "oasst" / "en_100_tree.jsonl"


def out(chat: oasst.ReadChat) -> oasst.OutChat:
    """What would come out of the library for `chat`, without the library."""
    children: dict[int | None, list[int]] = {}
    for index, message in enumerate(chat.messages):
        children.setdefault(message.parent, []).append(index)
    messages = [
        oasst.OutMessage(
            f"uid-{index}",
            message.role,
            message.text,
            "",
            message.author,
            message.created_at,
            message.marks,
            message.extra,
            children.get(index, []),
        )
        for index, message in enumerate(chat.messages)
    ]
    return oasst.OutChat("chat-uid", chat.title, chat.extra, messages, children.get(None, []))


def again(lines: list[Any]) -> list[Any]:
    """The lines after a way in and out."""
    chats = oasst.read(enumerate(lines, 1))
    return list(itertools.chain.from_iterable(oasst.write(out(chat)) for chat in chats))


def node(name: str, role: str = "prompter", **more: Any) -> dict[str, Any]:
    return {"message_id": name, "text": f"text of {name}", "role": role, **more}


def random_tree(rng: random.Random, name: str) -> dict[str, Any]:
    """A tree with fields present, null, absent and unknown, as different writers make them."""

    def grow(depth: int, path: str, parent: str | None) -> dict[str, Any]:
        row = node(path, "prompter" if depth % 2 == 0 else "assistant")
        if parent is not None or rng.random() < 0.5:
            row["parent_id"] = parent
        choices: dict[str, list[Any]] = {
            "rank": [0, 1, None],
            "lang": ["en", "pt-BR", None],
            "review_result": [True, False, None],
            "created_date": ["2023-02-05T14:23:50.983374+00:00", "2023-01-01T00:00:00"],
            "emojis": [{"+1": 2}, {"name": ["+1"], "count": [3]}, None],
            "labels": [{"quality": {"value": 0.75, "count": 3}}, None],
            "something_new": [{"deep": [1, None, "x"]}],
        }
        for key, values in choices.items():
            if rng.random() < 0.4:
                row[key] = rng.choice(values)
        count = rng.choice((0, 0, 1, 2, 3)) if depth < 5 else 0
        if count:
            row["replies"] = [grow(depth + 1, f"{path}.{n}", path) for n in range(count)]
        elif rng.random() < 0.7:
            row["replies"] = rng.choice(([], [], None))
        return row

    tree: dict[str, Any] = {"message_tree_id": name, "prompt": grow(0, name, None)}
    if rng.random() < 0.5:
        tree |= {"tree_state": "ready_for_export", "origin": "web", "unknown": [1]}
    return tree


def flatten(tree: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    todo = [tree["prompt"]]
    while todo:
        row = todo.pop()
        todo.extend(reversed(row.get("replies") or []))
        rows.append({k: v for k, v in row.items() if k != "replies"})
    return [{**row, "message_tree_id": tree["message_tree_id"]} for row in rows]


def test_random_trees_come_out_as_they_went_in() -> None:
    rng = random.Random(7)
    trees = [random_tree(rng, f"t{n}") for n in range(200)]
    assert again(trees) == trees


def test_flat_messages_keep_order_and_fields() -> None:
    rng = random.Random(8)
    for n in range(100):
        rows = flatten(random_tree(rng, f"t{n}"))
        assert again(rows) == rows
        rng.shuffle(rows)
        assert again(rows) == rows


def test_orphans_become_roots_of_one_chat_and_keep_their_parent() -> None:
    rows = [
        node("a", "assistant", parent_id="gone"),
        node("b", "assistant", parent_id="gone"),
        node("c", parent_id="a"),
        node("d"),
    ]
    chats = oasst.read(enumerate(rows, 1))
    assert [[m.extra["oasst"]["message_id"] for m in c.messages] for c in chats] == [
        ["a", "c", "b"],
        ["d"],
    ]
    assert sorted(again(rows), key=lambda r: r["message_id"]) == rows


def test_rings_and_own_parents_are_cut() -> None:
    rows = [node("a", parent_id="b"), node("b", parent_id="a"), node("c", parent_id="c")]
    chats = oasst.read(enumerate(rows, 1))
    assert sum(len(chat.messages) for chat in chats) == 3
    assert all(m.parent is None or m.parent < n for c in chats for n, m in enumerate(c.messages))


def test_messages_that_hold_nested_replies() -> None:
    rows = [
        node("a", replies=[node("b", "assistant", parent_id="a", replies=[])]),
        node("c", "assistant", parent_id="a"),
    ]
    [chat] = oasst.read(enumerate(rows, 1))
    assert [m.text for m in chat.messages] == ["text of a", "text of b", "text of c"]
    assert again(rows) == rows


def test_threads() -> None:
    thread = [node("a"), node("b", "assistant", parent_id="a"), node("c", parent_id="b")]
    line = {"thread_id": "c", "thread": thread, "more": 1}
    [chat] = oasst.read([(1, line)])
    assert [m.parent for m in chat.messages] == [None, 0, 1]
    assert again([line]) == [line]


def test_marks_from_the_hubs_columns() -> None:
    row = node(
        "a",
        emojis={"name": ["+1", "_skip_reply"], "count": [1, 2]},
        labels={"name": ["quality"], "value": [0.5], "count": [3]},
    )
    [chat] = oasst.read([(1, row)])
    assert chat.messages[0].marks == {
        "emojis": {"+1": 1, "_skip_reply": 2},
        "labels": {"quality": {"value": 0.5, "count": 3}},
    }


def test_a_chat_of_groves_own_keeps_its_system_prompt() -> None:
    chat = oasst.OutChat(
        "c1",
        "Title",
        {},
        [
            oasst.OutMessage("s", "system", "Be brief.", "", "", 1000, {}, {}, [1]),
            oasst.OutMessage("u", "user", "Hi", "", "", 1000, {}, {}, [2, 3]),
            oasst.OutMessage("x", "assistant", "Hello", "", "M", 1000, {"rank": 1}, {}, []),
            oasst.OutMessage("y", "assistant", "Hey", "thinks", "M", 1000, {}, {}, []),
        ],
        [0],
    )
    [line] = oasst.write(chat)
    assert line["prompt"]["role"] == "prompter"
    assert line["prompt"]["replies"][0]["rank"] == 1
    [back] = oasst.read([(1, line)])
    assert [(m.role, m.text, m.parent) for m in back.messages] == [
        ("system", "Be brief.", None),
        ("user", "Hi", 0),
        ("assistant", "Hello", 1),
        ("assistant", "Hey", 1),
    ]
    assert back.title == "Title"


@pytest.mark.parametrize(
    "line",
    [
        3,
        {},
        {"message_id": "a"},
        {"message_id": "a", "text": "x", "role": "robot"},
        {"message_id": 1, "text": "x", "role": "prompter"},
        {"message_tree_id": "t", "prompt": {"role": "prompter"}},
        {"message_tree_id": "t", "prompt": node("a", replies=3)},
        {"message_tree_id": "t", "prompt": node("a", replies=[3])},
        {"message_tree_id": None, "prompt": node("a")},
        {"thread_id": "t", "thread": None},
    ],
)
def test_a_broken_line_is_named(line: Any) -> None:
    with pytest.raises(KnownError, match=r"Line 5 ") as caught:
        oasst.read([(5, line)])
    assert caught.value.code == "import-format"


@pytest.mark.skipif(not SHARED.exists(), reason="the sample data is not beside the checkout")
def test_the_sample_trees_come_out_equal(tmp_path: Path) -> None:
    text = SHARED.read_text(encoding="utf-8")
    lines = [value for _, value in files.parse_lines(text, SHARED.name)]
    assert len(lines) == 100
    written = again(lines)
    assert written == lines
    packed = tmp_path / "trees.jsonl.gz"
    files.write_atomically(packed, (json.dumps(line) + "\n" for line in written))
    with gzip.open(packed) as stream:
        assert stream.read(2) == b'{"'
    assert [v for _, v in files.parse_lines(files.read_text(packed), "x")] == lines
