"""Which sequence of the KV cache holds which tokens; what is resident, what is parked.

The one door to the memory of a `Context`: nobody else copies, cuts, saves or clears a sequence.  A
`Branch` is a sequence lent to one reply, together with the tokens that are surely in memory for
it.  Forking is a copy of references (`llama_memory_seq_cp`), no computation.

What is resident costs: each cell of another branch is looked at (and masked) in every step.  So the
cache holds what is written and read now, and what was used last; all else is parked
(`parking.Parking`): positions [p, q) are copied to the transfer sequence and saved from there, and
come back the same way.  Parking is done while nothing else is to do, or at the latest when the
place is wanted.

Weights whose state cannot be cut back (recurrent, hybrid) have checkpoints instead of blocks: the
whole state, saved one token before a prompt's end (the last token must be read for its logits) and
when a branch gives up its place.

For the engine child's main thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from desktop_app.inference.parking import BLOCK_TOKENS, Block, Parking

MAX_SEQUENCES: Final = 16
"""More would multiply the state of recurrent weights and the masks of the others."""


class Memory(Protocol):
    """What branches need of a context (tests have one that only keeps books)."""

    length: int
    sequences: int

    def copy(self, source: int, target: int, first: int, end: int) -> None: ...
    def remove(self, sequence: int, first: int = 0, end: int = -1) -> bool: ...
    def span(self, sequence: int) -> tuple[int, int]: ...
    def save(self, sequence: int) -> bytes: ...
    def restore(self, sequence: int, data: bytes) -> bool: ...


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
    parked: bool = True  # nothing of its tokens is in memory only
    floor: int = 0  # from here on, sliding-window layers too have every position
    private_from: int | None = None  # from here on, text that nobody sent: never parked


class Branches:
    """All branches of one context."""

    def __init__(
        self, memory: Memory, parking: Parking, *, can_roll_back: bool, window: int = 0
    ) -> None:
        """The context's last sequence is kept for transfers where blocks are used.

        `window`: how far sliding-window layers look back, 0 without such layers.  Even a full cache
        of these layers uses cells again that no later token of their branch can see, and a saved
        state holds of these layers only what the token behind it sees.  A branch that lacks such
        cells can go on, but neither be cut back nor saved before them.
        """
        self._memory, self._parking, self._window = memory, parking, window
        self._can_roll_back = can_roll_back
        count = memory.sequences
        self._transfer = count - 1
        lent = max(1, count - 1) if can_roll_back else count
        self._branches = [Branch(sequence) for sequence in range(lent)]
        self._clock = 0

    @property
    def count(self) -> int:
        """How many replies can be written at once."""
        return len(self._branches)

    # --- lending -------------------------------------------------------------------------------

    def take(
        self, tokens: Sequence[int], chat: str, *, private_from: int | None = None
    ) -> Branch | None:
        """Lend a branch for the prompt `tokens`; None when all are lent.

        `branch.tokens` is the part of the prompt that need not be read: the longest beginning that
        is resident or parked, but never all of it, because the last token's logits are wanted.
        From `private_from` on the tokens are text that nobody sent yet: never parked, neither in
        memory nor on disk, and gone with `drop_private` or when the place is wanted.
        """
        wanted = list(tokens)
        if self._can_roll_back:
            branch = self._take_blocks(wanted, chat)
        else:
            branch = self._take_whole(wanted, chat, keep=private_from is not None)
        if branch is not None:
            branch.private_from = private_from
        return branch

    def drop_private(self) -> None:
        """Remove text that nobody sent from memory."""
        for branch in self._branches:
            if branch.busy or branch.private_from is None:
                continue
            if self._can_roll_back and self._can_go_on(branch, branch.private_from):
                if len(branch.tokens) > branch.private_from:
                    self._cut(branch, branch.private_from)
                branch.private_from = None
            else:
                self._vacate(branch)

    def _take_blocks(self, wanted: list[int], chat: str) -> Branch | None:
        most = len(wanted) - 1
        best, kept = None, 0
        for branch in self._branches:
            shared = min(most, shared_length(branch.tokens, wanted))
            if not self._can_go_on(branch, shared):
                continue
            if shared > kept or (shared == kept > 0 and best is not None and best.busy):
                best, kept = branch, shared
        if best is not None and not best.busy:
            chosen = best
            if len(chosen.tokens) > kept:
                self._park(chosen)
                self._cut(chosen, kept)
        else:
            spare = self._spare()
            if spare is None:
                return None
            chosen = spare
            self._vacate(chosen)
            if best is not None:
                self._memory.copy(best.sequence, chosen.sequence, 0, kept)
                chosen.tokens, chosen.floor = wanted[:kept], best.floor
        self._lend(chosen, chat)
        self._vacate_idle()
        self._fetch(chosen, wanted[:most])
        return chosen

    def _take_whole(self, wanted: list[int], chat: str, *, keep: bool) -> Branch | None:
        """`keep`: what the branch holds now is wanted again, without what comes behind it."""
        most = len(wanted) - 1
        best = None
        for branch in self._branches:
            size = len(branch.tokens)
            longer = best is None or size > len(best.tokens)
            if 0 < size <= most and longer and branch.tokens == wanted[:size]:
                best = branch
        saved = self._parking.checkpoint(wanted[:most])
        if saved is not None and best is not None and len(saved.tokens) <= len(best.tokens):
            saved = None
        if best is not None and saved is None and not best.busy:
            if keep and not best.parked:
                self._park(best)
            self._lend(best, chat)
            return best
        spare = self._spare()
        if spare is None:
            return None
        self._vacate(spare)
        self._lend(spare, chat)
        if saved is not None and self._load_whole(spare, saved):
            self._parking.note(saved, chat, len(saved.tokens))
        elif best is not None:
            self._memory.copy(best.sequence, spare.sequence, 0, -1)
            spare.tokens = list(best.tokens)
        return spare

    def _load_whole(self, branch: Branch, saved: Block) -> bool:
        """Load a checkpoint into an empty branch; False, and it stays empty, if it is bad."""
        data = self._parking.data(saved)
        if data is None:
            return False
        done = self._memory.restore(branch.sequence, data)
        if not done or self._memory.span(branch.sequence)[1] != len(saved.tokens) - 1:
            self._memory.remove(branch.sequence)
            return False
        branch.tokens = list(saved.tokens)
        return True

    def known(self, tokens: Sequence[int]) -> int:
        """How many tokens of a prompt `take` would find, resident or parked; nothing changes."""
        wanted = list(tokens)
        most = len(wanted) - 1
        found = 0
        for branch in self._branches:
            shared = min(most, shared_length(branch.tokens, wanted))
            cut = self._can_roll_back and self._can_go_on(branch, shared)
            if cut or shared == len(branch.tokens):
                found = max(found, shared)
        if not self._can_roll_back:
            saved = self._parking.checkpoint(wanted[:most])
            return max(found, len(saved.tokens) if saved is not None else 0)
        return max(found, sum(used for _block, used in self._parked(wanted[:most])))

    def fork(self, branch: Branch, chat: str) -> Branch | None:
        """Lend another branch with the same tokens; None when all are lent."""
        spare = self._spare()
        if spare is None:
            return None
        self._vacate(spare)
        self._memory.copy(branch.sequence, spare.sequence, 0, -1)
        spare.tokens, spare.floor = list(branch.tokens), branch.floor
        self._lend(spare, chat)
        return spare

    def give_back(self, branch: Branch) -> None:
        """The reply is over; its tokens stay resident until the place is wanted."""
        branch.busy, branch.parked = False, False

    def drop(self, branch: Branch) -> None:
        """Something went wrong with it: nothing of it may be used again."""
        self._clear(branch)
        branch.busy = False

    def rewind(self, branch: Branch) -> None:
        """Remove from memory what an aborted step may have left behind the branch's tokens."""
        last = self._memory.span(branch.sequence)[1]
        if last + 1 > len(branch.tokens):
            if not self._memory.remove(branch.sequence, len(branch.tokens), -1):
                self._clear(branch)
        elif last + 1 < len(branch.tokens):
            self._clear(branch)

    def read_limit(self, branch: Branch, total: int) -> int:
        """How far a prompt of `total` tokens may be read in one step."""
        if not self._can_roll_back and len(branch.tokens) < total - 1:
            return total - 1
        return total

    def has_read(self, branch: Branch, total: int) -> None:
        """A part of a prompt of `total` tokens is in memory: the moment for a checkpoint."""
        if not self._can_roll_back and len(branch.tokens) == total - 1:
            self._park(branch)

    def make_room(self) -> bool:
        """Park the branch that was not used for longest; False when all are lent or empty."""
        idle = [branch for branch in self._branches if branch.tokens and not branch.busy]
        if not idle:
            return False
        self._vacate(min(idle, key=lambda branch: branch.used))
        return True

    def forget(self, chats: Sequence[str]) -> None:
        """Erase what is kept for these conversations."""
        for branch in self._branches:
            if branch.chat in chats:
                if branch.busy:
                    branch.chat = ""  # what is still written belongs to nobody: never on disk
                else:
                    self._clear(branch)
        self._parking.forget(chats)

    def idle_work(self) -> bool:
        """Park or write down one block; False when there is nothing to do.  Some milliseconds."""
        for branch in self._branches:
            if not branch.busy and not branch.parked:
                self._park(branch, limit=1)
                return True
        return self._parking.write_one()

    # --- parking -------------------------------------------------------------------------------

    def _park(self, branch: Branch, *, limit: int = 0) -> None:
        """Keep what is in memory only; at most `limit` blocks of it (0: all)."""
        tokens = branch.tokens[: branch.private_from]
        if not tokens or (not self._can_roll_back and len(tokens) < len(branch.tokens)):
            branch.parked = True
            return
        if not self._can_roll_back:
            data = self._memory.save(branch.sequence)
            self._parking.add_checkpoint(branch.tokens, data, branch.chat)
            branch.parked = True
            return
        found = self._parking.match(tokens)
        node: Block | None = None
        offset = done = 0
        if found:
            node, offset = found[-1]
            done = node.start + offset
            self._parking.note(node, branch.chat, offset)
        saved = 0
        while done < len(tokens):
            if limit and saved == limit:
                return
            grows = node is not None and offset == len(node.tokens) and self._parking.can_grow(node)
            start = node.start if node is not None and grows else done
            end = min(start + BLOCK_TOKENS, len(tokens))
            if not self._has_window(branch, start, end):
                break  # cells of its windows are gone: the rest would be saved with holes
            data = self._save(branch, start, end)
            piece = tokens[start:end]
            if node is not None and grows:
                node = self._parking.grow(node, piece, data, branch.chat)
            else:
                node = self._parking.add(node, offset, piece, data, branch.chat)
            offset, done, saved = end - start, end, saved + 1
        branch.parked = True

    def _can_go_on(self, branch: Branch, size: int) -> bool:
        """Whether all that the token behind the first `size` ones looks at is still in memory."""
        return not size or self._has_window(branch, 0, size)

    def _has_window(self, branch: Branch, start: int, end: int) -> bool:
        """Whether of positions [start, end) all that the token behind them sees is in memory."""
        if not self._window:
            return True
        low = max(branch.floor, self._memory.span(branch.sequence)[0])
        return low <= max(start, end - self._window)

    def _parked(self, wanted: list[int]) -> list[tuple[Block, int]]:
        """What can be brought back of `wanted`: to where sliding windows have all they look at."""
        found = self._parking.match(wanted)
        if not self._window:
            return found
        floor = complete = 0
        for place, (block, used) in enumerate(found, 1):
            floor = self._floor_after(floor, block, used, block.end - self._window)
            if floor <= max(0, block.start + used - self._window):
                complete = place
        return found[:complete]

    @staticmethod
    def _floor_after(floor: int, block: Block, used: int, low: int) -> int:
        """The floor behind the first `used` tokens of a block whose windows begin at `low`."""
        if low <= block.start:
            return floor
        return low if used == len(block.tokens) else block.start + used

    def _save(self, branch: Branch, start: int, end: int) -> bytes:
        self._memory.copy(branch.sequence, self._transfer, start, end)
        data = self._memory.save(self._transfer)
        self._memory.remove(self._transfer)
        return data

    def _fetch(self, branch: Branch, wanted: list[int]) -> None:
        """Bring back what is parked of `wanted` behind the branch's tokens.

        A block can turn out to be damaged after others came back.  Then the branch ends where its
        sliding windows are complete, which may be before the last block that came.
        """
        size, floor = len(branch.tokens), branch.floor
        for block, used in self._parked(wanted):
            if block.start + used <= len(branch.tokens):
                continue
            if not self._bring_back(branch, block, used):
                break
            branch.tokens += wanted[len(branch.tokens) : block.start + used]
            if self._can_go_on(branch, len(branch.tokens)):
                size, floor = len(branch.tokens), branch.floor
        if size < len(branch.tokens):
            self._cut(branch, size)
            branch.floor = floor if size else 0

    def _bring_back(self, branch: Branch, block: Block, used: int) -> bool:
        """Load the first `used` tokens of a block behind a branch's tokens; False if it is bad."""
        start, end = len(branch.tokens), block.start + used
        data = self._parking.data(block)
        if data is None or not self._memory.restore(self._transfer, data):
            self._memory.remove(self._transfer)
            return False
        low, last = self._memory.span(self._transfer)
        least = block.end - self._window if self._window else block.start
        if last != block.end - 1 or low > max(block.start, least):
            self._memory.remove(self._transfer)  # not what its name says: read it anew
            return False
        if low > start:
            branch.floor = self._floor_after(branch.floor, block, used, low)
        self._memory.copy(self._transfer, branch.sequence, start, end)
        self._memory.remove(self._transfer)
        return True

    # --- places --------------------------------------------------------------------------------

    def _vacate_idle(self) -> None:
        for branch in self._branches:
            if branch.tokens and not branch.busy:
                self._vacate(branch)

    def _vacate(self, branch: Branch) -> None:
        if branch.tokens and not branch.parked:
            self._park(branch)
        self._clear(branch)

    def _spare(self) -> Branch | None:
        idle = [branch for branch in self._branches if not branch.busy]
        return min(idle, key=lambda branch: (bool(branch.tokens), branch.used), default=None)

    def _lend(self, branch: Branch, chat: str) -> None:
        self._clock += 1
        branch.busy, branch.used, branch.chat, branch.parked = True, self._clock, chat, False

    def _cut(self, branch: Branch, size: int) -> None:
        if size == 0 or not self._memory.remove(branch.sequence, size, -1):
            self._clear(branch)
        del branch.tokens[size:]

    def _clear(self, branch: Branch) -> None:
        if branch.tokens or self._memory.span(branch.sequence)[1] >= 0:
            self._memory.remove(branch.sequence)
        branch.tokens, branch.chat, branch.parked, branch.floor = [], "", True, 0
        branch.private_from = None
