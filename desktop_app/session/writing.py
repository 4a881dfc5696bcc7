"""The replies that are being written: from the request to the last word on disk.

The engine reports on its own thread into a request's inbox; one hop to the main thread takes in
whatever has come.  Everything else here is the main thread's.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from desktop_app import log
from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Json, Part, PartKind, Parts, Role, State
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine, Job
from desktop_app.inference.protocol import (
    ChatMessage,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Piece,
    ReadProgress,
)
from desktop_app.inference.sampling import MAX_SEED, Sampling
from desktop_app.session.listening import Later, Listeners, Post, on_main
from desktop_app.session.loading import Loading
from desktop_app.session.token_ids import ids_of, with_ids
from desktop_app.version import VERSION

SHOW_EVERY_S: Final = 0.033
"""Pieces that arrive faster than this are shown together."""
AT_ONCE: Final = 4
"""Requests given to the engine at a time; it writes them in shared batches."""
MEASURED_TOKENS: Final = 32
"""A shorter reply says little about the weights' speed."""
_BYTES_PER_TOKEN: Final = 4.0
_TEMPLATE_BYTES: Final = 16  # what a template puts around a message, about
_log = log.logger("session")


@dataclass(eq=False, slots=True)
class _Reply:
    """One row that is being written; `base` is what stood there before it was continued."""

    message_id: int
    base: Parts
    text: str = ""
    reasoning: str = ""
    n_tokens: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    changed: bool = False

    def add(self, piece: Piece) -> None:
        """Take in what was written."""
        self.last_at = time.monotonic()
        if not self.n_tokens:
            self.first_at = self.last_at
        self.n_tokens += piece.n_tokens
        if piece.kind == "reasoning":
            self.reasoning += piece.text
        else:
            self.text += piece.text
        self.changed = True

    def parts(self) -> Parts:
        """The row's parts as of now."""
        out: list[Part] = []
        for kind, more in ((PartKind.REASONING, self.reasoning), (PartKind.TEXT, self.text)):
            before = "".join(part.text for part in self.base if part.kind is kind)
            if before or more:
                out.append(Part(kind, before + more))
        others = (p for p in self.base if p.kind not in (PartKind.REASONING, PartKind.TEXT))
        return (*out, *others)


@dataclass(eq=False, slots=True)
class _Request:
    """One job of the engine, for one reply or several drafts; their index is the draft number."""

    conversation: Conversation
    replies: list[_Reply]
    continues: bool
    sampling: Sampling
    template: str
    open: set[int]
    inbox: deque[Event] = field(default_factory=deque)
    posted: bool = False
    shown_at: float = 0.0
    job: Job[tuple[Finished, ...]] | None = None
    ancestors: list[Json] = field(default_factory=list)
    preset: str = ""

    @property
    def chat_id(self) -> int:
        """The chat that it writes in."""
        return self.conversation.chat.id

    def open_replies(self) -> Iterator[tuple[int, _Reply]]:
        """(draft, reply) of those that have not ended, in order."""
        for draft in sorted(self.open):
            yield draft, self.replies[draft]


