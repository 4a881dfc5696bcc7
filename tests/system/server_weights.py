"""Tiny weights around a real vocabulary, for running llama.cpp's own server against our prompts.

GGUF version 3 as in llama.cpp's gguf.md.  The vocabulary's fields are copied from a vocabulary-only
file byte by byte; marks of a template are appended as control tokens; the tensors are zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _FLOAT32, _UINT32, _INT32 = 8, 9, 6, 4, 5
_CONTROL: Final = 3
_EMBEDDING, _FEED_FORWARD, _ALIGNMENT = 8, 8, 32


def read_fields(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every field of a GGUF header: its type and its value's raw bytes."""
    data = path.read_bytes()
    count = struct.unpack_from("<Q", data, 16)[0]
    at = 24
    fields = {}
    for _ in range(count):
        size = struct.unpack_from("<Q", data, at)[0]
        key = data[at + 8 : at + 8 + size].decode()
        kind = struct.unpack_from("<I", data, at + 8 + size)[0]
        start = at + 12 + size
        at = _after(data, start, kind)
        fields[key] = (kind, data[start:at])
    return fields


def _after(data: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return at + 8 + int(struct.unpack_from("<Q", data, at)[0])
    if kind == _ARRAY:
        item, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if item in _SIZES:
            return at + _SIZES[item] * int(count)
        for _ in range(count):
            at = _after(data, at, item)
        return at
    return at + _SIZES[kind]


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _strings(raw: bytes) -> list[str]:
    count = struct.unpack_from("<Q", raw, 4)[0]
    at, out = 12, []
    for _ in range(count):
        size = struct.unpack_from("<Q", raw, at)[0]
        out.append(raw[at + 8 : at + 8 + size].decode("utf-8", "surrogateescape"))
        at += 8 + size
    return out


def _array(kind: int, letter: str, values: Sequence[float]) -> tuple[int, bytes]:
    return _ARRAY, struct.pack(f"<IQ{len(values)}{letter}", kind, len(values), *values)


def write_weights(path: Path, base: Path, marks: Sequence[str], template: str) -> Path:
    """Weights with `base`'s vocabulary, `marks` as control tokens, and `template` as their own."""
    fields = {
        key: value for key, value in read_fields(base).items() if key.startswith("tokenizer.")
    }
    raw_tokens = fields["tokenizer.ggml.tokens"][1]
    texts = _strings(raw_tokens)
    raw_types = fields["tokenizer.ggml.token_type"][1]
    types = list(struct.unpack_from(f"<{len(texts)}i", raw_types, 12))
    places = {text: i for i, text in enumerate(texts)}
    added = [mark for mark in dict.fromkeys(marks) if mark not in places]
    for mark in marks:
        if mark in places:
            types[places[mark]] = _CONTROL
    types += [_CONTROL] * len(added)
    body = raw_tokens[12:] + b"".join(map(_string, added))
    fields["tokenizer.ggml.tokens"] = (_ARRAY, struct.pack("<IQ", 8, len(types)) + body)
    fields["tokenizer.ggml.token_type"] = _array(_INT32, "i", types)
    if "tokenizer.ggml.scores" in fields:
        scores = struct.unpack_from(f"<{len(texts)}f", fields["tokenizer.ggml.scores"][1], 12)
        fields["tokenizer.ggml.scores"] = _array(_FLOAT32, "f", [*scores, *([0.0] * len(added))])
    fields["tokenizer.chat_template"] = (_STRING, _string(template))
    fields["general.architecture"] = (_STRING, _string("llama"))
    for key, number in {
        "block_count": 1,
        "context_length": 4096,
        "embedding_length": _EMBEDDING,
        "feed_forward_length": _FEED_FORWARD,
        "attention.head_count": 1,
    }.items():
        fields[f"llama.{key}"] = (_UINT32, struct.pack("<I", number))
    epsilon = struct.pack("<f", 1e-5)
    fields["llama.attention.layer_norm_rms_epsilon"] = (_FLOAT32, epsilon)
    _write(path, fields, _tensors(len(types)))
    return path


def _tensors(n_vocab: int) -> dict[str, tuple[int, ...]]:
    square = (_EMBEDDING, _EMBEDDING)
    return {
        "token_embd.weight": (_EMBEDDING, n_vocab),
        "output_norm.weight": (_EMBEDDING,),
        "blk.0.attn_norm.weight": (_EMBEDDING,),
        "blk.0.ffn_norm.weight": (_EMBEDDING,),
        **{f"blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{name}.weight": square for name in ("gate", "down", "up")},
    }


def _write(
    path: Path, fields: dict[str, tuple[int, bytes]], tensors: dict[str, tuple[int, ...]]
) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for key, (kind, raw) in fields.items():
        head += _string(key) + struct.pack("<I", kind) + raw
    offset = 0
    for name, shape in tensors.items():
        head += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, offset)
        size = 4
        for extent in shape:
            size *= extent
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    start = -(-len(head) // _ALIGNMENT) * _ALIGNMENT
    with path.open("wb") as file:
        file.write(head)
        file.truncate(start + offset)
