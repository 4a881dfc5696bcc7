"""The engine child: takes commands from stdin, loads weights, writes replies, tells events.

Three threads.  The main thread alone calls llama.cpp's heavy functions: it loads, and steps the
`Writer`.  The reader waits for stdin, so that a cancel takes effect in the middle of a step; when
stdin ends, the app is gone, and the process leaves at once.  The preparer builds prompts (templates
run in a process of their own and may take seconds), so that what streams does not stall.

The protocol is spoken on a duplicate of stdout; descriptor 1 itself leads to stderr, because native
code prints there.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from desktop_app.errors import KnownError
from desktop_app.inference import llama
from desktop_app.inference.loading import LoadedEngine, load
from desktop_app.inference.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Command,
    Event,
    Failed,
    Forget,
    Forgotten,
    GenerateRequest,
    HasRead,
    Hello,
    Loaded,
    LoadProgress,
    ReadAhead,
    Rendered,
    RenderRequest,
    SetThreads,
    Unload,
    Unloaded,
    WeightsSpec,
    decode_command,
    encode,
)
from desktop_app.inference.reading_ahead import AheadPlan
from desktop_app.inference.renderer import Renderer
from desktop_app.inference.writer import Prepared

_PROGRESS_S: Final = 0.05


class Wire:
    """The way back to the app.  Any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, job: int, event: Event) -> None:
        """Write one event; when nobody reads any more, leave."""
        line = memoryview(encode(job, event))
        try:
            with self._lock:
                while line:
                    line = line[os.write(self._descriptor, line) :]
        except OSError:
            os._exit(0)


