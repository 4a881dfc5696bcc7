"""What the tests of prompts share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from desktop_app.inference.render_process import Kitchen
from desktop_app.inference.renderer import Renderer, RenderResult
from tests.unit.inference.vocabularies import (
    CONTROL,
    USER_DEFINED,
    LlamaVocab,
    bpe_tokens,
    spm_tokens,
    vocabulary,
    write_vocabulary,
)

CHATML = (("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL))
OASST = (("<|prompter|>", CONTROL), ("<|assistant|>", CONTROL), ("<|system|>", USER_DEFINED))


class DirectRenderer:
    """The template process's own code without the process: for tests of what it is used for."""

    def __init__(self) -> None:
        self._kitchen = Kitchen()

    def render(
        self, source: str, jobs: Sequence[Mapping[str, Any]], *, now: float | None = None
    ) -> list[RenderResult]:
        request = {"source": source, "jobs": jobs, "now": now}
        return [RenderResult(**answer) for answer in self._kitchen.answer(request)]


@pytest.fixture
def direct() -> DirectRenderer:
    return DirectRenderer()


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    made = Renderer()
    yield made
    made.close()


@pytest.fixture(scope="session")
def spm(tmp_path_factory: pytest.TempPathFactory) -> LlamaVocab:
    """SentencePiece with BOS, ChatML's and OASST's marks."""
    path = tmp_path_factory.mktemp("vocab") / "spm.gguf"
    return vocabulary(write_vocabulary(path, "spm", spm_tokens(*CHATML, *OASST)))


@pytest.fixture(scope="session")
def bare_spm(tmp_path_factory: pytest.TempPathFactory) -> LlamaVocab:
    """SentencePiece with no marks but its own."""
    path = tmp_path_factory.mktemp("vocab") / "llama-2-7b-chat.gguf"
    return vocabulary(write_vocabulary(path, "spm", spm_tokens(), name="Llama 2"))


@pytest.fixture(scope="session")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> LlamaVocab:
    """Byte-level BPE without BOS; user-defined tokens that are marks, and some that are text."""
    tokens, merges = bpe_tokens(
        *CHATML,
        *OASST,
        ("<tool_call>", USER_DEFINED),
        ("  ", USER_DEFINED),
        ("    ", USER_DEFINED),
    )
    # As in DeepSeek: a letter of the byte alphabet that is a user-defined token too.
    tokens = [(text, USER_DEFINED if text == "ö" else kind) for text, kind in tokens]
    path = Path(tmp_path_factory.mktemp("vocab") / "bpe.gguf")
    return vocabulary(write_vocabulary(path, "bpe", tokens, merges=merges, add_bos=False))
