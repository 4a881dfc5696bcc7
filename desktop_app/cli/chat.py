"""``grove chat``: a conversation in the terminal, with the tree behind it."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from desktop_app.cli.ask import Watch, add_writing_options, apply_settings, writing
from desktop_app.cli.frame import Frame, opened, profile_of
from desktop_app.cli.outline import outline
from desktop_app.cli.terminal import note, one_line, safe, say, styled
from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role, State
from desktop_app.errors import KnownError
from desktop_app.inference.sampling import MAX_SEED, Sampling
from desktop_app.session import SessionListener

HELP = """\
Write a message and press Enter.  While a reply is written, Ctrl-C stops it and keeps its text.
  /again [N]        ask again: another reply (N drafts) beside the last one
  /continue         let the last reply go on
  /edit N [TEXT]    change message N: yours is asked again as a new version, a reply in place
  /versions [N]     the versions of message N, or everywhere; /versions N K shows version K
  /remove N         take out message N and what follows it
  /undo  /redo      take back the last change, and do it again
  /tree             the whole conversation with its branches
  /path             what has been said on this branch
  /system [TEXT]    show or set the system prompt
  /title TEXT       name the chat
  /new              begin another chat
  /help             this help
  /quit             leave (also Ctrl-D)"""

_WHO = {Role.USER: "you", Role.SYSTEM: "system", Role.TOOL: "tool"}


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("chat", help="a conversation in the terminal")
    parser.add_argument("--chat", metavar="ID", help="go on with this chat")
    parser.add_argument("--system", metavar="S", help="the system prompt")
    add_writing_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Talk until the input ends."""
    with opened(profile_of(args.profile)) as frame:
        apply_settings(frame, args)
        info = frame.load(args.weights)
        conversation = frame.chat(args.chat)
        if args.system is not None:
            conversation.set_system(args.system)
        sampling, template = writing(frame, conversation, args)
        say(styled(f"Grove with {safe(info.name)}", "bold") + " — /help shows the commands.")
        talk = Talk(frame, conversation, sampling, template)
        talk.show_path()
        talk.loop()
    return 0


