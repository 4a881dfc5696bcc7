"""How many threads compute: chosen by measuring, and again when the machine gets busy or quiet.

ggml's threads meet after every operation and spin until the last one is there.  On an idle machine
that is the quickest way; beside a program that wants a core, each meeting waits until the scheduler
lets the last thread run: two threads on two cores fell from 209 to 37 tokens/s beside one busy
program, while one thread kept 129.  So the count is measured: at load, and again in short trials
(about 0.15 s for each candidate) between steps that must be computed anyway, when

- other programs begin to use more or less of the processor,
- steps take clearly longer than they did,
- fewer threads are used than would have room, now and then.

Without such a sign nothing is tried.  Reading a prompt has larger operations and is bound by
arithmetic, not by memory: it uses every core that others leave free.

For the engine child's main thread; nothing here knows llama.cpp.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import psutil

WRITING_TOKENS: Final = 16
"""Steps of more tokens than this are reading."""
_SMALL_BYTES: Final = 64 * 1024 * 1024
"""Below this a step takes a millisecond or less, about what threads need to meet."""
_LEAD: Final = 1.02
"""More threads must be quicker by this factor; else they only warm the room."""

_SAMPLE_S: Final = 0.4
_GAP_S: Final = 1.0  # without steps for so long, what was seen before says nothing about now
_CHANGE_CORES: Final = 0.3
_TRIAL_S: Final = 0.15
_SLOWER: Final = 1.3
_LENGTHENING: Final = 0.1  # of a step's time and second of writing: a longer context reads slower
_LOAD_WAIT_S: Final = 1.5  # between trials that the load of others asks for
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0

_MEASURE_S: Final = 0.6  # measuring at load ends after this; what is left is found while writing
_KEPT_FILES: Final = 100

Choice = Literal["fixed", "small", "measured", "remembered", "busy", "quiet", "guessed"]
"""Why it is this count: somebody fixed it; the weights are small; it was measured at load, now or
in an earlier run; other programs are busy, or quiet again; nothing was measured."""


def most_threads() -> int:
    """One thread per physical core that this process may use.

    A second thread on the same core takes from the first.
    """
    logical = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        logical = len(os.sched_getaffinity(0))
    physical: int | None = psutil.cpu_count(logical=False)
    return max(1, min(physical or logical, logical))


def too_small(weights_bytes: int) -> bool:
    """Whether weights of this size gain nothing from a second thread.

    Measured: weights of 4 MB wrote 430 to 540 tokens/s with one thread and 18 to 34 with two on
    two busy cores, and no faster with two on idle ones.
    """
    return weights_bytes < _SMALL_BYTES


# --- other programs ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds: the clock, cores in use (summed over all) by everybody, and by this process."""

    at_s: float
    all_s: float
    own_s: float


def usage() -> Usage:
    """What the system has counted so far."""
    times = psutil.cpu_times()._asdict()
    # A guest's time is counted within user's; time that the hypervisor took ("steal") is others'.
    # Programs that step back ("nice") count: two threads beside such ones fell to 1 token/s.
    spare = ("idle", "iowait", "guest", "guest_nice")
    busy = sum(seconds for name, seconds in times.items() if name not in spare)
    own = os.times()
    return Usage(time.perf_counter(), busy, own.user + own.system)


