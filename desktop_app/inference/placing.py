"""Weights and their context, placed into the memory there is: layers on devices, length, KV type.

What somebody fixed is done or refused with a sentence; the rest is chosen by what fits.  Where a
device refuses although its figures said yes, fewer layers go there, at last none.

For the engine child's main thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from desktop_app.errors import KnownError
from desktop_app.inference import devices, llama
from desktop_app.inference.branches import MAX_SEQUENCES
from desktop_app.inference.context import Context
from desktop_app.inference.protocol import Device, WeightsSpec
from desktop_app.inference.writer import BATCH_TOKENS

_RECURRENT_SEQUENCES: Final = 4
"""Each sequence of recurrent weights has a whole state of its own."""
_BUFFER: Final = re.compile(r"buffer size\s*=\s*([\d.]+) MiB")
_PROCESS_BYTES: Final = 40_000_000
"""The engine's process before it loads anything."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Loaded weights with a context.  `memory_bytes` is what llama.cpp said it took."""

    weights: llama.Weights
    context: Context
    gpu_layers: int
    reason: str
    kv_type: str
    token_bytes: int
    memory_bytes: int
    flash_attention: bool


def place(
    spec: WeightsSpec,
    files: Sequence[Path],
    file_bytes: int,
    progress: Callable[[float], bool],
    log: Sequence[str],
) -> Placed:
    """Load and make a context; see `loading.load` for the errors.

    `log` is where llama.cpp's lines of this load arrive.
    """
    facts = llama.file_facts([str(file) for file in files])
    found = llama.devices()
    plan = _offload(spec, found, facts, file_bytes)
    free = devices.available_bytes()
    last: KnownError | None = None
    for layers in devices.fewer_layers(plan.layers):
        share = layers / (facts.layers + 1) if layers else 0.0
        on_host = max(0, file_bytes - int(file_bytes * share))
        if last is None or not layers:
            devices.check_memory(on_host, free)
        begun = len(log)
        try:
            weights = llama.Weights(
                str(files[0]),
                gpu_layers=layers,
                mapped=_mapped(facts, share),
                on_progress=progress,
            )
        except KnownError as error:
            if not layers:
                raise
            last = error
            continue
        try:
            _check_kind(weights, files[0])
            context, kv_type = _make_context(weights, spec, free - on_host, found, share)
        except KnownError as error:
            weights.close()
            if not layers or error.code != "memory-full":
                raise
            last = error
            continue
        except BaseException:
            weights.close()
            raise
        token_bytes = _token_bytes(weights, kv_type)
        taken = _taken_bytes(log[begun:])
        return Placed(
            weights=weights,
            context=context,
            gpu_layers=layers,
            reason=plan.reason if layers == plan.layers else _refused(layers, facts.layers),
            kv_type=kv_type,
            token_bytes=token_bytes,
            memory_bytes=_PROCESS_BYTES
            + (taken or weights.size_bytes + token_bytes * context.length),
            flash_attention=_flash_attention(log[begun:]),
        )
    raise AssertionError("no layers on devices is always tried")


def _refused(layers: int, of: int) -> str:
    if layers:
        return f"{layers} of {of} layers: the device had no room for more"
    return "the device had no room, so all runs on the processor"


def _offload(
    spec: WeightsSpec, found: Sequence[Device], facts: llama.FileFacts, file_bytes: int
) -> devices.Offload:
    if not facts.layers:  # an unreadable header: loading will say so
        return devices.Offload(0, "")
    return devices.choose_offload(
        found, wanted=spec.gpu_layers, weights_bytes=file_bytes, layers=facts.layers
    )


def _mapped(facts: llama.FileFacts, share: float) -> bool:
    """Map the file, unless the most of it would lie in memory a second time, rewritten."""
    rewrites = "REPACK = 1" in llama.system_info()
    return not (rewrites and facts.repacked_bytes * (1 - share) > facts.tensor_bytes / 2)


