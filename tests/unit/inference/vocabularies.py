"""Vocabularies for tests: llama.cpp's own tokenizers over real or hand-made GGUF files."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import llama_cpp

KINDS: Final = {1: "spm", 2: "bpe", 3: "wpm", 4: "ugm", 5: "rwkv", 6: "plamo2"}


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp carries no types
def _silent(_level: int, _text: bytes, _data: Any) -> None:
    """Keep llama.cpp's chatter out of the tests' output."""


class LlamaVocab:
    """`prompt.Vocab` over llama.cpp, with only the vocabulary loaded."""

    def __init__(self, path: Path) -> None:
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_silent, None)
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._weights = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self._weights:
            raise ValueError(f"{path} does not load")
        self._vocab = llama_cpp.llama_model_get_vocab(self._weights)
        buffer = ctypes.create_string_buffer(512)
        size = llama_cpp.llama_model_meta_val_str(self._weights, b"general.name", buffer, 512)
        self.name = (buffer.value.decode() if size > 0 else "") + " " + path.name
        self.kind = KINDS.get(llama_cpp.llama_vocab_type(self._vocab), "none")
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.bos_id = int(llama_cpp.llama_vocab_bos(self._vocab))
        self.eos_id = int(llama_cpp.llama_vocab_eos(self._vocab))
        self.eot_id = int(llama_cpp.llama_vocab_eot(self._vocab))
        self.add_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))
        source = llama_cpp.llama_model_chat_template(self._weights, None)
        self.chat_template = source.decode("utf-8", "replace") if source else ""

    def close(self) -> None:
        """Free llama.cpp's memory; the object is of no use afterwards."""
        llama_cpp.llama_model_free(self._weights)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode("utf-8")
        room = len(data) + 16
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._vocab, data, len(data), tokens, room, add_special, parse_special
        )
        assert count >= 0
        return list(tokens[:count])

    def token_text(self, token: int) -> str:
        text = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace") if text else ""

    def token_attributes(self, token: int) -> int:
        return int(llama_cpp.llama_vocab_get_attr(self._vocab, token))

    def token_piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(1024)
        size = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, 1024, 0, True)
        return buffer.raw[: max(size, 0)]


# --- hand-made vocabularies ----------------------------------------------------------------------

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _field(key: str, value: object) -> bytes:
    if isinstance(value, bool):
        return _text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return _text(key) + struct.pack("<II", 4, value)
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", 8) + _text(value)
    assert isinstance(value, list)
    if isinstance(value[0], str):
        body = b"".join(map(_text, value))
        return _text(key) + struct.pack("<IIQ", 9, 8, len(value)) + body
    kind, letter = (6, "f") if isinstance(value[0], float) else (5, "i")
    return _text(key) + struct.pack(f"<IIQ{len(value)}{letter}", 9, kind, len(value), *value)


def write_vocabulary(
    path: Path,
    kind: str,
    tokens: Sequence[tuple[str, int]],
    *,
    merges: Sequence[str] = (),
    template: str = "",
    name: str = "handmade",
    add_bos: bool = True,
    eos: str = "</s>",
) -> Path:
    """A GGUF file with a vocabulary and nothing else (format: llama.cpp's gguf.md)."""
    texts = [text for text, _ in tokens]
    fields: dict[str, object] = {
        "general.architecture": "llama",
        "general.name": name,
        "tokenizer.ggml.model": {"spm": "llama", "bpe": "gpt2"}[kind],
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [type_ for _, type_ in tokens],
        "tokenizer.ggml.bos_token_id": texts.index("<s>"),
        "tokenizer.ggml.eos_token_id": texts.index(eos),
        "tokenizer.ggml.add_bos_token": add_bos,
    }
    if kind == "spm":
        fields["tokenizer.ggml.scores"] = [-float(i) for i in range(len(texts))]
    else:
        fields["tokenizer.ggml.pre"] = "gpt-2"
        fields["tokenizer.ggml.merges"] = list(merges)
    if template:
        fields["tokenizer.chat_template"] = template
    body = b"".join(_field(key, value) for key, value in fields.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields)) + body)
    return path


def _byte_letters() -> Iterator[str]:
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    for byte in range(256):
        yield chr(byte) if byte in plain else chr(next(extra))


def spm_tokens(*special: tuple[str, int]) -> list[tuple[str, int]]:
    """SPM: the three usual ones, bytes, some words, ASCII letters, and `special`."""
    words = ["\u2581", "\u2581the", "</", "s>", "he", "\u2581he", "llo", "\u2581hello", "in", "er"]
    return [
        ("<unk>", UNKNOWN),
        ("<s>", CONTROL),
        ("</s>", CONTROL),
        *((f"<0x{byte:02X}>", BYTE) for byte in range(256)),
        *((word, NORMAL) for word in words),
        *((chr(code), NORMAL) for code in range(33, 127)),
        *special,
    ]


def bpe_tokens(*special: tuple[str, int]) -> tuple[list[tuple[str, int]], list[str]]:
    """BPE over bytes with a few merges, and `special`."""
    merges = ["h e", "l l", "he ll", "hell o", "\u0120 hello", "i m", "\u010a \u010a", "< |", "| >"]
    tokens = [(letter, NORMAL) for letter in _byte_letters()]
    tokens += [(merge.replace(" ", ""), NORMAL) for merge in merges]
    tokens += [("<s>", CONTROL), ("</s>", CONTROL), *special]
    return tokens, merges


@functools.cache
def vocabulary(path: Path) -> LlamaVocab:
    """One object per file and test run."""
    return LlamaVocab(path)
