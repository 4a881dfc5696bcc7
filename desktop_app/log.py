"""The rotating log, and the one place where a bug ends.

Never log what people write: messages, titles, search texts, prompts.  Log codes, sizes, times.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

ShowBug = Callable[[str, str], None]
"""Called with (one sentence, the traceback as text), on whatever thread the bug came from."""

_LOG_BYTES = 1_000_000
_LOG_FILES = 3
_logger = logging.getLogger("grove")
# Without any handler the logging package would print on stderr by itself.
_NOWHERE = logging.NullHandler()
_logger.addHandler(_NOWHERE)


def logger(name: str) -> logging.Logger:
    """The logger of one part of Grove, for example ``logger("session")``."""
    return _logger.getChild(name)


class _Rotating(logging.FileHandler):
    """A log file that is set aside at `_LOG_BYTES`, with `_LOG_FILES` older ones kept.

    The standard library's rotating handler does this too, but its module takes as long to import as
    a good part of the window.  A full disk costs the line, never the program.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.stream is not None and self.stream.tell() >= _LOG_BYTES:
                self._rotate(self.stream)
        except (OSError, ValueError):
            return
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's own name
        pass

    def _rotate(self, full: TextIO) -> None:
        full.close()
        file = Path(self.baseFilename)
        names = [file, *(file.with_name(f"{file.name}.{n}") for n in range(1, _LOG_FILES + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)
        self.stream = self._open()


def start(folder: Path) -> Path:
    """Write the log to `folder`/grove.log from now on, at most 4 MB with its older files.

    A folder that cannot be written to is no reason not to start: Grove then runs without a log.
    """
    stop()
    file = folder / "grove.log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _Rotating(file, encoding="utf-8")
    except OSError:
        return file
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(threadName)s] %(message)s")
    )
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    return file


def stop() -> None:
    """Close the log file; used by tests and before a profile is moved."""
    for handler in list(_logger.handlers):
        if handler is not _NOWHERE:
            _logger.removeHandler(handler)
            handler.close()
    _logger.propagate = True


class _Bugs:
    """Logs each bug, and shows the first of each kind (type and place) once."""

    def __init__(self, show: ShowBug | None) -> None:
        self.show = show
        self._seen: set[tuple[str, str]] = set()

    def report(
        self,
        kind: type[BaseException],
        error: BaseException | None,
        trace: TracebackType | None,
        where: str,
    ) -> None:
        if issubclass(kind, KeyboardInterrupt | SystemExit):
            return
        # A traceback holds code, not values; the message of an exception may hold user text
        # (for example KeyError of a title), so the log has the type only.
        frames = "".join(traceback.format_tb(trace))
        _logger.error("bug in %s: %s\n%s", where, kind.__name__, frames)
        place = traceback.extract_tb(trace)[-1] if trace is not None else None
        key = (kind.__name__, f"{place.filename}:{place.lineno}" if place else where)
        if key in self._seen or self.show is None:
            return
        self._seen.add(key)
        full = "".join(traceback.format_exception(kind, error, trace))
        self.show("Something in Grove went wrong. Your chats are safe on disk.", full)


_bugs: _Bugs | None = None


def catch_bugs(show: ShowBug | None = None) -> None:
    """Install the excepthook for the main thread, other threads and unraisable errors.

    Each bug is logged; each distinct one is given to `show` once.  Without `show` the sentence goes
    to stderr.  Calling it again replaces `show`.
    """
    global _bugs  # noqa: PLW0603 -- the interpreter has one excepthook, so this is one object
    if _bugs is not None:
        _bugs.show = show or _to_stderr
        return
    bugs = _bugs = _Bugs(show or _to_stderr)

    def main_hook(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        bugs.report(kind, error, trace, "the main thread")

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread is not None else "a thread"
        bugs.report(args.exc_type, args.exc_value, args.exc_traceback, name)

    def unraisable_hook(args: sys.UnraisableHookArgs) -> None:
        bugs.report(args.exc_type, args.exc_value, args.exc_traceback, "a finaliser or callback")

    sys.excepthook = main_hook
    threading.excepthook = thread_hook
    sys.unraisablehook = unraisable_hook


def _to_stderr(sentence: str, full: str) -> None:
    print(f"{sentence}\n{full}", file=sys.stderr)
