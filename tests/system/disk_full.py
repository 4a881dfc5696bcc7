"""Each write call failing once: nothing is corrupt, a sentence is said, and the app goes on.

    python -m tests.system.disk_full --seed 1 [--every 1] [--error full|io]

The same piece of work (make a library, chat, stream, edit, undo, import, search, empty the trash,
close, open again) runs once to count its write calls, then once for each of them, with that one
call failing.  Afterwards what is on disk must be what memory held.  Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import apsw

from desktop_app.conversation import Conversation
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import Library
from tests.fakes.faulty_vfs import FaultyDisk
from tests.fakes.hand import Hand, picture
from tests.fakes.profiles import WAIT_S

T = TypeVar("T")

ERRORS: dict[str, Callable[[], Exception]] = {
    "full": lambda: apsw.FullError("disk full"),
    "io": lambda: apsw.IOError("the disk is on strike"),
}


class Work:
    """One run of the piece of work on one disk."""

    def __init__(self, root: Path, seed: int, disk: FaultyDisk) -> None:
        self.profile = Profile(root)
        self.hand = Hand(seed)
        self.disk = disk
        self.said: list[KnownError] = []

    def run(self) -> None:
        """All of it; raises where something is lost or wrong."""
        library = self.open()
        try:
            chat = self.ask(library.new_chat("First"))
            assert chat is not None
            self.listen(chat)
            for _ in range(12):
                self.hand.act(chat)
                self.settle(chat)
                for node_id in chat.streaming_ids:
                    self.hand.stream(chat, node_id)
                self.hand.finish(chat)
                self.settle(chat)
                if self.hand.chance.random() < 0.2:
                    chat.undo()
                    self.settle(chat)
            self.whole_chats(library, chat)
            held, head, chat_id = picture(chat), chat.head_id, chat.chat.id
            del chat
        finally:
            library.close()
        self.compare(chat_id, held, head)

    def open(self) -> Library:
        """Open, a second time where the first try failed."""
        try:
            return Library.open(self.profile, vfs=self.disk.name)
        except KnownError as error:
            self.said.append(error)
            return Library.open(self.profile, vfs=self.disk.name)

    def whole_chats(self, library: Library, chat: Conversation) -> None:
        """What is done to whole chats."""
        if len(chat.tree) == 0:
            return  # its only step was taken back, so there is no such chat
        dump = self.ask(library.export_chat(chat.chat.id))
        if dump is not None:
            copy = self.ask(library.import_chat(dump))
            if copy is not None:
                self.ask(library.delete_chat(copy))
        self.ask(library.rename(chat.chat.id, "Another name"))
        self.ask(library.search("tree"))
        self.ask(library.set_ui_state(chat.chat.id, "scroll", 5))
        self.ask(library.empty_trash())
        self.settle(chat)

    def listen(self, chat: Conversation) -> None:
        """Hear every failed write."""
        chat.on_take_back = self.said.append
        chat.on_store_error = self.said.append

    def settle(self, chat: Conversation) -> None:
        """Wait until everything is written or taken back."""
        try:
            chat.saved().result(WAIT_S)
        except KnownError:
            pass  # heard by on_take_back
        chat.settle()

    def ask(self, future: Future[T]) -> T | None:
        """The answer, or None where the disk failed."""
        try:
            return future.result(WAIT_S)
        except KnownError as error:
            self.said.append(error)
            return None

    def compare(self, chat_id: int, held: dict[str, Any], head: int | None) -> None:
        """A healthy disk shows what memory held."""
        library = Library.open(self.profile)
        try:
            assert library.check().result(WAIT_S) == "ok"
            if held:
                chat = library.load(chat_id).result(WAIT_S)
                assert picture(chat) == held
                assert head in chat.tree
                chat.send("and it goes on")
                chat.saved().result(WAIT_S)
        finally:
            library.close()


def run(seed: int, every: int = 1, error: str = "full", only: Iterable[int] = ()) -> dict[str, Any]:
    """The whole proof; AssertionError where it fails.  Returns the figures."""
    with tempfile.TemporaryDirectory() as folder:
        disk = FaultyDisk()
        Work(Path(folder), seed, disk).run()
        calls = disk.calls
    codes: Counter[str] = Counter()
    silent: list[int] = []
    runs = 0
    for number in tuple(only) or range(1, calls + 1, every):
        with tempfile.TemporaryDirectory() as folder:
            disk = FaultyDisk(number, ERRORS[error])
            work = Work(Path(folder), seed, disk)
            try:
                work.run()
            except BaseException:
                sys.stderr.write(f"write call {number} of {calls}\n")
                raise
        runs += 1
        for said in work.said:
            assert said.sentence
            assert said.code in ("disk-full", "disk-error"), said.code
            codes[said.code] += 1
        if not work.said:
            silent.append(number)
    return {
        "seed": seed,
        "error": error,
        "write_calls": calls,
        "runs": runs,
        "sentences": dict(codes),
        # Checkpoints that fail lose nothing and are tried again: nobody needs to hear of those.
        "runs_without_a_sentence": len(silent),
        "silent_calls": silent[:20],
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="only each n-th write call")
    parser.add_argument("--error", choices=sorted(ERRORS), default="full")
    parser.add_argument("--only", type=int, nargs="*", default=())
    args = parser.parse_args()
    figures = run(args.seed, args.every, args.error, args.only)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
