"""What this machine has, and how weights are spread over it: memory, layers on devices.

Pure arithmetic on numbers that the caller measured, so that it can be tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def cache_room(host_bytes: int, device_bytes: int, share: float) -> int:
    """How large the KV cache may be.

    `share` of it lies beside its layers in the `device_bytes` free there, the rest in `host_bytes`;
    both are what is free beside the weights, and keep a reserve for what is computed.
    """
    rooms = []
    if share < 1:
        rooms.append(max(0, host_bytes - _RESERVE_BYTES) / (1 - share))
    if share > 0:
        rooms.append(max(0, device_bytes - _RESERVE_BYTES) / share)
    return int(min(rooms))


def choose_cache(
    *, wanted: int, trained: int, token_bytes: Mapping[str, int], room_bytes: int
) -> tuple[int, str]:
    """The context's length in tokens, and the type of the cache's numbers.

    `token_bytes` holds the types that may be, the better one first.  `wanted` 0: as trained, at
    most `DEFAULT_CONTEXT`; the next type where it does not fit; halved until it fits with the last
    one.  A length that somebody chose is kept when it fits, else KnownError("context-too-long")
    says what would.
    """
    kinds = list(token_bytes)
    rooms = {kind: room_bytes // max(size, 1) for kind, size in token_bytes.items()}
    length = max(SMALLEST_CONTEXT, wanted or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT))
    for kind in kinds:
        if length <= rooms[kind] or not token_bytes[kind]:
            return length, kind
    if wanted:
        raise context_too_long(wanted, rooms[kinds[-1]])
    while length > rooms[kinds[-1]] and length // 2 >= SMALLEST_CONTEXT:
        length //= 2
    return length, kinds[-1]


def context_too_long(wanted: int, room: int) -> KnownError:
    """The sentence for a context that does not fit; its `detail` ends with the tokens that do."""
    fits = max(SMALLEST_CONTEXT, room // 256 * 256)
    return KnownError(
        "context-too-long",
        f"A context of {wanted:,} tokens does not fit into the free memory; "
        f"about {fits:,} tokens would. Choose a shorter one.",
        detail=f"tokens that fit: {fits}",
    )


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


def free_on_gpus(found: Sequence[Device]) -> int:
    """Bytes free on all GPUs together."""
    return sum(device.free_bytes for device in found if device.kind in ("gpu", "igpu"))


def fewer_layers(first: int) -> list[int]:
    """How many layers to try on devices, one after the other, until it works."""
    return list(dict.fromkeys([first, first * 3 // 4, first // 2, first // 4, 0]))
