"""A child process that speaks in lines: started, fed, listened to, and surely ended.

Three small threads stand between the pipes and the owner, so that no pipe can ever block it:
stdout's lines and stderr's end arrive through `on_line` and `on_end`, stdin is fed from a queue.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

_KEPT_LINES: Final = 200
_LOG_BYTES: Final = 1_000_000


class Child:
    """One running process.  All methods: any thread."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_line: Callable[[Child, bytes], None],
        on_end: Callable[[Child], None],
        log_file: Path | None = None,
    ) -> None:
        """Start it; OSError when that fails.

        `on_line(child, line)` is called for every line of stdout, `on_end(child)` once, when stdout
        and stderr have ended and the exit status is known; both on a thread of the child's own.
        What it prints on stderr is kept (the last 200 lines) and written to `log_file`.
        """
        self._on_line, self._on_end = on_line, on_end
        self._tail: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._log_file = log_file
        self._input: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # only Windows has it
        )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._threads = [
            threading.Thread(target=target, args=(pipe,), name=f"child-{name}", daemon=True)
            for name, target, pipe in (
                ("stdin", self._feed, process.stdin),
                ("stderr", self._listen, process.stderr),
                ("stdout", self._follow, process.stdout),
            )
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """Exit status (negative: ended by that signal), None while it runs."""
        return self._process.poll()

    def tail(self) -> str:
        """The last lines it printed on stderr."""
        return "\n".join(self._tail)

    def write(self, line: bytes) -> None:
        """Send a line to its stdin; to a dead child this does nothing."""
        self._input.put(line)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def close(self, patience_s: float) -> None:
        """End it by closing its stdin, or by force after `patience_s`; wait until all is over."""
        self._input.put(None)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.join()

    def join(self) -> None:
        """Wait for its threads; call only when the process is dead or dying."""
        self._input.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _feed(self, pipe: IO[bytes]) -> None:
        try:
            with pipe:
                while (line := self._input.get()) is not None:
                    pipe.write(line)
                    pipe.flush()
        except OSError:
            pass  # it is dead; stdout's end tells the owner

    def _listen(self, pipe: IO[bytes]) -> None:
        log = self._open_log()
        try:
            with pipe:
                for raw in pipe:
                    line = raw.decode("utf-8", "replace").rstrip()
                    self._tail.append(line)
                    log = _logged(log, line)
        finally:
            if log is not None:
                log.close()

    def _open_log(self) -> IO[str] | None:
        if self._log_file is None:
            return None
        try:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            if self._log_file.exists():
                os.replace(self._log_file, self._log_file.with_suffix(".old.log"))  # noqa: PTH105 - one call for every system
            return self._log_file.open("w", encoding="utf-8")
        except OSError:
            return None  # a full disk must not keep the engine from starting

    def _follow(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._on_line(self, line)
        self._process.wait()
        self._threads[1].join()
        self._on_end(self)


def _logged(log: IO[str] | None, line: str) -> IO[str] | None:
    """Write a line to the log; None from the moment the disk takes no more of it."""
    if log is None or log.tell() >= _LOG_BYTES:
        return log
    try:
        log.write(line + "\n")
        log.flush()
    except OSError:
        # The child must go on being listened to, or its pipe fills and it stands still.
        with contextlib.suppress(OSError):
            log.close()
        return None
    return log
