"""The two stacks of a conversation, undo and redo, with only their tops in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from desktop_app.conversation.edits import Step, mentioned
from desktop_app.conversation.store import Entry, Side

PAGE = 64  # entries held and read at once

Read = Callable[[Side, int, int], Sequence[Entry]]


class History:
    """Entries on top of each other; deeper ones are read from disk when they come up."""

    def __init__(
        self,
        undo: Sequence[Entry],
        redo: Sequence[Entry],
        read: Read,
        *,
        next_seq: int,
        deeper: Collection[Side],
    ) -> None:
        """`undo` and `redo` hold the lowest entry first.

        `deeper` names the stacks of which the disk has more.
        """
        self._stacks = {Side.UNDO: list(undo), Side.REDO: list(redo)}
        self._deeper = {side: side in deeper for side in Side}
        # What lies below these was never in memory, so no write in flight can touch it.
        self._floors = {
            side: stack[0].seq if stack else next_seq for side, stack in self._stacks.items()
        }
        self._next_seq = next_seq
        self._read = read

    def top(self, side: Side) -> Entry | None:
        """The entry that would come next; reads the disk when memory holds none."""
        stack = self._stacks[side]
        if not stack and self._deeper[side]:
            found = self._read(side, self._floors[side], PAGE)
            self._deeper[side] = len(found) == PAGE
            stack.extend(reversed(found))
            if stack:
                self._floors[side] = stack[0].seq
        return stack[-1] if stack else None

    def push(self, side: Side, step: Step) -> Entry:
        """A new top."""
        if not self._stacks[side]:
            self.top(side)  # what is deeper must be below the new entry
        entry = Entry(self._next_seq, step)
        self._next_seq += 1
        self._stacks[side].append(entry)
        return entry

    def put_back(self, side: Side, entry: Entry) -> None:
        """An entry that was popped returns to its place."""
        self._stacks[side].append(entry)

    def pop(self, side: Side) -> Entry:
        """Take the top off; IndexError when there is none."""
        self.top(side)
        return self._stacks[side].pop()

    def clear_redo(self) -> tuple[list[Entry], bool]:
        """Forget what could be redone; the result is for `restore_redo`."""
        kept = (self._stacks[Side.REDO], self._deeper[Side.REDO])
        self._stacks[Side.REDO], self._deeper[Side.REDO] = [], False
        return kept

    def restore_redo(self, kept: tuple[list[Entry], bool]) -> None:
        """The clearing step was taken back."""
        self._stacks[Side.REDO], self._deeper[Side.REDO] = kept

    def forget(self, node_ids: set[int]) -> None:
        """Cut each stack above its highest entry that needs one of these messages."""
        for side, stack in self._stacks.items():
            for at in range(len(stack) - 1, -1, -1):
                if mentioned(stack[at].step.edits) & node_ids:
                    del stack[: at + 1]
                    self._deeper[side] = False
                    break
