"""Writes replies: several chats and drafts at once, in shared batches.

Each step of `Writer` is one batch: one token for each draft that writes, and a piece of the prompts
that are still being read, the shortest first, so that a long prompt neither silences those who
write nor holds up who asks a short question (`pacing`).  An aborted batch counts for nobody: no
token is remembered and no sampler moves before a batch is done.  A batch that llama.cpp refuses is
tried again request by request, so that only the one with the fault fails.

When the cells are used up, what came last is put aside until somebody has ended: its branch is
parked, and later it goes on from where it was.  Only a reply that has the whole context for itself
ends in "overflow".

For the engine child's main thread, except `cancel`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from desktop_app.errors import KnownError
from desktop_app.inference.branches import Branch, Branches
from desktop_app.inference.context import Batch, Context, Outcome, SamplerChain
from desktop_app.inference.llama import Vocabulary
from desktop_app.inference.pacing import Pace
from desktop_app.inference.protocol import (
    Counters,
    Event,
    Failed,
    Finish,
    Finished,
    GenerateRequest,
    HasRead,
    Json,
    Kind,
    Piece,
    ReadProgress,
    Timings,
)
from desktop_app.inference.reading_ahead import AheadPlan, ReadingAhead
from desktop_app.inference.reasoning import ReasoningMarkers
from desktop_app.inference.sampling import MAX_SEED
from desktop_app.inference.text import ReplyText

BATCH_TOKENS: Final = 512
_FLUSH_S: Final = 0.033
_PROGRESS_S: Final = 0.1

Send = Callable[[int, Event], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose prompt is built: what the writer needs."""

    job: int
    request: GenerateRequest
    tokens: tuple[int, ...]
    asked_at: float
    stops: tuple[str, ...] = ()
    markers: ReasoningMarkers | None = None
    inside_reasoning: bool = False
    trim_start: bool = False
    left_out: int = 0
    facts: dict[str, Json] = field(default_factory=dict)


class _Draft:
    """One reply that is being written; `branch` is None while it is put aside."""

    def __init__(
        self, prepared: Prepared, number: int, seed: int, branch: Branch, chain: SamplerChain
    ) -> None:
        self.number, self.seed, self.chain = number, seed, chain
        self.branch: Branch | None = branch
        self.written: list[int] = []  # the last of them is yet to be evaluated
        self.first_at = 0.0
        self.text = ReplyText(
            stops=(*prepared.stops, *prepared.request.sampling.stops),
            markers=prepared.markers,
            inside_reasoning=prepared.inside_reasoning,
            trim_start=prepared.trim_start,
        )
        self.shown: list[tuple[Kind, str]] = []
        self.unsent = 0
        self.sent_at = 0.0


class _Job:
    """One request: first its prompt is read, once for all drafts, then its drafts are written."""

    def __init__(self, prepared: Prepared, seeds: Sequence[int]) -> None:
        self.prepared, self.seeds = prepared, list(seeds)
        self.id = prepared.job
        self.branch: Branch | None = None
        self.kept = 0
        self.evaluated = 0
        self.read_from = self.read_at = self.progress_at = 0.0
        self.waiting = set(range(prepared.request.drafts))
        self.drafts: dict[int, _Draft] = {}

    @property
    def reading(self) -> bool:
        return self.branch is not None and bool(self.waiting)

    def missing(self, draft: _Draft) -> list[int]:
        """What a draft that was put aside must read again before it goes on."""
        assert draft.branch is not None
        tokens, done = self.prepared.tokens, len(draft.branch.tokens)
        if done >= len(tokens):
            return draft.written[done - len(tokens) : -1]
        return [*tokens[done:], *draft.written[:-1]]

    @property
    def over(self) -> bool:
        return not self.waiting and not self.drafts


