"""The threads of one loaded context: chosen at load, kept for seeded replies, told in provenance.

`threads` knows how to choose; this knows what is written.  For the engine child's main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from desktop_app.inference import threads
from desktop_app.inference.context import Batch, Context
from desktop_app.inference.protocol import Event, Failed, Finished, GenerateRequest, Json

Send = Callable[[int, Event], None]

_QUIET_CORES: Final = 0.3
"""A measurement beside others that keep more than this busy is not remembered."""


@dataclass(slots=True)
class _Reply:
    """A request that is being read or written."""

    left: int  # drafts
    seeded: bool
    used: set[int] = field(default_factory=set)


class ThreadKeeper:
    """Chooses the threads of each step, and keeps the books about them."""

    def __init__(self, chooser: threads.Chooser, send: Send) -> None:
        self.chooser = chooser
        self._send = send
        self._replies: dict[int, _Reply] = {}
        self._asked = chooser.current

    def begin(self, job: int, request: GenerateRequest) -> None:
        """A request is taken up.  One whose seed somebody chose keeps the threads as they are."""
        seeded = request.sampling.seed is not None or bool(request.seeds)
        self._replies[job] = _Reply(request.drafts, seeded)
        self._hold()

    def send(self, job: int, event: Event) -> None:
        """Pass an event on; what ends a reply learns with how many threads it was computed."""
        reply = self._replies.get(job)
        if reply is not None and isinstance(event, Finished | Failed):
            reply.left -= 1 if isinstance(event, Finished) else reply.left
            if isinstance(event, Finished):
                event = replace(event, turn={**event.turn, **self._facts(reply)})
            if reply.left <= 0:
                del self._replies[job]
                self._hold()
        self._send(job, event)

    def threads(self, tokens: int) -> int:
        """How many threads the next step, of so many tokens, should use."""
        self._asked = self.chooser.threads(tokens)
        return self._asked

    def note(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        for reply in self._replies.values():
            reply.used.add(self._asked)
        self.chooser.note(tokens, seconds)

    def _hold(self) -> None:
        self.chooser.hold(on=any(reply.seeded for reply in self._replies.values()))

    def _facts(self, reply: _Reply) -> dict[str, Json]:
        facts: dict[str, Json] = {"threads": self.chooser.current}
        if reply.used - {self.chooser.current}:
            facts["threads_used"] = [*sorted(reply.used)]
        return facts


def choose(
    context: Context,
    *,
    fixed: int,
    weights_bytes: int,
    key: str,
    folder: Path | None,
    others: threads.Others,
    go_on: Callable[[], bool],
) -> tuple[threads.Chooser, dict[int, float]]:
    """Choose for a fresh context, and tell the measurement (seconds a step by threads).

    `key` names the weights and how they are loaded, `folder` holds what is remembered, `others`
    has been counting since the load began.  Measuring ends early when `go_on` says no.
    """
    most = threads.most_threads()
    if fixed:
        return threads.Chooser(max(most, fixed), start=fixed, choice="fixed"), {}
    if most == 1 or threads.too_small(weights_bytes):
        return threads.Chooser(most, start=1, choice="small"), {}
    memory = threads.Remembered(folder)
    times = memory.find(key)
    busy = others.cores(0.05) or 0.0
    usual = threads.best_count(times) if times else 0
    choice: threads.Choice = "remembered" if times else "busy"
    if not times and busy <= _QUIET_CORES:
        # Beside a busy program a step may take seconds, and would say nothing of quiet times.
        choice = "measured"
        times = _measured(context, most, go_on)
        busy = others.cores(0.05) or 0.0
        if busy <= _QUIET_CORES and times:
            usual = threads.best_count(times)
            memory.keep(key, times)
    chooser = threads.Chooser(
        most,
        start=threads.start_count(times, most, busy),
        choice=choice,
        usual=usual,
        others=others,
        busy=busy,
    )
    return chooser, times


def _measured(context: Context, most: int, go_on: Callable[[], bool]) -> dict[int, float]:
    batch = Batch(1)
    place = 0

    class GivenUp(Exception):  # noqa: N818 - the way out of the measurement, not an error
        pass

    def step(count: int) -> float:
        nonlocal place
        if not go_on() or place >= context.length:
            raise GivenUp
        batch.clear()
        batch.add([place % context.vocabulary_size], place, 0, output=True)
        context.set_threads(count)
        began = time.perf_counter()
        if context.decode(batch) != "done":
            raise GivenUp
        place += 1
        return time.perf_counter() - began

    try:
        return threads.measure(most, step)
    except GivenUp:
        return {}
    finally:
        context.clear()
