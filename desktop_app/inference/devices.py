"""What this machine has, and how weights are spread over it: memory, layers on devices.

Pure arithmetic on numbers that the caller measured, so that it can be tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from desktop_app.errors import KnownError
from desktop_app.inference.protocol import Device

DEFAULT_CONTEXT: Final = 8192
SMALLEST_CONTEXT: Final = 256
_RESERVE_BYTES: Final = 512 * 1024 * 1024
_KV_BYTES: Final = {"f16": 2.0, "q8_0": 34 / 32}
"""Bytes of one number in the KV cache: q8_0 has blocks of 32 bytes with a scale of 2."""
ALL_LAYERS: Final = 999


def available_bytes() -> int:
    """Memory that a new program can have now without swapping."""
    return int(psutil.virtual_memory().available)


def check_memory(weights_bytes: int, available: int, *, on_devices: int = 0) -> None:
    """KnownError("memory-full") when the weights cannot be held; sizes in bytes.

    `on_devices` is what goes to the memory of GPUs instead.
    """
    needed = max(0, weights_bytes - on_devices)
    if needed > available:
        raise KnownError(
            "memory-full",
            f"These weights need about {needed / 1e9:.1f} GB of memory, but only "
            f"{available / 1e9:.1f} GB are free. Close other programs or choose smaller weights.",
        )


def kv_bytes_per_token(
    *, layers: int, kv_heads: int, key_length: int, value_length: int, kv_type: str
) -> int:
    """What one token takes in the KV cache, in bytes."""
    return int(layers * kv_heads * (key_length + value_length) * _KV_BYTES[kv_type])


def choose_context(*, wanted: int, trained: int, token_bytes: int, available: int) -> int:
    """The context's length in tokens.

    `wanted` 0: as trained, at most `DEFAULT_CONTEXT`, halved until it fits beside a reserve.  A
    length that somebody chose is kept when it fits, else KnownError("context-too-long") says what
    would.
    """
    room = max(0, available - _RESERVE_BYTES) // max(token_bytes, 1)
    if wanted:
        if token_bytes and wanted > room:
            raise KnownError(
                "context-too-long",
                f"A context of {wanted} tokens does not fit into the free memory; "
                f"about {room // 256 * 256} tokens would. Choose a shorter one.",
            )
        return max(SMALLEST_CONTEXT, wanted)
    length = min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    while length > room and length // 2 >= SMALLEST_CONTEXT:
        length //= 2
    return max(SMALLEST_CONTEXT, length)


@dataclass(frozen=True, slots=True)
class Offload:
    """How many layers go to devices, and why, in words."""

    layers: int
    reason: str


def choose_offload(
    devices: Sequence[Device], *, wanted: int, weights_bytes: int, layers: int
) -> Offload:
    """How many of `layers` to put on the GPUs.

    `wanted` -1 chooses by free memory: each GPU keeps a reserve for the KV cache and the compute
    buffers, and a layer takes its even share of the weights.
    """
    gpus = [device for device in devices if device.kind in ("gpu", "igpu")]
    if not gpus:
        return Offload(0, "no GPU that this build of the engine can use")
    if wanted >= 0:
        return Offload(min(wanted, layers + 1), "as set")
    free = sum(max(0, device.free_bytes - 2 * _RESERVE_BYTES) for device in gpus)
    share = weights_bytes / (layers + 1)
    fitting = int(free // share) if share else layers + 1
    names = ", ".join(device.description or device.name for device in gpus)
    if fitting > layers:
        return Offload(layers + 1, f"all layers fit on {names}")
    if fitting == 0:
        return Offload(0, f"not one layer fits into the free memory of {names}")
    return Offload(fitting, f"{fitting} of {layers} layers fit on {names}")
