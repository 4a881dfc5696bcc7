"""``grove render`` and ``grove engine``: the real child process, seen from outside."""

from __future__ import annotations

import argparse
import json
import queue
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from desktop_app.cli.ask import template_of
from desktop_app.cli.frame import profile_of
from desktop_app.cli.terminal import print_json, say
from desktop_app.errors import KnownError
from desktop_app.exchange.files import parse_json, parse_lines, read_text
from desktop_app.inference.engine import Engine, Job
from desktop_app.inference.protocol import (
    ChatMessage,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Loaded,
    Piece,
    RenderRequest,
    WeightsSpec,
    decode_command,
    encode,
)
from desktop_app.session.loading import check_file
from desktop_app.weights.gguf import first_part

_ROLES = ("system", "user", "assistant", "tool")


def add_parsers(commands: Any) -> None:
    """Declare both commands."""
    render = commands.add_parser("render", help="show the prompt that a conversation becomes")
    render.add_argument("--weights", type=Path, required=True, metavar="F")
    render.add_argument("--messages", type=Path, required=True, metavar="FILE.json")
    render.add_argument("--template", metavar="FILE.jinja")
    render.add_argument("--json", action="store_true")
    render.set_defaults(run=run_render)
    script = commands.add_parser("engine", help="run a list of requests and print every event")
    script.add_argument("--script", type=Path, required=True, metavar="FILE.jsonl")
    script.set_defaults(run=run_script)


def run_render(args: argparse.Namespace) -> int:
    """Print the text and tokens of a prompt."""
    messages = _messages(parse_json(read_text(args.messages), args.messages.name))
    template = template_of(args.template) or "auto"
    profile = profile_of(args.profile)
    engine = Engine(log_dir=profile.logs, cache_dir=profile.cache)
    try:
        engine.load(_checked(WeightsSpec(str(args.weights)))).done.result()
        rendered = engine.render(messages, template).done.result()
    finally:
        engine.close()
    if args.json:
        print_json({"text": rendered.text, "tokens": list(rendered.tokens)})
    else:
        say(rendered.text)
        say(f"({len(rendered.tokens)} tokens: {' '.join(map(str, rendered.tokens))})")
    return 0


def _messages(value: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        raise _not_messages()
    out = []
    for item in value:
        if not isinstance(item, dict) or item.get("role") not in _ROLES:
            raise _not_messages()
        content, reasoning = item.get("content"), item.get("reasoning", "")
        if not isinstance(content, str) or not isinstance(reasoning, str):
            raise _not_messages()
        out.append(ChatMessage(item["role"], content, reasoning))
    return tuple(out)


def _not_messages() -> KnownError:
    return KnownError(
        "messages-format",
        'The messages must be a JSON list of {"role": "system|user|assistant", "content": TEXT}.',
    )


def _checked(spec: WeightsSpec) -> WeightsSpec:
    """The spec with a full path, when the file's header says that it can be loaded."""
    full = replace(spec, path=str(first_part(Path(spec.path).expanduser().absolute())))
    check_file(full)
    return full


# ---- the script --------------------------------------------------------------------------------


def run_script(args: argparse.Namespace) -> int:
    """Run the lines of a script one after the other.

    A line is a command of the protocol (``{"type": "load", "path": …}``, ``generate``, ``render``,
    ``unload``), without its job number.  A ``generate`` may also hold ``"cancel_after_pieces": N``
    or ``"cancel_after_s": X``, and ``"wait": false`` to let the next line start beside it.
    Every event is printed as one line with ``"at_s"``, the seconds since the start.
    """
    lines = list(parse_lines(read_text(args.script), args.script.name))
    profile = profile_of(args.profile)
    engine = Engine(log_dir=profile.logs, cache_dir=profile.cache)
    try:
        return _Script(engine).run(lines)
    finally:
        engine.close()


class _Script:
    """The events of all jobs in the order in which they came."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._began = time.monotonic()
        self._events: queue.SimpleQueue[tuple[int, float, Event]] = queue.SimpleQueue()
        self._jobs: dict[int, tuple[Job[Any], int]] = {}
        self._drafts: dict[int, int] = {}
        self._pieces: dict[int, int] = {}
        self._failed = False

    def run(self, lines: list[tuple[int, Any]]) -> int:
        """The exit status: 1 when anything failed."""
        for number, line in lines:
            if not isinstance(line, dict):
                raise _not_command(number)
            options = {
                key: line.pop(key)
                for key in ("wait", "cancel_after_pieces", "cancel_after_s")
                if key in line
            }
            try:
                _, command = decode_command(json.dumps({"job": 0, **line}).encode())
            except ValueError as error:
                raise _not_command(number, str(error)) from None
            self._start(number, command)
            if options.get("wait", True):
                self._until_done(options, number)
        self._until_done({}, None)
        return 1 if self._failed else 0

    def _start(self, number: int, command: Any) -> None:
        def listener(event: Event) -> None:
            self._events.put((number, time.monotonic() - self._began, event))

        match command:
            case WeightsSpec():
                self._jobs[number] = (self._engine.load(_checked(command), listener), 1)
            case GenerateRequest():
                self._jobs[number] = (self._engine.generate(command, listener), command.drafts)
            case RenderRequest():
                rendering = self._engine.render(
                    command.messages, command.template, continue_last=command.continue_last
                )
                listener(rendering.done.result())
            case _:
                self._engine.unload()
        self._print_waiting()

    def _until_done(self, options: dict[str, Any], only: int | None) -> None:
        cancel_pieces = options.get("cancel_after_pieces")
        cancel_s = options.get("cancel_after_s")
        until = time.monotonic() + cancel_s if cancel_s is not None else None
        while (only in self._jobs) if only is not None else bool(self._jobs):
            try:
                timeout = max(0.0, until - time.monotonic()) if until is not None else None
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                until = None
                if only is not None:
                    self._jobs[only][0].cancel()
                continue
            self._take(*event)
            pieces = self._pieces.get(only, 0) if only is not None else 0
            if cancel_pieces is not None and pieces >= cancel_pieces and only in self._jobs:
                cancel_pieces = None
                self._jobs[only][0].cancel()

    def _print_waiting(self) -> None:
        while not self._events.empty():
            self._take(*self._events.get())

    def _take(self, number: int, at_s: float, event: Event) -> None:
        body = json.loads(encode(number, event))
        sys.stdout.write(json.dumps({"at_s": round(at_s, 6), **body}) + "\n")
        sys.stdout.flush()
        match event:
            case Piece():
                self._pieces[number] = self._pieces.get(number, 0) + event.n_tokens
            case Failed():
                self._failed = True
                self._jobs.pop(number, None)
            case Loaded() | Finished():
                done = self._drafts[number] = self._drafts.get(number, 0) + 1
                if number in self._jobs and done >= self._jobs[number][1]:
                    del self._jobs[number]
            case _:
                pass


def _not_command(number: int, detail: str = "") -> KnownError:
    return KnownError(
        "script-format",
        f"Line {number} of the script is no request. "
        'A request looks like {"type": "load", "path": "FILE.gguf"}.',
        detail=detail,
    )