def _check_kind(weights: llama.Weights, path: Path) -> None:
    if not weights.writes_text:
        raise KnownError(
            "weights-no-chat",
            f"{path.name} holds weights that do not write text (they embed, encode or draw). "
            "Choose weights for chat.",
        )


def _widths(weights: llama.Weights) -> tuple[int, int]:
    """Of a head's key and value."""
    prefix = weights.meta("general.architecture") or ""
    heads = weights.heads[0]
    width = weights.embedding // heads if heads else 0

    def number(key: str) -> int:
        found = weights.meta(f"{prefix}.{key}")
        return int(found) if found and found.isdigit() else width

    return number("attention.key_length"), number("attention.value_length")


def _token_bytes(weights: llama.Weights, kv_type: str) -> int:
    """Bytes of the KV cache for one token; what recurrent layers hold does not grow with it."""
    key_length, value_length = _widths(weights)
    return devices.kv_bytes_per_token(
        layers=weights.layers,
        kv_heads=weights.heads[1],
        key_length=key_length,
        value_length=value_length,
        kv_type=kv_type,
    )


def _kv_types(weights: llama.Weights, spec: WeightsSpec) -> list[str]:
    """The types that may be used, the better one first."""
    if spec.kv_type != "auto":
        return [spec.kv_type]
    can = all(width % 32 == 0 and width > 0 for width in _widths(weights))  # blocks of 32 numbers
    smaller = can and spec.flash_attention != "off" and not weights.recurrent
    return ["f16", "q8_0"] if smaller else ["f16"]


def _make_context(
    weights: llama.Weights,
    spec: WeightsSpec,
    host_bytes: int,
    found: Sequence[Device],
    share: float,
) -> tuple[Context, str]:
    """`host_bytes` are free beside the weights; `share` of the layers is on the devices `found`."""
    if spec.kv_type == "q8_0" and spec.flash_attention == "off":
        raise KnownError(
            "kv-type-invalid",
            "A q8_0 cache needs flash attention. Allow flash attention, or choose an f16 cache.",
        )
    on_devices = devices.free_on_gpus(llama.devices()) if share and found else 0
    length, kv_type = devices.choose_cache(
        wanted=spec.context_length,
        trained=weights.trained_context,
        token_bytes={kind: _token_bytes(weights, kind) for kind in _kv_types(weights, spec)},
        room_bytes=devices.cache_room(host_bytes, on_devices, share),
    )
    sequences = _RECURRENT_SEQUENCES if weights.recurrent else MAX_SEQUENCES
    while True:
        try:
            return (
                Context(
                    weights,
                    length=length,
                    sequences=min(spec.sequences or sequences, MAX_SEQUENCES),
                    threads=spec.threads or 1,  # chosen when there is something to measure
                    kv_type=kv_type,
                    flash_attention=spec.flash_attention,
                    batch=BATCH_TOKENS,
                    offload=share > 0,
                ),
                kv_type,
            )
        except KnownError:
            if kv_type != "f16" and spec.kv_type == "auto":
                kv_type = "f16"  # these weights cannot have it smaller
            elif share:
                raise  # with fewer layers on devices there may be room
            elif length // 2 < devices.SMALLEST_CONTEXT:
                raise
            elif spec.context_length:
                raise devices.context_too_long(spec.context_length, length // 2) from None
            length //= 2


def _taken_bytes(log: Sequence[str]) -> int:
    """What llama.cpp says that its buffers take, on the processor and on devices; 0: it does not.

    "CPU_REPACK model buffer size = 554.91 MiB", "CPU KV buffer size = …", "… compute buffer …".
    """
    found = (_BUFFER.search(line) for line in log)
    return int(sum(float(match[1]) for match in found if match) * (1 << 20))


def _flash_attention(log: Sequence[str]) -> bool:
    """llama.cpp tells its choice in the log only ("... was auto, set to enabled")."""
    lines = [line.lower() for line in log if "flash" in line.lower()]
    return any("enabled" in line for line in lines) or not any("disabled" in x for x in lines)
