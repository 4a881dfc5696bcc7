"""``grove ask``: one prompt, its reply on stdout while it is written."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from desktop_app.cli.frame import Frame, opened, profile_of
from desktop_app.cli.progress import Progress
from desktop_app.cli.terminal import INTERRUPTED, print_json, safe, styled, write
from desktop_app.conversation.document import Conversation
from desktop_app.errors import KnownError
from desktop_app.inference.sampling import Sampling
from desktop_app.session import SessionListener


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("ask", help="ask once and print the reply")
    parser.add_argument("prompt", nargs="?", default="-", help='the question; "-" reads stdin')
    parser.add_argument("--chat", metavar="ID", help="go on with this chat instead of a new one")
    parser.add_argument("--system", metavar="S", help="the system prompt of the chat")
    parser.add_argument("--drafts", type=int, default=1, metavar="N", help="replies side by side")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    parser.add_argument(
        "--events", action="store_true", help="a JSON line for each thing that happens"
    )
    add_writing_options(parser)
    parser.set_defaults(run=run)


def add_writing_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that lets weights write."""
    parser.add_argument("--weights", type=Path, metavar="F", help="GGUF file; else the last used")
    parser.add_argument("--preset", metavar="P", help="sampler preset")
    parser.add_argument(
        "--template", metavar="T", help="auto, oasst, chatml, llama2, llama3, plain, or a file"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed writes the same reply")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest reply, in tokens")
    parser.add_argument("--temperature", type=float, metavar="X", help="0 takes the likeliest")
    parser.add_argument("--threads", type=int, metavar="N", help="threads; 0 = automatic")
    parser.add_argument("--context", type=int, metavar="N", help="context in tokens; 0 = automatic")


def run(args: argparse.Namespace) -> int:
    """Ask, and return the exit status."""
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    if not prompt.strip():
        raise KnownError("prompt-empty", "There is nothing to ask: the prompt is empty.")
    with opened(profile_of(args.profile)) as frame:
        apply_settings(frame, args)
        if args.drafts > 1 and not 1 <= args.drafts <= 8:
            raise KnownError("drafts-range", "Grove writes 1 to 8 drafts at once.")
        conversation = frame.chat(args.chat)
        sampling, template = writing(frame, conversation, args)
        began = time.monotonic()
        frame.load(args.weights)
        load_s = time.monotonic() - began
        # Only now, so that weights that cannot be loaded leave no chat behind.
        if args.system is not None:
            conversation.set_system(args.system)
        watch = Watch(frame, events=args.events, quiet=args.json or args.events)
        with watch:
            ids = _ask(frame, conversation, prompt, args.drafts, sampling, template)
            watch.sent(conversation, ids)
            watch.wait()
            watch.until_saved(conversation)
        if args.json and watch.error is None:
            print_json(_report(frame, conversation, ids, load_s))
        return watch.status()


def _ask(
    frame: Frame,
    conversation: Conversation,
    prompt: str,
    drafts: int,
    sampling: Sampling,
    template: str | None,
) -> tuple[int, ...]:
    session = frame.session
    if drafts <= 1:
        return session.send(conversation, prompt, sampling=sampling, template=template)[1:]
    from desktop_app.conversation.node import Role

    user = conversation.insert(conversation.head_id, Role.USER, prompt)
    return session.ask_again(conversation, user, drafts, sampling=sampling, template=template)


def apply_settings(frame: Frame, args: argparse.Namespace) -> None:
    """Options that hold for this run only: the settings in memory, never saved from here."""
    for option, key, low in (("threads", "threads", 0), ("context", "context_length", 0)):
        value = getattr(args, option, None)
        if value is None:
            continue
        if not low <= value <= 1_000_000:
            raise KnownError("option-range", f"--{option} must not be negative or huge.")
        frame.settings.override(key, value)


def writing(
    frame: Frame, conversation: Conversation, args: argparse.Namespace
) -> tuple[Sampling, str | None]:
    """The sampler options and the template that the arguments ask for."""
    if args.preset is not None:
        frame.session.preset(args.preset)
        conversation.set_defaults(preset=args.preset)
    chosen = frame.session.sampling(conversation)
    for option, field in (
        ("seed", "seed"),
        ("max_tokens", "max_tokens"),
        ("temperature", "temperature"),
    ):
        value = getattr(args, option)
        if value is not None:
            chosen = replace(chosen, **{field: value})
    return chosen.checked(), template_of(args.template)


def template_of(name: str | None) -> str | None:
    """A family's name as it is, else the text of a template file."""
    if name is None:
        return None
    file = Path(name)
    if name.endswith((".jinja", ".jinja2", ".j2", ".txt")) or file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KnownError(
                "template-unreadable",
                f"The template {file.name} could not be read. Check the name and try again.",
                detail=str(error),
            ) from error
    return name