@dataclass(slots=True)
class _Row:
    """What one row of a batch belongs to: tokens of a prompt, or the last token of a draft.

    With `again`, tokens that a draft had read before it was put aside.
    """

    job: _Job
    tokens: list[int]
    branch: Branch
    index: int
    draft: _Draft | None = None
    again: bool = False


class Writer:
    """All replies that are being written in one context."""

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        branches: Branches,
        send: Send,
        *,
        facts: dict[str, Json],
        read_tokens: int = BATCH_TOKENS,
    ) -> None:
        """`facts` go into every reply's turn; `read_tokens` is the longest step of reading."""
        self._context, self._vocabulary, self._branches = context, vocabulary, branches
        self._send, self._facts = send, facts
        self._batch = Batch(BATCH_TOKENS)
        self._pace = Pace(read_tokens)
        self.ahead = ReadingAhead(context, branches, self._batch, self._pace, send)
        self._jobs: list[_Job] = []
        self._apart: list[int] = []  # jobs to be tried alone, after a batch was refused
        self._full = False  # nothing is taken up until somebody has ended
        self._lock = threading.Lock()  # guards the two below, which `cancel` touches
        self._cancelled: set[tuple[int, int | None]] = set()
        self._in_step: frozenset[int] = frozenset()
        self._newest = 0

    @property
    def active(self) -> bool:
        """Whether anything is to be read or written."""
        return bool(self._jobs) or self.ahead.active

    def begin(self, prepared: Prepared) -> None:
        """Take up a request; it waits until a sequence is free.  Job numbers only grow."""
        self.ahead.give_way()
        self._newest = max(self._newest, prepared.job)
        request = prepared.request
        seeds = list(request.seeds[: request.drafts])
        for number in range(len(seeds), request.drafts):
            seed = request.sampling.for_draft(number).seed
            seeds.append(random.randrange(MAX_SEED + 1) if seed is None else seed)
        self._jobs.append(_Job(prepared, seeds))

    def begin_ahead(self, plan: AheadPlan) -> None:
        """Read what is being typed, as long as nobody needs the engine."""
        if self._jobs:
            self._send(plan.job, HasRead(len(plan.tokens), 0, 0))
        else:
            self.ahead.begin(plan)

    def cancel(self, job: int, draft: int | None) -> None:
        """Stop a job or one of its drafts, in the middle of a step if need be.  Any thread."""
        with self._lock:
            self._cancelled.add((job, draft))
            if draft is None and job in self._in_step:
                self._context.abort(on=True)

    def set_threads(self, threads: int) -> None:
        """Use this many threads from the next step on."""
        self._context.set_threads(threads)
        self._facts["threads"] = threads

    def cancel_all(self) -> None:
        """End every reply where it stands."""
        self.ahead.drop()
        for job in self._jobs:
            self._cancel(job, None)
        self._jobs.clear()

    def step(self) -> None:
        """Read and write one batch."""
        self._apply_cancels()
        if not self._jobs:
            if self.ahead.active:
                self.ahead.step()
                self._rest_if_idle()
            return
        self._admit()
        rows = self._fill()
        if not rows:
            return
        with self._lock:
            self._in_step = frozenset(row.job.id for row in rows)
            if any((job, None) in self._cancelled for job in self._in_step):
                self._in_step = frozenset()
                return  # cancelled since the batch was filled
        started = time.perf_counter()
        outcome = self._decode(rows)
        with self._lock:
            self._in_step = frozenset()
            self._context.abort(on=False)
        if outcome == "done":
            self._pace.took(len(self._batch), time.perf_counter() - started)
            self._after(rows)
        elif outcome == "aborted":
            for row in rows:
                self._branches.rewind(row.branch)
        elif outcome == "no_room":
            self._make_room()
        self._jobs = [job for job in self._jobs if not job.over]
        self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        if not self.active:
            self._context.rest()

    def _decode(self, rows: list[_Row]) -> Outcome | None:
        """Evaluate the batch; None when llama.cpp refuses it.

        A batch of several requests is then tried again one by one; a request that is refused alone
        fails.
        """
        jobs = {row.job.id: row.job for row in rows}
        try:
            outcome = self._context.decode(self._batch)
        except KnownError as error:
            for row in rows:
                self._branches.rewind(row.branch)
            if len(jobs) > 1:
                self._apart = list(jobs)
                return None
            self._apart = self._apart[1:]
            for job in jobs.values():
                branches = [draft.branch for draft in job.drafts.values() if draft.branch]
                if job.reading and job.branch is not None:
                    branches.append(job.branch)
                self._fail(job, error)
                for branch in branches:
                    self._branches.drop(branch)
            return None
        if outcome == "done":
            self._apart = self._apart[1:]
        return outcome

    # --- one step ------------------------------------------------------------------------------

    def _apply_cancels(self) -> None:
        with self._lock:
            cancelled = {entry for entry in self._cancelled if entry[0] <= self._newest}
            self._cancelled -= cancelled  # the others are still on their way through the prompt
        for number, draft in cancelled:
            for job in self._jobs:
                if job.id == number:
                    self._cancel(job, draft)
        self._jobs = [job for job in self._jobs if not job.over]

    def _admit(self) -> None:
        """Give waiting jobs, and drafts that were put aside, their branches, the oldest first."""
        if self._full and any(self._lent()):
            return
        self._full = False
        for job in self._jobs:
            chat = job.prepared.request.chat
            for draft in job.drafts.values():
                if draft.branch is None:
                    draft.branch = self._branches.take((*job.prepared.tokens, *draft.written), chat)
                    if draft.branch is None:
                        return
            if job.branch is not None or not job.waiting:
                continue
            branch = self._branches.take(job.prepared.tokens, chat)
            if branch is None:
                return
            job.branch, job.kept = branch, len(branch.tokens)
            job.read_from = job.read_from or time.perf_counter()
            self._tell_progress(job, force=True)

    def _lent(self) -> Iterator[tuple[_Job, _Draft | None]]:
        """Who has a branch, the oldest first; None for a prompt that is being read."""
        for job in self._jobs:
            for number in sorted(job.drafts):
                if job.drafts[number].branch is not None:
                    yield job, job.drafts[number]
            if job.reading:
                yield job, None

    def _fill(self) -> list[_Row]:
        """Put the next tokens of everybody into the batch."""
        self._batch.clear()
        jobs = self._jobs
        while self._apart and not (found := [j for j in jobs if j.id == self._apart[0]]):
            self._apart = self._apart[1:]
        if self._apart:
            jobs = found
        rows: list[_Row] = []
        full: list[tuple[_Job, _Draft]] = []
        readers: list[tuple[int, _Job, _Draft | None, Branch, Sequence[int]]] = []
        for job in jobs:
            for draft in job.drafts.values():
                branch = draft.branch
                if branch is None:
                    continue
                if len(branch.tokens) >= self._context.length:
                    full.append((job, draft))
                elif missing := job.missing(draft):
                    readers.append((len(missing), job, draft, branch, missing))
                else:
                    tokens = draft.written[-1:]
                    first, sequence = len(branch.tokens), branch.sequence
                    index = self._batch.add(tokens, first, sequence, output=True)
                    rows.append(_Row(job, tokens, branch, index, draft))
            if job.reading and job.branch is not None:
                done = len(job.branch.tokens)
                left = job.prepared.tokens[done:]
                readers.append((len(left), job, None, job.branch, left))
        for job, draft in full:
            self._finish(job, draft, "overflow")
        self._fill_reading(rows, sorted(readers, key=lambda reader: reader[0]))
        return rows

    def _fill_reading(
        self,
        rows: list[_Row],
        readers: list[tuple[int, _Job, _Draft | None, Branch, Sequence[int]]],
    ) -> None:
        """Fill what room there is with pieces of prompts, whose ends are nearest first."""
        budget = self._pace.tokens(len(rows))
        for left, job, draft, branch, tokens in readers:
            done = len(branch.tokens)
            limit = self._branches.read_limit(branch, done + left) if draft is None else done + left
            room = BATCH_TOKENS - len(self._batch)
            size = self._pace.piece(limit - done, budget, room)
            if size <= 0:
                return
            ends = draft is None and size == left
            piece = list(tokens[:size])
            index = self._batch.add(piece, done, branch.sequence, output=ends)
            rows.append(_Row(job, piece, branch, index, draft, again=draft is not None))
            budget -= size
            if ends:
                return  # its first token is near: others do not lengthen this step

    def _after(self, rows: list[_Row]) -> None:
        """The batch is in memory: remember its tokens and choose the next ones."""
        for row in rows:
            row.branch.tokens.extend(row.tokens)
        for row in rows:
            if row.again:
                continue
            if row.draft is not None:
                self._choose(row.job, row.draft, row.index)
                continue
            job = row.job
            job.evaluated += len(row.tokens)
            self._branches.has_read(row.branch, len(job.prepared.tokens))
            whole = len(row.branch.tokens) == len(job.prepared.tokens)
            self._tell_progress(job, force=whole)
            if whole:
                self._start_drafts(job, row.branch, row.index)

    def _make_room(self) -> None:
        """The cells are used up: drop what nobody uses, else put aside what came last."""
        if self._branches.make_room():
            return
        lent = list(self._lent())
        job, draft = lent[-1]
        if len(lent) > 1:
            self._full = True
            if draft is not None and draft.branch is not None:
                self._branches.give_back(draft.branch)
                draft.branch = None
            elif job.branch is not None:
                self._branches.give_back(job.branch)
                job.branch = None
            self._branches.make_room()
        elif draft is not None:
            self._finish(job, draft, "overflow")
        else:
            self._fail(
                job,
                KnownError(
                    "context-full",
                    "The context is full. Choose a longer context, or start a new chat.",
                ),
            )

    # --- drafts --------------------------------------------------------------------------------

    def _start_drafts(self, job: _Job, branch: Branch, index: int) -> None:
        job.read_at = time.perf_counter()
        request = job.prepared.request
        waiting, job.waiting = sorted(job.waiting), set()
        for place, number in enumerate(waiting):
            own = branch if place == 0 else self._branches.fork(branch, request.chat)
            seed = job.seeds[number]
            chain = SamplerChain(
                request.sampling,
                seed=seed,
                vocabulary_size=self._context.vocabulary_size,
                window=self._context.length,
            )
            draft = _Draft(job.prepared, number, seed, own or branch, chain)
            job.drafts[number] = draft
            if own is None:  # every sequence is lent
                self._finish(job, draft, "overflow", keep=False)
                continue
            chain.accept(job.prepared.tokens)
        for draft in list(job.drafts.values()):
            self._choose(job, draft, index)

    def _choose(self, job: _Job, draft: _Draft, index: int) -> None:
        """Sample a draft's next token and show what can be shown."""
        token = draft.chain.sample(self._context, index)
        now = time.perf_counter()
        draft.first_at = draft.first_at or now
        vocabulary = self._vocabulary
        if token in vocabulary.ends_turn:
            self._finish(job, draft, "stop")
            return
        draft.written.append(token)
        draft.unsent += 1
        piece = vocabulary.token_piece(token)
        if vocabulary.is_control(token):
            draft.shown += draft.text.feed_control(piece.decode("utf-8", "replace"))
            if draft.text.stopped:
                draft.written.pop()
                self._finish(job, draft, "stop")
                return
        else:
            draft.shown += draft.text.feed(piece)
            if draft.text.stopped:
                # The ids no longer spell what is shown, so they must not stand for it later.
                self._finish(job, draft, "stop", tell_tokens=False)
                return
        if len(draft.written) == job.prepared.request.sampling.max_tokens:
            self._finish(job, draft, "length")
        elif draft.shown and now - draft.sent_at >= _FLUSH_S:
            self._flush(job, draft)

    def _flush(self, job: _Job, draft: _Draft) -> None:
        shown, draft.shown = draft.shown, []
        draft.sent_at = time.perf_counter()
        while shown:
            kind = shown[0][0]
            text = ""
            while shown and shown[0][0] == kind:
                text += shown.pop(0)[1]
            count, draft.unsent = draft.unsent, 0
            self._send(job.id, Piece(draft.number, text, kind, count))

    def _finish(
        self,
        job: _Job,
        draft: _Draft,
        finish: Finish,
        *,
        keep: bool = True,
        tell_tokens: bool = True,
    ) -> None:
        draft.shown += draft.text.finish()
        self._flush(job, draft)
        now = time.perf_counter()
        write_s = now - draft.first_at if draft.first_at else 0.0
        count = len(draft.written)
        asked = job.prepared.asked_at
        timings = Timings(
            first_token_s=draft.first_at - asked if draft.first_at else 0.0,
            read_s=max(0.0, job.read_at - job.read_from),
            write_s=write_s,
            tokens_per_s=(count - 1) / write_s if count > 1 and write_s > 0 else 0.0,
            prompt_s=max(0.0, job.read_from - asked),
        )
        tokens = tuple(draft.written) if tell_tokens else ()
        self._tell_finished(job, draft.number, draft.seed, finish, timings, tokens, count)
        draft.chain.close()
        del job.drafts[draft.number]
        self._full = False
        if keep and draft.branch is not None:
            self._branches.give_back(draft.branch)

    def _tell_finished(
        self,
        job: _Job,
        number: int,
        seed: int,
        finish: Finish,
        timings: Timings,
        tokens: tuple[int, ...],
        count: int,
    ) -> None:
        prepared = job.prepared
        sampling = replace(prepared.request.sampling, seed=seed)
        options: dict[str, Json] = {
            **asdict(sampling),
            "stops": list(sampling.stops),
            "steps": list(sampling.steps()),
        }
        turn: dict[str, Json] = {
            **self._facts,
            **prepared.facts,
            "sampling": options,
            "seed": seed,
            "drafts": prepared.request.drafts,
        }
        counters = Counters(
            prompt_tokens=len(prepared.tokens),
            kept_tokens=job.kept,
            evaluated_tokens=job.evaluated,
            generated_tokens=count,
        )
        self._send(
            job.id, Finished(number, finish, counters, timings, turn, tokens, prepared.left_out)
        )

    # --- ending --------------------------------------------------------------------------------

    def _cancel(self, job: _Job, number: int | None) -> None:
        for waiting in sorted(job.waiting):
            if number in (None, waiting):
                job.waiting.discard(waiting)
                timings = Timings(prompt_s=time.perf_counter() - job.prepared.asked_at)
                self._tell_finished(job, waiting, job.seeds[waiting], "cancelled", timings, (), 0)
                if not job.waiting and job.branch is not None and not job.drafts:
                    self._branches.give_back(job.branch)
                    self._full = False
        for draft in list(job.drafts.values()):
            if number in (None, draft.number):
                self._finish(job, draft, "cancelled")

    def _fail(self, job: _Job, error: KnownError) -> None:
        for draft in list(job.drafts.values()):
            draft.chain.close()
            if draft.branch is not None:
                self._branches.give_back(draft.branch)
        self._full = False
        if job.reading and job.branch is not None:
            self._branches.give_back(job.branch)
        job.drafts.clear()
        job.waiting.clear()
        self._send(job.id, Failed.of(error))

    def _tell_progress(self, job: _Job, *, force: bool) -> None:
        assert job.branch is not None
        now = time.perf_counter()
        if force or now - job.progress_at >= _PROGRESS_S:
            job.progress_at = now
            total = len(job.prepared.tokens)
            self._send(job.id, ReadProgress(len(job.branch.tokens), total, job.kept))
