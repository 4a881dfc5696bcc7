"""Steps on their way to disk: applied to the tree at once, taken back when the write fails.

Main thread only, but for `tell_main` and `note_write`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from desktop_app.conversation.edits import Edit, Step, apply_all, mentioned
from desktop_app.conversation.history import History
from desktop_app.conversation.node import ChatInfo, Parts
from desktop_app.conversation.store import Commit, Entry, Side, Store, done
from desktop_app.conversation.tree import ChatChanged, PartsLoaded, Tree
from desktop_app.errors import KnownError


@dataclass(slots=True)
class _Pending:
    """A step that is not on disk yet, with what it takes to take it back."""

    future: Future[None]
    pushed: tuple[Side, Entry]
    popped: tuple[Side, Entry] | None
    cleared: tuple[list[Entry], bool] | None


class Owner(Protocol):
    """Who hears of failed writes; see `Conversation`."""

    on_take_back: Callable[[KnownError], None] | None
    on_store_error: Callable[[KnownError], None] | None


class Ledger:
    """One chat's tree, history and writes."""

    def __init__(
        self,
        chat: ChatInfo,
        tree: Tree,
        store: Store,
        owner: Owner,
        *,
        undo: Sequence[Entry],
        redo: Sequence[Entry],
        next_seq: int,
        deeper: Collection[Side],
    ) -> None:
        """Parameters as for `History` and `Conversation`."""
        self.tree = tree
        self.store = store
        self.history = History(undo, redo, self._read_entries, next_seq=next_seq, deeper=deeper)
        self.last_write: Future[None] = done(None)
        self._chat = chat
        self._owner = owner
        self._pending: deque[_Pending] = deque()
        self._inbox: deque[Callable[[], object]] = deque()
        self._epoch = 0
        tree.fetch = self._fetch

    @property
    def chat(self) -> ChatInfo:
        """The chat's own facts, with the head of now."""
        if self._chat.head_id != self.tree.head_id:
            self._chat = replace(self._chat, head_id=self.tree.head_id)
        return self._chat

    def set_chat(self, chat: ChatInfo) -> None:
        """Other facts of the chat; the watchers hear `ChatChanged`."""
        self.tree.tell_before(ChatChanged())
        self._chat = replace(chat, head_id=self.tree.head_id)
        self.tree.tell_after(ChatChanged())

    def do(self, name: str, edits: Iterable[Edit], at_ms: int) -> None:
        """Apply a new step; what could be redone is forgotten."""
        step = Step(name, tuple(edits), at_ms)
        inverses = apply_all(self.tree, step.edits)
        cleared = self.history.clear_redo()
        pushed = (Side.UNDO, self.history.push(Side.UNDO, Step(name, inverses, at_ms)))
        future = self._commit(step.edits, at_ms, pushed, clear_redo=True)
        self._pending.append(_Pending(future, pushed, None, cleared))

    def back(self, side: Side, entry: Entry, at_ms: int) -> Step | None:
        """Apply the top of a stack; its inverse goes on the other one.

        None when `entry` is not the top any more (a failed write took steps back meanwhile).
        """
        if self.history.top(side) is not entry:
            return None
        self.history.pop(side)
        try:
            inverses = apply_all(self.tree, entry.step.edits)
        except BaseException:
            self.history.put_back(side, entry)
            raise
        other = Side.REDO if side is Side.UNDO else Side.UNDO
        step = Step(entry.step.name, inverses, at_ms)
        pushed = (other, self.history.push(other, step))
        future = self._commit(entry.step.edits, at_ms, pushed, pop=(side, entry.seq))
        self._pending.append(_Pending(future, pushed, (side, entry), None))
        return entry.step

    def navigate(self, edit: Edit, at_ms: int) -> None:
        """Apply an edit that is no step."""
        apply_all(self.tree, (edit,))
        self.note_write(
            self.store.commit(Commit(self.chat, (edit,), self._epoch, at_ms, soft=True))
        )

    def note_write(self, future: Future[None]) -> None:
        """A write that is no step: when it fails, the owner hears it, and nothing is taken back."""
        self.last_write = future

        def written(future: Future[None]) -> None:
            error = future.exception()
            if error is not None:
                self.report(error)

        future.add_done_callback(written)

    def tell_main(self, call: Callable[[], object]) -> None:
        """Run this on the main thread, at the next `settle` (any thread)."""
        self._inbox.append(call)
        self.store.post(self.settle)

    def settle(self) -> None:
        """Take in what other threads left: failed writes, loaded parts."""
        while self._inbox:
            self._inbox.popleft()()
        while self._pending and self._pending[0].future.done():
            error = self._pending[0].future.exception()
            if error is not None:
                self._take_back(error)
                return
            self._pending.popleft()

    def need(self, node_ids: Iterable[int]) -> Future[None]:
        """Load parts; see `Conversation.need`."""
        missing = [node_id for node_id in node_ids if not self.tree.is_loaded(node_id)]
        if not missing:
            return done(None)
        out: Future[None] = Future()

        def arrived(future: Future[Mapping[int, Parts]]) -> None:
            error = future.exception()
            if error is not None:
                out.set_exception(error)
                return
            found = future.result()
            self.tell_main(lambda: self._loaded(missing, found))
            out.set_result(None)

        self.store.read_parts(self._chat.id, missing).add_done_callback(arrived)
        return out

    def _commit(
        self,
        edits: tuple[Edit, ...],
        at_ms: int,
        push: tuple[Side, Entry],
        *,
        pop: tuple[Side, int] | None = None,
        clear_redo: bool = False,
    ) -> Future[None]:
        self._chat = replace(self._chat, updated_at=at_ms)
        commit = Commit(self.chat, edits, self._epoch, at_ms, push, pop, clear_redo)
        self.last_write = self.store.commit(commit)
        self.last_write.add_done_callback(self._step_written)
        return self.last_write

    def _step_written(self, future: Future[None]) -> None:
        if future.exception() is not None:
            self.store.post(self.settle)

    def _take_back(self, error: BaseException) -> None:
        """Undo in memory what never reached the disk: the failed step and all after it."""
        self._epoch += 1
        while self._pending:
            step = self._pending.pop()
            side, entry = step.pushed
            self.history.pop(side)
            apply_all(self.tree, entry.step.edits)
            if step.popped is not None:
                self.history.put_back(*step.popped)
            if step.cleared is not None:
                self.history.restore_redo(step.cleared)
        self.last_write = done(None)
        if not isinstance(error, KnownError):
            raise error
        if self._owner.on_take_back is not None:
            self._owner.on_take_back(error)

    def report(self, error: BaseException) -> None:
        """A write that is no step has failed (any thread)."""
        self.tell_main(lambda: self._report(error))

    def forget_removed(self) -> set[int]:
        """See `Conversation.forget_removed`."""
        self.settle()
        gone = set(self.tree.removed_ids())
        for step in self._pending:
            gone -= mentioned(step.pushed[1].step.edits)
        self.history.forget(gone)
        self.tree.apply_forget(gone)
        return gone

    def _report(self, error: BaseException) -> None:
        if not isinstance(error, KnownError):
            raise error
        if self._owner.on_store_error is not None:
            self._owner.on_store_error(error)

    def _loaded(self, node_ids: Sequence[int], found: Mapping[int, Parts]) -> None:
        new = tuple(node_id for node_id in node_ids if not self.tree.is_loaded(node_id))
        if not new:
            return
        self.tree.tell_before(PartsLoaded(new))
        for node_id in new:
            self.tree.apply_parts(node_id, found.get(node_id, ()))
        self.tree.tell_after(PartsLoaded(new))

    def _fetch(self, node_id: int) -> None:
        """Read the branch of a message whose parts are wanted now; waits for the disk."""
        self.settle()
        if self.tree.is_loaded(node_id):
            return
        branch = self.tree.path(self.tree.leaf_below(node_id)) if node_id in self.tree else []
        ids = [i for i in {node_id, *branch} if not self.tree.is_loaded(i)]
        found = self.store.read_parts(self._chat.id, ids).result()
        for i in ids:
            self.tree.apply_parts(i, found.get(i, ()))

    def _read_entries(self, side: Side, below: int, limit: int) -> Sequence[Entry]:
        return self.store.read_entries(self._chat.id, side, below, limit).result()
