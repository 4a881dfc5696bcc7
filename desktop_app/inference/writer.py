"""Writes replies: several chats and drafts at once, in shared batches.

Each step of `Writer` is one batch: one token for each draft that writes, and a piece of each prompt
that is still being read, so that a long prompt never silences the others.  An aborted batch counts
for nobody: no token is remembered and no sampler moves before a batch is done.

For the engine child's main thread, except `cancel`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from desktop_app.errors import KnownError
from desktop_app.inference.branches import Branch, Branches
from desktop_app.inference.context import Batch, Context, Outcome, SamplerChain
from desktop_app.inference.llama import Vocabulary
from desktop_app.inference.protocol import (
    Counters,
    Event,
    Failed,
    Finish,
    Finished,
    GenerateRequest,
    Json,
    Kind,
    Piece,
    ReadProgress,
    Timings,
)
from desktop_app.inference.reasoning import ReasoningMarkers
from desktop_app.inference.sampling import MAX_SEED
from desktop_app.inference.text import ReplyText

BATCH_TOKENS: Final = 512
_SHARED_READ_TOKENS: Final = 96
"""Tokens of a prompt read in one step while something else writes."""
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
    """One reply that is being written."""

    def __init__(
        self, prepared: Prepared, number: int, seed: int, branch: Branch, chain: SamplerChain
    ) -> None:
        self.number, self.seed, self.branch, self.chain = number, seed, branch, chain
        self.written: list[int] = []
        self.pending = -1
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

    @property
    def over(self) -> bool:
        return not self.waiting and not self.drafts


@dataclass(slots=True)
class _Row:
    """What one row of a batch belongs to: tokens of a prompt, or the last token of a draft."""

    job: _Job
    tokens: list[int]
    branch: Branch
    index: int
    draft: _Draft | None = None


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
        self._send, self._facts, self._read_tokens = send, facts, read_tokens
        self._batch = Batch(BATCH_TOKENS)
        self._jobs: list[_Job] = []
        self._lock = threading.Lock()  # guards the two below, which `cancel` touches
        self._cancelled: set[tuple[int, int | None]] = set()
        self._in_step: frozenset[int] = frozenset()
        self._newest = 0

    @property
    def active(self) -> bool:
        """Whether anything is to be read or written."""
        return bool(self._jobs)

    def begin(self, prepared: Prepared) -> None:
        """Take up a request; it waits until a sequence is free.  Job numbers only grow."""
        self._newest = max(self._newest, prepared.job)
        request = prepared.request
        seeds = list(request.seeds[: request.drafts])
        for number in range(len(seeds), request.drafts):
            seed = request.sampling.for_draft(number).seed
            seeds.append(random.randrange(MAX_SEED + 1) if seed is None else seed)
        self._jobs.append(_Job(prepared, seeds))

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
        for job in self._jobs:
            self._cancel(job, None)
        self._jobs.clear()

    def step(self) -> None:
        """Read and write one batch."""
        self._apply_cancels()
        self._admit()
        rows = self._fill()
        if not rows:
            return
        with self._lock:
            self._in_step = frozenset(row.job.id for row in rows)
            if any((job, None) in self._cancelled for job in self._in_step):
                self._in_step = frozenset()
                return  # cancelled since the batch was filled
        outcome = self._decode(rows)
        with self._lock:
            self._in_step = frozenset()
            self._context.abort(on=False)
        if outcome == "done":
            self._after(rows)
        elif outcome == "aborted":
            for row in rows:
                self._branches.rewind(row.branch)
        elif outcome == "no_room":
            self._make_room()
        self._jobs = [job for job in self._jobs if not job.over]

    def _decode(self, rows: list[_Row]) -> Outcome | None:
        """Evaluate the batch; None when llama.cpp refuses it, and then its jobs have failed."""
        try:
            return self._context.decode(self._batch)
        except KnownError as error:
            for job in {row.job.id: row.job for row in rows}.values():
                branches = [draft.branch for draft in job.drafts.values()]
                if job.reading and job.branch is not None:
                    branches.append(job.branch)
                self._fail(job, error)
                for branch in branches:
                    self._branches.drop(branch)
            return None

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
        """Give waiting jobs their branches, in the order they came."""
        for job in self._jobs:
            if job.branch is not None or not job.waiting:
                continue
            branch = self._branches.take(job.prepared.tokens, job.prepared.request.chat)
            if branch is None:
                return
            job.branch, job.kept = branch, len(branch.tokens)
            job.read_from = time.perf_counter()
            self._tell_progress(job, force=True)

    def _fill(self) -> list[_Row]:
        """Put the next tokens of everybody into the batch."""
        self._batch.clear()
        rows: list[_Row] = []
        full: list[tuple[_Job, _Draft]] = []
        for job in self._jobs:
            for draft in job.drafts.values():
                if len(draft.branch.tokens) >= self._context.length:
                    full.append((job, draft))
                    continue
                tokens = [draft.pending]
                first, sequence = len(draft.branch.tokens), draft.branch.sequence
                index = self._batch.add(tokens, first, sequence, output=True)
                rows.append(_Row(job, tokens, draft.branch, index, draft))
        for job, draft in full:
            self._finish(job, draft, "overflow")
        room = BATCH_TOKENS - len(self._batch)
        budget = min(room, _SHARED_READ_TOKENS if rows else self._read_tokens)
        readers = [job for job in self._jobs if job.reading]
        for place, job in enumerate(readers):
            branch = job.branch
            assert branch is not None
            done, total = len(branch.tokens), len(job.prepared.tokens)
            limit = self._branches.read_limit(branch, total)
            size = min(limit - done, max(1, budget // (len(readers) - place)))
            if size > budget:
                break
            tokens = list(job.prepared.tokens[done : done + size])
            index = self._batch.add(tokens, done, branch.sequence, output=done + size == total)
            rows.append(_Row(job, tokens, branch, index))
            budget -= size
        return rows

    def _after(self, rows: list[_Row]) -> None:
        """The batch is in memory: remember its tokens and choose the next ones."""
        for row in rows:
            row.branch.tokens.extend(row.tokens)
        for row in rows:
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
        """The cells are used up: drop what nobody uses, else end or put back what came last."""
        if self._branches.make_room():
            return
        readers = [job for job in self._jobs if job.reading]
        if readers and len(self._jobs) > 1:
            job = readers[-1]
            assert job.branch is not None
            self._branches.give_back(job.branch)
            job.branch, job.evaluated = None, 0
            self._branches.make_room()
            self._jobs.remove(job)
            self._jobs.append(job)
            if any(other.drafts for other in self._jobs):
                return
        for job in reversed(self._jobs):
            if job.drafts:
                self._finish(job, max(job.drafts.values(), key=lambda d: d.number), "overflow")
                return
        job = self._jobs[-1]
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
        draft.pending = token
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
        if keep:
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
        for draft in list(job.drafts.values()):
            if number in (None, draft.number):
                self._finish(job, draft, "cancelled")

    def _fail(self, job: _Job, error: KnownError) -> None:
        for draft in list(job.drafts.values()):
            draft.chain.close()
            self._branches.give_back(draft.branch)
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
