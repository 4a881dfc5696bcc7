"""Reading ahead through the real engine: less to read after Enter, the same words, no trace."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from desktop_app.inference.engine import Engine
from desktop_app.inference.parked_files import read_header
from desktop_app.inference.protocol import (
    ChatMessage,
    Finished,
    GenerateRequest,
    ReadAhead,
    WeightsSpec,
)
from desktop_app.inference.sampling import Sampling
from tests.fakes import tiny_gguf
from tests.system.shared_batches import threes

WAIT_S = 60.0
GREEDY = Sampling(temperature=0, max_tokens=12)
SECRET = "The owl tells nobody where the seven golden keys are buried. " * 6


def started(path: Path, cache: Path | None = None) -> Engine:
    engine = Engine(cache_dir=cache)
    engine.load(WeightsSpec(str(path), threads=1)).done.result(WAIT_S)
    return engine


def ask(engine: Engine, messages: tuple[ChatMessage, ...], chat: str = "a") -> Finished:
    (done,) = engine.generate(GenerateRequest(messages, GREEDY, chat=chat)).done.result(WAIT_S)
    return done


def on_disk(cache: Path) -> set[tuple[int, ...]]:
    """All runs of three tokens in the parked files."""
    found: set[tuple[int, ...]] = set()
    for file in cache.rglob("*.blk"):
        read = read_header(file)
        if read is not None:
            found |= threes(read[2])
    return found


def settle(cache: Path) -> None:
    """Until the engine has written down what it keeps (it does so while it has nothing to do)."""
    end, quiet, before = time.monotonic() + WAIT_S, 0, -1
    while quiet < 10 and time.monotonic() < end:
        now = len(list(cache.rglob("*")))
        quiet = quiet + 1 if now == before else 0
        before = now
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["llama", "window", "mamba"])
def test_what_was_read_ahead_is_not_read_again_and_changes_nothing(
    tmp_path: Path, kind: tiny_gguf.Kind
) -> None:
    weights = tiny_gguf.write(tmp_path / "w.gguf", kind)
    history = (ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello there."))
    message = ChatMessage("user", "A long question that is typed slowly, word by word. " * 8)
    engine = started(weights)
    try:
        words = message.text.split()
        for count in (4, 20, 12, len(words) - 3):  # typed, typed on, erased a little, typed on
            begun = ChatMessage("user", " ".join(words[:count]))
            read = engine.read_ahead(ReadAhead((*history, begun), GREEDY, chat="a"))
            told = read.done.result(WAIT_S)
            assert told.kept + told.read == told.total
        helped = ask(engine, (*history, message))
    finally:
        engine.close()
    other = started(weights)
    try:
        fresh = ask(other, (*history, message))
    finally:
        other.close()
    assert fresh.counters.kept_tokens == 0
    assert helped.counters.evaluated_tokens < 0.2 * fresh.counters.evaluated_tokens
    assert helped.counters.prompt_tokens == fresh.counters.prompt_tokens
    assert helped.tokens[:8] == fresh.tokens[:8]


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_unsent_text_never_reaches_the_disk(tmp_path: Path, kind: tiny_gguf.Kind) -> None:
    weights = tiny_gguf.write(tmp_path / "w.gguf", kind)
    cache = tmp_path / "cache"
    sent = (ChatMessage("user", "Some words that were sent. " * 12),)
    engine = started(weights, cache)
    try:
        secret = threes(engine.render([ChatMessage("user", SECRET)]).done.result(WAIT_S).tokens)
        common = threes(engine.render(sent).done.result(WAIT_S).tokens)
        reply = ask(engine, sent)
        settle(cache)
        known = on_disk(cache)
        assert not known.isdisjoint(common), "what was sent is kept on disk"
        secret -= common | known | threes(reply.tokens)
        assert len(secret) > 30
        path = (*sent, ChatMessage("assistant", "Yes."))
        for end in (len(SECRET) // 2, len(SECRET)):
            begun = ChatMessage("user", SECRET[:end])
            told = engine.read_ahead(ReadAhead((*path, begun), GREEDY, chat="a"))
            assert told.done.result(WAIT_S).read > 0
            settle(cache)
            assert on_disk(cache).isdisjoint(secret)
        assert engine.render((*path, begun)).done.result(WAIT_S).kept_tokens > len(common)
        # Another chat takes the place; then the text is erased.
        other = (ChatMessage("user", "Go on."),)
        wrote = ask(engine, other, chat="b")
        prompt = engine.render(other).done.result(WAIT_S).tokens
        secret -= threes([*prompt, *wrote.tokens])
        engine.read_ahead(ReadAhead((*path, begun), GREEDY, chat="a")).done.result(WAIT_S)
        engine.read_ahead(ReadAhead()).done.result(WAIT_S)
        settle(cache)
        assert len(secret) > 30
        assert not on_disk(cache) & secret
        rendered = engine.render((*path, begun)).done.result(WAIT_S)
        assert rendered.kept_tokens < len(rendered.tokens) - 50, "dropped from memory"
    finally:
        engine.close()


def test_another_request_ends_it_within_a_step(tmp_path: Path) -> None:
    weights = tiny_gguf.write(tmp_path / "w.gguf", "slow")
    engine = started(weights)
    try:
        long = ChatMessage("user", "word by word " * 120)
        job = engine.read_ahead(ReadAhead((long,), GREEDY, chat="a"))
        done = ask(engine, (ChatMessage("user", "Hi"),), chat="b")
        told = job.done.result(WAIT_S)
        assert told.kept + told.read < told.total
        assert done.counters.generated_tokens > 0
    finally:
        engine.close()
