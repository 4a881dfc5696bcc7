"""The disposable process that renders Jinja chat templates.

A template comes with a downloaded file or from a user: foreign code.  jinja2's sandbox keeps it
from Python's internals, but not from eating all time or memory (``'x' * 300000000`` passes), and a
thread cannot be stopped.  So templates run here, in a process without files, children or much
memory, and `renderer.Renderer` kills it at any breach.

The process talks in frames over stdin and stdout: four bytes with the length (big endian), then
JSON.  The first frame says "ready".  Then one request holds a template and several jobs; its answer
holds one result for each job.

Where the limits come from:

- Linux: address space (`RLIMIT_AS`), processor time (`RLIMIT_CPU`), no new file descriptors, no
  file growth, no core dumps, no new processes; the owner adds a wall-clock limit.
- macOS: the same calls, but the kernel does not hold processes to `RLIMIT_AS`: the owner watches
  the resident memory instead and kills.
- Windows: none of these calls exist; the owner watches resident memory and the clock, and kills.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import IO, Any, Final, NoReturn

import jinja2
import jinja2.debug  # here, because no file can be opened once the limits hold
import jinja2.ext
import jinja2.sandbox

MAX_TEXT_CHARS: Final = 16_000_000
"""A longer prompt is an attack: contexts hold some hundred thousand tokens."""

_HEADER: Final = struct.Struct(">I")


class _Refused(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _Generation(jinja2.ext.Extension):
    """``{% generation %}…{% endgeneration %}``: marks replies for training, else nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares this attribute without ClassVar

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`tojson` as chat templates expect it: no HTML escapes (jinja2's own writes ``\\u003c``)."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object = "") -> NoReturn:
    raise _Refused(str(message))


def environment(now: Callable[[], datetime]) -> jinja2.Environment:
    """The environment that chat templates are written for (as in Hugging Face transformers)."""
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _Generation],
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = lambda layout: now().strftime(layout)
    return made


def render(template: jinja2.Template, job: Mapping[str, Any]) -> dict[str, str]:
    """One job: ``{"text"}``, or ``{"error": "refused|damaged|memory|long", "message"}``."""
    try:
        text = template.render(**job)
    except _Refused as error:
        return {"error": "refused", "message": str(error.message)[:500]}
    except MemoryError:
        return {"error": "memory", "message": ""}
    except Exception as error:  # noqa: BLE001 - whatever foreign code raises is its own error
        return {"error": "damaged", "message": f"{type(error).__name__}: {error}"[:500]}
    if len(text) > MAX_TEXT_CHARS:
        return {"error": "memory", "message": ""}
    return {"text": text}


class Kitchen:
    """Compiles a template once and renders it as often as asked."""

    def __init__(self) -> None:
        self._stamp: float | None = None
        self._environment = environment(self._now)
        self._source: str | None = None
        self._template: jinja2.Template | None = None

    def _now(self) -> datetime:
        # Local time without a zone, as strftime_now of transformers.
        stamp = time.time() if self._stamp is None else self._stamp
        return datetime.fromtimestamp(stamp)  # noqa: DTZ006

    def answer(self, request: Mapping[str, Any]) -> list[dict[str, str]]:
        """All jobs of a request.  `now` (seconds, local time) fixes the date; None: the clock's."""
        self._stamp = request.get("now")
        jobs: Sequence[Mapping[str, Any]] = request["jobs"]
        try:
            template = self._compiled(request["source"])
        except jinja2.TemplateSyntaxError as error:
            message = f"line {error.lineno}: {error.message}"[:500]
            return [{"error": "damaged", "message": message} for _ in jobs]
        except MemoryError:
            return [{"error": "memory", "message": ""} for _ in jobs]
        except Exception as error:  # noqa: BLE001 - too deep, too long: the template's own error
            message = f"{type(error).__name__}: {error}"[:500]
            return [{"error": "damaged", "message": message} for _ in jobs]
        now = self._now()
        dates = {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}
        return [render(template, {**dates, **job}) for job in jobs]

    def _compiled(self, source: str) -> jinja2.Template:
        if self._template is None or source != self._source:
            self._template = self._environment.from_string(source)
            self._source = source
        return self._template


def read_frame(stream: IO[bytes]) -> Any:
    """The next frame's JSON, or None at the end of the stream."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (size,) = _HEADER.unpack(header)
    body = stream.read(size)
    return json.loads(body) if len(body) == size else None


def write_frame(stream: IO[bytes], value: object) -> None:
    """Write one frame (ASCII, so that lone surrogates survive) and flush."""
    body = json.dumps(value).encode("ascii")
    stream.write(_HEADER.pack(len(body)) + body)
    stream.flush()


def _limit(cpu_s: int, memory_bytes: int) -> None:
    """Hold this process to its limits, as far as the system can (see the module's text)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_NOFILE": 0,
        "RLIMIT_CPU": spent + cpu_s,
        "RLIMIT_AS": memory_bytes,
    }
    for name, soft in wanted.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)  # noqa: PLW2901 - the wish, cut to what is allowed
        try:
            # The hard limit of processor time stays: the soft one moves on with each request.
            resource.setrlimit(kind, (soft, hard if name == "RLIMIT_CPU" else soft))
        except (OSError, ValueError):
            continue  # a limit this system does not know; the owner watches from outside


def _address_space_bytes() -> int:
    """What this process has mapped already; its allowance comes on top."""
    try:
        with open("/proc/self/statm", encoding="ascii") as table:  # noqa: PTH123 - one read
            return int(table.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 256 << 20


def _receive(stream: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    """Read on a thread of its own, so that an endless template does not outlive its owner."""
    while (request := read_frame(stream)) is not None:
        requests.put(request)
    os._exit(0)


def main() -> int:
    """Serve requests until stdin ends.  The last two arguments: CPU seconds, memory bytes."""
    cpu_s, memory_bytes = (int(text) for text in sys.argv[-2:])
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints, prints elsewhere
    # Once before the doors close: the time zone's file, and everything a first render imports.
    kitchen = Kitchen()
    kitchen.answer({"source": "{{ strftime_now('%d %b') }}{{ [1] | tojson }}", "jobs": [{}]})
    kitchen.answer({"source": "{{ raise_exception(nothing.at.all) }}", "jobs": [{}]})
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    ceiling_bytes = _address_space_bytes() + memory_bytes
    _limit(cpu_s, ceiling_bytes)
    write_frame(answers, "ready")
    while True:
        request = requests.get()
        _limit(cpu_s, ceiling_bytes)
        results = kitchen.answer(request)
        write_frame(answers, results)
        if any(result.get("error") == "memory" for result in results):
            # A heap that once was full is not reused; and no thread must read at Python's end.
            os._exit(0)
