"""Which sequence of the KV cache holds which tokens.

The one door to the memory of a `llama.Context`: nobody else copies, cuts or clears a sequence.
A `Branch` is a sequence lent to one reply, together with the tokens that are surely in memory for
it.  What a branch no longer needs stays resident until its place is wanted, so the next prompt
finds its beginning there: forking is a copy of references (`llama_memory_seq_cp`), no computation.

For the engine child's main thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from desktop_app.inference.context import Context

MAX_SEQUENCES = 16
"""More would multiply the state of recurrent weights and the masks of the others."""


class Memory(Protocol):
    """What branches need of a context (tests have one that only keeps books)."""

    length: int
    sequences: int

    def copy(self, source: int, target: int, first: int, end: int) -> None: ...
    def remove(self, sequence: int, first: int = 0, end: int = -1) -> bool: ...
    def span(self, sequence: int) -> tuple[int, int]: ...


def shared_length(left: list[int], right: list[int]) -> int:
    """The length of the longest common prefix."""
    size = min(len(left), len(right))
    if left[:size] == right[:size]:
        return size
    low, high = 0, size  # left[:low] is shared, left[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


@dataclass(eq=False, slots=True)
class Branch:
    """A sequence and the tokens that are in memory for it, from position 0 on."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    chat: str = ""
    busy: bool = False
    used: int = 0


class Branches:
    """All branches of one context."""

    def __init__(self, memory: Memory | Context, *, can_roll_back: bool) -> None:
        self._memory = memory
        self._can_roll_back = can_roll_back
        self._branches = [Branch(sequence) for sequence in range(memory.sequences)]
        self._clock = 0

    def take(self, tokens: Sequence[int], chat: str) -> Branch | None:
        """Lend a branch for the prompt `tokens`; None when all are lent.

        `branch.tokens` is the part of the prompt that need not be read: the longest beginning that
        any branch has, but never all of it, because the last token's logits are wanted.
        """
        tokens = list(tokens)
        most = len(tokens) - 1
        best, kept = None, 0
        for branch in self._branches:
            shared = shared_length(branch.tokens, tokens)
            if not self._can_roll_back and shared < len(branch.tokens):
                shared = 0  # its state stands behind its last token and cannot go back
            if shared > most:
                shared = most if self._can_roll_back else 0
            if shared > kept or (shared == kept and shared and best is not None and best.busy):
                best, kept = branch, shared
        if best is not None and not best.busy and self._extends(best, kept):
            chosen = best
        else:
            spare = self._spare(but=best)
            if spare is None and best is not None and not best.busy:
                spare = best
            if spare is None:
                return None
            chosen = spare
            if best is not None and best is not chosen:
                self._clear(chosen)
                self._memory.copy(best.sequence, chosen.sequence, 0, kept)
                chosen.tokens = tokens[:kept]
        self._cut(chosen, kept)
        self._lend(chosen, chat)
        return chosen

    def fork(self, branch: Branch, chat: str) -> Branch | None:
        """Lend another branch with the same tokens; None when all are lent."""
        spare = self._spare(but=branch)
        if spare is None:
            return None
        self._clear(spare)
        self._memory.copy(branch.sequence, spare.sequence, 0, -1)
        spare.tokens = list(branch.tokens)
        self._lend(spare, chat)
        return spare

    def give_back(self, branch: Branch) -> None:
        """The reply is over; its tokens stay resident until the place is wanted."""
        branch.busy = False

    def rewind(self, branch: Branch) -> None:
        """Remove from memory what an aborted step may have left behind the branch's tokens."""
        last = self._memory.span(branch.sequence)[1]
        if last + 1 > len(branch.tokens):
            self._cut(branch, len(branch.tokens), force=True)
        elif last + 1 < len(branch.tokens):
            self._clear(branch)

    def make_room(self) -> bool:
        """Give up the branch that was not used for longest; False when all are lent or empty."""
        idle = [branch for branch in self._branches if branch.tokens and not branch.busy]
        if not idle:
            return False
        self._clear(min(idle, key=lambda branch: branch.used))
        return True

    def forget(self, chats: Sequence[str]) -> None:
        """Erase what is kept for these conversations and not in use."""
        for branch in self._branches:
            if branch.chat in chats and not branch.busy:
                self._clear(branch)

    def _extends(self, branch: Branch, kept: int) -> bool:
        """Whether taking this branch itself loses nothing worth keeping: only a short tail."""
        return len(branch.tokens) - kept <= 1 or self._spare(but=branch) is None

    def _spare(self, *, but: Branch | None) -> Branch | None:
        idle = [branch for branch in self._branches if not branch.busy and branch is not but]
        return min(idle, key=lambda branch: (bool(branch.tokens), branch.used), default=None)

    def _lend(self, branch: Branch, chat: str) -> None:
        self._clock += 1
        branch.busy, branch.used, branch.chat = True, self._clock, chat

    def _cut(self, branch: Branch, size: int, *, force: bool = False) -> None:
        if len(branch.tokens) <= size and not force:
            return
        if size == 0 or not self._memory.remove(branch.sequence, size, -1):
            self._clear(branch)
        del branch.tokens[size:]

    def _clear(self, branch: Branch) -> None:
        self._memory.remove(branch.sequence)
        branch.tokens, branch.chat = [], ""
