"""Layers on devices, with llama.cpp's RPC server on the loopback in place of a GPU.

The server and its library must be of the very llama.cpp that is installed.  They are built once,
from the source of the llama-cpp-python that the lock names, and told by an environment variable:

    pip download --no-deps --no-binary :all: llama-cpp-python==VERSION && tar xf llama_cpp_python-*
    cmake -G Ninja -S llama_cpp_python-*/vendor/llama.cpp -B BUILD -DCMAKE_BUILD_TYPE=Release \\
        -DGGML_RPC=ON -DGGML_OPENMP=OFF -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_SERVER=OFF \\
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    ninja -C BUILD ggml-rpc ggml-rpc-server
    GROVE_RPC_BUILD=BUILD/bin python -m pytest tests/system/test_offload.py

Without it the tests are skipped.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import Finished, GenerateRequest, LoadedWeights, WeightsSpec
from desktop_app.inference.sampling import Sampling
from tests.fakes import hub_files

BUILD = os.environ.get("GROVE_RPC_BUILD", "")
WAIT_S = 120.0
SHAPE = hub_files.Shape(
    blocks=8, embedding=256, feed_forward=512, heads=4, kv_heads=2, vocabulary=512, kind="F32"
)
PROMPT = tuple(range(300, 340))

pytestmark = pytest.mark.skipif(not BUILD, reason="no RPC server: GROVE_RPC_BUILD is not set")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "eight-layers.gguf"
    hub_files.write(path, SHAPE, seed=3)
    return path


@contextlib.contextmanager
def served(*, memory_bytes: int = 0) -> Iterator[tuple[str, psutil.Process]]:
    """A server's endpoint and process; `memory_bytes` is all the address space it gets."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    limit = ["prlimit", f"--as={memory_bytes}"] if memory_bytes else []
    server = subprocess.Popen(
        [*limit, str(Path(BUILD) / "ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None
            assert time.monotonic() < end
        yield f"127.0.0.1:{port}", psutil.Process(server.pid)
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    library = next(Path(BUILD).glob("libggml-rpc.*"))
    monkeypatch.setenv("GROVE_RPC_LIBRARY", str(library))
    made = Engine()
    yield made
    made.close()


def write(engine: Engine) -> Finished:
    request = GenerateRequest(
        prompt_tokens=PROMPT, sampling=Sampling(temperature=0, max_tokens=24, seed=1)
    )
    (finished,) = engine.generate(request).done.result(WAIT_S)
    return finished


def load(engine: Engine, weights: Path, gpu_layers: int = -1) -> LoadedWeights:
    spec = WeightsSpec(str(weights), context_length=512, gpu_layers=gpu_layers)
    return engine.load(spec).done.result(WAIT_S)


def test_all_layers_go_to_a_device_that_has_room_and_write_the_same(
    engine: Engine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(engine, weights)
    assert plain.gpu_layers == 0
    assert "no GPU" in plain.offload_reason
    expected = write(engine).tokens
    with served() as (endpoint, server):
        monkeypatch.setenv("GROVE_RPC_SERVERS", endpoint)
        empty = server.memory_info().rss
        info = load(engine, weights)
        assert server.memory_info().rss - empty > 0.8 * weights.stat().st_size
        assert engine.hello is not None
        assert [d.kind for d in engine.hello.devices if "RPC" in d.name.upper()] == ["gpu"]
        assert info.gpu_layers == SHAPE.blocks + 1
        assert "all layers fit" in info.offload_reason
        finished = write(engine)
        assert finished.tokens == expected
        assert finished.turn["gpu_layers"] == SHAPE.blocks + 1


def test_as_many_layers_as_somebody_fixed(
    engine: Engine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: dict[int, tuple[int, ...]] = {}
    with served() as (endpoint, _server):
        monkeypatch.setenv("GROVE_RPC_SERVERS", endpoint)
        for layers in (3, 0):
            info = load(engine, weights, gpu_layers=layers)
            assert (info.gpu_layers, info.offload_reason) == (layers, "as set")
            expected[layers] = write(engine).tokens
    assert expected[3] == expected[0]


def test_a_device_that_refuses_gets_fewer_layers_or_none(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.gguf"
    shape = hub_files.Shape(
        blocks=8, embedding=1024, feed_forward=4096, heads=8, kv_heads=8, vocabulary=512, kind="F32"
    )
    hub_files.write(path, shape, seed=3)
    # The server tells the free memory of the machine, but may only have a part of the weights'.
    with served(memory_bytes=400 << 20) as (endpoint, _server):
        monkeypatch.setenv("GROVE_RPC_SERVERS", endpoint)
        info = load(engine, path)
        assert info.gpu_layers < shape.blocks + 1
        assert "room" in info.offload_reason
        assert write(engine).counters.generated_tokens > 0


def test_a_device_that_goes_away_is_a_sentence_and_the_next_load_runs_without_it(
    engine: Engine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served() as (endpoint, _server):
        monkeypatch.setenv("GROVE_RPC_SERVERS", endpoint)
        load(engine, weights)
    with pytest.raises(KnownError) as caught:
        write(engine)
    assert caught.value.code == "engine-crashed"
    monkeypatch.setenv("GROVE_RPC_SERVERS", "")
    assert load(engine, weights).gpu_layers == 0
    assert write(engine).counters.generated_tokens > 0
