"""Random edits over several chats, reopened at random moments, undone to empty, redone to the end.

    python -m tests.system.edits --seed 1 --n 5000

Three things are compared: the tree in memory against what a reopened library reads, each state met
again while undoing against the one that stood there after the same step, and the exports after
redoing everything against those before undoing it.  Prints one JSON line; exits 1 on a difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from desktop_app.conversation import Conversation
from desktop_app.paths import Profile
from desktop_app.storage import Library
from tests.fakes.hand import Hand, picture
from tests.fakes.profiles import WAIT_S


class Run:
    """One seeded run."""

    def __init__(self, root: Path, seed: int, chats: int, reopen: float) -> None:
        self.profile = Profile(root)
        self.hand = Hand(seed)
        self.reopen_chance = reopen
        self.reopened = 0
        self.compared = 0
        self.library = Library.open(self.profile)
        self.chats: list[Conversation] = []
        for n in range(chats):
            self.chats.append(self.library.new_chat(f"Chat {n}").result(WAIT_S))
        # By chat: the picture after each step of its undo stack, None where it was not taken.
        self.seen: list[list[dict[str, Any] | None]] = [[{}] for _ in self.chats]
        self.depth = [0] * chats

    def maybe_reopen(self) -> None:
        """Sometimes close everything and read it from disk again."""
        if self.hand.chance.random() < self.reopen_chance:
            self.reopen()

    def reopen(self) -> None:
        """What is read from disk must be what memory held."""
        ids = [chat.chat.id for chat in self.chats if len(chat.tree) or chat.can_undo]
        for chat in self.chats:
            self.hand.finish(chat)
            chat.saved().result(WAIT_S)
        before = [picture(chat) for chat in self.chats]
        heads = [chat.head_id for chat in self.chats]
        numbers = [chat.chat.id for chat in self.chats]
        self.chats.clear()
        self.library.close()
        self.library = Library.open(self.profile)
        self.reopened += 1
        for number, (chat_id, old) in enumerate(zip(numbers, before, strict=True)):
            if chat_id not in ids and not self._written(chat_id):
                self.chats.append(self.library.new_chat(f"Chat {number}").result(WAIT_S))
                continue
            chat = self.library.load(chat_id).result(WAIT_S)
            self.chats.append(chat)
            check(picture(chat) == old, f"chat {number} differs after reopening")
            check(chat.head_id == heads[number], f"head of chat {number} after reopening")

    def _written(self, chat_id: int) -> bool:
        return any(info.id == chat_id for info in self.library.chats().result(WAIT_S))

    def edit(self) -> None:
        """One act in one chat."""
        number = self.hand.chance.randrange(len(self.chats))
        chat = self.chats[number]
        kind = self.hand.chance.random()
        if kind < 0.08:
            self.hand.navigate(chat)
        elif kind < 0.16:
            self._wander(number)
        self._step(number)

    def _step(self, number: int) -> None:
        chat, seen = self.chats[number], self.seen[number]
        self.hand.finish(chat)
        depth = self.depth[number]
        seen[depth] = picture(chat)
        del seen[depth + 1 :]
        # A mark set to what it was is no step, and leaves the stacks alone.
        before = chat._ledger.history._next_seq
        self.hand.act(chat)
        done = chat._ledger.history._next_seq - before
        self.depth[number] += done
        seen.extend([None] * done)
        if self.hand.chance.random() < 0.5:
            self.hand.finish(chat)

    def _wander(self, number: int) -> None:
        """Some steps back, some of them forth again."""
        chat = self.chats[number]
        for _ in range(self.hand.chance.randint(1, 4)):
            self._undo(number)
        for _ in range(self.hand.chance.randint(0, 3)):
            if chat.redo() is not None:
                self.depth[number] += 1

    def _undo(self, number: int) -> bool:
        chat, seen = self.chats[number], self.seen[number]
        if chat.undo() is None:
            return False
        self.depth[number] -= 1
        expected = seen[self.depth[number]]
        if expected is not None:
            self.compared += 1
            check(picture(chat) == expected, f"chat {number} at depth {self.depth[number]}")
        return True

    def exports(self) -> list[dict[str, Any]]:
        """What each chat exports, without the time of the last change."""
        out = []
        for chat in self.chats:
            self.hand.finish(chat)
            chat.saved().result(WAIT_S)
            found = self.library.export_chat(chat.chat.id).result(WAIT_S)
            del found["chat"]["updated_at"]
            out.append(found)
        return out

    def there_and_back(self) -> int:
        """Undo everything, redo everything; returns how many steps that were."""
        for number in range(len(self.chats)):
            self._step(number)  # so that every chat has a row
        end = self.exports()
        steps = 0
        going = list(range(len(self.chats)))
        while going:
            number = self.hand.chance.choice(going)
            if self._undo(number):
                steps += 1
            else:
                going.remove(number)
            self.maybe_reopen()
        for found in self.exports():
            check(found["messages"] == [], "a chat is not empty after undoing everything")
        going = list(range(len(self.chats)))
        redone = 0
        while going:
            number = self.hand.chance.choice(going)
            if self.chats[number].redo() is not None:
                self.depth[number] += 1
                redone += 1
            else:
                going.remove(number)
            self.maybe_reopen()
        check(redone == steps, f"{steps} steps undone, {redone} redone")
        check(self.exports() == end, "the exports differ after redoing everything")
        self.reopen()
        check(self.exports() == end, "the exports differ after reopening")
        return steps


def check(fine: bool, what: str) -> None:
    """Stop at the first difference."""
    if not fine:
        raise SystemExit(f"DIFFERENT: {what}")


def run(root: Path, seed: int, n: int, chats: int = 5, reopen: float = 0.01) -> dict[str, Any]:
    """The whole proof; SystemExit at a difference.  Returns the figures."""
    start = time.perf_counter()
    one = Run(root, seed, chats, reopen)
    try:
        for _ in range(n):
            one.edit()
            one.maybe_reopen()
        messages = sum(len(chat.tree) for chat in one.chats)
        steps = one.there_and_back()
        quick_check = one.library.check().result(WAIT_S)
    finally:
        one.library.close()
    check(quick_check == "ok", quick_check)
    return {
        "seed": seed,
        "edits": n,
        "chats": chats,
        "messages_at_the_end": messages,
        "steps_undone_and_redone": steps,
        "states_compared_while_undoing": one.compared,
        "reopened": one.reopened,
        "equal_exports": True,
        "quick_check": quick_check,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--chats", type=int, default=5)
    parser.add_argument("--reopen", type=float, default=0.005, help="chance after each edit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), args.seed, args.n, args.chats, args.reopen)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
