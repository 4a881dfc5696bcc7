"""Make weights files for tests: small or large, loadable by llama.cpp, of any llama shape.

As a program: ``python tests/fakes/hub_files.py OUT.gguf --blocks 8 --embedding 512 …``.
"""

from __future__ import annotations

import argparse
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from desktop_app.weights.gguf_parse import TENSOR_TYPES

U32, I32, F32, BOOL, STR, ARR, U16 = 4, 5, 6, 7, 8, 9, 2
TYPE_IDS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
# (file type number, name) pairs used by the generator.
FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q8_0": 7,
    "Q2_K": 10,
    "Q4_K": 15,
    "Q5_K": 17,
    "Q6_K": 18,
}


def string(text: bytes | str) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, value: object) -> bytes:
    """One metadata entry with a scalar."""
    start = string(name) + struct.pack("<I", kind)
    if kind == STR:
        assert isinstance(value, str | bytes)
        return start + string(value)
    letter = {U32: "I", I32: "i", F32: "f", BOOL: "?", U16: "H"}[kind]
    return start + struct.pack("<" + letter, value)


def array(name: str, kind: int, values: Sequence[object]) -> bytes:
    """One metadata entry with an array."""
    start = string(name) + struct.pack("<IIQ", ARR, kind, len(values))
    if kind == STR:
        return start + b"".join(string(v) for v in values if isinstance(v, str | bytes))
    letter = {U32: "I", I32: "i", F32: "f"}[kind]
    return start + struct.pack(f"<{len(values)}{letter}", *values)


def spm_vocabulary(size: int) -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of a SentencePiece-like vocabulary with byte tokens."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [2, 3, 3] + [6] * 256
    letters = "▁etaoinshrdlcumwfgypbvkjxqz,.'!?ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    tokens += letters
    number = 0
    while len(tokens) < size:
        tokens.append(f"▁w{number:x}")
        number += 1
    tokens = tokens[:size]
    kinds = (kinds + [1] * size)[:size]
    return tokens, [-float(i) for i in range(len(tokens))], kinds


