"""The app's side of the engine: owns the child process and the worker thread that talks to it.

`Engine` may be used from any thread.  Its worker is the only one that speaks to the child and the
only one that calls listeners.  A child that dies takes no more with it than the jobs that were
running: each gets `Failed`, and the next call starts a new child and loads the same weights again.
"""

from __future__ import annotations

import itertools
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast

import desktop_app
from desktop_app.errors import KnownError
from desktop_app.inference.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    ChatMessage,
    Command,
    Event,
    Failed,
    Finished,
    Forget,
    Forgotten,
    GenerateRequest,
    HasRead,
    Hello,
    Loaded,
    LoadedWeights,
    ProtocolError,
    ReadAhead,
    Rendered,
    RenderRequest,
    SetThreads,
    Unload,
    Unloaded,
    WeightsSpec,
    decode_event,
    encode,
)

if TYPE_CHECKING:
    from desktop_app.inference.child import Child

State = Literal["off", "loading", "ready", "crashed"]
_HUGE_PAGES: Final = "glibc.malloc.hugetlb"
Listener = Callable[[Event], None]
_T = TypeVar("_T")

_START_S: Final = 60.0
_CLOSE_S: Final = 1.0


def engine_command() -> list[str]:
    """How this program starts its engine child (a frozen app is its own interpreter)."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--engine"]
    return [sys.executable, "-m", "desktop_app", "--engine"]


class Job(Generic[_T]):
    """Something asked of the engine.

    `done` resolves on the worker thread: with the result, or with the KnownError of `Failed`.
    """

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self.id = number
        self.done: Future[_T] = Future()
        self.done.set_running_or_notify_cancel()

    def cancel(self, draft: int | None = None) -> None:
        """Stop it, or only one of its drafts, at any moment; nothing happens if it is over.

        What was written until then stays: a reply ends in `Finished(finish="cancelled")`.  A load
        ends in `Failed(code="cancelled")`.
        """
        self._engine.cancel(self.id, draft)


@dataclass(slots=True)
class _Running:
    """The worker's note of a job that is not over."""

    job: Job[Any]
    command: Command
    listener: Listener | None
    drafts: set[int] = field(default_factory=set)
    finished: list[Finished] = field(default_factory=list)
    give_up_at: float = float("inf")


