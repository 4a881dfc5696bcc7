"""What is computed with loaded weights: the KV cache, batches, samplers.

The second half of the thin layer over llama.cpp (see `llama`).  For the engine child's main thread,
except where a docstring says "any thread".
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

from desktop_app.errors import KnownError
from desktop_app.inference import llama
from desktop_app.inference.sampling import Sampling

_c: Final[Any] = llama.bindings
_KV_TYPES: Final = {"f16": _c.GGML_TYPE_F16, "q8_0": _c.GGML_TYPE_Q8_0}
_FLASH_ATTENTION: Final = {
    "auto": _c.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": _c.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": _c.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class SamplerChain:
    """llama.cpp's samplers in the order of the options; free it with `close`."""

    def __init__(self, sampling: Sampling, *, seed: int, vocabulary_size: int, window: int) -> None:
        """`window`: the context's length, over which a penalty of -1 looks back."""
        self.names: list[str] = []
        self._chain = _c.llama_sampler_chain_init(_c.llama_sampler_chain_default_params())
        last_n = window if sampling.penalty_last_n < 0 else sampling.penalty_last_n
        make: dict[str, Callable[[], Any]] = {
            "penalties": lambda: _c.llama_sampler_init_penalties(
                vocabulary_size, last_n, sampling.repetition_penalty, 0.0, 0.0
            ),
            "temperature": lambda: _c.llama_sampler_init_temp(sampling.temperature),
            "top_k": lambda: _c.llama_sampler_init_top_k(sampling.top_k),
            "top_p": lambda: _c.llama_sampler_init_top_p(sampling.top_p, 1),
            "min_p": lambda: _c.llama_sampler_init_min_p(sampling.min_p, 1),
            "typical_p": lambda: _c.llama_sampler_init_typical(sampling.typical_p, 1),
        }
        for step in sampling.steps():
            self._add(make[step]())
        if sampling.temperature == 0:
            self._add(_c.llama_sampler_init_greedy())
        else:
            self._add(_c.llama_sampler_init_dist(seed))

    def _add(self, sampler: Any) -> None:
        self.names.append(_c.llama_sampler_name(sampler).decode())
        _c.llama_sampler_chain_add(self._chain, sampler)

    def accept(self, tokens: Sequence[int]) -> None:
        """Let the penalty know what stands before the reply."""
        if any("penalties" in name for name in self.names):
            for token in tokens:
                _c.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context, index: int) -> int:
        """Choose from the logits of output `index` of the last batch, and remember the choice."""
        return int(_c.llama_sampler_sample(self._chain, context.handle, index))

    def close(self) -> None:
        """Free the memory."""
        if self._chain:
            _c.llama_sampler_free(self._chain)
            self._chain = None


