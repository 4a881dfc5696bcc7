"""Simulated power cuts: a disk that loses unsynced writes goes off at a random moment.

    python -m tests.system.power_cuts --seed 1 --n 300

Afterwards the library opens, passes quick_check, and holds every step that was acknowledged: the
state after one of the acts not older than the last acknowledged one, and nothing between two acts.
Text of a growing reply that was shown more than half a second before must be there too.  The next
step works.  Prints one JSON line; AssertionError at a failure.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from desktop_app.conversation import Conversation
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import Library
from tests.fakes.faulty_vfs import PowerCutDisk
from tests.fakes.hand import Hand, picture
from tests.fakes.profiles import WAIT_S

SHOWN_S = 0.5
_ACTS = 14


class Trial:
    """One library, one cut."""

    def __init__(self, root: Path, seed: int, cut_at: int, stream_s: float) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.hand = Hand(seed)
        self.stream_s = stream_s
        self.disk = PowerCutDisk(cut_at, self._power_gone)
        self.states: list[dict[str, Any]] = []
        self.acknowledged = -1
        self.acknowledged_at_cut = -1
        self.cut_time = 0.0
        self.shown: list[tuple[float, str, str]] = []
        self.chat_id = 0

    def _power_gone(self) -> None:
        self.acknowledged_at_cut = self.acknowledged
        self.cut_time = time.monotonic()

    def run(self) -> None:
        """Work until the power goes."""
        profile = Profile(self.root / "before")
        try:
            library = Library.open(profile, vfs=self.disk.name)
        except KnownError:
            assert self.disk.off
            return
        try:
            chat = library.new_chat("Cut").result(WAIT_S)
            self.chat_id = chat.chat.id
            self._work(chat)
            if not self.disk.off:
                self.disk.cut()
            del chat
        finally:
            library.close()

    def _work(self, chat: Conversation) -> None:
        self.states.append(picture(chat))
        # Each write is one state: the end of a reply that a step stops is one of its own.
        chat.on_stop_streams = lambda _: self.hand.finish(chat, lambda: self._note(chat))
        for _ in range(_ACTS):
            if self.disk.off:
                return
            self.hand.act(chat)
            self._note(chat)
            if self.chance.random() < 0.15:
                chat.undo()
                self._note(chat)
            if self.chance.random() < 0.7:
                self.hand.finish(chat, lambda: self._note(chat))
        if self.stream_s and not self.disk.off:
            self._stream(chat)

    def _note(self, chat: Conversation) -> None:
        """Remember this state, and when it is acknowledged."""
        number = len(self.states)
        self.states.append(picture(chat))
        future = chat.saved()

        def over(done: Future[None]) -> None:
            if done.exception() is None:
                self.acknowledged = max(self.acknowledged, number)

        future.add_done_callback(over)
        if self.chance.random() < 0.5:
            try:
                future.result(WAIT_S)
            except KnownError:
                assert self.disk.off

    def _stream(self, chat: Conversation) -> None:
        """A reply grows word by word until the power goes."""
        _, reply = chat.send("Tell me more.")
        self._note(chat)
        uid, text = chat.tree.node(reply).uid, ""
        end = time.monotonic() + self.stream_s
        while time.monotonic() < end and not self.disk.off:
            text += f"word{len(self.shown)} "
            if reply not in chat.tree:
                return
            chat.stream_text(reply, self._parts(text))
            self.shown.append((time.monotonic(), uid, text))
            time.sleep(0.01)  # a reply comes at its own pace

    @staticmethod
    def _parts(text: str) -> Any:
        from desktop_app.conversation import text_parts

        return text_parts(text)

    def verify(self) -> bool:
        """What a restart finds; returns whether any acknowledged step was at stake."""
        after = Profile(self.root / "after")
        after.create()
        self.disk.save(after.root, self.chance)
        library = Library.open(after)
        try:
            assert library.check().result(WAIT_S) == "ok"
            ids = [info.id for info in library.chats().result(WAIT_S)]
            at_stake = self.acknowledged_at_cut >= 0
            if self.chat_id not in ids:
                reachable = self.states[max(0, self.acknowledged_at_cut) :] or [{}]
                assert {} in reachable, "an acknowledged chat is gone"
                assert not at_stake or self.states[self.acknowledged_at_cut] == {}
                return at_stake
            chat = library.load(self.chat_id).result(WAIT_S)
            found = _without_words_of_streams(picture(chat), self.states)
            possible = self.states[max(0, self.acknowledged_at_cut) :]
            assert any(_without_words_of_streams(state, [found]) == found for state in possible), (
                "the state is none of those since the last acknowledged step"
            )
            self._verify_text(chat)
            chat.send("It goes on.")
            chat.saved().result(WAIT_S)
        finally:
            library.close()
        return at_stake

    def _verify_text(self, chat: Conversation) -> None:
        old = [shown for shown in self.shown if shown[0] < self.cut_time - SHOWN_S]
        if not old:
            return
        _, uid, text = old[-1]
        kept = {chat.tree.node(i).uid: chat.tree.text(i) for i in chat.tree.ids()}
        assert kept.get(uid, "").startswith(text), "text shown for half a second is lost"


def _without_words_of_streams(
    state: dict[str, Any], others: list[dict[str, Any]]
) -> dict[str, Any]:
    """A reply in writing may be on disk with any of its words: leave them out on both sides."""
    open_ids = {
        uid for other in (state, *others) for uid, row in other.items() if row[2] == "interrupted"
    }
    return {
        uid: (*row[:3], "", *row[4:]) if uid in open_ids and row[2] == "interrupted" else row
        for uid, row in state.items()
    }


def run(seed: int, n: int) -> dict[str, Any]:
    """The whole proof.  Returns the figures."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        probe = Trial(Path(folder), seed, 0, 0)
        probe.run()
        calls = probe.disk.calls
    at_stake = streams = in_work = 0
    for number in range(n):
        stream_s = chance.uniform(0.7, 1.1) if number % 5 == 0 else 0.0
        # A tenth goes to the first moments of a library, when its tables are made.
        latest = 60 if number % 10 == 1 else calls
        cut_at = 0 if stream_s else chance.randint(1, latest)
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(Path(folder), seed * 100_003 + number, cut_at, stream_s)
            try:
                trial.run()
                at_stake += trial.verify()
            except BaseException:
                sys.stderr.write(f"trial {number}, cut at call {cut_at}\n")
                raise
        streams += bool(trial.shown)
        in_work += bool(cut_at)
    return {
        "seed": seed,
        "power_cuts": n,
        "in_the_middle_of_a_write_call": in_work,
        "while_a_reply_grew": streams,
        "with_acknowledged_steps_at_stake": at_stake,
        "write_calls_of_the_work": calls,
        "lost": 0,
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n", type=int, default=300)
    args = parser.parse_args()
    sys.stdout.write(json.dumps(run(args.seed, args.n)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