class Watch(SessionListener):
    """Shows replies while they are written, and waits for their end.  Ctrl-C stops them."""

    def __init__(self, frame: Frame, *, events: bool = False, quiet: bool = False) -> None:
        self._frame = frame
        self._events = events
        self._quiet = quiet
        self._shown: dict[int, int] = {}
        self._thought: dict[int, int] = {}
        self._reading = Progress("Reading")
        self._open: set[int] = set()
        self._conversation: Conversation | None = None
        self._catching = contextlib.ExitStack()
        self.interrupted = False
        self.error: KnownError | None = None

    def __enter__(self) -> Watch:
        self._frame.session.add_listener(self)
        self._frame.loop.on_interrupt = self._interrupt
        self._catching.enter_context(self._frame.loop.catching())
        return self

    def __exit__(self, *error: object) -> None:
        self._catching.close()
        self._reading.end()
        self._frame.loop.on_interrupt = None
        self._frame.session.remove_listener(self)

    def sent(self, conversation: Conversation, ids: tuple[int, ...]) -> None:
        """These replies are to be shown."""
        self._conversation = conversation
        self._open = set(ids) & set(self._frame.session.writing())
        for node_id in ids:
            tree = conversation.tree
            self._shown[node_id] = len(tree.text(node_id))
            self._thought[node_id] = len(tree.reasoning(node_id))
        if self._events:
            chat = conversation.chat
            self._event("sent", chat=chat.id, messages=list(ids))
            conversation.saved().add_done_callback(
                lambda saved: self._frame.loop.post(lambda: self._committed(saved, ids))
            )

    def wait(self) -> None:
        """Until every reply has ended."""
        self._frame.loop.run_until(lambda: not self._open)
        self._reading.end()
        if not self._quiet:
            write("\n")

    def until_saved(self, conversation: Conversation) -> None:
        """Until everything is on disk, or it is clear that it cannot be written now."""
        saved = conversation.saved()
        saved.add_done_callback(lambda _: self._frame.loop.post(lambda: None))
        self._frame.loop.run_until(lambda: saved.done() or self.error is not None)
        if self.error is None:
            saved.result()

    def status(self) -> int:
        """The exit status; a failed reply is raised as its KnownError."""
        if self.error is not None:
            raise self.error
        return INTERRUPTED if self.interrupted else 0

    # -- what the session tells

    def reading(self, _chat_id: int, message_id: int, done: int, total: int, kept: int) -> None:
        """Show how far the prompt is read."""
        self._reading.update(done / max(total, 1))
        if self._events:
            self._event("reading", message=message_id, done=done, total=total, kept=kept)

    def text_changed(self, _chat_id: int, message_id: int) -> None:
        """Print what is new."""
        if self._conversation is None or message_id not in self._shown:
            return
        tree = self._conversation.tree
        text = tree.text(message_id)
        if self._events:
            self._event("text", message=message_id, text=text)
        if self._quiet or len(self._shown) > 1:
            return
        self._reading.end()
        reasoning = tree.reasoning(message_id)
        if len(reasoning) > self._thought[message_id] and sys.stderr.isatty():
            new = safe(reasoning[self._thought[message_id] :])
            print(styled(new, "dim", sys.stderr), end="", file=sys.stderr, flush=True)
            self._thought[message_id] = len(reasoning)
        if len(text) > self._shown[message_id]:
            write(text[self._shown[message_id] :])
            self._shown[message_id] = len(text)

    def finished(self, chat_id: int, message_id: int) -> None:
        """One reply less to wait for."""
        self.text_changed(chat_id, message_id)
        self._open.discard(message_id)
        if self._events and self._conversation is not None:
            node = self._conversation.tree.node(message_id)
            text = self._conversation.tree.text(message_id)
            self._event("finished", message=message_id, finish=node.finish, text=text)
        if not self._quiet and len(self._shown) > 1 and self._conversation is not None:
            number = sorted(self._shown).index(message_id) + 1
            write(f"[{number}] {self._conversation.tree.text(message_id)}\n")

    def failed(self, _chat_id: int, message_id: int, error: KnownError) -> None:
        """A reply failed; the command ends with this error."""
        self._open.discard(message_id)
        self.error = error
        if self._events:
            self._event("failed", message=message_id, code=error.code)

    def storage_failed(self, error: KnownError) -> None:
        """A step was taken back: there is nothing more to wait for."""
        self.error = error
        self._open &= set(self._frame.session.writing())

    def _interrupt(self) -> None:
        self.interrupted = True
        self._frame.session.stop_all()

    def _committed(self, saved: Any, ids: tuple[int, ...]) -> None:
        if saved.exception() is None:
            self._event("committed", messages=list(ids))

    def _event(self, kind: str, **values: Any) -> None:
        line = {"event": kind, "at": time.time(), **values}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _report(
    frame: Frame, conversation: Conversation, ids: tuple[int, ...], load_s: float
) -> dict[str, Any]:
    replies = []
    first: dict[str, Any] = {}
    for node_id in ids:
        turns = frame.loop.wait(conversation.turns(node_id))
        turn = turns[-1] if turns else {}
        first = first or turn
        node = conversation.tree.node(node_id)
        replies.append(
            {
                "message": node_id,
                "text": conversation.tree.text(node_id),
                "finish": node.finish,
                "tokens": turn.get("tokens_written", 0),
            }
        )
    times = first.get("times") or {}
    timings = {
        "load_s": round(load_s, 4),
        "prompt_tokens": first.get("tokens_prompt", 0),
        "evaluated_tokens": first.get("tokens_read", 0),
        "first_token_s": round(times.get("first_token_s", 0.0), 4),
        "tokens_per_s": round(times.get("tokens_per_s", 0.0), 2),
    }
    return {"chat": conversation.chat.id, "replies": replies, "timings": timings}
