"""The app's side of the engine against a child that misbehaves (tests/fakes/faulty_engine.py)."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import (
    ChatMessage,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Loaded,
    LoadProgress,
    Piece,
    WeightsSpec,
)

WAIT_S = 20.0
SPEC = WeightsSpec("/weights/fake.gguf")
MakeEngine = Callable[..., Engine]


class Ear:
    """A listener that remembers, and lets a test wait for what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.threads: set[str] = set()
        self._condition = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._condition:
            self.events.append(event)
            self.threads.add(threading.current_thread().name)
            self._condition.notify_all()

    def wait_for(self, kind: type[Event]) -> Event:
        with self._condition:
            assert self._condition.wait_for(
                lambda: any(isinstance(event, kind) for event in self.events), WAIT_S
            ), f"no {kind.__name__} came, only {self.events}"
            return next(event for event in self.events if isinstance(event, kind))

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Piece))


def state(engine: Engine) -> str:
    """The engine's state now (a type checker believes that an attribute stays as compared)."""
    return engine.state


def say(text: str, drafts: int = 1) -> GenerateRequest:
    return GenerateRequest((ChatMessage("user", text),), drafts=drafts)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeEngine]:
    monkeypatch.setenv("GROVE_FAKE_STATE", str(tmp_path / "state"))
    engines: list[Engine] = []

    def engine(fault: str = "none", **options: object) -> Engine:
        command = [sys.executable, "-m", "tests.fakes.faulty_engine", fault]
        engines.append(Engine(command=command, **options))  # type: ignore[arg-type] # the test's
        return engines[-1]

    yield engine
    for made in engines:
        made.close()


def test_load_and_write(make: MakeEngine) -> None:
    engine, ear = make(), Ear()
    assert state(engine) == "off"
    info = engine.load(SPEC, ear).done.result(WAIT_S)
    assert state(engine) == "ready"
    assert engine.loaded == info
    assert [type(event) for event in ear.events] == [LoadProgress] * 5 + [Loaded]
    ear = Ear()
    (finished,) = engine.generate(say("a b c"), ear).done.result(WAIT_S)
    assert ear.text == "a b c"
    assert finished.finish == "stop"
    assert ear.threads == {"engine"}


def test_drafts_end_each_by_itself_and_the_future_after_all(make: MakeEngine) -> None:
    engine, ear = make(), Ear()
    engine.load(SPEC)
    drafts = engine.generate(say("a b", drafts=3), ear).done.result(WAIT_S)
    assert [draft.draft for draft in drafts] == [0, 1, 2]
    assert sum(isinstance(event, Finished) for event in ear.events) == 3


def test_nothing_loaded_is_said_at_once(make: MakeEngine) -> None:
    with pytest.raises(KnownError) as caught:
        make().generate(say("a")).done.result(WAIT_S)
    assert caught.value.code == "nothing-loaded"


def test_asking_while_weights_load_waits_for_them(make: MakeEngine) -> None:
    engine = make("slow")
    engine.load(SPEC)
    (finished,) = engine.generate(say("a b")).done.result(WAIT_S)
    assert finished.finish == "stop"


def test_cancel_ends_a_reply_where_it_stands(make: MakeEngine) -> None:
    engine, ear = make("slow"), Ear()
    engine.load(SPEC).done.result(WAIT_S)
    job = engine.generate(say(" ".join("w" * 1000)), ear)
    ear.wait_for(Piece)
    job.cancel()
    (finished,) = job.done.result(WAIT_S)
    assert finished.finish == "cancelled"
    assert 0 < finished.counters.generated_tokens < 1000
    job.cancel()  # once more does nothing


def test_cancel_a_load(make: MakeEngine) -> None:
    engine, ear = make("slow"), Ear()
    job = engine.load(SPEC, ear)
    ear.wait_for(LoadProgress)
    job.cancel()
    with pytest.raises(KnownError) as caught:
        job.done.result(WAIT_S)
    assert caught.value.code == "cancelled"
    assert state(engine) == "off"


