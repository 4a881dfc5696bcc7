"""Threads chosen on simulated machines: the clock is the test's, steps take what a rule says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from desktop_app.inference.threads import (
    Chooser,
    Others,
    Remembered,
    Usage,
    best_count,
    candidates,
    measure,
    most_threads,
    start_count,
    too_small,
)

StepTime = Callable[[int, float], float]


def two_cores(threads: int, busy: float) -> float:
    """As measured on two cores: 209 and 129 tokens/s alone, 37 and 129 beside a busy program."""
    if threads == 1:
        return 1 / 129 if busy < 1.5 else 1 / 33
    return 1 / 209 if busy < 0.5 else 1 / 37


def eight_cores(threads: int, busy: float) -> float:
    """Bound by memory: five threads are as quick as eight; whoever has no core ruins it."""
    collapse = 6.0 if threads > 8 - busy else 1.0
    return 0.2 / min(threads, 5) * collapse


class Machine:
    """A computer whose other programs use `busy` cores, with a clock of its own."""

    def __init__(
        self, most: int, step: StepTime, *, start: int = 0, seed: int = 1, noise: float = 0.03
    ) -> None:
        """`start`: what a measurement at load found (0: all)."""
        self.now_s = self.busy_s = self.own_s = 0.0
        self.busy = 0.0
        self.step, self.noise = step, noise
        self.random = random.Random(seed)
        self.counts: list[int] = []
        self.tokens = 0
        self.chooser = Chooser(
            most,
            start=start or most,
            usual=start,
            choice="measured",
            others=Others(
                lambda: Usage(self.now_s, self.busy_s + self.own_s, self.own_s),
                lambda: self.now_s,
            ),
            clock=lambda: self.now_s,
        )

    def pass_s(self, seconds: float, threads: int = 0) -> None:
        self.now_s += seconds
        self.busy_s += seconds * self.busy
        self.own_s += seconds * threads

    def write(self, seconds: float, tokens: int = 1) -> float:
        """Steps for so long; tokens per second."""
        end, before = self.now_s + seconds, self.now_s
        steps = 0
        while self.now_s < end:
            threads = self.chooser.threads(tokens)
            took = self.step(threads, self.busy) * (1 + self.random.random() * self.noise)
            self.pass_s(took, threads)
            self.chooser.note(tokens, took)
            self.counts.append(threads)
            steps += 1
        return steps / (self.now_s - before)


@pytest.mark.parametrize("seed", range(5))
def test_beside_a_busy_program_the_better_count_is_found_within_three_seconds(seed: int) -> None:
    machine = Machine(2, two_cores, seed=seed)
    assert machine.write(20) > 0.99 * 209 * 0.97
    machine.busy = 1.0
    machine.write(1.5)
    assert machine.chooser.current == 1
    assert machine.chooser.choice == "busy"
    assert machine.write(30) > 0.97 * 129 * 0.97
    machine.busy = 0.0
    machine.write(1.5)
    assert machine.chooser.current == 2
    assert machine.write(30) > 0.98 * 209 * 0.97


def test_what_begins_while_nothing_is_written_is_seen_with_the_next_reply() -> None:
    machine = Machine(2, two_cores)
    machine.write(5)
    machine.pass_s(60)
    machine.busy = 1.0
    machine.pass_s(60)
    machine.write(1)
    assert machine.chooser.current == 1


def test_a_load_that_nobody_counts_is_felt_by_the_steps() -> None:
    machine = Machine(2, lambda threads, _busy: two_cores(threads, hidden))
    hidden = 0.0
    machine.write(5)
    hidden = 1.0
    machine.write(2)
    assert machine.chooser.current == 1
    hidden = 0.0
    machine.write(35)  # nothing tells: it is tried now and then
    assert machine.chooser.current == 2


def test_a_measurement_at_load_that_something_disturbed_is_mended() -> None:
    machine = Machine(2, two_cores, start=1)
    machine.write(2)
    assert machine.chooser.current == 2
    machine = Machine(8, eight_cores, start=3, noise=0.0)
    machine.write(20)
    assert machine.chooser.current == 5
    assert machine.write(60) > 0.97 / eight_cores(5, 0.0)


def test_an_unsteady_little_load_costs_next_to_nothing() -> None:
    machine = Machine(2, two_cores)
    written = time = 0.0
    for turn in range(100):
        machine.busy = 0.45 if turn % 2 else 0.0
        written += machine.write(0.5)
        time += 1
    assert written / time > 0.95 * 209


def test_fewer_threads_where_memory_is_the_limit_and_one_core_less_where_one_is_taken() -> None:
    machine = Machine(8, eight_cores, noise=0.0)
    machine.write(2)
    machine.busy = 1.0
    machine.write(3)
    assert 5 <= machine.chooser.current <= 7
    machine.busy = 0.0
    assert machine.write(30) > 0.97 * 25


def test_a_held_count_stands_and_a_fixed_one_for_good() -> None:
    machine = Machine(2, two_cores)
    machine.write(2)
    machine.chooser.hold(on=True)
    machine.busy = 1.0
    machine.write(5)
    assert set(machine.counts) == {2}
    machine.chooser.hold(on=False)
    machine.write(3)
    assert machine.chooser.current == 1
    machine.chooser.fix(2)
    machine.counts.clear()
    machine.write(5)
    assert set(machine.counts) == {2}
    assert machine.chooser.choice == "fixed"
    machine.chooser.fix(0)
    machine.write(3)
    assert machine.chooser.current == 1


def test_reading_takes_the_cores_that_are_free() -> None:
    machine = Machine(8, eight_cores)
    machine.write(1)
    assert machine.chooser.threads(512) == 8
    machine.busy = 2.0
    machine.write(3)
    assert machine.chooser.threads(512) == 6


def test_steps_of_another_size_begin_a_new_comparison() -> None:
    machine = Machine(2, two_cores)
    machine.write(2)
    slow = two_cores
    machine.step = lambda threads, busy: 3 * slow(threads, busy)  # three drafts in a step
    machine.counts.clear()
    machine.write(5, tokens=3)
    assert set(machine.counts) == {2}


def test_measuring_stops_where_fewer_threads_are_clearly_slower_and_when_the_time_is_up() -> None:
    machine = Machine(8, eight_cores, noise=0.0)

    def step(threads: int) -> float:
        machine.pass_s(machine.step(threads, 0) / 10)
        return machine.step(threads, 0) / 10

    found = measure(8, step, clock=lambda: machine.now_s)
    assert best_count(found) == 6  # five is not measured, six is as good as eight
    assert 1 not in found
    assert machine.now_s < 1.0

    slow = Machine(8, lambda threads, _busy: 3.0 / threads)

    def slow_step(threads: int) -> float:
        slow.pass_s(slow.step(threads, 0))
        return slow.step(threads, 0)

    assert list(measure(8, slow_step, clock=lambda: slow.now_s)) == [8, 6]


def test_the_start_leaves_room_for_others() -> None:
    times = {1: 1 / 129, 2: 1 / 209}
    assert start_count(times, 2, 0.1) == 2
    assert start_count(times, 2, 1.0) == 1
    assert start_count({}, 2, 0.0) == 2
    assert best_count({1: 1.01, 2: 1.0}) == 1
    assert candidates(2) == [2, 1]
    assert candidates(10) == [10, 8, 6, 4, 3, 2, 1]


def test_what_was_measured_is_remembered_by_machine_and_weights(tmp_path: Path) -> None:
    book = Remembered(tmp_path)
    assert book.find("weights") == {}
    book.keep("weights", {1: 0.5, 2: 0.25})
    assert Remembered(tmp_path).find("weights") == {1: 0.5, 2: 0.25}
    assert book.find("others") == {}
    assert book.latest() == {1: 0.5, 2: 0.25}
    for number in range(120):
        book.keep(f"more {number}", {1: 0.5})
    assert book.find("weights") == {}
    assert len(json.loads((tmp_path / "threads.json").read_text())) == 100


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    for text in ("", "[]", '{"x": 3}', "\udce4 {"):
        (tmp_path / "threads.json").write_text(text, encoding="utf-8", errors="surrogateescape")
        book = Remembered(tmp_path)
        assert book.find("weights") == {}
        book.keep("weights", {2: 0.5})
        assert book.find("weights") == {2: 0.5}
    Remembered(tmp_path / "nowhere").keep("weights", {2: 0.5})
    Remembered(None).keep("weights", {2: 0.5})
    assert Remembered(None).find("weights") == {}
    assert Remembered(None).latest() == {}


def test_the_load_of_others_leaves_out_our_own() -> None:
    usages = [Usage(0, 10, 1), Usage(1, 13.5, 3)]
    moments = [0.1, 1.0]
    others = Others(lambda: usages.pop(0), lambda: moments.pop(0))
    assert others.cores(0.5) is None
    assert len(usages) == 1, "the system was asked before its time"
    assert others.cores(0.5) == pytest.approx(1.5)


def test_a_reply_that_slows_by_its_own_length_starts_no_trial() -> None:
    steps = 0

    def longer(threads: int, busy: float) -> float:
        nonlocal steps
        steps += 1
        return two_cores(threads, busy) * (1 + steps / 2000)

    machine = Machine(2, longer)
    machine.write(12)
    assert steps > 1400  # steps take half as long again at the end
    assert set(machine.counts) == {2}


def test_this_machine_has_a_core_and_small_weights_take_one() -> None:
    assert 1 <= most_threads() <= 4096
    assert too_small(4_000_000)
    assert not too_small(600_000_000)
    assert Others().cores(0.0) is not None
