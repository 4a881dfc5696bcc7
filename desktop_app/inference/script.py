"""Runs a list of requests through the real engine child and prints every event as a JSON line.

For tests and bug reports: a script says exactly what was asked, the output what came, with token
counters and times.  One JSON object per line of the script:

- ``{"do": "load", "path": F, …}``: the fields of `WeightsSpec`;
- ``{"do": "generate", "messages": [{"role": R, "text": T}, …], "sampling": {…}, …}``: the fields of
  `GenerateRequest`; also ``"name"`` for the lines below, ``"cancel_after_s"`` or
  ``"cancel_after_tokens"``, and ``"wait": false`` to go on at once;
- ``{"do": "render", "messages": […]}``; ``{"do": "unload"}``; ``{"do": "forget", "chats": […]}``;
- ``{"do": "wait"}`` until everything is over; ``{"do": "sleep", "s": 0.5}``;
- ``{"do": "kill"}``: ends the child as a crash would.

Empty lines and lines that begin with "#" are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine, Job
from desktop_app.inference.protocol import (
    Event,
    Failed,
    GenerateRequest,
    Piece,
    RenderRequest,
    WeightsSpec,
    event_name,
    from_json,
    to_json,
)


def run_script(path: Path, out: TextIO, *, engine: Engine | None = None) -> int:
    """Run the script; 0 when no job failed, else 1.

    Each line of output has ``"t"`` (seconds since the start), ``"job"``, ``"event"`` and the
    event's fields.  KnownError("script-invalid") names the line that cannot be run.  `engine` None
    makes one and closes it.
    """
    own = engine is None
    runner = _Runner(engine or Engine(), out)
    try:
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                runner.do(number, line)
        runner.wait()
    except (OSError, UnicodeDecodeError) as error:
        raise KnownError(
            "script-unreadable", f"{path.name} cannot be read: {error}.", detail=str(error)
        ) from None
    finally:
        if own:
            runner.engine.close()
    return 1 if runner.failures else 0


class _Runner:
    def __init__(self, engine: Engine, out: TextIO) -> None:
        self.engine, self._out = engine, out
        self.failures = 0
        self._start = time.perf_counter()
        self._lock = threading.Lock()
        self._open: list[Job[Any]] = []
        self._written: dict[str, int] = {}

    def do(self, number: int, line: str) -> None:
        """Run one line."""
        try:
            step = json.loads(line)
            self._step(step.pop("do"), step, f"line{number}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise KnownError(
                "script-invalid",
                f"Line {number} of the script cannot be run: {type(error).__name__}: {error}.",
            ) from None

    def _step(self, do: str, step: dict[str, Any], name: str) -> None:
        name = str(step.pop("name", name))
        if do == "load":
            self._await(self.engine.load(from_json(WeightsSpec, step), self._ear(name)), name)
        elif do == "generate":
            self._generate(step, name)
        elif do == "render":
            request = from_json(RenderRequest, step)
            job = self.engine.render(
                request.messages, request.template, continue_last=request.continue_last
            )
            self._await(job, name, tell=True)
        elif do == "unload":
            self._await(self.engine.unload(), name)
        elif do == "forget":
            self._await(self.engine.forget(step["chats"]), name)
        elif do == "wait":
            self.wait()
        elif do == "sleep":
            time.sleep(float(step["s"]))
        elif do == "kill":
            pid = self.engine.child_pid
            if pid is not None:
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        else:
            raise ValueError(f"nothing is called {do!r}")

    def _generate(self, step: dict[str, Any], name: str) -> None:
        after_s = step.pop("cancel_after_s", None)
        after_tokens = step.pop("cancel_after_tokens", None)
        wait = step.pop("wait", True)
        request = from_json(GenerateRequest, step)
        enough = threading.Event()

        def listener(event: Event) -> None:
            self._print(name, event)
            if isinstance(event, Piece) and after_tokens is not None:
                self._written[name] = self._written.get(name, 0) + event.n_tokens
                if self._written[name] >= after_tokens:
                    job.cancel()
            if isinstance(event, Failed):
                self.failures += 1
                enough.set()

        job = self.engine.generate(request, listener)
        self._open.append(job)
        if after_s is not None:
            enough.wait(float(after_s))
            job.cancel()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until every job is over."""
        for job in self._open:
            try:
                job.done.result()
            except KnownError:
                pass  # its listener has printed it
        self._open.clear()

    def _await(self, job: Job[Any], name: str, *, tell: bool = False) -> None:
        try:
            result = job.done.result()
        except KnownError as error:
            if tell:
                self._print(name, Failed.of(error))
            self.failures += 1
        else:
            if tell:
                self._print(name, result)

    def _ear(self, name: str) -> Any:
        return lambda event: self._print(name, event)

    def _print(self, name: str, event: Event) -> None:
        line: Mapping[str, Any] = {
            "t": round(time.perf_counter() - self._start, 4),
            "job": name,
            "event": event_name(event),
            **to_json(event),
        }
        with self._lock:
            self._out.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._out.flush()