class Writing:
    """The queue of requests.  Main thread only."""

    def __init__(
        self, engine: Engine, loading: Loading, post: Post, later: Later, tell: Listeners
    ) -> None:
        self._engine = engine
        self._loading = loading
        self._post = post
        self._later = later
        self._tell = tell.tell
        self._waiting: list[_Request] = []
        self._running: list[_Request] = []
        self._closed = False
        self.on_measured: Callable[[Finished], None] | None = None
        self._speeds: dict[int, float] = {}
        self._seeds: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._used: dict[int, int] = {}

    # ---- the door ----------------------------------------------------------------------------

    def enqueue(
        self,
        conversation: Conversation,
        reply_ids: Iterable[int],
        *,
        sampling: Sampling,
        template: str | None,
        continues: bool = False,
        preset: str = "",
    ) -> None:
        """Write these replies (drafts of one prompt) as soon as the engine can.

        `preset` is the name under which `sampling` was chosen, for the replies' provenance.
        """
        tree = conversation.tree
        replies = [_Reply(i, tree.parts(i) if continues else ()) for i in reply_ids]
        goes_on = continues and any(part.text for part in replies[0].base)
        request = _Request(
            conversation, replies, goes_on, sampling, template or "", set(range(len(replies)))
        )
        request.preset = preset
        if len(replies) > 1:
            self._deal_seeds(request)
        self._waiting.append(request)
        self.pump()
        if request in self._waiting:
            for reply in replies:
                self._tell("waiting", request.chat_id, reply.message_id)

    def pump(self) -> None:
        """Start what may start now."""
        while self._waiting and not self._closed and not self._loading.is_loading:
            if len(self._running) >= AT_ONCE:
                return
            if self._engine.loaded is None:
                self._loading.need()
                return
            request = self._waiting.pop(0)
            self._running.append(request)
            self._prepare(request)

    def ids(self, chat_id: int | None = None) -> tuple[int, ...]:
        """The replies being written or waiting (of one chat), the oldest request first."""
        return tuple(
            reply.message_id
            for request in self._all()
            if chat_id is None or request.chat_id == chat_id
            for _, reply in request.open_replies()
        )

    def stop(self, message_id: int) -> None:
        """Ask the engine to stop; the row ends when it answers, with the facts of the turn."""
        for request in self._all():
            for draft, reply in tuple(request.open_replies()):
                if reply.message_id != message_id:
                    continue
                if request.job is None:
                    self.end_now(request.conversation, (message_id,))
                elif len(request.open) == 1:
                    request.job.cancel()
                else:
                    request.job.cancel(draft)

    def end_now(self, conversation: Conversation, message_ids: Iterable[int]) -> None:
        """End replies without waiting for the engine; what has come of them is kept."""
        wanted = set(message_ids)
        for request in self._all():
            if request.conversation is not conversation:
                continue
            if any(reply.message_id in wanted for _, reply in request.open_replies()):
                self._take_in(request)
            for draft, reply in tuple(request.open_replies()):
                if reply.message_id in wanted:
                    conversation.finish_stream(
                        reply.message_id,
                        State.STOPPED,
                        reply.parts(),
                        finish="cancelled",
                        turn=self._known_turn(request, draft),
                    )
                    self._abandon(request, draft)
                    self._tell("finished", request.chat_id, reply.message_id)

    def end_all(self) -> None:
        """End every reply without waiting for the engine."""
        for request in self._all():
            self.end_now(request.conversation, [r.message_id for r in request.replies])

    def fail_waiting(self, error: KnownError) -> None:
        """The weights could not be loaded: nobody will write what waits for them."""
        for request in tuple(self._waiting):
            self._fail(request, error)

    def taken_back(self, conversation: Conversation) -> None:
        """A step did not reach the disk: replies that went with it are not written on."""
        alive = set(conversation.streaming_ids)
        for request in self._all():
            if request.conversation is conversation:
                for draft, reply in tuple(request.open_replies()):
                    if reply.message_id not in alive:
                        self._abandon(request, draft)

    def stop_running(self) -> None:
        """Stop what the engine writes now; what waits goes on waiting."""
        for request in tuple(self._running):
            for _, reply in tuple(request.open_replies()):
                self.stop(reply.message_id)

    def close(self) -> None:
        """End every reply; nothing starts any more."""
        self._closed = True
        self.end_all()

    def speed(self, message_id: int) -> float:
        """Tokens a second, also while it is written; 0.0 = not known."""
        for request in self._running:
            for reply in request.replies:
                if reply.message_id == message_id and reply.n_tokens > 1:
                    return (reply.n_tokens - 1) / max(reply.last_at - reply.first_at, 1e-6)
        return self._speeds.get(message_id, 0.0)

    def seed(self, message_id: int) -> int | None:
        """The seed of a draft or reply of this run; None when it is not known (yet)."""
        return self._seeds.get(message_id)

    def written(self, message_id: int) -> int:
        """Tokens written of a reply of this run, also while it grows; 0 = not known."""
        for request in self._running:
            for reply in request.replies:
                if reply.message_id == message_id and reply.n_tokens:
                    return reply.n_tokens
        return self._written.get(message_id, 0)

    def tokens_used(self, conversation: Conversation) -> int:
        """Tokens of the active path: counted up to the last reply of this run, then estimated."""
        tree = conversation.tree
        size_bytes = 0
        for node_id in reversed(conversation.path()):
            if node_id in self._used:
                return self._used[node_id] + int(size_bytes / _BYTES_PER_TOKEN)
            if tree.is_loaded(node_id):
                size_bytes += len(tree.text(node_id).encode("utf-8", "replace")) + _TEMPLATE_BYTES
        return int(size_bytes / _BYTES_PER_TOKEN)

    def messages(self, conversation: Conversation, path: Sequence[int]) -> tuple[ChatMessage, ...]:
        """A path as the engine reads it.  Its parts must be loaded (`Conversation.need`)."""
        tree = conversation.tree
        loaded = self._engine.loaded
        weights_hash = loaded.hash if loaded is not None else ""
        out = []
        for node_id in path:
            node, text = tree.node(node_id), tree.text(node_id)
            if node.role is Role.ASSISTANT and not text and node_id != path[-1]:
                continue  # a reply that failed before its first word says nothing
            ids = ids_of(tree.parts(node_id), weights_hash) if weights_hash else ()
            out.append(ChatMessage(node.role.value, text, tree.reasoning(node_id), ids))
        return tuple(out)

    # ---- inside ------------------------------------------------------------------------------

    def _all(self) -> tuple[_Request, ...]:
        return (*self._running, *self._waiting)

    def _deal_seeds(self, request: _Request) -> None:
        """Give each draft its seed here, so that it can be shown while the draft is written."""
        sampling = request.sampling
        first = random.randrange(MAX_SEED + 1) if sampling.seed is None else sampling.seed
        for draft, reply in enumerate(request.replies):
            self._seeds[reply.message_id] = (first + draft) % (MAX_SEED + 1)

    def _prepare(self, request: _Request) -> None:
        path = self._prompt_path(request)
        loaded = on_main(self._post, request.conversation.need(path), lambda _: None)
        loaded.add_done_callback(lambda future: self._start(request, future.exception()))

    def _prompt_path(self, request: _Request) -> list[int]:
        path = request.conversation.path(request.replies[0].message_id)
        return path if request.continues else path[:-1]

    def _start(self, request: _Request, error: BaseException | None) -> None:
        if not request.open or self._closed:
            self._release(request)
            return
        if isinstance(error, KnownError):
            self._fail(request, error)
            return
        if error is not None:
            raise error
        path = self._prompt_path(request)
        tree = request.conversation.tree
        request.ancestors = [[tree.node(i).uid, tree.node(i).revisions] for i in path]
        asked = GenerateRequest(
            self.messages(request.conversation, path),
            request.sampling,
            request.template or self._loading.template,
            continue_last=request.continues,
            drafts=len(request.replies),
            chat=request.conversation.chat.uid,
            seeds=self._seeds_of(request),
        )
        try:
            request.job = self._engine.generate(asked, lambda event: self._arrived(request, event))
        except KnownError as failure:
            self._fail(request, failure)

    def _seeds_of(self, request: _Request) -> tuple[int, ...]:
        """The seeds that were dealt; none for a reply alone, whose seed the engine draws."""
        if len(request.replies) < 2:
            return ()
        return tuple(self._seeds[reply.message_id] for reply in request.replies)

    def _arrived(self, request: _Request, event: Event) -> None:
        """On the engine's thread."""
        request.inbox.append(event)
        if not request.posted:
            request.posted = True
            self._post(lambda: self._drain(request))

    def _drain(self, request: _Request) -> None:
        wait_s = request.shown_at + SHOW_EVERY_S - time.monotonic()
        ends = any(isinstance(event, Finished | Failed) for event in tuple(request.inbox))
        if wait_s > 0 and not ends:
            self._later(wait_s, lambda: self._drain(request))
            return
        # Cleared before the inbox is emptied: what comes meanwhile posts again.
        request.posted = False
        self._take_in(request)

    def _take_in(self, request: _Request) -> None:
        reading: ReadProgress | None = None
        while request.inbox:
            event = request.inbox.popleft()
            match event:
                case Piece():
                    if event.draft in request.open:
                        request.replies[event.draft].add(event)
                case ReadProgress():
                    reading = event
                case Finished():
                    self._finish(request, event)
                case Failed() as failed:
                    self._fail(request, failed.error)
                case _:
                    pass
        request.shown_at = time.monotonic()
        for _, reply in tuple(request.open_replies()):
            where = (request.chat_id, reply.message_id)
            if reading is not None:
                self._tell("reading", *where, reading.done, reading.total, reading.kept)
            if reply.changed:
                reply.changed = False
                request.conversation.stream_text(reply.message_id, reply.parts())
                self._tell("text_changed", *where)

    def _finish(self, request: _Request, event: Finished) -> None:
        if event.draft not in request.open:
            return
        reply = request.replies[event.draft]
        counters = event.counters
        self._speeds[reply.message_id] = event.timings.tokens_per_s
        self._used[reply.message_id] = counters.prompt_tokens + counters.generated_tokens
        self._written[reply.message_id] = counters.generated_tokens
        seed = event.turn.get("seed")
        if isinstance(seed, int):
            self._seeds[reply.message_id] = seed
        alone = len(self._running) == 1
        if alone and event.draft == 0 and self.on_measured is not None:
            self.on_measured(event)
        if alone and len(request.replies) == 1 and counters.generated_tokens >= MEASURED_TOKENS:
            self._loading.record_speed(event.timings.tokens_per_s, self._used[reply.message_id])
        parts = reply.parts()
        if not request.continues:
            parts = with_ids(parts, event.tokens, event.turn.get("weights_hash"))
        request.conversation.finish_stream(
            reply.message_id,
            State.STOPPED if event.finish == "cancelled" else State.DONE,
            parts,
            finish=event.finish,
            turn=_turn(event, request),
            author=self._loading.author or None,
        )
        self._close_draft(request, event.draft)
        self._tell("finished", request.chat_id, reply.message_id)

    def _fail(self, request: _Request, error: KnownError) -> None:
        """Every draft that has not ended fails; its text is kept."""
        _log.info("reply failed: %s", error.code)
        ended = [
            (reply, self._known_turn(request, draft)) for draft, reply in request.open_replies()
        ]
        request.open.clear()
        self._release(request)
        # Other weights were chosen, or Grove closes: that was a wish, not a failure.
        wished = error.code == "engine-stopped"
        for reply, turn in ended:
            where, parts = request.conversation, reply.parts()
            if wished:
                where.finish_stream(
                    reply.message_id, State.STOPPED, parts, finish="cancelled", turn=turn
                )
                self._tell("finished", request.chat_id, reply.message_id)
            else:
                where.finish_stream(
                    reply.message_id, State.FAILED, parts, finish="error", turn=turn, failure=error
                )
                self._tell("failed", request.chat_id, reply.message_id, error)
        if error.code == "engine-crashed" and not self._running:
            self._tell("engine_failed", error)  # once, after the last reply that it took along

    def _known_turn(self, request: _Request, draft: int) -> dict[str, Json] | None:
        """What is known of a reply whose end the engine does not tell; None where none began."""
        reply, loaded = request.replies[draft], self._engine.loaded
        if request.job is None or not reply.n_tokens:
            return None
        turn: dict[str, Json] = {
            "app": VERSION,
            "preset": request.preset,
            "sampling": {
                **asdict(request.sampling),
                "stops": list(request.sampling.stops),
                "seed": self._seeds.get(reply.message_id),
            },
            "ancestors": request.ancestors,
            "continues": request.continues,
            "draft": draft,
            "drafts": len(request.replies),
            "tokens_written": reply.n_tokens,
        }
        if reply.message_id in self._seeds:
            turn["seed"] = self._seeds[reply.message_id]
        if loaded is not None:
            turn |= {
                "engine": loaded.engine,
                "weights": loaded.name,
                "weights_hash": loaded.hash,
                "quantisation": loaded.quantisation,
                "threads": loaded.threads,
                "gpu_layers": loaded.gpu_layers,
                "context_length": loaded.context_length,
                "kv_type": loaded.kv_type,
            }
        return turn

    def _abandon(self, request: _Request, draft: int) -> None:
        if request.job is not None:
            request.job.cancel(draft)
        self._close_draft(request, draft)

    def _close_draft(self, request: _Request, draft: int) -> None:
        request.open.discard(draft)
        if not request.open:
            self._release(request)

    def _release(self, request: _Request) -> None:
        """The request is over: another may start."""
        for row in (self._running, self._waiting):
            if request in row:
                row.remove(request)
        if not self._closed:
            self._post(self.pump)


def _turn(event: Finished, request: _Request) -> dict[str, Json]:
    """The reply's provenance as it is stored: the engine's facts and the exact ancestors, each as
    [uid, number of its revisions]."""
    counters = event.counters
    return {
        **event.turn,
        "app": VERSION,
        "preset": request.preset,
        "ancestors": request.ancestors,
        "continues": request.continues,
        "draft": event.draft,
        "drafts": len(request.replies),
        "left_out": event.left_out,
        "tokens_prompt": counters.prompt_tokens,
        "tokens_cached": counters.kept_tokens,
        "tokens_read": counters.evaluated_tokens,
        "tokens_written": counters.generated_tokens,
        "times": asdict(event.timings),
    }
