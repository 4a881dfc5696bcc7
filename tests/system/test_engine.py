"""The real engine: real child, real llama.cpp, tiny weights that the test writes itself."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import psutil
import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import (
    ChatMessage,
    Event,
    Finished,
    GenerateRequest,
    Piece,
    ReadProgress,
    WeightsSpec,
)
from desktop_app.inference.sampling import Sampling
from desktop_app.inference.script import run_script
from tests.fakes import tiny_gguf
from tests.system.test_engine_faults import Ear

WAIT_S = 60.0
STORIES = Path(__file__).resolve().parents[3] / "shared" / "weights" / "stories260K.gguf"
GREEDY = Sampling(temperature=0, max_tokens=24)
needs_stories = pytest.mark.skipif(not STORIES.is_file(), reason="the shared weights are not here")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tiny_gguf.Kind], str]:
    """Weights of a kind, written once."""
    folder = tmp_path_factory.mktemp("weights")

    def path(kind: tiny_gguf.Kind) -> str:
        file = folder / f"{kind}.gguf"
        return str(file if file.exists() else tiny_gguf.write(file, kind))

    return path


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()


def ask(engine: Engine, request: GenerateRequest) -> tuple[str, Finished]:
    """A whole reply: what was shown, and how it ended."""
    ear = Ear()
    (finished,) = engine.generate(request, ear).done.result(WAIT_S)
    return ear.text, finished


def chat(*texts: str, sampling: Sampling = GREEDY, name: str = "") -> GenerateRequest:
    """A conversation of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = tuple(ChatMessage(roles[i % 2], text) for i, text in enumerate(texts))
    return GenerateRequest(messages, sampling, chat=name)


def load(engine: Engine, path: str, length: int = 0) -> None:
    engine.load(WeightsSpec(path, context_length=length, threads=1)).done.result(WAIT_S)


# --- writing -----------------------------------------------------------------------------------


def test_the_same_seed_in_a_fresh_process_gives_the_same_text(
    weights: Callable[[tiny_gguf.Kind], str],
) -> None:
    texts = []
    for seed in (5, 5, 6):
        engine = Engine()
        try:
            load(engine, weights("llama"))
            texts.append(ask(engine, chat("Hi", sampling=Sampling(seed=seed, max_tokens=60)))[0])
        finally:
            engine.close()
    assert texts[0] == texts[1] != texts[2]


@needs_stories
def test_a_story(engine: Engine) -> None:
    load(engine, str(STORIES))
    sampling = Sampling(seed=1, max_tokens=80)
    text, finished = ask(engine, chat("Once upon a time", sampling=sampling))
    assert finished.counters.generated_tokens >= 50
    assert finished.finish == "length"
    assert len(text.split()) > 20
    assert "�" not in text
    assert finished.turn["seed"] == 1
    assert finished.turn["weights_hash"] == engine.loaded.hash if engine.loaded else False
    assert text.isascii()


@needs_stories
def test_continuing_a_reply_writes_what_would_have_followed(engine: Engine) -> None:
    load(engine, str(STORIES))
    opening = chat("Once upon a time, there was", sampling=replace(GREEDY, max_tokens=30))
    whole, _ = ask(engine, opening)
    half, finished = ask(engine, replace(opening, sampling=replace(GREEDY, max_tokens=15)))
    assert whole.startswith(half)
    reply = ChatMessage("assistant", half, tokens=finished.tokens)
    request = replace(
        opening,
        messages=(*opening.messages, reply),
        continue_last=True,
        sampling=replace(GREEDY, max_tokens=15),
    )
    rest, finished = ask(engine, request)
    assert (half + rest).split() == whole.split()
    assert finished.counters.evaluated_tokens <= 2