class Engine:
    """A child process that runs language models, as an object."""

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        log_dir: Path | None = None,
        cache_dir: Path | None = None,
        check: Callable[[Path], None] | None = None,
        patience_s: float = 10.0,
    ) -> None:
        """Nothing is started yet.

        `check(path)` is called on the worker thread before each load and may raise KnownError (the
        app's deeper look at a file).  `cache_dir` is where parked branches are kept over a restart;
        None keeps them in memory only.  A child that does not react to a cancel within
        `patience_s` seconds is killed.
        """
        self._command = tuple(command or engine_command())
        self._log_file = log_dir / "engine.log" if log_dir is not None else None
        self._cache_dir = cache_dir
        self._check = check
        self._patience_s = patience_s
        self._numbers = itertools.count(1)
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._closed = False
        self.state: State = "off"
        self.loaded: LoadedWeights | None = None
        self.hello: Hello | None = None
        # The worker's own:
        self._child: Child | None = None
        self._start_by = float("inf")
        self._running: dict[int, _Running] = {}
        self._wanted: WeightsSpec | None = None  # what is loaded, or was before the crash
        self._reload = 0  # the number of the load that brings it back

    # --- any thread ----------------------------------------------------------------------------

    def load(self, spec: WeightsSpec, listener: Listener | None = None) -> Job[LoadedWeights]:
        """Load weights in place of those that are loaded.

        Events: LoadProgress, then Loaded or Failed.
        """
        return self._ask(spec, listener)

    def unload(self) -> Job[None]:
        """Free the weights' memory by ending the child."""
        return self._ask(Unload(), None)

    def generate(
        self, request: GenerateRequest, listener: Listener | None = None
    ) -> Job[tuple[Finished, ...]]:
        """Write a reply, or several drafts.

        Events: ReadProgress, Piece, and Finished for each draft; or Failed.  The future's result
        are the drafts' `Finished` in the drafts' order.
        """
        return self._ask(request, listener)

    def render(
        self,
        messages: Iterable[ChatMessage],
        template: str = "auto",
        *,
        continue_last: bool = False,
    ) -> Job[Rendered]:
        """The prompt that these messages would make: its text and tokens."""
        return self._ask(RenderRequest(tuple(messages), template, continue_last), None)

    def read_ahead(self, request: ReadAhead) -> Job[HasRead]:
        """Read what is being typed before it is sent, while the engine has nothing else to do.

        It never starts a child and never waits for weights: then nothing is read.  The future may
        fail with what the request itself would fail with (a prompt that is too long, …).
        """
        return self._ask(request, None)

    def forget(self, chats: Iterable[str]) -> Job[None]:
        """Erase what the branch cache keeps for these conversations."""
        return self._ask(Forget(tuple(chats)), None)

    def set_threads(self, threads: int) -> None:
        """Use this many threads from the next step on; nothing happens when nothing is loaded."""
        self._post(
            lambda: self._child.write(encode(0, SetThreads(threads))) if self._child else None
        )

    def cancel(self, job: int, draft: int | None = None) -> None:
        """Stop job number `job` (see `Job.cancel`)."""
        self._post(lambda: self._do_cancel(job, draft))

    @property
    def child_pid(self) -> int | None:
        """The child's process id, None when there is none; for tests and `doctor`."""
        child = self._child
        return child.pid if child is not None else None

    def close(self) -> None:
        """End the child and the worker; every running job fails.  Nothing may be asked after."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            worker = self._worker
        if worker is not None:
            self._tasks.put(self._do_close)
            if worker is not threading.current_thread():
                worker.join()

    def _ask(self, command: Command, listener: Listener | None) -> Job[Any]:
        job: Job[Any] = Job(self, next(self._numbers))
        running = _Running(job, command, listener)
        if isinstance(command, GenerateRequest):
            running.drafts = set(range(max(1, command.drafts)))
        if isinstance(command, WeightsSpec):
            self.state = "loading"
        self._post(lambda: self._do_ask(running))
        return job

    def _post(self, task: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
                self._worker.start()
            self._tasks.put(task)

    # --- the worker ----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            now = time.monotonic()
            due = min((r.give_up_at for r in self._running.values()), default=float("inf"))
            due = min(due, self._start_by)
            try:
                task = self._tasks.get(timeout=max(0.0, due - now) if due < float("inf") else None)
            except queue.Empty:
                self._kill_hung()
                continue
            task()
            if task == self._do_close:
                return

    def _do_ask(self, running: _Running) -> None:
        job, command = running.job, running.command
        self._running[job.id] = running
        try:
            if isinstance(command, Unload):
                self._end_child(but=job.id)
                self._wanted, self.loaded, self.state = None, None, "off"
                self._settle(job.id, Unloaded())
            elif isinstance(command, Forget) and self._child is None:
                if self._cache_dir is not None:
                    from desktop_app.inference.parked_files import forget_on_disk

                    forget_on_disk(self._cache_dir, command.chats)
                self._settle(job.id, Forgotten())
            elif isinstance(command, ReadAhead) and (self._child is None or self.loaded is None):
                self._settle(job.id, HasRead(0, 0, 0))
            elif isinstance(command, WeightsSpec):
                if self._check is not None:
                    self._check(Path(command.path))
                # New weights get a new child: nothing of the old ones can be left in its memory,
                # and one that hangs or leaks ends here.
                self._end_child(but=job.id)
                self.loaded = self._wanted = None
                self.state = "loading"
                self._start_child()
                self._send(job.id, command)
            else:
                if self._wanted is None and not self._is_loading():
                    raise KnownError(
                        "nothing-loaded", "No weights are loaded. Choose weights first."
                    )
                if self._child is None and self._wanted is not None:
                    self._load_again(self._wanted)
                self._send(job.id, command)
        except KnownError as error:
            if isinstance(command, WeightsSpec):
                self.state = "ready" if self.loaded else "off"
            self._settle(job.id, Failed.of(error))

    def _is_loading(self) -> bool:
        return any(isinstance(r.command, WeightsSpec) for r in self._running.values())

    def _load_again(self, spec: WeightsSpec) -> None:
        self.state = "loading"
        self._start_child()
        job: Job[Any] = Job(self, next(self._numbers))
        self._running[job.id] = _Running(job, spec, None)
        self._reload = job.id
        self._send(job.id, spec)

    def _send(self, job: int, command: Command) -> None:
        assert self._child is not None
        self._child.write(encode(job, command))

    def _do_cancel(self, job: int, draft: int | None) -> None:
        running = self._running.get(job)
        if running is None or self._child is None:
            return
        self._send(job, Cancel(draft))
        if draft is None:
            running.give_up_at = time.monotonic() + self._patience_s

    # --- the child's life ----------------------------------------------------------------------

    def _start_child(self) -> None:
        # Here: what starts processes is no part of the start of the window.
        from desktop_app.inference.child import Child

        try:
            self._child = Child(
                self._command,
                environment=_environment(self._cache_dir),
                on_line=lambda child, line: self._tasks.put(lambda: self._take(child, line)),
                on_end=lambda child: self._tasks.put(lambda: self._ended(child)),
                log_file=self._log_file,
            )
        except OSError as error:
            raise KnownError(
                "engine-start",
                "The engine could not be started. Install Grove again.",
                detail=str(error),
            ) from None
        self._start_by = time.monotonic() + _START_S

    def _end_child(self, *, but: int) -> None:
        """End the child on purpose; whatever runs in it, but job number `but`, is told."""
        child, self._child = self._child, None
        self._start_by = float("inf")
        if child is not None:
            child.close(_CLOSE_S)
        gone = KnownError("engine-stopped", "The weights were changed before this was done.")
        for number in list(self._running):
            if number != but:
                self._settle(number, Failed.of(gone))

    def _take(self, child: Child, line: bytes) -> None:
        if child is not self._child:
            return  # the last words of one that was replaced
        try:
            number, event = decode_event(line)
        except ProtocolError as error:
            child.kill()
            self._crashed(child, f"It said something that is no message: {error}")
            return
        if isinstance(event, Hello):
            self._start_by = float("inf")
            self.hello = event
            if event.protocol != PROTOCOL_VERSION:
                child.kill()
                self._crashed(child, f"It speaks protocol {event.protocol}.")
            return
        self._settle(number, event)

    def _settle(self, number: int, event: Event) -> None:
        """Give an event to its job, and end the job with its last one."""
        running = self._running.get(number)
        if running is None:
            return
        result: object = None
        over = True
        if isinstance(event, Finished):
            running.finished.append(event)
            running.drafts.discard(event.draft)
            over = not running.drafts
            result = tuple(sorted(running.finished, key=lambda f: f.draft))
        elif isinstance(event, Loaded):
            self.loaded, self._wanted = event.info, cast("WeightsSpec", running.command)
            self.state = "ready"
            result = event.info
        elif isinstance(event, Rendered | HasRead):
            result = event
        elif isinstance(event, Failed):
            if isinstance(running.command, WeightsSpec) and self.state == "loading":
                self.state = "off"
        else:
            over = isinstance(event, Unloaded | Forgotten)
        if over:
            del self._running[number]
        _tell(running.listener, event)
        if not over:
            return
        if isinstance(event, Failed):
            running.job.done.set_exception(event.error)
            if number == self._reload:
                self._fail_all(event.error)
        else:
            running.job.done.set_result(result)

    def _ended(self, child: Child) -> None:
        child.join()
        if child is self._child:
            self._crashed(child, "")

    def _kill_hung(self) -> None:
        now = time.monotonic()
        child = self._child
        if child is None:
            return
        if self._start_by <= now:
            child.kill()
            self._crashed(child, "It did not start in time.")
        elif any(running.give_up_at <= now for running in self._running.values()):
            child.kill()
            self._crashed(child, "It did not react and was ended.", hung=True)

    def _crashed(self, child: Child, why: str, *, hung: bool = False) -> None:
        """The child is dead or dying: tell everybody, and forget it."""
        self._child, self._start_by = None, float("inf")
        child.join()
        status = child.exit_status
        detail = "\n".join(part for part in (why, _status_text(status), child.tail()) if part)
        loading = [n for n, r in self._running.items() if isinstance(r.command, WeightsSpec)]
        self.loaded = None
        self.state = "crashed"
        if loading:
            self._wanted = None
            error = _crashed_while_loading(self._running[loading[0]], detail, hung=hung)
        else:
            error = KnownError(
                "engine-crashed",
                "The engine stopped unexpectedly; nothing that was written is lost. Ask again: it "
                "starts anew.",
                detail=detail,
            )
        self._fail_all(error)

    def _fail_all(self, error: KnownError) -> None:
        for number in list(self._running):
            self._settle(number, Failed.of(error))

    def _do_close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close(_CLOSE_S)
        self.state, self.loaded = "off", None
        self._fail_all(KnownError("engine-stopped", "The app was closed before this was done."))


def _tell(listener: Listener | None, event: Event) -> None:
    if listener is None:
        return
    try:
        listener(event)
    except Exception:  # noqa: BLE001 - a listener's bug is reported like any thread's, and
        # must not end the worker, which the other conversations need.
        kind, error, trace = sys.exc_info()
        assert kind is not None
        threading.excepthook(
            threading.ExceptHookArgs((kind, error, trace, threading.current_thread()))
        )


def _crashed_while_loading(running: _Running, detail: str, *, hung: bool) -> KnownError:
    command = running.command
    name = Path(command.path).name if isinstance(command, WeightsSpec) else ""
    if hung:
        return KnownError(
            "weights-hung",
            f"The engine did not come back from loading {name} and was ended. Try again, or "
            "choose other weights.",
            detail=detail,
        )
    return KnownError(
        "weights-crashed",
        f"The engine stopped while loading {name}: the file is probably damaged, or there is not "
        "enough memory. Download it again or choose other weights.",
        detail=detail,
    )


def _status_text(status: int | None) -> str:
    if status is None:
        return ""
    if status < 0:
        try:
            return f"It was ended by {signal.Signals(-status).name}."
        except ValueError:
            return f"It was ended by signal {-status}."
    return f"It ended with status {status}."


def _environment(cache_dir: Path | None) -> Mapping[str, str]:
    """The child's environment: it finds this package, and an abort leaves no debugger behind."""
    environment = dict(os.environ)
    package = str(Path(desktop_app.__file__).resolve().parents[1])
    paths = [package, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment["PYTHONSAFEPATH"] = "1"  # nothing is imported from the folder we stand in
    # ggml's abort would start gdb or lldb on the dying process and take seconds.
    environment["GGML_NO_BACKTRACE"] = "1"
    if cache_dir is not None:
        environment["GROVE_CACHE_DIR"] = str(cache_dir)
    if sys.platform == "linux" and _HUGE_PAGES not in environment.get("GLIBC_TUNABLES", ""):
        # glibc's malloc then asks for large pages, of which weights need fewer: 1.1 B Q4_0 wrote
        # 5 % faster with one thread and 4 % with two.  Without effect where the system says never.
        tunables = filter(None, [environment.get("GLIBC_TUNABLES"), f"{_HUGE_PAGES}=1"])
        environment["GLIBC_TUNABLES"] = ":".join(tunables)
    return environment
