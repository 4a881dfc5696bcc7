"""A hub on loopback with one repository, and doors to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop_app.weights.connections import Connections
from desktop_app.weights.hub import Hub
from desktop_app.weights.tokens import Tokens
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import Shape, write


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeHub]:
    folder = tmp_path / "hub"
    repository = folder / "maker" / "Tiny-GGUF"
    repository.mkdir(parents=True)
    write(repository / "tiny.Q8_0.gguf", Shape(4, 128, 256, 4, 2, 1000, 512, "Q8_0", name="Tiny"))
    (repository / "blob.Q4_0.gguf").write_bytes(random.Random(1).randbytes(3_000_000))
    (repository / "mmproj-tiny.gguf").write_bytes(b"x")
    (repository / "README.md").write_text("hello", encoding="utf-8")
    with FakeHub(folder) as hub:
        yield hub


@pytest.fixture
def connections(tmp_path: Path) -> Iterator[Connections]:
    made = Connections(tmp_path / "connections.jsonl", stall_timeout_s=0.3)
    yield made
    made.close()


@pytest.fixture
def hub(fake: FakeHub, connections: Connections) -> Hub:
    return Hub(connections, endpoint=fake.url, tokens=Tokens(use_keyring=False))
