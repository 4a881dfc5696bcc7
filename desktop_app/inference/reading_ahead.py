"""Reads what is being typed before it is sent, while nobody else needs the engine.

One text at a time, on a branch of its own, in short steps.  What is read beyond the conversation is
text that nobody sent: its branch knows where that begins (`Branch.private_from`), and from there on
nothing is parked, in memory or on disk.  It goes with the next request, or when it is dropped.

For the engine child's main thread, except `interrupt`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from desktop_app.errors import KnownError
from desktop_app.inference.branches import Branch, Branches
from desktop_app.inference.context import Batch, Context
from desktop_app.inference.pacing import Pace
from desktop_app.inference.protocol import HasRead


@dataclass(frozen=True, slots=True)
class AheadPlan:
    """What may be read: the beginning of a prompt up to the end of the typed words.

    The first `private_from` tokens belong to the conversation, the rest is not sent yet.
    """

    job: int
    tokens: tuple[int, ...]
    private_from: int
    chat: str


class ReadingAhead:
    """The text that is being read ahead, if any."""

    def __init__(
        self,
        context: Context,
        branches: Branches,
        batch: Batch,
        pace: Pace,
        tell: Callable[[int, HasRead], None],
    ) -> None:
        self._context, self._branches, self._batch = context, branches, batch
        self._pace, self._tell = pace, tell
        self._plan: AheadPlan | None = None
        self._branch: Branch | None = None
        self._kept = 0
        self._lock = threading.Lock()  # guards what is being computed, for `interrupt`
        self._computing: tuple[int, ...] | None = None

    @property
    def active(self) -> bool:
        """Whether there is something left to read."""
        return self._plan is not None

    def begin(self, plan: AheadPlan) -> None:
        """Read this instead of what was read before."""
        self.give_way()
        # The last token may stay as well: a token that does not exist stands behind it, because
        # `take` leaves the last one to be read for its logits.
        branch = self._branches.take(
            (*plan.tokens, -1), plan.chat, private_from=min(plan.private_from, len(plan.tokens))
        )
        if branch is None:
            self._tell(plan.job, HasRead(len(plan.tokens), 0, 0))
            return
        self._plan, self._branch, self._kept = plan, branch, len(branch.tokens)
        self._end_if_done()

    def give_way(self) -> None:
        """Somebody else needs the engine.  What is read stays until its place is wanted."""
        plan, branch = self._plan, self._branch
        self._plan = self._branch = None
        if plan is None or branch is None:
            return
        read = max(0, len(branch.tokens) - self._kept)
        self._branches.give_back(branch)
        self._tell(plan.job, HasRead(len(plan.tokens), self._kept, read))

    def drop(self) -> None:
        """The text was erased: nothing of it stays in memory."""
        self.give_way()
        self._branches.drop_private()

    def step(self) -> None:
        """Read the next piece."""
        plan, branch = self._plan, self._branch
        assert plan is not None
        assert branch is not None
        done = len(branch.tokens)
        left = len(plan.tokens) - done
        size = self._pace.piece(left, self._pace.tokens(0), self._batch.capacity)
        piece = plan.tokens[done : done + size]
        self._batch.clear()
        self._batch.add(piece, done, branch.sequence, output=True)
        with self._lock:
            self._computing = plan.tokens[: done + len(piece)]
        started = time.perf_counter()
        try:
            outcome = self._context.decode(self._batch)
        except KnownError:
            outcome = "no_room"  # nobody waits for this: it is told when the text is sent
        finally:
            with self._lock:
                self._computing = None
                self._context.abort(on=False)
        if outcome == "done":
            self._pace.took(len(piece), time.perf_counter() - started)
            branch.tokens.extend(piece)
            self._end_if_done()
            return
        self._branches.rewind(branch)
        if outcome == "aborted" or not self._branches.make_room():
            self.give_way()

    def interrupt(self, unless: Sequence[int] = ()) -> None:
        """End the running step at once, except where it reads what `unless` begins with anyway.

        Any thread.
        """
        with self._lock:
            computing = self._computing
            if computing is not None and tuple(unless[: len(computing)]) != computing:
                self._context.abort(on=True)

    def _end_if_done(self) -> None:
        plan, branch = self._plan, self._branch
        if plan is not None and branch is not None and len(branch.tokens) >= len(plan.tokens):
            self.give_way()