class Talk(SessionListener):
    """The conversation in one terminal.  Numbers N count the messages of the path from 1."""

    def __init__(
        self, frame: Frame, conversation: Conversation, sampling: Sampling, template: str | None
    ) -> None:
        self.frame = frame
        self.conversation = conversation
        self._sampling = sampling
        self._template = template
        self._unwritten: KnownError | None = None
        frame.session.add_listener(self)
        self._commands: dict[str, Callable[[str], None]] = {
            "again": self._again,
            "continue": self._continue,
            "edit": self._edit,
            "versions": self._versions,
            "remove": self._remove,
            "undo": self._undo,
            "redo": self._redo,
            "tree": lambda _: self._tree(),
            "path": lambda _: self.show_path(),
            "system": self._system,
            "title": self._title,
            "new": self._new,
            "help": lambda _: say(HELP),
        }

    def loop(self) -> None:
        """Read lines and act until the end of the input or /quit."""
        if sys.stdin.isatty():
            # Importing it gives input() its line editing; Windows has none of it.
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 -- imported for its effect
        while True:
            try:
                line = self._read("> ")
            except EOFError:
                say()
                return
            except KeyboardInterrupt:
                say("\n/quit leaves.")
                continue
            if line.strip() in ("/quit", "/exit"):
                return
            try:
                self._act(line)
                self.frame.loop.run_waiting()
                if self._unwritten is not None:
                    raise self._unwritten
            except KnownError as error:
                note(error.sentence)
            self._unwritten = None

    def storage_failed(self, error: KnownError) -> None:
        """Told after the command that it belongs to."""
        self._unwritten = error

    def show_path(self) -> None:
        """Print the messages of the active path."""
        tree = self.conversation.tree
        for number, node_id in enumerate(self.conversation.path(), 1):
            self._header(number, node_id)
            say(safe(tree.text(node_id)))

    def _read(self, prompt: str) -> str:
        sys.stdout.flush()
        if sys.stdin.isatty():
            return input(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def _act(self, line: str) -> None:
        self.frame.loop.run_waiting()
        if line.startswith("/") and not line.startswith("//"):
            name, _, rest = line[1:].partition(" ")
            command = self._commands.get(name.strip())
            if command is None:
                note(f"There is no command /{safe(name)}. /help shows those there are.")
                return
            command(rest.strip())
            return
        text = line.removeprefix("/") if line.startswith("//") else line
        if text.strip():
            self._write(
                lambda: self.frame.session.send(
                    self.conversation, text, sampling=self._sampling, template=self._template
                )[1:]
            )

    def _write(self, ask: Callable[[], tuple[int, ...]]) -> None:
        watch = Watch(self.frame)
        with watch:
            ids = ask()
            if len(ids) == 1:
                path = self.conversation.path(ids[0])
                self._header(len(path), ids[0])
            watch.sent(self.conversation, ids)
            watch.wait()
        if watch.interrupted:
            say(styled("(stopped)", "dim"))
        if watch.error is not None:
            raise watch.error

    # ---- commands ----------------------------------------------------------------------------

    def _again(self, rest: str) -> None:
        drafts = _number(rest, 1, 8) if rest else 1
        head = self.conversation.head_id
        if head is None:
            raise KnownError("nothing-asked", "Nothing was asked yet. Write a message first.")
        sampling = self._sampling
        if sampling.seed is not None:
            # The same seed would write the same words again.
            row = self.conversation.tree.siblings(head)
            sampling = replace(sampling, seed=(sampling.seed + len(row)) % MAX_SEED)
        self._write(
            lambda: self.frame.session.ask_again(
                self.conversation, head, drafts, sampling=sampling, template=self._template
            )
        )

    def _continue(self, _rest: str) -> None:
        head = self.conversation.head_id
        if head is None or self.conversation.tree.node(head).role is not Role.ASSISTANT:
            raise KnownError("no-reply", "There is no reply here to go on with.")

        def ask() -> tuple[int, ...]:
            self.frame.session.continue_reply(
                self.conversation, head, sampling=self._sampling, template=self._template
            )
            return (head,)

        self._write(ask)

    def _edit(self, rest: str) -> None:
        number, _, text = rest.partition(" ")
        node_id = self._message(number)
        tree = self.conversation.tree
        if not text:
            say(styled(safe(tree.text(node_id)), "dim"))
            text = self._read("new text> ")
        if not text.strip():
            say("Nothing was changed.")
        elif tree.node(node_id).role is Role.USER:
            self._write(
                lambda: self.frame.session.save_and_ask_again(
                    self.conversation, node_id, text,
                    sampling=self._sampling, template=self._template,
                )[1:]
            )  # fmt: skip
        else:
            self.conversation.edit_in_place(node_id, text)
            say("Changed. /undo brings back what stood there.")

    def _versions(self, rest: str) -> None:
        words = rest.split()
        tree = self.conversation.tree
        path = self.conversation.path()
        if not words:
            forks = [(n, i) for n, i in enumerate(path, 1) if len(tree.siblings(i)) > 1]
            for number, node_id in forks:
                row = tree.siblings(node_id)
                say(f"{number:3} {self._who(node_id)}: version {row.index(node_id) + 1} "
                    f"of {len(row)}")  # fmt: skip
            if not forks:
                say("No message here has more than one version.")
            return
        row = tree.siblings(self._message(words[0]))
        if len(words) > 1:
            self.conversation.choose_version(row[_number(words[1], 1, len(row)) - 1])
            self.show_path()
            return
        for n, node_id in enumerate(row, 1):
            sign = "●" if node_id in path else "○"
            below = tree.descendants_count(node_id)
            more = f" (+{below} below)" if below else ""
            say(f"  {sign} {n} {one_line(tree.text(node_id))}{more}")

    def _remove(self, rest: str) -> None:
        node_id = self._message(rest)
        count = 1 + self.conversation.tree.descendants_count(node_id)
        self.conversation.remove(node_id)
        say(f"{count} message{'s' if count > 1 else ''} removed. /undo brings them back.")

    def _undo(self, _rest: str) -> None:
        step = self.conversation.undo()
        say(f"Undone: {step.name}." if step else "There is nothing to undo.")
        self.show_path()

    def _redo(self, _rest: str) -> None:
        step = self.conversation.redo()
        say(f"Done again: {step.name}." if step else "There is nothing to redo.")
        self.show_path()

    def _tree(self) -> None:
        for line in outline(self.conversation):
            say(line)

    def _system(self, rest: str) -> None:
        if rest:
            self.conversation.set_system(rest)
        say(safe(self.conversation.system_text) or "There is no system prompt.")

    def _title(self, rest: str) -> None:
        self.conversation.set_title(rest)

    def _new(self, _rest: str) -> None:
        self.conversation = self.frame.chat(None)
        say("A new chat.")

    # ---- small things -------------------------------------------------------------------------

    def _message(self, number: str) -> int:
        path = self.conversation.path()
        if not path:
            raise KnownError("nothing-asked", "This chat is empty. Write a message first.")
        return path[_number(number, 1, len(path)) - 1]

    def _who(self, node_id: int) -> str:
        node = self.conversation.tree.node(node_id)
        return _WHO.get(node.role) or safe(node.author) or "assistant"

    def _header(self, number: int, node_id: int) -> None:
        tree = self.conversation.tree
        node = tree.node(node_id)
        row = tree.siblings(node_id)
        pager = f" ‹{row.index(node_id) + 1}/{len(row)}›" if len(row) > 1 else ""
        state = "" if node.state in (State.DONE, State.STREAMING) else f" ({node.state.value})"
        say(styled(f"{number} {self._who(node_id)}", "bold") + pager + state)


def _number(text: str, low: int, high: int) -> int:
    if text.strip().isdecimal() and low <= int(text) <= high:
        return int(text)
    raise KnownError("number-range", f"A number from {low} to {high} is needed here.")
