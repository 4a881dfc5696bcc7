"""Owns the template process (`render_process`): starts it ahead, feeds it, kills it at a breach."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from desktop_app.errors import KnownError
from desktop_app.inference.render_process import read_frame, write_frame

_WATCH_S: Final = 0.05
_LINUX: Final = sys.platform.startswith("linux")


def template_command() -> list[str]:
    """How this program starts its template process (a frozen app is its own interpreter)."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--render-template"]
    return [sys.executable, "-m", "desktop_app", "--render-template"]


@dataclass(frozen=True, slots=True)
class RenderResult:
    """One job's outcome: `text`, or why there is none.

    `error` is "" (fine), "refused" (the template itself said no) or "damaged" (it has a mistake);
    `message` is the template's or jinja2's own wording.
    """

    text: str = ""
    error: str = ""
    message: str = ""


class Renders(Protocol):
    """What prompts need of a renderer."""

    def render(
        self, source: str, jobs: Sequence[Mapping[str, Any]], *, now: float | None = None
    ) -> list[RenderResult]:
        """See `Renderer.render`."""


class Renderer:
    """Renders Jinja templates in a disposable process.  Any thread; one render at a time.

    A process serves one template's source only, so that a template which breaks out of the sandbox
    meets no other template's conversations; a spare waits, so that a change of templates or a
    killed process costs no start.  Limits for one call of `render`: `cpu_s` seconds of processor
    time (Linux, macOS), `wall_s` seconds by the clock, `memory_bytes` beyond an idle process.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        cpu_s: int = 4,
        wall_s: float = 12.0,
        memory_bytes: int = 256 << 20,
    ) -> None:
        self._command = [*(command or template_command()), str(cpu_s), str(memory_bytes)]
        self._wall_s = wall_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._source = ""
        self._closed = False
        self._spare: _Worker | None = self._start()

    def render(
        self, source: str, jobs: Sequence[Mapping[str, Any]], *, now: float | None = None
    ) -> list[RenderResult]:
        """Render `source` once for each of `jobs` (the variables that the template sees).

        `now` (seconds since the epoch) stands in for the clock.  KnownError "template-limits" when
        the template took too long or too much memory, "template-process" when no process starts.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the renderer is closed")
            worker = self._worker_for(source)
            request = {"source": source, "jobs": list(jobs), "now": now}
            answer = worker.ask(request, self._wall_s, self._memory_bytes)
            if answer is None or any(item.get("error") == "memory" for item in answer):
                started = worker.has_started
                worker.kill()
                self._worker = None
                self._fill_spare()
                raise _limits() if started else _no_process()
            self._fill_spare()
        return [RenderResult(**item) for item in answer]

    def close(self) -> None:
        """End both processes; idempotent."""
        with self._lock:
            self._closed = True
            for worker in (self._worker, self._spare):
                if worker is not None:
                    worker.kill()
            self._worker = self._spare = None

    def _worker_for(self, source: str) -> _Worker:
        if self._worker is not None and (self._source != source or not self._worker.is_alive):
            self._worker.kill()
            self._worker = None
        if self._worker is None:
            spare, self._spare = self._spare, None
            if spare is not None and not spare.is_alive:
                spare.kill()
                spare = None
            self._worker = spare or self._start()
            self._source = source
        if self._worker is None:
            raise _no_process()
        return self._worker

    def _fill_spare(self) -> None:
        if self._spare is None:
            self._spare = self._start()

    def _start(self) -> _Worker | None:
        try:
            return _Worker(self._command)
        except OSError:
            return None


class _Worker:
    """One process and the thread that talks to it (pipes cannot be waited for on Windows)."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a template could print what people wrote
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows only
        )
        self._requests: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[list[dict[str, str]] | None] = queue.SimpleQueue()
        self._baseline_bytes = 0
        self.has_started = False
        self._thread = threading.Thread(target=self._talk, name="template-process", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: object, wall_s: float, memory_bytes: int) -> list[dict[str, str]] | None:
        """The answer, or None when the process broke a limit or died."""
        if not _LINUX:
            self._baseline_bytes = self._baseline_bytes or self._resident_bytes()
        self._requests.put(request)
        deadline = time.monotonic() + wall_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                return self._answers.get(timeout=left_s if _LINUX else min(_WATCH_S, left_s))
            except queue.Empty:
                # Only Linux holds a process to its address space: elsewhere it is watched.
                if not _LINUX and self._resident_bytes() > self._baseline_bytes + memory_bytes:
                    return None
        return None

    def kill(self) -> None:
        """End the process and the thread; returns when both are gone."""
        self._process.kill()
        self._requests.put(None)
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # what was still buffered has no reader any more

    def _talk(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self.has_started = read_frame(self._process.stdout) == "ready"
            while (request := self._requests.get()) is not None:
                write_frame(self._process.stdin, request)
                answer = read_frame(self._process.stdout)
                self._answers.put(answer)
                if answer is None:
                    return
        except (OSError, ValueError):
            self._answers.put(None)

    def _resident_bytes(self) -> int:
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0


def _limits() -> KnownError:
    return KnownError(
        "template-limits",
        "The chat template took too much time or memory and was stopped;"
        " choose another template in this chat's settings.",
    )


def _no_process() -> KnownError:
    return KnownError(
        "template-process",
        "Grove could not start the process that reads chat templates;"
        " restart Grove, or choose a built-in template in this chat's settings.",
    )
