"""Lines between app and engine child: what is written is read back, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desktop_app.inference.protocol import (
    Cancel,
    ChatMessage,
    Command,
    Counters,
    Device,
    Event,
    Failed,
    Finished,
    Forget,
    GenerateRequest,
    Hello,
    LoadProgress,
    Piece,
    ProtocolError,
    ReadProgress,
    Rendered,
    RenderRequest,
    SetThreads,
    Timings,
    Unload,
    Unloaded,
    WeightsSpec,
    decode_command,
    decode_event,
    encode,
)
from desktop_app.inference.sampling import Sampling

COMMANDS: list[Command] = [
    WeightsSpec("/a b/ü.gguf", context_length=512, kv_type="q8_0"),
    GenerateRequest(
        (ChatMessage("user", "line\nline\u2028"), ChatMessage("assistant", "x", "why", (1, 2))),
        Sampling(seed=7, stops=("a", "\n")),
        drafts=3,
        prompt_tokens=(5, 6),
    ),
    RenderRequest((), "chatml", continue_last=True),
    Cancel(2),
    Cancel(),
    Unload(),
    Forget(("a", "b")),
    SetThreads(3),
]
EVENTS: list[Event] = [
    Hello(1, "x", (Device("CPU", "", "cpu", 1, 2),)),
    LoadProgress(0.25),
    ReadProgress(1, 2, 0),
    Piece(1, "가나다", "reasoning", 4),
    Finished(0, "stop", Counters(1, 2, 3, 4), Timings(0.5), {"seed": 1, "s": {"t": [0.7]}}, (9,)),
    Rendered("t", (1,), ("t",), "jinja"),
    Failed("code", "Sentence.", "detail"),
    Unloaded(),
]


@pytest.mark.parametrize("message", COMMANDS, ids=lambda m: type(m).__name__)
def test_commands_come_back_as_they_were(message: Command) -> None:
    line = encode(12, message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_command(line) == (12, message)


@pytest.mark.parametrize("message", EVENTS, ids=lambda m: type(m).__name__)
def test_events_come_back_as_they_were(message: Event) -> None:
    assert decode_event(encode(0, message)) == (0, message)


@given(st.text(alphabet=st.characters(codec=None)), st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_survives_even_lone_surrogates(text: str, other: str) -> None:
    request = GenerateRequest((ChatMessage("user", text), ChatMessage("tool", other)))
    line = encode(1, request)
    assert line.isascii()
    assert decode_command(line) == (1, request)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"llama.cpp says hello\n",
        b"[]",
        b"3",
        b"{}",
        b'{"type":"piece"}',
        b'{"type":"nothing","job":1}',
        b'{"type":"piece","job":"1","draft":0,"text":"a"}',
        b'{"type":"piece","job":1,"draft":0,"text":5}',
        b'{"type":"piece","job":1,"draft":0,"text":"a","kind":"image"}',
        b'{"type":"piece","job":1,"draft":true,"text":"a"}',
        b'{"type":"piece","job":1,"draft":0,"text":"a","more":1}',
        b'{"type":"finished","job":1,"draft":0}',
        b'{"type":"load_progress","job":1,"fraction":"0"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_event(line)


def test_a_command_is_no_event() -> None:
    with pytest.raises(ProtocolError):
        decode_event(encode(1, Cancel()))


def test_a_failure_is_an_error_with_the_same_words() -> None:
    failed = Failed("code", "Sentence.", "detail")
    assert Failed.of(failed.error) == failed


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_noise_never_does_anything_but_be_refused(noise: bytes) -> None:
    try:
        job, _event = decode_event(noise)
    except ProtocolError:
        return
    assert isinstance(job, int)
    assert json.loads(noise)