def test_a_crash_fails_what_ran_and_the_next_call_loads_again(make: MakeEngine) -> None:
    engine, ear = make("crash"), Ear()
    engine.load(SPEC).done.result(WAIT_S)
    first = engine.generate(say("a b c"), ear)
    second = engine.generate(say("d e f"))
    for job in (first, second):
        with pytest.raises(KnownError) as caught:
            job.done.result(WAIT_S)
        assert caught.value.code == "engine-crashed"
        assert "GGML_ASSERT(tokens.size() > 0) failed" in caught.value.detail
        assert "SIGABRT" in caught.value.detail
    assert isinstance(ear.events[-1], Failed)
    assert state(engine) == "crashed"
    assert engine.loaded is None
    ear = Ear()
    (finished,) = engine.generate(say("a b c"), ear).done.result(WAIT_S)
    assert (finished.finish, ear.text) == ("stop", "a b c")
    assert state(engine) == "ready"
    assert engine.loaded is not None


def test_a_child_that_always_crashes_fails_each_time_and_never_loops(make: MakeEngine) -> None:
    engine = make("crash-always")
    engine.load(SPEC).done.result(WAIT_S)
    for _ in range(3):
        with pytest.raises(KnownError) as caught:
            engine.generate(say("a b")).done.result(WAIT_S)
        assert caught.value.code == "engine-crashed"


def test_a_crash_while_loading_speaks_of_the_file(make: MakeEngine) -> None:
    engine = make("crash-load")
    waiting = engine.load(SPEC)
    asked = engine.generate(say("a"))
    for job in (waiting, asked):
        with pytest.raises(KnownError) as caught:
            job.done.result(WAIT_S)
        assert caught.value.code == "weights-crashed"
        assert "fake.gguf" in caught.value.sentence
    with pytest.raises(KnownError, match="No weights"):
        engine.generate(say("a")).done.result(WAIT_S)


@pytest.mark.parametrize("fault", ["garbage", "die"])
def test_garbage_and_a_silent_death_are_crashes(make: MakeEngine, fault: str) -> None:
    engine = make(fault)
    engine.load(SPEC).done.result(WAIT_S)
    with pytest.raises(KnownError) as caught:
        engine.generate(say("a b")).done.result(WAIT_S)
    assert caught.value.code == "engine-crashed"
    assert ("no message" if fault == "garbage" else "status 3") in caught.value.detail


def test_a_hung_child_is_killed_after_a_cancel(make: MakeEngine) -> None:
    engine, ear = make("hang", patience_s=0.3), Ear()
    engine.load(SPEC).done.result(WAIT_S)
    job = engine.generate(say("a b"), ear)
    ear.wait_for(Piece)
    job.cancel()
    with pytest.raises(KnownError) as caught:
        job.done.result(WAIT_S)
    assert caught.value.code == "engine-crashed"
    assert "did not react" in caught.value.detail


def test_a_load_that_hangs_is_killed_after_a_cancel(make: MakeEngine) -> None:
    engine, ear = make("hang-load", patience_s=0.3), Ear()
    job = engine.load(SPEC, ear)
    ear.wait_for(LoadProgress)
    job.cancel()
    with pytest.raises(KnownError) as caught:
        job.done.result(WAIT_S)
    assert caught.value.code == "weights-hung"


def test_close_ends_even_a_hung_child(make: MakeEngine) -> None:
    engine, ear = make("hang"), Ear()
    engine.load(SPEC).done.result(WAIT_S)
    job = engine.generate(say("a b"), ear)
    ear.wait_for(Piece)
    (child,) = psutil.Process().children()
    engine.close()
    assert not child.is_running()
    with pytest.raises(KnownError) as caught:
        job.done.result(0)
    assert caught.value.code == "engine-stopped"