class Others:
    """How many cores other programs keep busy."""

    def __init__(
        self,
        read: Callable[[], Usage] = usage,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._read, self._clock = read, clock
        self._last = read()

    def begin(self) -> None:
        """Forget what was before now."""
        self._last = self._read()

    def cores(self, at_least_s: float) -> float | None:
        """The mean since the last answer, in cores; None when that is less than `at_least_s`."""
        if self._clock() - self._last.at_s < at_least_s:
            return None  # asking the system at every step would cost some of it
        now = self._read()
        span = now.at_s - self._last.at_s
        if span <= 0:
            return None
        used = (now.all_s - self._last.all_s) - (now.own_s - self._last.own_s)
        self._last = now
        return max(0.0, used / span)


# --- choosing ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Trial:
    """Candidates in turn, each for some steps; `means` in seconds a step."""

    left: list[int]
    why: Choice
    known: float = float("inf")  # seconds a step of what is used now, if that was seen
    before: float = 0.0  # the same for its last steps, when something made it slow
    steps: list[float] = field(default_factory=list)
    means: dict[int, float] = field(default_factory=dict)

    @property
    def candidate(self) -> int:
        return self.left[0]

    def add(self, seconds: float) -> bool:
        """Note a step; True when all candidates are measured."""
        self.steps.append(seconds)
        total, count = sum(self.steps), len(self.steps)
        best = min(self.means.values(), default=self.known)
        hopeless = total > 3 * best + 0.01 if count == 1 else total > 2 * count * best
        if not hopeless and (total < _TRIAL_S or count < 2):
            return False
        self.means[self.candidate] = total / len(self.steps)
        self.steps = []
        del self.left[0]
        if len(self.left) == 1 and self.before > 2 * min(self.means.values()):
            self.means[self.left.pop()] = self.before  # another try might take seconds
        return not self.left


class Chooser:
    """The number of threads for each step.

    Ask `threads` before a step and tell `note` after it.  `fix` pins the count for good, `hold`
    for as long as a reply must be repeatable: a count of threads changes the last bits of what is
    computed.
    """

    def __init__(
        self,
        most: int,
        *,
        start: int,
        choice: Choice,
        usual: int = 0,
        busy: float = 0.0,
        others: Others | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`start` with so many of at most `most`; `usual` is best on a quiet machine (0: unknown),
        `busy` how many cores other programs use now.

        A `choice` of "fixed" or "small" is never changed by itself.
        """
        self.most, self.choice = most, choice
        self.current = start
        self._usual = usual or most
        self._others = others or Others()
        self._clock = clock
        self._busy_cores = self._now_busy = busy  # of other programs: when it was chosen, and now
        self._last_busy = busy
        self._pinned = choice in ("fixed", "small")
        self._held = False
        self._trial: _Trial | None = None
        self._recent: deque[float] = deque(maxlen=64)
        self._shape = 0
        self._pace = 0.0  # seconds a step, when the count was chosen
        self._wait_s = _FIRST_WAIT_S
        self._not_before = self._load_not_before = self._noted_at = clock()

    def fix(self, threads: int) -> None:
        """Always use this many; 0: choose again."""
        self._pinned = threads > 0
        self._trial = None
        if threads:
            self.current, self.choice = threads, "fixed"
        else:
            self.current, self.choice = min(self._usual, self.most), "guessed"
            self._pace = self._busy_cores = self._now_busy = self._last_busy = 0.0
            self._not_before = self._load_not_before = self._noted_at = self._clock()
            self._others.begin()
            self._recent.clear()

    def hold(self, on: bool) -> None:
        """Keep the count as it stands, or let it go again."""
        if on and not self._held:
            self._trial = None
        self._held = on

    def threads(self, tokens: int) -> int:
        """How many threads the next step, of so many tokens, should use."""
        if self._pinned:
            return self.current
        if tokens > WRITING_TOKENS and not self._held:
            return self._room(self._now_busy)
        return self.current if self._trial is None else self._trial.candidate

    def note(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        if self._pinned or self.most == 1:
            return
        now = self._clock()
        if now - seconds - self._noted_at > _GAP_S:
            self._others.begin()
            self._recent.clear()
        self._noted_at = now
        busy = self._others.cores(_SAMPLE_S)
        if busy is not None:
            # Less load is believed when it is seen twice: a vain try costs more than a late one.
            self._now_busy, self._last_busy = max(busy, self._last_busy), busy
        if self._held or tokens > WRITING_TOKENS:
            return
        if tokens != self._shape:
            # Steps of other sizes cannot be compared: whatever was begun begins again.
            self._shape = tokens
            self._recent.clear()
            self._pace = 0.0
            if self._trial is not None:
                self._begin(self._trial.why, now)
            return
        if self._trial is not None:
            if self._trial.add(seconds):
                self._decide(self._trial, now)
            return
        self._recent.append(seconds)
        self._pace *= 1 + _LENGTHENING * min(seconds, _GAP_S)
        self._watch(now)

    def _room(self, busy: float) -> int:
        """How many threads find a core of their own beside others that keep so many busy."""
        return _free(self.most, busy)

    def _watch(self, now: float) -> None:
        """Look for a sign that another count may be better."""
        room = self._room(self._now_busy)
        target = min(self._usual, room)
        if abs(self._now_busy - self._busy_cores) > _CHANGE_CORES:
            if target == self.current:
                self._busy_cores = self._now_busy
            elif now >= self._load_not_before:
                self._load_not_before = now + _LOAD_WAIT_S
                self._begin("busy" if target < self.current else "quiet", now)
                return
        last, total = 0, 0.0
        for seconds in reversed(self._recent):
            last, total = last + 1, total + seconds
            if total >= _TRIAL_S and last >= 3:
                break
        pace = total / max(last, 1)
        # One step that takes so long says it all, where three would take seconds.
        collapsed = self._pace > 0 and total > 2 * _TRIAL_S and pace > 3 * self._pace
        if collapsed:
            self._begin("busy", now)
            return
        if total < _TRIAL_S or last < 3:
            return
        self._pace = min(self._pace, pace) if self._pace else pace
        if now < self._not_before:
            return
        if pace > _SLOWER * self._pace:
            self._begin("busy", now)
        elif self.current < room:
            self._begin("quiet", now)

    def _begin(self, why: Choice, now: float) -> None:
        """Try what the free cores suggest and one less, then once more what is used now."""
        room = self._room(self._now_busy)
        target = min(self._usual, room)
        if why == "busy":
            wanted = [n for n in (target, target - 1, self.current - 1) if 1 <= n < self.current]
        else:
            wanted = [n for n in (target, target - 1) if n > self.current]
            if not wanted and self.current < room:
                wanted = [self.current + 1]  # what was measured at load may have been disturbed
        candidates = list(dict.fromkeys(wanted))[:2]
        self._busy_cores = self._now_busy
        if not candidates:
            self._trial, self._pace = None, 0.0
            self._recent.clear()
            self._pause(now)
            return
        seen = list(self._recent)
        known = statistics.median(seen[-8:]) if len(seen) >= 3 and why == "quiet" else float("inf")
        before = statistics.mean(seen[-2:]) if seen and why == "busy" else 0.0
        self._trial = _Trial([*candidates, self.current], why, known, before)
        self._recent.clear()

    def _decide(self, trial: _Trial, now: float) -> None:
        self._trial = None
        self._recent.clear()
        chosen = best_count(trial.means)
        self._pace = trial.means[chosen]
        if chosen == self.current:
            self._pause(now)
            return
        self.current, self.choice = chosen, trial.why
        self._usual = max(self._usual, chosen)
        self._wait_s = _FIRST_WAIT_S
        self._not_before = now + self._wait_s

    def _pause(self, now: float) -> None:
        """Nothing was gained: wait longer before the next try that no load asks for."""
        self._not_before = now + self._wait_s
        self._wait_s = min(_LONGEST_WAIT_S, self._wait_s * 2)


def best_count(times: Mapping[int, float]) -> int:
    """The fewest threads that are as good as the best; `times` in seconds a step."""
    best = min(times.values())
    return min(count for count, seconds in times.items() if seconds <= best * _LEAD)


# --- measuring at load -------------------------------------------------------------------------


def candidates(most: int) -> list[int]:
    """Counts worth measuring, the largest first."""
    steps = [*range(1, 5), 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    return sorted({most, *(n for n in steps if n < most)}, reverse=True)


def measure(
    most: int, step: Callable[[int], float], clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Seconds a step by number of threads, measured with `step(threads)`; at most about 0.6 s.

    The first step is not counted: it touches every page of the weights.  Fewer threads are tried
    until they are clearly slower, or the time is up.
    """
    step(most)
    end = clock() + _MEASURE_S
    found: dict[int, float] = {}
    for count in candidates(most):
        if found and clock() >= end:
            break
        times = [step(count)]
        while len(times) < 8 and sum(times) < _TRIAL_S / 2 and clock() < end:
            times.append(step(count))
        found[count] = statistics.median(times)
        if found[count] > 1.25 * min(found.values()):
            break
    return found


class Remembered:
    """What was measured on this machine, in a file of the cache folder (None: not remembered).

    Weights are named by their fingerprint.  A damaged file is an empty one, and a disk that takes
    nothing costs a new measurement at the next load.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / "threads.json" if folder is not None else None

    def latest(self) -> dict[int, float]:
        """What was measured last on this machine, whatever the weights; for `doctor`."""
        names = [name for name in self._read() if name.startswith(f"{machine()}|")]
        return self.find(names[-1].removeprefix(f"{machine()}|")) if names else {}

    def find(self, key: str) -> dict[int, float]:
        """Seconds a step by number of threads; empty when nothing is known."""
        entry = self._read().get(f"{machine()}|{key}")
        found: dict[int, float] = {}
        if isinstance(entry, dict):
            for count, seconds in entry.items():
                if count.isdigit() and isinstance(seconds, int | float) and seconds > 0:
                    found[int(count)] = float(seconds)
        return found

    def keep(self, key: str, times: Mapping[int, float]) -> None:
        """Remember a measurement."""
        if self._file is None:
            return
        known = self._read()
        name = f"{machine()}|{key}"
        known.pop(name, None)
        known[name] = {str(count): round(seconds, 6) for count, seconds in times.items()}
        for old in list(known)[:-_KEPT_FILES]:
            del known[old]
        with suppress(OSError):
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(known), encoding="utf-8")
            new.replace(self._file)

    def _read(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def machine() -> str:
    """What a measurement holds for: the processor and the cores we may use."""
    return f"{platform.machine()} {_processor()} {most_threads()}"


def _processor() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.lower().startswith(("model name", "cpu part")):
                return line.partition(":")[2].strip()
    return platform.processor()


def start_count(times: Mapping[int, float], most: int, busy: float) -> int:
    """How many threads to begin with, beside others that keep `busy` cores busy."""
    room = _free(most, busy)
    return min(best_count(times), room) if times else room


def _free(most: int, busy: float) -> int:
    return max(1, min(most, int(most - busy + 0.5)))


def told(times: Mapping[int, float]) -> Sequence[tuple[int, float]]:
    """The measurement as (threads, steps per second), the fewest threads first."""
    return [(count, round(1 / times[count], 2)) for count in sorted(times)]