class Batch:
    """Tokens to evaluate in one step, of several sequences."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token = (_c.llama_token * capacity)()
        self._pos = (_c.llama_pos * capacity)()
        self._count = (ctypes.c_int32 * capacity)(*([1] * capacity))
        self._ids = (_c.llama_seq_id * capacity)()
        pointer = ctypes.POINTER(_c.llama_seq_id)
        step = ctypes.sizeof(_c.llama_seq_id)
        self._id_pointers = (pointer * capacity)(
            *(
                ctypes.cast(ctypes.byref(self._ids, index * step), pointer)
                for index in range(capacity)
            )
        )
        self._output = (ctypes.c_int8 * capacity)()
        self.raw = _c.llama_batch()
        self.raw.token, self.raw.pos = self._token, self._pos
        self.raw.n_seq_id, self.raw.seq_id = self._count, self._id_pointers
        self.raw.logits = self._output

    def __len__(self) -> int:
        return int(self.raw.n_tokens)

    def clear(self) -> None:
        """Begin a new step."""
        self.raw.n_tokens = 0

    def add(self, tokens: Sequence[int], first: int, sequence: int, *, output: bool) -> int:
        """Append tokens at positions `first`, … of a sequence; the last one's index comes back.

        `output`: the last one's logits are wanted.
        """
        start, count = int(self.raw.n_tokens), len(tokens)
        end = start + count
        assert 0 < count <= self.capacity - start
        self._token[start:end] = tokens
        self._pos[start:end] = range(first, first + count)
        self._ids[start:end] = [sequence] * count
        flags: list[ctypes.c_byte | int] = [*([0] * (count - 1)), int(output)]
        self._output[start:end] = flags
        self.raw.n_tokens = end
        return end - 1


Outcome = Literal["done", "no_room", "aborted"]


class StepThreads(Protocol):
    """Who chooses the threads of each step (`thread_keeper.ThreadKeeper`)."""

    def threads(self, tokens: int) -> int:
        """How many threads the next step, of so many tokens, should use."""

    def note(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""


class _ThreadPool:
    """Threads that ggml keeps for one context.

    Without one it starts its threads anew for every step: with two threads, weights of 0.3 B took
    11.9 ms a step instead of 6.0 on idle cores, and 21 instead of 10 beside a busy program.
    """

    def __init__(self, threads: int) -> None:
        # Larger than ggml_threadpool_params, which ggml fills with its defaults.
        params = ctypes.create_string_buffer(4096)
        pointer = ctypes.c_void_p
        llama.ggml_function("ggml_threadpool_params_init", None, pointer, ctypes.c_int)(
            params, threads
        )
        self.handle = llama.ggml_function("ggml_threadpool_new", pointer, pointer)(params)

    def rest(self) -> None:
        """Let the threads sleep until the next step; by themselves they spin for 0.3 s first."""
        llama.ggml_function("ggml_threadpool_pause", None, ctypes.c_void_p)(self.handle)

    def close(self) -> None:
        """End the threads; no context may use them any more."""
        if self.handle:
            llama.ggml_function("ggml_threadpool_free", None, ctypes.c_void_p)(self.handle)
            self.handle = None


class Context:
    """A KV cache on loaded weights, and what is computed in it."""

    def __init__(
        self,
        weights: llama.Weights,
        *,
        length: int,
        sequences: int,
        threads: int,
        kv_type: str,
        batch: int,
        offload: bool,
        flash_attention: str = "auto",
    ) -> None:
        """`flash_attention` is "auto", "on" or "off"; auto asks the devices whether they can.

        KnownError("memory-full") when llama.cpp cannot make the context."""
        params = _c.llama_context_default_params()
        params.n_ctx, params.n_seq_max = length, sequences
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = _KV_TYPES[kv_type]
        params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
        params.kv_unified, params.swa_full = True, True
        params.offload_kqv, params.no_perf = offload, True
        # One output for each draft that writes; without this a buffer for a whole batch is kept.
        params.n_outputs_max = max(sequences, 1)
        self._context = _c.llama_init_from_model(weights.handle, params)
        if not self._context:
            raise KnownError(
                "memory-full",
                "There is not enough memory for a context of this length. "
                "Choose a shorter context, or smaller weights.",
            )
        self._memory = _c.llama_get_memory(self._context)
        self.length = int(_c.llama_n_ctx(self._context))
        self.sequences = sequences
        self.threads = threads
        self._pools: dict[int, _ThreadPool] = {}
        self._attach_threads(threads)
        self.step_threads: StepThreads | None = None
        self._waits = offload  # a device computes on after `llama_decode` came back
        self.vocabulary_size = weights.vocabulary.n_vocab
        # The abort callback runs for every node of the graph, on llama.cpp's own threads.  The C
        # library's strlen is one that needs no Python: 0 for an empty string, 1 for one character.
        self._abort = ctypes.create_string_buffer(2)
        if not weights.recurrent:
            _c.llama_set_abort_callback(
                self._context,
                ctypes.cast(_c_library().strlen, _c.ggml_abort_callback),
                ctypes.cast(self._abort, ctypes.c_void_p),
            )

    @property
    def handle(self) -> Any:
        """llama.cpp's own pointer."""
        return self._context

    def close(self) -> None:
        """Free the memory."""
        if self._context:
            _c.llama_free(self._context)
            self._context = None
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def set_threads(self, threads: int) -> None:
        """Use this many threads from the next step on (`step_threads` may choose others)."""
        if threads != self.threads:
            self.threads = threads
            self._attach_threads(threads)
            _c.llama_set_n_threads(self._context, threads, threads)

    def _attach_threads(self, threads: int) -> None:
        """Use a pool of just so many threads: one that is not wanted would spin beside the others.

        ggml pauses the pool it leaves when the next step begins, so none may be closed before the
        context.  One thread alone needs no pool.
        """
        pool = self._pools.get(threads)
        if pool is None and threads > 1:
            try:
                pool = self._pools[threads] = _ThreadPool(threads)
            except (AttributeError, OSError, RuntimeError):
                return  # a build that keeps these functions in backends: slower, and as right
        if not self._pools:
            return
        pointer = ctypes.c_void_p
        attach = llama.ggml_function("llama_attach_threadpool", None, pointer, pointer, pointer)
        attach(self._context, pool.handle if pool is not None else None, None)

    def rest(self) -> None:
        """Nothing is to be computed for now: the threads sleep, and a busy machine is not ours."""
        if pool := self._pools.get(self.threads):
            pool.rest()

    def abort(self, *, on: bool) -> None:
        """End the running step as soon as possible (or allow steps again).  Any thread."""
        self._abort[0] = b"\x01" if on else b"\x00"

    def decode(self, batch: Batch) -> Outcome:
        """Evaluate a batch.

        After "aborted" the batch's tokens are not in memory (a batch is one micro-batch here);
        after "no_room" nothing has changed.  `threads` is then how many computed it.
        """
        chooser, tokens = self.step_threads, len(batch)
        if chooser is not None:
            self.set_threads(chooser.threads(tokens))
        began = time.perf_counter()
        status = _c.llama_decode(self._context, batch.raw)
        if status == 0:
            if self._waits:
                _c.llama_synchronize(self._context)
            if chooser is not None:
                chooser.note(tokens, time.perf_counter() - began)
            return "done"
        if status == 1:
            return "no_room"
        if status == 2:
            return "aborted"
        raise KnownError(
            "engine-failed",
            "The engine could not compute the next step. Ask again; if it happens once more, "
            "choose a shorter context.",
            detail=f"llama_decode returned {status}",
        )

    def logits(self, index: int) -> list[float]:
        """The raw scores of all tokens for output `index` of the last batch."""
        row = _c.llama_get_logits_ith(self._context, index)
        return list(row[: self.vocabulary_size])

    def copy(self, source: int, target: int, first: int, end: int) -> None:
        """Let `target` share positions [first, end) of `source` (end -1: to the last)."""
        _c.llama_memory_seq_cp(self._memory, source, target, first, end)

    def remove(self, sequence: int, first: int = 0, end: int = -1) -> bool:
        """Remove positions [first, end); False when a part cannot be removed."""
        return bool(
            _c.llama_memory_seq_rm(self._memory, sequence, first if first or end >= 0 else -1, end)
        )

    def span(self, sequence: int) -> tuple[int, int]:
        """First and last position that are in memory; (-1, -1) for an empty sequence."""
        return (
            int(_c.llama_memory_seq_pos_min(self._memory, sequence)),
            int(_c.llama_memory_seq_pos_max(self._memory, sequence)),
        )

    def clear(self) -> None:
        """Forget every sequence."""
        _c.llama_memory_clear(self._memory, True)

    def save(self, sequence: int) -> bytes:
        """The state of a sequence as bytes, for `restore` into this or an equal context."""
        size = int(_c.llama_state_seq_get_size(self._context, sequence))
        buffer = (ctypes.c_uint8 * size)()
        written = int(_c.llama_state_seq_get_data(self._context, buffer, size, sequence))
        return bytes(memoryview(buffer)[:written])

    def restore(self, sequence: int, data: bytes) -> bool:
        """Load a saved state into an empty sequence; False when it does not fit."""
        # llama.cpp only reads it, so the bytes need not be copied: they may be 3 MB a block.
        pointer = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
        read = _c.llama_state_seq_set_data(self._context, pointer, len(data), sequence)
        return bool(read == len(data))


def _c_library() -> ctypes.CDLL:
    return ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