def test_another_protocol_is_not_spoken(make: MakeEngine) -> None:
    with pytest.raises(KnownError, match="stopped while loading"):
        make("other-protocol").load(SPEC).done.result(WAIT_S)


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    engine = Engine(command=[str(tmp_path / "nothing")])
    try:
        with pytest.raises(KnownError) as caught:
            engine.load(SPEC).done.result(WAIT_S)
        assert caught.value.code == "engine-start"
    finally:
        engine.close()


def test_unload_ends_the_child(make: MakeEngine) -> None:
    engine = make()
    engine.load(SPEC).done.result(WAIT_S)
    engine.unload().done.result(WAIT_S)
    assert state(engine) == "off"
    assert psutil.Process().children() == []
    with pytest.raises(KnownError, match="No weights"):
        engine.generate(say("a")).done.result(WAIT_S)
    engine.load(SPEC).done.result(WAIT_S)


def test_new_weights_take_the_place_of_the_old_ones(make: MakeEngine) -> None:
    engine, ear = make("slow"), Ear()
    engine.load(SPEC).done.result(WAIT_S)
    job = engine.generate(say(" ".join("w" * 1000)), ear)
    ear.wait_for(Piece)
    info = engine.load(WeightsSpec("/weights/other.gguf")).done.result(WAIT_S)
    assert info.name == "other"
    with pytest.raises(KnownError) as caught:
        job.done.result(WAIT_S)
    assert caught.value.code == "engine-stopped"
    assert len(psutil.Process().children()) == 1


def test_the_apps_own_check_comes_first(make: MakeEngine) -> None:
    def check(path: Path) -> None:
        raise KnownError("weights-damaged", f"{path.name} is damaged.")

    engine = make(check=check)
    with pytest.raises(KnownError, match=r"fake\.gguf is damaged"):
        engine.load(SPEC).done.result(WAIT_S)
    assert psutil.Process().children() == []


def test_a_listeners_bug_is_reported_and_harms_nobody(
    make: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def listener(event: Event) -> None:
        raise ZeroDivisionError

    engine = make()
    engine.load(SPEC, listener).done.result(WAIT_S)
    engine.generate(say("a"), listener).done.result(WAIT_S)
    assert {hook.exc_type for hook in seen} == {ZeroDivisionError}


def test_stderr_goes_to_the_log_file_and_replies_do_not(make: MakeEngine, tmp_path: Path) -> None:
    engine = make("crash-always", log_dir=tmp_path / "logs")
    engine.load(SPEC).done.result(WAIT_S)
    with pytest.raises(KnownError):
        engine.generate(say("secret secret")).done.result(WAIT_S)
    log = (tmp_path / "logs" / "engine.log").read_text()
    assert "GGML_ASSERT" in log
    assert "secret" not in log


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_the_child_is_killed_from_outside(make: MakeEngine) -> None:
    engine, ear = make("slow"), Ear()
    engine.load(SPEC).done.result(WAIT_S)
    job = engine.generate(say(" ".join("w" * 1000)), ear)
    ear.wait_for(Piece)
    (child,) = psutil.Process().children()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(KnownError) as caught:
        job.done.result(WAIT_S)
    assert "SIGKILL" in caught.value.detail
    (finished,) = engine.generate(say("a b")).done.result(WAIT_S)
    assert finished.finish == "stop"


def test_many_threads_may_ask_at_once(make: MakeEngine) -> None:
    engine = make()
    engine.load(SPEC).done.result(WAIT_S)
    results: list[str] = []

    def ask(number: int) -> None:
        ear = Ear()
        engine.generate(say(f"w{number} x"), ear).done.result(WAIT_S)
        results.append(ear.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"w{number} x" for number in range(12))


def test_asking_a_closed_engine_is_a_bug(make: MakeEngine) -> None:
    engine = make()
    engine.close()
    started = time.monotonic()
    with pytest.raises(RuntimeError):
        engine.generate(say("a"))
    assert time.monotonic() - started < 1