def test_nonsense_weights_never_show_a_replacement_character_or_control_tokens(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"))
    for seed in range(5):
        sampling = Sampling(temperature=2, top_k=0, min_p=0, top_p=1, seed=seed, max_tokens=120)
        text, _ = ask(engine, chat("가나다 😀", sampling=sampling))
        assert "�" not in text
        assert not any(token in text for token in (*tiny_gguf.SPECIAL, "<s>", "</s>"))


def test_a_stop_string_ends_the_reply_before_itself(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"))
    sampling = Sampling(seed=3, max_tokens=60)
    whole, _ = ask(engine, chat("Hi", sampling=sampling))
    stop = whole.strip()[10:13]
    text, finished = ask(engine, chat("Hi", sampling=replace(sampling, stops=(stop,))))
    assert finished.finish == "stop"
    assert text.rstrip() == whole[: whole.index(stop)].rstrip()


def test_drafts_are_what_single_replies_with_their_seeds_are(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"))
    request = chat("Tell me", sampling=Sampling(seed=11, max_tokens=20))
    drafts = engine.generate(replace(request, drafts=4)).done.result(WAIT_S)
    assert [draft.turn["seed"] for draft in drafts] == [11, 12, 13, 14]
    assert sum(draft.counters.evaluated_tokens for draft in drafts) == 4 * len(
        engine.render(request.messages).done.result(WAIT_S).tokens
    ), "the prompt is read once; each draft tells the same count"
    for draft in drafts:
        seed = draft.turn["seed"]
        assert isinstance(seed, int)
        _, single = ask(engine, replace(request, sampling=Sampling(seed=seed, max_tokens=20)))
        assert single.tokens[:8] == draft.tokens[:8]


def test_one_draft_can_be_stopped_alone(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("slow"))
    ear = Ear()
    request = GenerateRequest(prompt_tokens=(300, 301), sampling=Sampling(seed=2, max_tokens=500))
    job = engine.generate(replace(request, drafts=2), ear)
    ear.wait_for(Piece)
    job.cancel(draft=1)
    first, second = job.done.result(WAIT_S)
    assert second.finish == "cancelled"
    assert first.finish in ("stop", "length")
    assert first.counters.generated_tokens > second.counters.generated_tokens


def test_several_chats_write_at_once(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"))
    requests = [chat(f"Chat {n}", name=str(n)) for n in range(5)]
    alone = [ask(engine, request)[0] for request in requests]
    ears = [Ear() for _ in requests]
    jobs = [engine.generate(request, ear) for request, ear in zip(requests, ears, strict=True)]
    for job in jobs:
        job.done.result(WAIT_S)
    assert [ear.text[:10] for ear in ears] == [text[:10] for text in alone]


# --- what is not read again --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "window", "mamba"])
def test_the_next_turn_reads_only_what_is_new(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str], kind: tiny_gguf.Kind
) -> None:
    load(engine, weights(kind))
    first = chat("A question of some length, so that it counts.")
    text, finished = ask(engine, first)
    prompt = finished.counters.prompt_tokens
    assert finished.counters.evaluated_tokens == prompt
    messages = (
        *first.messages,
        ChatMessage("assistant", text, tokens=finished.tokens),
        ChatMessage("user", "And?"),
    )
    _, finished = ask(engine, replace(first, messages=messages))
    if kind != "mamba":
        assert finished.counters.kept_tokens >= prompt - 1
    # A fresh engine, which has nothing to keep, must say the same.
    other = Engine()
    try:
        load(other, weights(kind))
        _, fresh = ask(other, replace(first, messages=messages))
    finally:
        other.close()
    assert fresh.counters.kept_tokens == 0
    assert fresh.tokens[:10] == finished.tokens[:10]


def test_asking_again_reads_one_token(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"))
    request = chat("Some words " * 40)
    ask(engine, request)
    rendered = engine.render(request.messages).done.result(WAIT_S)
    assert rendered.kept_tokens == len(rendered.tokens) - 1
    for seed in range(3):
        again = replace(request, sampling=Sampling(seed=seed, max_tokens=5))
        _, finished = ask(engine, again)
        assert finished.counters.evaluated_tokens == 1


def test_overflow_leaves_out_whole_oldest_turns_and_keeps_the_boundary(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"), length=512)
    texts = ["A word or two about it."]
    left_out: list[int] = []
    evaluated: list[int] = []
    for turn in range(30):
        request = chat(*texts, name="c", sampling=replace(GREEDY, max_tokens=8))
        text, finished = ask(engine, request)
        assert finished.counters.prompt_tokens < 512
        left_out.append(finished.left_out)
        evaluated.append(finished.counters.evaluated_tokens)
        texts += [text or "x", f"Question number {turn}, a little longer than before."]
    assert left_out[0] == 0 < left_out[-1]
    assert left_out == sorted(left_out)
    moves = sum(a != b for a, b in itertools.pairwise(left_out))
    assert 1 <= moves <= 8, "the boundary must stay for several turns"
    assert sum(tokens > 200 for tokens in evaluated) <= moves + 1


def test_one_message_longer_than_the_context_is_said_before(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"), length=256)
    with pytest.raises(KnownError) as caught:
        ask(engine, chat("far too long " * 200))
    assert caught.value.code == "message-too-long"
    assert ask(engine, chat("short"))[1].counters.generated_tokens > 0


def test_a_reply_that_fills_the_context_ends_in_overflow(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"), length=256)
    drafts = engine.generate(
        GenerateRequest(
            prompt_tokens=tuple(range(300, 400)),
            sampling=Sampling(temperature=1.5, top_k=0, min_p=0, seed=1, stops=()),
            drafts=3,
        )
    ).done.result(WAIT_S)
    assert {draft.finish for draft in drafts} <= {"overflow", "stop"}
    assert ask(engine, chat("and then"))[1].counters.generated_tokens > 0


@pytest.mark.parametrize("kind", ["llama", "window", "mamba"])
def test_after_a_restart_a_chat_is_not_read_again(
    weights: Callable[[tiny_gguf.Kind], str], tmp_path: Path, kind: tiny_gguf.Kind
) -> None:
    request = chat("Some words that count. " * 30, name="a")
    replies = []
    for _ in range(2):
        engine = Engine(cache_dir=tmp_path)
        try:
            load(engine, weights(kind))
            replies.append(ask(engine, request))
            settled = time.monotonic() + WAIT_S
            # Blocks are written while the engine has nothing else to do.
            while not list(tmp_path.rglob("chats.json")) and time.monotonic() < settled:
                time.sleep(0.02)
            engine.forget(["another"]).done.result(WAIT_S)
        finally:
            engine.close()
    (first, fresh), (second, restored) = replies
    assert fresh.counters.kept_tokens == 0
    if kind == "mamba":
        assert restored.counters.evaluated_tokens <= 1
    else:
        assert restored.counters.kept_tokens > 100
    assert first[:10] == second[:10]
    engine = Engine(cache_dir=tmp_path)
    try:
        engine.forget(["a"]).done.result(WAIT_S)  # no child is running
    finally:
        engine.close()
    assert list(tmp_path.rglob("*.blk")) == []


# --- stopping ----------------------------------------------------------------------------------


def silence_s(engine: Engine, request: GenerateRequest, until: type[Event]) -> float:
    """Seconds from a cancel, given at the first event `until`, to the end of the reply."""
    ear = Ear()
    job = engine.generate(request, ear)
    ear.wait_for(until)
    started = time.monotonic()
    job.cancel()
    (finished,) = job.done.result(WAIT_S)
    assert finished.finish == "cancelled"
    return time.monotonic() - started


def test_threads_change_between_replies_and_unused_ones_take_no_core(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"), 4096)
    child = engine.child_pid
    assert child is not None
    for count in (2, 3, 1, 2, 1):
        engine.set_threads(count)
        _, finished = ask(engine, chat("Hello"))
        assert finished.turn["threads"] == count
    assert engine.child_pid == child
    # With one thread, the kept pools must rest: their threads have used nothing since.
    threads = {thread.id: thread for thread in psutil.Process(child).threads()}
    ask(engine, chat("Hello again", sampling=replace(GREEDY, max_tokens=3000)))
    grown = [
        thread.user_time - threads[thread.id].user_time
        for thread in psutil.Process(child).threads()
        if thread.id in threads
    ]
    assert sum(grown) - max(grown) <= 0.1 * max(grown) + 0.03, grown


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize("own", ["", "glibc.malloc.arena_max=2", "glibc.malloc.hugetlb=0"])
def test_the_child_asks_for_large_pages_unless_the_user_chose(
    engine: Engine,
    weights: Callable[[tiny_gguf.Kind], str],
    monkeypatch: pytest.MonkeyPatch,
    own: str,
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", own)
    load(engine, weights("llama"))
    # As it stands in memory: glibc cuts the list into its parts there.
    given = Path(f"/proc/{engine.child_pid}/environ").read_text()
    assert own in given
    assert ("glibc.malloc.hugetlb=1" in given) == ("hugetlb" not in own)


def test_stop_to_silence_while_reading_and_writing(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    engine.load(WeightsSpec(weights("slow"), context_length=8192, threads=1)).done.result(WAIT_S)
    long_prompt = GenerateRequest(prompt_tokens=tuple(300 + i % 50 for i in range(6000)))
    reading = [silence_s(engine, long_prompt, ReadProgress) for _ in range(3)]
    short = GenerateRequest(prompt_tokens=(300, 301), sampling=Sampling(temperature=1, seed=1))
    writing = [silence_s(engine, short, Piece) for _ in range(3)]
    assert sorted(reading)[1] < 0.2
    assert sorted(writing)[1] < 0.2
    # What was read until the stop is not read again.
    ear = Ear()
    job = engine.generate(long_prompt, ear)
    progress = ear.wait_for(ReadProgress)
    job.cancel()
    job.done.result(WAIT_S)
    assert isinstance(progress, ReadProgress)
    assert progress.kept > 0


def test_a_cancel_before_the_start_is_not_lost(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("llama"))
    for _ in range(20):
        job = engine.generate(chat("Hi", sampling=Sampling(max_tokens=100_000, stops=())))
        job.cancel()
        (finished,) = job.done.result(WAIT_S)
        assert finished.finish in ("cancelled", "stop", "overflow")


# --- bad days ----------------------------------------------------------------------------------


def test_an_emoji_for_a_vocabulary_without_bytes_does_not_end_the_engine(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("no-bytes"))
    pid = engine.child_pid
    with pytest.raises(KnownError) as caught:
        ask(engine, chat("Hello 😀"))
    assert caught.value.code == "text-unspellable"
    assert "😀" in caught.value.sentence
    assert ask(engine, chat("Hello"))[1].finish in ("stop", "length")
    assert engine.child_pid == pid


def test_unfit_files_get_a_sentence_each(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str], tmp_path: Path
) -> None:
    good = Path(weights("llama")).read_bytes()
    files = {
        "zip.gguf": b"PK\x03\x04" + good,
        "cut-data.gguf": good[: len(good) // 2],
        "cut-header.gguf": good[:300],
        "empty.gguf": b"",
        "v1.gguf": good[:4] + b"\x01\0\0\0" + good[8:],
        "part-00001-of-00002.gguf": good,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(KnownError) as caught:
            load(engine, str(path))
        assert caught.value.code.startswith("weights-"), name
        assert caught.value.sentence.endswith("."), name
    with pytest.raises(KnownError) as caught:
        load(engine, weights("embedder"))
    assert caught.value.code == "weights-no-chat"
    huge = tmp_path / "huge.gguf"
    huge.write_bytes(good)
    os.truncate(huge, 1 << 42)  # sparse
    with pytest.raises(KnownError) as caught:
        load(engine, str(huge))
    assert caught.value.code == "memory-full"
    load(engine, weights("llama"))
    assert ask(engine, chat("Hello"))[1].counters.generated_tokens > 0


def test_damaged_bytes_never_take_the_app_along(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str], tmp_path: Path
) -> None:
    chooser = random.Random(4)
    good = bytearray(Path(weights("llama")).read_bytes())
    path = tmp_path / "damaged.gguf"
    for _ in range(12):
        damaged = bytearray(good)
        for _flip in range(4):
            damaged[chooser.randrange(12_000)] ^= 1 << chooser.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(KnownError):  # anything else fails the test
            load(engine, str(path))
            ask(engine, chat("Hello", sampling=replace(GREEDY, max_tokens=3)))
    load(engine, weights("llama"))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_kill_in_mid_reply_and_the_next_reply_works(
    engine: Engine, weights: Callable[[tiny_gguf.Kind], str]
) -> None:
    load(engine, weights("slow"))
    for _ in range(3):
        ear = Ear()
        job = engine.generate(GenerateRequest(prompt_tokens=(300, 301)), ear)
        ear.wait_for(Piece)
        assert engine.child_pid is not None
        os.kill(engine.child_pid, signal.SIGKILL)
        with pytest.raises(KnownError) as caught:
            job.done.result(WAIT_S)
        assert caught.value.code == "engine-crashed"
    assert ask(engine, chat("Hello"))[1].counters.generated_tokens > 0


APP = """
import sys, time
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import GenerateRequest, Piece, WeightsSpec
engine = Engine()
engine.load(WeightsSpec(sys.argv[1])).done.result(60)
def heard(event):
    if isinstance(event, Piece):
        print(engine.child_pid, flush=True)
engine.generate(GenerateRequest(prompt_tokens=(300, 301)), heard)
time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_the_child_leaves_when_the_app_is_killed(
    weights: Callable[[tiny_gguf.Kind], str],
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APP, weights("slow")], stdout=subprocess.PIPE
    ) as app:
        assert app.stdout is not None
        child = psutil.Process(int(app.stdout.readline()))
        app.kill()
        app.wait()
    deadline = time.monotonic() + 1.0
    while (alive := is_alive(child)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive, "the engine child must be gone within a second"


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; an orphan may stay a zombie where nobody collects the dead."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_script_prints_every_event(
    weights: Callable[[tiny_gguf.Kind], str], tmp_path: Path
) -> None:
    script = tmp_path / "script.jsonl"
    messages = [{"role": "user", "text": "Hi"}]
    steps = [
        {"do": "load", "path": weights("llama")},
        {"do": "generate", "name": "a", "messages": messages, "sampling": {"max_tokens": 4}},
        {"do": "generate", "name": "b", "messages": messages, "cancel_after_tokens": 1},
        {"do": "render", "messages": messages},
        {"do": "generate", "name": "c", "messages": []},
    ]
    script.write_text("# a comment\n\n" + "\n".join(map(json.dumps, steps)))
    out = StringIO()
    assert run_script(script, out) == 1, "the last request must fail"
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    finished = {line["job"]: line for line in lines if line["event"] == "finished"}
    assert finished["a"]["counters"]["generated_tokens"] <= 4
    assert finished["b"]["counters"]["evaluated_tokens"] == 1
    rendered = next(line for line in lines if line["event"] == "rendered")
    assert rendered["text"].startswith("<|im_start|>user\nHi<|im_end|>")
    assert [line["event"] for line in lines if line["job"] == "c"] == ["failed"]
    assert all(a["t"] <= b["t"] for a, b in itertools.pairwise(lines))
