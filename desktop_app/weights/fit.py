"""Will these weights run on this computer, how much memory will they take, and how fast?

Memory is arithmetic over the header.  Speed is a measurement made once on this computer, scaled:
writing one token reads every matrix once, so the time of a token is the bytes read divided by
the speed of reading them, plus a little for each block.  The formulas of the compute buffers are
fitted to what llama.cpp reserves for llama-shaped networks (graph of 512 tokens, flash attention).

Pure functions over `Header`; `Machine.here` looks at the computer.  Any thread.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psutil

from desktop_app.errors import KnownError

from .gguf import Header, TensorInfo
from .measuring import machine_identity
from .profile_file import load_json, save_json

MB: Final = 1_000_000
GB: Final = 1_000_000_000
# Below this a reply is slower than most people read.
COMFORTABLE_TOKENS_PER_SECOND: Final = 7.0
# The engine's child process before it loads anything, and what each vocabulary entry costs it.
_PROCESS_BYTES: Final = 40 * MB
_BYTES_PER_TOKEN_ENTRY: Final = 220
# What the system and other programs should keep.
_RESERVE_BYTES: Final = 400 * MB
_SMALLEST_CONTEXT: Final = 256
_KEPT_RUNS: Final = 9
_MEMORY_MEASUREMENTS: Final = 3
# Parts of a token's time that do not depend on bytes: starting the threads for each operation.
_SECONDS_PER_BLOCK: Final = 120e-6
# Speed of reading a type while computing with it, relative to Q8_0.  F16, Q8_0 and the
# K types were measured on x86-64 with AVX-512; the rest are estimates from their kernels.
_RELATIVE_SPEED: Final[Mapping[str, float]] = {
    "F32": 1.0,
    "F16": 1.1,
    "BF16": 1.0,
    "Q8_0": 1.0,
    "Q6_K": 0.92,
    "Q5_K": 0.84,
    "Q5_0": 0.8,
    "Q5_1": 0.8,
    "Q4_K": 1.0,
    "Q4_0": 1.0,
    "Q4_1": 0.9,
    "IQ4_NL": 0.95,
    "IQ4_XS": 0.85,
    "Q3_K": 0.75,
    "Q2_K": 0.8,
    "IQ3_S": 0.4,
    "IQ3_XXS": 0.4,
    "IQ2_S": 0.35,
    "IQ2_XS": 0.35,
    "IQ2_XXS": 0.35,
    "IQ1_S": 0.4,
    "IQ1_M": 0.35,
    "MXFP4": 0.95,
}
_KV_BYTES: Final[Mapping[str, float]] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q4_0": 18 / 32,
}
# Attention multiplies every cached value again for each head that shares it: worth so many bytes
# read, by KV type.  Measured at 600 tokens of context.
_ATTENTION_BYTES: Final[Mapping[str, float]] = {
    "f32": 2.5,
    "f16": 2.0,
    "bf16": 2.5,
    "q8_0": 3.5,
    "q4_0": 4.0,
}
# Types that llama.cpp rewrites in memory for its fast kernels (ggml-cpu/repack.cpp).
_REPACKED_X86: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_REPACKED_ARM: Final = _REPACKED_X86 | {"Q5_K", "Q6_K", "Q8_0", "Q1_0"}


@dataclass(frozen=True, slots=True)
class Device:
    """A graphics device as the engine reports it."""

    name: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What this computer has to offer right now."""

    total_bytes: int
    free_bytes: int
    cores: int
    disk_free_bytes: int = 0
    devices: tuple[Device, ...] = ()

    @classmethod
    def here(cls, folder: Path | None = None, devices: tuple[Device, ...] = ()) -> Machine:
        """This computer.  `folder` is where weights are kept: its disk's free space is told."""
        memory = psutil.virtual_memory()
        cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
        disk = 0
        if folder is not None:
            existing = next((p for p in (folder, *folder.parents) if p.exists()), None)
            disk = psutil.disk_usage(str(existing)).free if existing is not None else 0
        return cls(memory.total, memory.available, cores, disk, devices)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the weights would be loaded.  The defaults are those of Grove's engine."""

    # 0 = automatic: the trained length, at most 8,192.
    context_length: int = 0
    # "auto": f16, or q8_0 where that does not fit.
    kv_type: str = "f16"
    batch_tokens: int = 512
    # How many tokens of a batch get logits: the last of a prompt, or one for each draft.  llama.cpp
    # may reserve room for more, but what is never written takes no memory.
    output_tokens: int = 16
    # Whether the file stays mapped where most of it is repacked, and so is held twice (the engine
    # reads such files instead).
    mapped: bool = False
    # -1 = as many as fit, 0 = none.
    gpu_layers: int = -1
    # Tokens of context read for each new one, for the speed.
    typical_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Fit:
    """The judgement.  Sizes in bytes; `tokens_per_second` is 0 where nothing was measured yet."""

    # "well", "slow", "too-big"
    verdict: str
    # English: one line for a list, one sentence that says why.
    headline: str
    sentence: str
    memory_bytes: int
    # Highest resident size while loading with mapped files (repacked weights count twice).
    peak_bytes: int
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    free_bytes: int
    tokens_per_second: float
    context_length: int
    gpu_layers: int
    block_count: int

    def as_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Load:
    """What a network needs, from its header or guessed from a file's size."""

    weights_bytes: int
    repacked_bytes: int
    read_bytes: Mapping[str, int]
    block_count: int
    kv_values_per_token: int
    # Values that attention multiplies for each token of context: those of all heads.
    attention_values_per_token: int
    embedding: int
    feed_forward: int
    vocabulary: int
    trained_context: int
    kv_is_known: bool = True


