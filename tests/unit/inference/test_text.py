"""Tokens to text: whole characters, no stop strings, no flashes, reasoning apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desktop_app.inference.reasoning import THINK, ReasoningMarkers
from desktop_app.inference.text import ReplyText, StopFilter, Utf8Stream, held_back


def cuts(data: bytes, seed: int) -> list[bytes]:
    """The same bytes in random pieces."""
    chooser = random.Random(seed)
    pieces = []
    while data:
        size = chooser.randint(1, 4)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@given(st.text(), st.integers())
@settings(max_examples=200, deadline=None)
def test_characters_come_whole_whatever_the_cuts(text: str, seed: int) -> None:
    stream = Utf8Stream()
    shown = [stream.feed(piece) for piece in cuts(text.encode(), seed)]
    assert "".join(shown) == text


@given(st.binary(max_size=60), st.integers())
@settings(max_examples=300, deadline=None)
def test_no_bytes_ever_show_a_replacement_character(data: bytes, seed: int) -> None:
    stream = Utf8Stream()
    shown = "".join(stream.feed(piece) for piece in cuts(data, seed))
    assert "\ufffd" not in shown or "\ufffd".encode() in data


def test_held_back_is_the_longest_possible_beginning() -> None:
    assert held_back("abc<|im", ["<|im_end|>"]) == 4
    assert held_back("abc", ["<|im_end|>"]) == 0
    assert held_back("aaab", ["ab", "aabx"]) == 3
    assert held_back("<|im_end|>", ["<|im_end|>"]) == 0


STOPS = ("</s>", "<|im_end|>", "\nUser:", "aab")


@given(
    st.lists(st.sampled_from(["a", "aa", "b", "<", "/s>", "</", "s>", "\n", "User", ":", "<|im"]))
)
@settings(max_examples=500, deadline=None)
def test_stop_strings_never_flash_and_nothing_else_is_lost(pieces: list[str]) -> None:
    whole = "".join(pieces)
    at = min((i for stop in STOPS if (i := whole.find(stop)) >= 0), default=len(whole))
    stop_filter = StopFilter(STOPS)
    shown = ""
    for piece in pieces:
        shown += stop_filter.feed(piece)
        assert whole[:at].startswith(shown)
    shown += stop_filter.finish()
    assert shown == whole[:at]
    assert bool(stop_filter.hit) == (at < len(whole))


def reply(pieces: list[str | tuple[str]], **options: object) -> tuple[str, str]:
    """Feed pieces (a tuple is a control token); what was shown as text and as reasoning."""
    stream = ReplyText(**options)  # type: ignore[arg-type] # the test names the options
    shown = []
    for piece in pieces:
        if isinstance(piece, tuple):
            shown += stream.feed_control(piece[0])
        else:
            shown += stream.feed(piece.encode())
    shown += stream.finish()
    return (
        "".join(text for kind, text in shown if kind == "text"),
        "".join(text for kind, text in shown if kind == "reasoning"),
    )


def test_control_tokens_are_not_shown() -> None:
    assert reply(["Hello", ("<|fim|>",), " you"]) == ("Hello you", "")


def test_a_control_token_that_is_a_stop_ends_the_reply() -> None:
    stream = ReplyText(stops=["<|prompter|>"])
    assert stream.feed(b"Hi") == [("text", "Hi")]
    stream.feed_control("<|prompter|>")
    assert stream.stopped


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_reasoning_comes_apart_in_any_cuts(size: int) -> None:
    text = "<think>\nwhy not\n</think>\n\nBecause <think> is a word."
    pieces: list[str | tuple[str]] = [text[i : i + size] for i in range(0, len(text), size)]
    assert reply(pieces, markers=THINK) == ("Because <think> is a word.", "why not")


def test_markers_that_are_control_tokens_part_the_reply_too() -> None:
    markers = ReasoningMarkers("<think>", "</think>")
    pieces: list[str | tuple[str]] = [("<think>",), "hm", ("</think>",), "Yes"]
    assert reply(pieces, markers=markers) == ("Yes", "hm")


def test_a_prompt_that_opened_the_reasoning() -> None:
    assert reply(["so</think>\nYes"], markers=THINK, inside_reasoning=True) == ("Yes", "so")


def test_a_half_marker_at_the_end_is_text() -> None:
    assert reply(["a <|im"], stops=["<|im_end|>"]) == ("a <|im", "")


def test_the_first_space_of_a_sentencepiece_reply_is_not_the_replys() -> None:
    assert reply([" Hello", " you"], trim_start=True) == ("Hello you", "")
    assert reply([" Hello", " you"]) == (" Hello you", "")
