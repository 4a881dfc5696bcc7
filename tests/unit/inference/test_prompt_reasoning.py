"""Taking reasoning apart while it streams."""

from __future__ import annotations

import random

import pytest

from desktop_app.inference.reasoning import (
    THINK,
    Kind,
    ReasoningMarkers,
    ReasoningSplitter,
    markers_of,
    opens_reasoning,
)

HARMONY = markers_of("<|channel|>analysis<|message|>")
GEMMA = markers_of("<|channel>thought\n <channel|>")

CASES: list[tuple[ReasoningMarkers | None, bool, str, str, str]] = [
    # markers, inside, the reply, its text, its reasoning
    (THINK, False, "Just text.", "Just text.", ""),
    (THINK, False, "<think>\nHm.\n</think>\n\nFour.", "Four.", "Hm."),
    (THINK, False, "\n<think>Hm.</think>Four.\n", "Four.\n", "Hm."),
    (THINK, True, "\nHm.\n\nAnd so.\n</think>\n\nFour.", "Four.", "Hm.\n\nAnd so."),
    (THINK, True, "never closed", "", "never closed"),
    (THINK, False, "The mark <think> opens.", "The mark <think> opens.", ""),
    (THINK, False, "a </think> b", "a </think> b", ""),
    (THINK, False, "<thinker> x", "<thinker> x", ""),
    (THINK, False, "<thin", "<thin", ""),
    (THINK, False, "<think></think>Four.", "Four.", ""),
    (THINK, False, "<think>a</thin</think>b", "b", "a</thin"),
    (None, False, "  <think>x</think> y ", "  <think>x</think> y ", ""),
    (
        HARMONY,
        False,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>4.",
        "4.",
        "Hm.",
    ),
    (HARMONY, False, "<|channel|>final<|message|>4.<|return|>", "4.", ""),
    (GEMMA, False, "<|channel>thought\nHm.\n<channel|>Four.", "Four.", "Hm."),
]


def split(splitter: ReasoningSplitter, pieces: list[str]) -> tuple[str, str]:
    out: dict[Kind, str] = {"text": "", "reasoning": ""}
    for piece in pieces:
        for kind, text in splitter.feed(piece):
            assert text
            out[kind] += text
    for kind, text in splitter.finish():
        out[kind] += text
    return out["text"], out["reasoning"]


@pytest.mark.parametrize(("markers", "inside", "reply", "text", "reasoning"), CASES)
def test_any_cut_into_pieces_gives_the_same(
    markers: ReasoningMarkers | None, inside: bool, reply: str, text: str, reasoning: str
) -> None:
    draw = random.Random(3)
    for trial in range(40):
        size = draw.randint(1, 12) if trial else len(reply)
        pieces = []
        at = 0
        while at < len(reply):
            step = draw.randint(1, size)
            pieces.append(reply[at : at + step])
            at += step
        splitter = ReasoningSplitter(markers, inside=inside)
        assert split(splitter, pieces) == (text, reasoning), pieces


def test_nothing_of_a_mark_flashes() -> None:
    splitter = ReasoningSplitter(THINK)
    assert splitter.feed("<thi") == []
    assert splitter.feed("nk>Hm") == [("reasoning", "Hm")]
    inside = splitter.is_inside
    assert splitter.feed("</") == []
    assert splitter.feed("think>\n") == []
    assert (inside, splitter.is_inside) == (True, False)
    assert splitter.feed("\nFour") == [("text", "Four")]
    assert splitter.feed(".") == [("text", ".")]


def test_white_space_before_the_reply_can_be_dropped() -> None:
    assert split(ReasoningSplitter(None, trim_start=True), [" ", "\n", " a", " b "]) == ("a b ", "")
    assert split(ReasoningSplitter(None), [" ", " a"]) == ("  a", "")


def test_text_comes_at_once() -> None:
    splitter = ReasoningSplitter(THINK)
    shown = [splitter.feed(piece) for piece in ("One", " two", " three")]
    assert [piece for out in shown for piece in out] == [
        ("text", "One"),
        ("text", " two"),
        ("text", " three"),
    ]


def test_marks_are_known_by_the_template() -> None:
    assert markers_of("{{ x.split('</think>') }}") is THINK
    assert markers_of("nothing") is THINK
    assert markers_of("[THINK] [/THINK]").open == "[THINK]"
    assert markers_of("<seed:think>").close == "</seed:think>"
    assert opens_reasoning("…<think>\n", THINK)
    assert not opens_reasoning("<think>\n</think>", THINK)
