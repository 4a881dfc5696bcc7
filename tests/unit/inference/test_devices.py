"""Memory and layers: arithmetic that needs no GPU to be checked."""

from __future__ import annotations

import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.devices import (
    check_memory,
    choose_context,
    choose_offload,
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


def test_the_automatic_context_is_as_trained_capped_and_fits() -> None:
    assert choose_context(wanted=0, trained=2048, token_bytes=1000, available=8 * GB) == 2048
    assert choose_context(wanted=0, trained=131072, token_bytes=1000, available=8 * GB) == 8192
    small = choose_context(wanted=0, trained=8192, token_bytes=500_000, available=2 * GB)
    assert small * 500_000 < 2 * GB
    assert small == 2048


def test_a_chosen_context_that_does_not_fit_is_refused_with_one_that_would() -> None:
    assert choose_context(wanted=4096, trained=2048, token_bytes=1000, available=8 * GB) == 4096
    with pytest.raises(KnownError) as caught:
        choose_context(wanted=100_000, trained=2048, token_bytes=100_000, available=4 * GB)
    assert caught.value.code == "context-too-long"
    assert "34560" in caught.value.sentence


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