@dataclass
class Shape:
    """A llama-architecture network."""

    blocks: int = 2
    embedding: int = 64
    feed_forward: int = 128
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 320
    context: int = 2048
    kind: str = "F32"
    name: str = "Test weights"
    tied: bool = False

    def tensors(self) -> list[tuple[str, tuple[int, ...], str]]:
        """(name, shape, type) in file order."""
        wide, narrow = self.embedding, self.embedding // self.heads * self.kv_heads
        found: list[tuple[str, tuple[int, ...], str]] = [
            ("token_embd.weight", (wide, self.vocabulary), self.kind)
        ]
        for i in range(self.blocks):
            found += [
                (f"blk.{i}.attn_norm.weight", (wide,), "F32"),
                (f"blk.{i}.attn_q.weight", (wide, wide), self.kind),
                (f"blk.{i}.attn_k.weight", (wide, narrow), self.kind),
                (f"blk.{i}.attn_v.weight", (wide, narrow), self.kind),
                (f"blk.{i}.attn_output.weight", (wide, wide), self.kind),
                (f"blk.{i}.ffn_norm.weight", (wide,), "F32"),
                (f"blk.{i}.ffn_gate.weight", (wide, self.feed_forward), self.kind),
                (f"blk.{i}.ffn_up.weight", (wide, self.feed_forward), self.kind),
                (f"blk.{i}.ffn_down.weight", (self.feed_forward, wide), self.kind),
            ]
        found.append(("output_norm.weight", (wide,), "F32"))
        if not self.tied:
            found.append(("output.weight", (wide, self.vocabulary), self.kind))
        return found

    def keys(self) -> list[bytes]:
        tokens, scores, kinds = spm_vocabulary(self.vocabulary)
        return [
            key("general.architecture", STR, "llama"),
            key("general.name", STR, self.name),
            key("general.license", STR, "apache-2.0"),
            key("general.file_type", U32, FILE_TYPES[self.kind]),
            key("llama.context_length", U32, self.context),
            key("llama.embedding_length", U32, self.embedding),
            key("llama.block_count", U32, self.blocks),
            key("llama.feed_forward_length", U32, self.feed_forward),
            key("llama.attention.head_count", U32, self.heads),
            key("llama.attention.head_count_kv", U32, self.kv_heads),
            key("llama.rope.dimension_count", U32, self.embedding // self.heads),
            key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
            key("tokenizer.ggml.model", STR, "llama"),
            array("tokenizer.ggml.tokens", STR, tokens),
            array("tokenizer.ggml.scores", F32, scores),
            array("tokenizer.ggml.token_type", I32, kinds),
            key("tokenizer.ggml.bos_token_id", U32, 1),
            key("tokenizer.ggml.eos_token_id", U32, 2),
        ]


def tensor_bytes(shape: tuple[int, ...], kind: str) -> int:
    _, block, size = TENSOR_TYPES[TYPE_IDS[kind]]
    count = 1
    for extent in shape:
        count *= extent
    return count // block * size


def header(keys: Sequence[bytes], tensors: Sequence[tuple[str, tuple[int, ...], str]]) -> bytes:
    """The bytes of a version 3 header, padded to where the tensors start."""
    infos = []
    offset = 0
    for name, shape, kind in tensors:
        infos.append(string(name) + struct.pack("<I", len(shape)))
        infos.append(struct.pack(f"<{len(shape)}Q", *shape))
        infos.append(struct.pack("<IQ", TYPE_IDS[kind], offset))
        offset += -(-tensor_bytes(shape, kind) // 32) * 32
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join([*keys, *infos])
    return data + bytes(-len(data) % 32) if tensors else data


def _blocks(kind: str, rng: random.Random) -> bytes:
    """About 1 MB of valid blocks with small finite values."""
    _, _, size = TENSOR_TYPES[TYPE_IDS[kind]]
    if kind == "F32":
        return struct.pack("<4096f", *(rng.gauss(0, 0.02) for _ in range(4096)))
    if kind == "F16":
        return struct.pack("<4096e", *(rng.gauss(0, 0.02) for _ in range(4096)))
    count = max(1, (1 << 20) // size)
    data = bytearray(rng.randbytes(count * size))
    # Where a block's half-precision scales stand (ggml-common.h).
    places = {
        "Q4_0": (0,),
        "Q8_0": (0,),
        "Q4_K": (0, 2),
        "Q5_K": (0, 2),
        "Q6_K": (208,),
        "Q2_K": (80, 82),
    }[kind]
    scale = struct.pack("<e", {"Q4_0": 0.004, "Q8_0": 0.0003}.get(kind, 0.0002))
    for at in range(0, len(data), size):
        for place in places:
            data[at + place : at + place + 2] = scale
    return bytes(data)


def _write_tensor(file: BinaryIO, size: int, pattern: bytes) -> None:
    left = size
    while left > 0:
        left -= file.write(pattern[: min(left, len(pattern))])
    file.write(bytes(-size % 32))


def write(path: Path, shape: Shape, *, seed: int = 1) -> int:
    """Write a loadable file; returns its size in bytes."""
    rng = random.Random(seed)
    tensors = shape.tensors()
    patterns = {kind: _blocks(kind, rng) for kind in {kind for _, _, kind in tensors}}
    with path.open("wb") as file:
        file.write(header(shape.keys(), tensors))
        for name, extents, kind in tensors:
            ones = name.endswith("norm.weight")
            pattern = struct.pack("<1024f", *[1.0] * 1024) if ones else patterns[kind]
            _write_tensor(file, tensor_bytes(extents, kind), pattern)
    return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a weights file for tests.")
    parser.add_argument("out", type=Path)
    for name, default in (
        ("blocks", 2),
        ("embedding", 64),
        ("feed-forward", 128),
        ("heads", 4),
        ("kv-heads", 2),
        ("vocabulary", 320),
        ("context", 2048),
        ("seed", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kind", default="F32", choices=sorted(FILE_TYPES))
    args = parser.parse_args()
    shape = Shape(
        args.blocks,
        args.embedding,
        args.feed_forward,
        args.heads,
        args.kv_heads,
        args.vocabulary,
        args.context,
        args.kind,
    )
    print(write(args.out, shape, seed=args.seed))


if __name__ == "__main__":
    main()
