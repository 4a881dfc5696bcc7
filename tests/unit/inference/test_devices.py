"""Memory and layers: arithmetic that needs no GPU to be checked."""

from __future__ import annotations

from functools import partial

import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.devices import (
    cache_room,
    check_memory,
    choose_cache,
    choose_offload,
    fewer_layers,
    kv_bytes_per_token,
)
from desktop_app.inference.protocol import Device

GB = 10**9


def gpu(free: int) -> Device:
    return Device("GPU0", "A GPU", "gpu", free, 2 * free)


CPU = Device("CPU", "A CPU", "cpu", 16 * GB, 16 * GB)


def test_weights_larger_than_the_memory_are_refused_with_both_figures() -> None:
    check_memory(5 * GB, 6 * GB)
    check_memory(7 * GB, 6 * GB, on_devices=2 * GB)
    with pytest.raises(KnownError, match=r"7\.0 GB.*6\.0 GB"):
        check_memory(7 * GB, 6 * GB)


def test_the_kv_cache_of_a_token() -> None:
    sizes = {"layers": 22, "kv_heads": 4, "key_length": 64, "value_length": 64}
    assert kv_bytes_per_token(**sizes, kv_type="f16") == 22528
    assert kv_bytes_per_token(**sizes, kv_type="q8_0") == 22528 * 17 // 32


def room(available: int, share: float = 0.0, on_devices: int = 0) -> int:
    return cache_room(available, on_devices, share)


def test_the_automatic_context_is_as_trained_capped_and_fits() -> None:
    one = {"f16": 1000}
    assert choose_cache(wanted=0, trained=2048, token_bytes=one, room_bytes=room(8 * GB))[0] == 2048
    assert choose_cache(wanted=0, trained=131072, token_bytes=one, room_bytes=8 * GB)[0] == 8192
    large = {"f16": 500_000}
    small, kind = choose_cache(wanted=0, trained=8192, token_bytes=large, room_bytes=room(2 * GB))
    assert small * 500_000 < 2 * GB
    assert (small, kind) == (2048, "f16")
    # Nothing that fits: the smallest is tried, llama.cpp has the last word.
    assert choose_cache(wanted=0, trained=8192, token_bytes=large, room_bytes=0)[0] == 256


def test_the_smaller_type_is_used_where_the_better_one_would_shorten_the_context() -> None:
    sizes = {"f16": 524_288, "q8_0": 278_528}
    choose = partial(choose_cache, token_bytes=sizes)
    assert choose(wanted=0, trained=4096, room_bytes=room(3 * GB)) == (4096, "f16")
    assert choose(wanted=0, trained=4096, room_bytes=room(2 * GB)) == (4096, "q8_0")
    assert choose(wanted=0, trained=4096, room_bytes=room(GB)) == (1024, "q8_0")
    assert choose(wanted=3000, trained=4096, room_bytes=room(2 * GB)) == (3000, "q8_0")


def test_a_chosen_context_that_does_not_fit_is_refused_with_one_that_would() -> None:
    one = {"f16": 1000}
    assert choose_cache(wanted=4096, trained=2048, token_bytes=one, room_bytes=GB)[0] == 4096
    with pytest.raises(KnownError) as caught:
        choose_cache(
            wanted=100_000, trained=2048, token_bytes={"f16": 100_000}, room_bytes=room(4 * GB)
        )
    assert caught.value.code == "context-too-long"
    assert "34,560" in caught.value.sentence
    assert caught.value.detail.endswith(" 34560")


def test_the_cache_lies_beside_its_layers() -> None:
    reserve = 512 << 20
    assert room(3 * GB) == 3 * GB - reserve
    assert room(3 * GB, 1.0, 2 * GB) == 2 * GB - reserve
    assert room(3 * GB, 0.5, 2 * GB) == 2 * (2 * GB - reserve)
    assert room(GB, 0.5, 20 * GB) == 2 * (GB - reserve)
    assert room(0, 0.5, 20 * GB) == 0


def test_fewer_layers_are_tried_and_at_last_none() -> None:
    assert fewer_layers(0) == [0]
    assert fewer_layers(1) == [1, 0]
    assert fewer_layers(33) == [33, 24, 16, 8, 0]


def test_layers_go_where_they_fit() -> None:
    def chosen(free: int, wanted: int = -1) -> int:
        return choose_offload(
            [CPU, gpu(free)], wanted=wanted, weights_bytes=10 * GB, layers=39
        ).layers

    assert chosen(24 * GB) == 40
    assert chosen(0) == 0
    assert 0 < chosen(6 * GB) < 39
    assert chosen(24 * GB, wanted=7) == 7
    assert chosen(24 * GB, wanted=500) == 40


def test_without_a_gpu_nothing_is_offloaded_and_the_reason_says_so() -> None:
    choice = choose_offload([CPU], wanted=-1, weights_bytes=GB, layers=10)
    assert choice.layers == 0
    assert "no GPU" in choice.reason
