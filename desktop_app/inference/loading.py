"""From a `WeightsSpec` to weights that can write: checks, memory, context, and who they are.

For the engine child's main thread; `LoadedEngine.prepare` and `render` are for the preparer's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from desktop_app.errors import KnownError
from desktop_app.inference import devices, llama, weights_file
from desktop_app.inference.branches import Branches
from desktop_app.inference.context import Context
from desktop_app.inference.parking import Parking
from desktop_app.inference.placing import place
from desktop_app.inference.prompt import Boundary, PromptBuilder
from desktop_app.inference.protocol import (
    GenerateRequest,
    LoadedWeights,
    ReadAhead,
    Rendered,
    RenderRequest,
    ThreadSpeed,
    WeightsSpec,
)
from desktop_app.inference.reading_ahead import AheadPlan
from desktop_app.inference.renderer import Renderer
from desktop_app.inference.sampling import Sampling
from desktop_app.inference.thread_keeper import ThreadKeeper, choose
from desktop_app.inference.threads import Chooser, Others, told
from desktop_app.inference.writer import BATCH_TOKENS, Prepared, Send, Writer

_RECURRENT_READ_TOKENS: Final = 64
"""Recurrent weights cannot be aborted within a step, so their steps are short."""
_REPLY_ROOM: Final = 512
"""Tokens kept free for the reply, where the context is long enough."""
_MAX_DRAFTS: Final = 8
_PARKED_BYTES: Final = 2 << 30
"""Parked blocks in memory at most; a quarter of what is free, if that is less."""
_STATE_FORMAT: Final = "blocks 1"
CACHE_VARIABLE: Final = "GROVE_CACHE_DIR"
"""The environment variable by which the app tells where parked branches may lie on disk."""


class LoadedEngine:
    """Everything that lives as long as one load."""

    def __init__(
        self,
        weights: llama.Weights,
        context: Context,
        info: LoadedWeights,
        builder: PromptBuilder,
        parking: Parking,
        chooser: Chooser,
        send: Send,
    ) -> None:
        self.threads = ThreadKeeper(chooser, send)
        context.step_threads = self.threads
        self.weights, self.context, self.info, self._builder = weights, context, info, builder
        self.branches = Branches(
            context, parking, can_roll_back=info.can_roll_back, window=weights.window
        )
        self.writer = Writer(
            context,
            weights.vocabulary,
            self.branches,
            self.threads.send,
            facts={
                "engine": info.engine,
                "kind": "llama.cpp",
                "weights": info.name,
                "weights_hash": info.hash,
                "quantisation": info.quantisation,
                "threads": info.threads,
                "context_length": info.context_length,
                "kv_type": info.kv_type,
                "gpu_layers": info.gpu_layers,
                "flash_attention": info.flash_attention,
            },
            read_tokens=_RECURRENT_READ_TOKENS if weights.recurrent else BATCH_TOKENS,
        )
        self._boundaries: dict[str, Boundary] = {}  # the preparer's

    def close(self) -> None:
        """Free the memory."""
        self.context.close()
        self.weights.close()

    def prepare(self, job: int, request: GenerateRequest, asked_at: float) -> Prepared:
        """Build the prompt of a request, leaving out oldest turns where it does not fit.

        KnownError for options, templates or messages that cannot be.
        """
        sampling = request.sampling.checked()
        most = min(_MAX_DRAFTS, self.branches.count)
        if not 1 <= request.drafts <= most:
            raise KnownError(
                "drafts-invalid",
                f"These weights can write 1 to {most} drafts at once, not {request.drafts}.",
            )
        length = self.context.length
        if request.prompt_tokens:
            if len(request.prompt_tokens) >= length:
                raise KnownError(
                    "message-too-long",
                    f"The prompt has {len(request.prompt_tokens)} tokens, but the context holds "
                    f"{length}. Shorten it, or choose a longer context.",
                )
            if not all(0 <= t < self.context.vocabulary_size for t in request.prompt_tokens):
                raise KnownError("prompt-invalid", "The prompt has tokens that do not exist.")
            return Prepared(job, request, request.prompt_tokens, asked_at)
        fitted = self._builder.fit(
            request.messages,
            template=request.template,
            continue_last=request.continue_last,
            budget=self._budget(sampling),
            boundary=self._boundaries.get(request.chat) if request.chat else None,
        )
        if request.chat and fitted.boundary is not None:
            self._boundaries[request.chat] = fitted.boundary
        plan = fitted.plan
        return Prepared(
            job,
            request,
            tuple(plan.tokens),
            asked_at,
            stops=plan.stops,
            markers=plan.reasoning,
            inside_reasoning=plan.reasoning_open,
            trim_start=plan.trim_start and not request.continue_last,
            left_out=fitted.left_out,
            facts={
                "template": plan.family,
                "template_hash": plan.template_hash,
                "left_out": fitted.left_out,
                "notes": list(plan.notes),
            },
        )

    def prepare_ahead(self, job: int, request: ReadAhead) -> AheadPlan:
        """The beginning of a prompt whose last message is still being typed.

        No turn is left out for good by it: the boundary of the chat stays as it is.
        """
        tokens, words_from = self._builder.begun(
            request.messages,
            template=request.template,
            budget=self._budget(request.sampling.checked()),
            boundary=self._boundaries.get(request.chat) if request.chat else None,
        )
        return AheadPlan(job, tokens, words_from, request.chat)

    def _budget(self, sampling: Sampling) -> int:
        """Tokens that a prompt may have, so that there is room for a reply."""
        length = self.context.length
        return length - min(sampling.max_tokens or _REPLY_ROOM, _REPLY_ROOM, length // 4)

    def render(self, request: RenderRequest) -> Rendered:
        """The prompt of these messages, whole: nothing is left out."""
        plan = self._builder.build(
            request.messages, template=request.template, continue_last=request.continue_last
        )
        return Rendered(
            text=plan.text,
            tokens=tuple(plan.tokens),
            pieces=tuple(plan.pieces(self.weights.vocabulary)),
            template_family=plan.family,
        )


def load(
    spec: WeightsSpec,
    progress: Callable[[float], bool],
    send: Send,
    renderer: Renderer,
    log: Sequence[str],
) -> LoadedEngine:
    """Load weights and make a context; `progress(fraction)` returning False gives up.

    KnownError with a sentence for each way a file or the machine can be unfit; `llama.Cancelled`
    when given up.  `log` is where llama.cpp's lines of this load arrive.
    """
    others = Others()
    path = Path(spec.path)
    files = weights_file.check(path)
    if not progress(0.0):
        raise llama.Cancelled
    file_bytes = weights_file.size_bytes(files)
    fingerprint = weights_file.fingerprint(files)
    placed = place(spec, files, file_bytes, progress, log)
    weights, context = placed.weights, placed.context
    try:
        try:
            cache = os.environ.get(CACHE_VARIABLE)
            folder = Path(cache) if cache else None
            chooser, times = choose(
                context,
                fixed=spec.threads,
                weights_bytes=file_bytes,
                key=f"{fingerprint} {placed.gpu_layers} {placed.kv_type}",
                folder=folder,
                others=others,
                go_on=lambda: progress(1.0),
            )
            if not progress(1.0):
                raise llama.Cancelled
            builder = PromptBuilder(weights.vocabulary, renderer)
            info = LoadedWeights(
                path=spec.path,
                name=weights.meta("general.name") or path.stem,
                architecture=weights.meta("general.architecture") or "",
                description=weights.description,
                quantisation=weights.quantisation,
                hash=fingerprint,
                size_bytes=file_bytes,
                memory_bytes=placed.memory_bytes,
                parameters=weights.parameters,
                context_length=context.length,
                trained_context=weights.trained_context,
                vocabulary=weights.vocabulary.n_vocab,
                has_template=bool(weights.vocabulary.chat_template),
                template_family=builder.family(),
                threads=chooser.current,
                threads_choice=chooser.choice,
                threads_measured=tuple(ThreadSpeed(*pair) for pair in told(times)),
                gpu_layers=placed.gpu_layers,
                offload_reason=placed.reason,
                kv_type=placed.kv_type,
                flash_attention=placed.flash_attention,
                can_roll_back=not weights.recurrent,
                sequences=context.sequences,
                kv_bytes_per_token=placed.token_bytes,
                engine=llama.engine_name(),
            )
            parking = Parking(
                _identity(info),
                memory_bytes=min(_PARKED_BYTES, devices.available_bytes() // 4),
                folder=folder,
            )
            return LoadedEngine(weights, context, info, builder, parking, chooser, send)
        except BaseException:
            context.close()
            raise
    except BaseException:
        weights.close()
        raise


def _identity(info: LoadedWeights) -> str:
    """All that must be equal for one engine's state to be right in another."""
    return "\n".join(
        [
            _STATE_FORMAT,
            info.engine,
            llama.system_info(),
            info.hash,
            info.architecture,
            f"kv {info.kv_type}, flash attention {info.flash_attention}, full windows",
            f"layers on devices {info.gpu_layers}",
            "rope as in the file, no adapters",
        ]
    )
