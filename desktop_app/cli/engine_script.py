"""``grove render`` and ``grove engine``: the real child process, seen from outside."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from desktop_app.cli.ask import template_of
from desktop_app.cli.frame import profile_of
from desktop_app.cli.terminal import print_json, say
from desktop_app.errors import KnownError
from desktop_app.exchange.files import parse_json, read_text
from desktop_app.inference import script
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import ChatMessage, WeightsSpec
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
    engine = commands.add_parser("engine", help="run a list of requests and print every event")
    engine.add_argument("--script", type=Path, required=True, metavar="FILE.jsonl")
    engine.set_defaults(run=run_script)


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


def run_script(args: argparse.Namespace) -> int:
    """Run the lines of a script (see `desktop_app.inference.script`) and print every event.

    The exit status is 1 when anything failed.
    """
    profile = profile_of(args.profile)

    def check(path: Path) -> None:
        check_file(WeightsSpec(str(path)))

    engine = Engine(log_dir=profile.logs, cache_dir=profile.cache, check=check)
    try:
        return script.run_script(args.script, sys.stdout, engine=engine)
    finally:
        engine.close()
