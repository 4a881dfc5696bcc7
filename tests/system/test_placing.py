"""Context and KV type by what fits, in the real engine; memory that ends is a sentence."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine, engine_command
from desktop_app.inference.protocol import Finished, GenerateRequest, LoadedWeights, WeightsSpec
from desktop_app.inference.sampling import Sampling
from desktop_app.session.loading import context_that_fits
from tests.fakes import hub_files

WAIT_S = 120.0
# 64 KiB of cache a token in f16, with little else: 32 blocks x 8 heads x 2 x 64 values x 2 bytes.
SHAPE = hub_files.Shape(
    blocks=32, embedding=512, feed_forward=64, heads=8, kv_heads=8, vocabulary=320, kind="Q8_0"
)
PROMPT = tuple(range(10, 60))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "much-cache.gguf"
    hub_files.write(path, SHAPE, seed=5)
    return path


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()


def load(engine: Engine, spec: WeightsSpec) -> LoadedWeights:
    return engine.load(spec).done.result(WAIT_S)


def write(engine: Engine) -> Finished:
    sampling = Sampling(temperature=0, max_tokens=12, seed=1)
    request = GenerateRequest(prompt_tokens=PROMPT, sampling=sampling)
    (finished,) = engine.generate(request).done.result(WAIT_S)
    return finished


def test_a_context_far_too_long_is_refused_with_the_length_that_fits(
    engine: Engine, weights: Path
) -> None:
    with pytest.raises(KnownError) as caught:
        load(engine, WeightsSpec(str(weights), context_length=1_000_000_000))
    assert caught.value.code == "context-too-long"
    offered = context_that_fits(caught.value)
    assert 256 <= offered < 1_000_000_000
    assert f"{offered:,}" in caught.value.sentence


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("prlimit") is None, reason="needs prlimit"
)
def test_memory_that_ends_in_the_middle_offers_less_until_it_fits(weights: Path) -> None:
    # The machine's figures say yes, but the process gets no more than this address space.
    limited = Engine(command=["prlimit", f"--as={1400 << 20}", *engine_command()])
    try:
        length = 65536  # 4 GiB of cache
        for _ in range(10):
            try:
                info = load(limited, WeightsSpec(str(weights), context_length=length))
                break
            except KnownError as error:
                offered = context_that_fits(error)
                if not 0 < offered < length:
                    raise
                length = offered
        assert info.context_length == length < 65536
        assert write(limited).counters.generated_tokens > 0
    finally:
        limited.close()


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("prlimit") is None, reason="needs prlimit"
)
def test_an_automatic_context_becomes_smaller_by_itself(weights: Path) -> None:
    limited = Engine(command=["prlimit", f"--as={900 << 20}", *engine_command()])
    try:
        info = load(limited, WeightsSpec(str(weights), kv_type="auto"))
        assert 256 <= info.context_length <= SHAPE.context
        assert write(limited).counters.generated_tokens > 0
    finally:
        limited.close()


def test_cache_type_and_flash_attention_as_somebody_fixed_them(
    engine: Engine, weights: Path
) -> None:
    seen = {}
    for kv_type, flash in (("f16", "auto"), ("q8_0", "auto"), ("f16", "off"), ("auto", "auto")):
        spec = WeightsSpec(
            str(weights),
            context_length=512,
            kv_type=kv_type,  # type: ignore[arg-type] # values of the list above
            flash_attention=flash,  # type: ignore[arg-type] # values of the list above
        )
        info = load(engine, spec)
        seen[kv_type, flash] = info
        assert info.kv_type == ("f16" if kv_type == "auto" else kv_type)
        assert info.flash_attention == (flash == "auto")
        assert write(engine).turn["kv_type"] == info.kv_type
    assert seen["f16", "auto"].kv_bytes_per_token == 65536
    assert seen["q8_0", "auto"].kv_bytes_per_token == 65536 * 17 // 32
    saved = seen["f16", "auto"].memory_bytes - seen["q8_0", "auto"].memory_bytes
    assert saved == pytest.approx(512 * 65536 * 15 / 32, rel=0.15)
    with pytest.raises(KnownError, match=re.escape("flash attention")):
        load(engine, WeightsSpec(str(weights), kv_type="q8_0", flash_attention="off"))