@dataclass(slots=True)
class SpeedBook:
    """Speeds seen on this computer, kept in ``<profile>/speed.json``.  Thread-safe.

    Other programs make some runs slow, and nothing makes a run too fast for long: the upper
    quartile of the last runs counts, so that judgements stand still beside a busy program and
    follow when a computer has really become slower.
    """

    path: Path | None = None
    # The catalogue's entry that was recommended last: kept as long as it runs well.
    recommended: str = ""
    # By type of the weights: the last runs, oldest first.  "memory": what was measured by copying.
    _runs: dict[str, list[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(cls, path: Path) -> SpeedBook:
        """From disk; a missing, damaged or another computer's file is an empty book."""
        book = cls(path)
        book.read()
        return book

    def read(self) -> None:
        """Take in what was written since: the session keeps a book of its own over this file."""
        if self.path is None:
            return
        data = load_json(self.path, {})
        if not isinstance(data, dict) or data.get("machine") != machine_identity():
            return
        recommended, runs = data.get("recommended"), data.get("runs")
        with self._lock:
            self.recommended = recommended if isinstance(recommended, str) else ""
            for kind, values in runs.items() if isinstance(runs, dict) else ():
                known = values if isinstance(values, list) else []
                good = [float(v) for v in known if isinstance(v, int | float) and v > 0]
                if good:
                    self._runs[str(kind)] = good[-_KEPT_RUNS:]

    @property
    def is_empty(self) -> bool:
        with self._lock:
            return not self._runs

    @property
    def has_runs(self) -> bool:
        """Whether any weights were measured, not only the memory."""
        with self._lock:
            return any(kind != "memory" for kind in self._runs)

    @property
    def knows_memory(self) -> bool:
        """Whether the memory was measured often enough for one quiet moment."""
        with self._lock:
            return len(self._runs.get("memory", [])) >= _MEMORY_MEASUREMENTS

    def record(self, header: Header, tokens_per_second: float, *, context_used: int = 0) -> None:
        """Learn from a real run of these weights on the CPU alone."""
        load = load_of(header)
        seconds = 1 / tokens_per_second - load.block_count * _SECONDS_PER_BLOCK
        if seconds <= 0:
            return
        kv = load.attention_values_per_token * _ATTENTION_BYTES["f16"] * context_used
        self._put(_main_type(load.read_bytes), (_weighted_bytes(load.read_bytes) + kv) / seconds)

    def record_memory_speed(self, bytes_per_second: float) -> None:
        """The plain memory speed: used until a real run was seen.  The best one counts."""
        self._put("memory", bytes_per_second)

    def remember_recommended(self, entry_id: str) -> None:
        """On disk where there is one; a guess for later, so a full disk is no failure."""
        if entry_id != self.recommended:
            self.read()
            self.recommended = entry_id
            with contextlib.suppress(KnownError):
                self._save()

    def _put(self, kind: str, value: float) -> None:
        self.read()
        with self._lock:
            self._runs[kind] = [*self._runs.get(kind, []), value][-_KEPT_RUNS:]
        self._save()

    def _save(self) -> None:
        if self.path is None:
            return
        with self._lock:
            save_json(
                self.path,
                {
                    "machine": machine_identity(),
                    "recommended": self.recommended,
                    "runs": {kind: list(values) for kind, values in self._runs.items()},
                },
            )

    def _speed(self, kind: str) -> float:
        """Under the lock; 0 for a kind that never ran."""
        values = sorted(self._runs.get(kind, []))
        if not values:
            return 0.0
        return values[-1] if kind == "memory" else values[round(0.75 * (len(values) - 1))]

    def reference(self, main_type: str) -> float:
        """Q8_0-equivalent bytes per second for weights of mostly `main_type`; 0 if unknown."""
        with self._lock:
            if main_type in self._runs:
                return self._speed(main_type)
            runs = [self._speed(kind) for kind in self._runs if kind != "memory"]
            if runs:
                return sum(runs) / len(runs)
            return self._speed("memory")

    def tokens_per_second(self, load: Load, plan: Plan) -> float:
        """Expected speed of writing on the CPU, 0 if nothing was measured."""
        reference = self.reference(_main_type(load.read_bytes))
        if reference <= 0:
            return 0.0
        values = load.attention_values_per_token * plan.typical_tokens
        attention = values * _ATTENTION_BYTES[plan.kv_type]
        seconds = (_weighted_bytes(load.read_bytes) + attention) / reference
        return 1 / (seconds + load.block_count * _SECONDS_PER_BLOCK)


def _weighted_bytes(read_bytes: Mapping[str, int]) -> float:
    return sum(size / _RELATIVE_SPEED.get(kind, 0.7) for kind, size in read_bytes.items())


def _main_type(read_bytes: Mapping[str, int]) -> str:
    return max(read_bytes, key=lambda kind: read_bytes[kind], default="")


def is_repacked(tensor: TensorInfo) -> bool:
    """Whether the CPU backend keeps its own rewritten copy of this matrix."""
    arm = platform.machine().lower() in ("arm64", "aarch64")
    types = _REPACKED_ARM if arm else _REPACKED_X86
    step = 4 if arm else 8
    return (
        len(tensor.shape) >= 2
        and tensor.type_name in types
        and tensor.shape[1] % step == 0
        and not tensor.name.startswith(("token_embd", "per_layer_token_embd"))
    )


def load_of(header: Header) -> Load:
    """What the network of this header needs."""
    read: dict[str, int] = {}
    names = {tensor.name for tensor in header.tensors}
    tied = "output.weight" not in names
    repacked = weights = 0
    for tensor in header.tensors:
        weights += tensor.size_bytes
        if is_repacked(tensor):
            repacked += tensor.size_bytes
        size = tensor.size_bytes
        if tensor.name == "token_embd.weight":
            if not tied:
                continue  # one row of it is read
            # llama.cpp loads a tied table a second time as the output matrix, repacked if it can.
            twin = TensorInfo("output.weight", tensor.shape, tensor.type_id, 0, tensor.size_bytes)
            if is_repacked(twin):
                weights += size
                repacked += size
        elif tensor.name.startswith("per_layer_token_embd"):
            continue
        elif "_exps." in tensor.name and header.expert_count:
            size = size * header.expert_used_count // header.expert_count
        read[tensor.type_name] = read.get(tensor.type_name, 0) + size
    kv_heads = sum(header.kv_heads_per_block)
    # Blocks without attention (recurrent ones) have no KV heads.
    heads = sum(header.heads for kv in header.kv_heads_per_block if kv)
    return Load(
        weights_bytes=weights,
        repacked_bytes=repacked,
        read_bytes=read,
        block_count=header.block_count,
        kv_values_per_token=kv_heads * (header.key_length + header.value_length),
        attention_values_per_token=heads * (header.key_length + header.value_length),
        embedding=header.embedding_length,
        feed_forward=header.feed_forward_length,
        vocabulary=header.vocab_size,
        trained_context=header.context_length,
    )


def load_of_size(size_bytes: int, quantisation: str, trained_context: int = 0) -> Load:
    """A guess for a file whose header was not read: only its size and quantisation are known."""
    kind = re.sub(r"_(S|M|L|XL|XS|XXS)$", "", quantisation.upper()) or "Q4_K"
    bits = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K": 5.6}.get(
        kind, 4.7 if kind.startswith(("Q4", "IQ4", "MXFP4")) else 3.5
    )
    parameters = size_bytes * 8 / bits
    # Widths and depths of the LLaMA family: 1 B ≈ 16 × 2048, 7 B ≈ 32 × 4096, 70 B ≈ 80 × 8192.
    embedding = int(4096 * (parameters / 7e9) ** 0.32) or 64
    blocks = max(1, round(32 * (parameters / 7e9) ** 0.36))
    grouped = 4 if parameters > 14e9 or parameters < 4e9 else 2
    return Load(
        weights_bytes=size_bytes,
        repacked_bytes=size_bytes * 9 // 10 if kind in _REPACKED_X86 else 0,
        read_bytes={kind: size_bytes * 95 // 100},
        block_count=blocks,
        kv_values_per_token=2 * blocks * embedding // grouped,
        attention_values_per_token=2 * blocks * embedding,
        embedding=embedding,
        feed_forward=embedding * 3,
        vocabulary=64_000,
        trained_context=trained_context or 8192,
        kv_is_known=False,
    )


def kv_bytes(load: Load, context_length: int, kv_type: str) -> int:
    """The KV cache: every block keeps a key and a value of each token.  Padded to 256 cells."""
    cells = -(-context_length // 256) * 256
    return int(cells * load.kv_values_per_token * _KV_BYTES[kv_type])


def compute_bytes(load: Load, plan: Plan, context_length: int) -> int:
    """What llama.cpp reserves to compute one batch: the larger of the output's and a block's."""
    tokens = min(plan.batch_tokens, context_length)
    outputs = min(plan.output_tokens, tokens)
    output_stage = 4 * (outputs * load.vocabulary + 2 * tokens * load.embedding)
    mask = 2 * tokens * (-(-context_length // 256) * 256)
    block_stage = 4 * tokens * (3 * load.feed_forward + 4 * load.embedding) + mask
    return max(output_stage, block_stage)


def context_of(load: Load, plan: Plan) -> int:
    """The context length that `plan` means for these weights."""
    trained = load.trained_context or 4096
    return plan.context_length or min(trained, 8192)


def predict(
    source: Header | Load,
    machine: Machine,
    speeds: SpeedBook | None = None,
    plan: Plan | None = None,
    *,
    unloading_bytes: int = 0,
) -> Fit:
    """Judge whether the weights run here.

    `unloading_bytes` is what becomes free because other weights are about to be unloaded.
    """
    load = load_of(source) if isinstance(source, Header) else source
    plan = plan or Plan()
    if plan.kv_type == "auto":
        return _with_best_cache(source, machine, speeds, plan, unloading_bytes)
    free = machine.free_bytes + unloading_bytes
    context = context_of(load, plan)
    need = _need(load, machine, plan, context)
    # As the engine does when nobody chose a length: halve it until it fits.
    shorter = context
    while not plan.context_length and need.memory > free and shorter // 2 >= _SMALLEST_CONTEXT:
        shorter //= 2
        smaller = _need(load, machine, plan, shorter)
        if smaller.memory <= free:
            context, need = shorter, smaller
    speed = speeds.tokens_per_second(load, plan) if speeds is not None else 0.0
    on_cpu = 1 - need.layers / (load.block_count + 1)
    # Nothing is known about the speed of graphics cards: only the rest takes time.
    speed = speed / on_cpu if on_cpu > 0 else 0.0
    words = _words(need.memory, free, machine.total_bytes, speed, need.layers, load)
    return Fit(
        *words,
        memory_bytes=need.memory,
        peak_bytes=need.memory + (load.repacked_bytes if plan.mapped else 0),
        weights_bytes=load.weights_bytes,
        kv_bytes=need.kv,
        compute_bytes=need.compute,
        free_bytes=free,
        tokens_per_second=round(speed, 1),
        context_length=context,
        gpu_layers=need.layers,
        block_count=load.block_count,
    )


def _with_best_cache(
    source: Header | Load,
    machine: Machine,
    speeds: SpeedBook | None,
    plan: Plan,
    unloading_bytes: int,
) -> Fit:
    """As the engine does: q8_0 where f16 does not fit, or only with a shorter context."""
    fits = [
        predict(
            source, machine, speeds, replace(plan, kv_type=kind), unloading_bytes=unloading_bytes
        )
        for kind in ("f16", "q8_0")
    ]
    better, smaller = fits
    gains = smaller.memory_bytes <= smaller.free_bytes and (
        better.memory_bytes > better.free_bytes or smaller.context_length > better.context_length
    )
    return smaller if gains else better


@dataclass(frozen=True, slots=True)
class _Need:
    """Bytes at one context length, and how many blocks fit on graphics devices."""

    memory: int
    kv: int
    compute: int
    layers: int


def _need(load: Load, machine: Machine, plan: Plan, context: int) -> _Need:
    kv = kv_bytes(load, context, plan.kv_type)
    compute = compute_bytes(load, plan, context)
    base = _PROCESS_BYTES + _BYTES_PER_TOKEN_ENTRY * load.vocabulary
    layers, on_gpu = _gpu_layers(load, machine.devices, plan, kv, compute)
    return _Need(max(0, load.weights_bytes + kv - on_gpu) + compute + base, kv, compute, layers)


def _gpu_layers(
    load: Load, devices: Iterable[Device], plan: Plan, kv: int, compute: int
) -> tuple[int, int]:
    """How many blocks fit on the graphics devices, and the bytes that takes off main memory."""
    if plan.gpu_layers == 0 or load.block_count == 0:
        return 0, 0
    per_layer = (load.weights_bytes + kv) / (load.block_count + 1)
    fitting = 0
    for device in devices:
        room = device.free_bytes * 0.95 - compute - 200 * MB
        fitting += max(0, int(room // per_layer)) if per_layer else 0
    wanted = load.block_count + 1 if plan.gpu_layers < 0 else plan.gpu_layers
    layers = min(fitting, wanted, load.block_count + 1)
    return layers, int(layers * per_layer)


def size_text(size_bytes: float) -> str:
    """Decimal units as file managers show them: "3 MB", "2.0 GB", "41 GB"."""
    if size_bytes < 999_500:
        return f"{max(0, round(size_bytes / 1000))} kB"
    if size_bytes < 999.5 * MB:
        return f"{round(size_bytes / MB)} MB"
    return f"{size_bytes / GB:.1f} GB" if size_bytes < 9.95 * GB else f"{round(size_bytes / GB)} GB"


def _speed_text(speed: float) -> str:
    return f"{speed:.1f}" if speed < 2 else f"{round(speed)}"


def _words(
    memory: int, free: int, total: int, speed: float, layers: int, load: Load
) -> tuple[str, str, str]:
    need, have = size_text(memory), size_text(free)
    if memory > free:
        headline = f"Needs {need} of memory"
        if memory + _RESERVE_BYTES > total:
            return (
                "too-big",
                headline,
                (
                    f"Too big for this computer: it needs {need} of memory and there are "
                    f"{size_text(total)}. Choose a smaller quantisation or smaller weights."
                ),
            )
        return (
            "too-big",
            headline,
            (
                f"Too big right now: it needs {need} of memory and {have} are free. Close other "
                "programs, choose a shorter context, or choose a smaller quantisation."
            ),
        )
    gpu = f" {layers} layers run on the graphics card." if layers else ""
    if layers > load.block_count:
        return (
            "well",
            "Runs well on the graphics card",
            (f"Runs well: all of it fits on the graphics card, with {need} of {have} free memory."),
        )
    if speed <= 0:
        return (
            "well",
            "Fits in memory",
            (
                f"It needs {need} of {have} free memory. Its speed is known once weights have run "
                f"on this computer.{gpu}"
            ),
        )
    pace = f"about {_speed_text(speed)} tokens/s"
    if speed >= COMFORTABLE_TOKENS_PER_SECOND:
        return (
            "well",
            f"Runs well, {pace}",
            (f"Runs well: {pace}, with {need} of {have} free memory.{gpu}"),
        )
    read = size_text(sum(load.read_bytes.values()))
    return (
        "slow",
        f"Runs slowly, {pace}",
        (
            f"Runs slowly: {pace}, because {read} of weights are read for every token. It needs "
            f"{need} of {have} free memory.{gpu}"
        ),
    )