class Host:
    """The child's main loop."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._prompts: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._engine: LoadedEngine | None = None
        self._renderer = Renderer()
        self._log: list[str] = []  # of the running load only
        self._lock = threading.Lock()
        self._cancelled: set[int] = set()  # jobs; the writer keeps its own for what it writes

    # --- threads -------------------------------------------------------------------------------

    def run(self, commands: int) -> None:
        """Serve until stdin (descriptor `commands`) ends; never comes back."""
        llama.start(self._take_log)
        self._wire.send(0, Hello(PROTOCOL_VERSION, llama.engine_name(), llama.devices()))
        for target in (lambda: self._read(commands), self._prepare):
            threading.Thread(target=_or_die, args=(target,), daemon=True).start()
        more = False  # whether the branch cache has work for idle moments
        while True:
            engine = self._engine
            writing = engine is not None and engine.writer.active
            try:
                self._tasks.get(block=not writing and not more)()
                more = True
            except queue.Empty:
                assert engine is not None
                if writing:
                    engine.writer.step()
                    more = True
                else:
                    more = engine.branches.idle_work()
            more = more and self._engine is not None

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb", closefd=False) as stream:
            for line in stream:
                job, command = decode_command(line)
                if isinstance(command, Cancel):
                    with self._lock:
                        self._cancelled.add(job)
                    engine = self._engine
                    if engine is not None:
                        engine.writer.cancel(job, command.draft)
                else:
                    self._tasks.put(partial(self._handle, job, command))
                    engine = self._engine
                    if engine is not None and isinstance(command, WeightsSpec | Unload | Forget):
                        engine.writer.ahead.interrupt()
        # The app is gone, or wants us to be: no clean-up that could take a moment.
        self._renderer.close()
        os._exit(0)

    def _prepare(self) -> None:
        while True:
            self._prompts.get()()

    def _take_log(self, line: str) -> None:
        self._log.append(line)
        sys.stderr.write(line)

    # --- commands ------------------------------------------------------------------------------

    def _handle(self, job: int, command: Command) -> None:
        engine = self._engine
        try:
            if isinstance(command, WeightsSpec):
                self._load(job, command)
            elif isinstance(command, Unload):
                self._unload()
                self._wire.send(job, Unloaded())
            elif isinstance(command, Forget):
                if engine is not None:
                    engine.writer.ahead.drop()
                    engine.branches.forget(command.chats)
                self._wire.send(job, Forgotten())
            elif isinstance(command, SetThreads):
                if engine is not None:
                    engine.threads.chooser.fix(max(0, command.threads))
            elif engine is None:
                raise _nothing_loaded()
            elif isinstance(command, GenerateRequest):
                asked_at = time.perf_counter()
                self._prompts.put(partial(self._build, job, command, engine, asked_at))
            elif isinstance(command, ReadAhead):
                self._read_ahead(job, command, engine)
            elif isinstance(command, RenderRequest):
                self._prompts.put(partial(self._render, job, command, engine))
        except KnownError as error:
            self._wire.send(job, Failed.of(error))

    def _read_ahead(self, job: int, request: ReadAhead, engine: LoadedEngine) -> None:
        if request.messages:
            self._prompts.put(partial(self._plan_ahead, job, request, engine))
            return
        engine.writer.ahead.drop()
        self._wire.send(job, HasRead(0, 0, 0))

    def _load(self, job: int, spec: WeightsSpec) -> None:
        self._unload()
        self._log.clear()
        sent_at = 0.0

        def progress(fraction: float) -> bool:
            nonlocal sent_at
            now = time.perf_counter()
            if now - sent_at >= _PROGRESS_S or fraction >= 1:
                sent_at = now
                self._wire.send(job, LoadProgress(min(1.0, fraction)))
            with self._lock:
                return job not in self._cancelled

        try:
            engine = load(spec, progress, self._wire.send, self._renderer, self._log)
        except llama.Cancelled:
            self._wire.send(job, Failed("cancelled", "Loading was cancelled."))
            return
        except KnownError as error:
            detail = error.detail or "".join(self._log[-20:])
            self._wire.send(job, Failed(error.code, error.sentence, detail))
            return
        finally:
            self._log.clear()
        with self._lock:
            self._engine = engine
        self._wire.send(job, Loaded(engine.info))

    def _unload(self) -> None:
        engine = self._engine
        if engine is None:
            return
        self._engine = None
        engine.writer.cancel_all()
        # A prompt may be in the making with this vocabulary: wait until the preparer is past it.
        passed = threading.Event()
        self._prompts.put(passed.set)
        passed.wait()
        engine.close()

    # --- the preparer's thread -----------------------------------------------------------------

    def _build(
        self, job: int, request: GenerateRequest, engine: LoadedEngine, asked_at: float
    ) -> None:
        try:
            prepared = engine.prepare(job, request, asked_at)
        except KnownError as error:
            self._wire.send(job, Failed.of(error))
            return
        self._tasks.put(partial(self._begin, prepared, engine))
        engine.writer.ahead.interrupt(unless=prepared.tokens)

    def _begin(self, prepared: Prepared, engine: LoadedEngine) -> None:
        if self._engine is engine:
            engine.threads.begin(prepared.job, prepared.request)
            engine.writer.begin(prepared)
        else:
            self._wire.send(prepared.job, Failed.of(_nothing_loaded()))

    def _plan_ahead(self, job: int, request: ReadAhead, engine: LoadedEngine) -> None:
        try:
            plan = engine.prepare_ahead(job, request)
        except KnownError as error:
            self._wire.send(job, Failed.of(error))
            return
        self._tasks.put(partial(self._begin_ahead, plan, engine))

    def _begin_ahead(self, plan: AheadPlan, engine: LoadedEngine) -> None:
        if self._engine is engine:
            engine.writer.begin_ahead(plan)
        else:
            self._wire.send(plan.job, HasRead(0, 0, 0))

    def _render(self, job: int, request: RenderRequest, engine: LoadedEngine) -> None:
        try:
            rendered = engine.render(request)
        except KnownError as error:
            self._wire.send(job, Failed.of(error))
            return
        self._tasks.put(partial(self._tell_rendered, job, rendered, engine))

    def _tell_rendered(self, job: int, rendered: Rendered, engine: LoadedEngine) -> None:
        """On the main thread, which alone may look into the branch cache."""
        if self._engine is engine and rendered.tokens:
            rendered = replace(rendered, kept_tokens=engine.branches.known(rendered.tokens))
        self._wire.send(job, rendered)


def _nothing_loaded() -> KnownError:
    return KnownError("nothing-loaded", "No weights are loaded. Choose weights first.")


def _or_die(target: Callable[[], None]) -> None:
    """A thread that fails must end the process: the app would wait for it for ever."""
    try:
        target()
    except BaseException:  # noqa: BLE001 - told on stderr, then the process ends
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)


def main() -> int:
    """Be the engine child: commands on stdin, events on what was stdout."""
    wire = Wire(os.dup(1))
    os.dup2(2, 1)
    commands = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # a helper process that inherits stdin must not eat commands
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a terminal is for the app
    _no_core_file()
    faulthandler.enable()
    Host(wire).run(commands)
    return 0


def _no_core_file() -> None:
    """llama.cpp aborts on bad files; a core file would hold conversations."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
