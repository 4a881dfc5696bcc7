"""Read what a GGUF file says about itself, and refuse files that would take the engine down.

The door is `read_header`.  Everything is bounded: a damaged or hostile file costs at most about
a second, raises `KnownError` with a sentence for the user, and never hangs.  The same code reads
local files and, over HTTP ranges, files that are not downloaded yet.

May be called from any thread.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from desktop_app.errors import KnownError

from . import gguf_checks
from .gguf_parse import (
    KIND_NAMES,
    ByteSource,
    BytesSource,
    FileSource,
    RawHeader,
    TensorInfo,
    damaged,
    parse,
)

__all__ = [
    "ByteSource",
    "BytesSource",
    "FileSource",
    "Header",
    "TensorInfo",
    "first_part",
    "part_paths",
    "read_header",
]

MetadataValue = int | float | bool | str | tuple[int | float | bool | str, ...]

# llama.cpp's llama_ftype numbers.
FILE_TYPES: Final[dict[int, str]] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
# Tokens by which the prompt families of files without a template are recognised.
_MARKERS: Final = (
    "<|prompter|>",
    "<|assistant|>",
    "<|system|>",
    "<|prefix_begin|>",
    "<|prefix_end|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|user|>",
    "<|end|>",
    "[INST]",
    "</s>",
)
# Networks that turn text into numbers and cannot write.
_ENCODERS: Final = frozenset(
    (
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "gemma-embedding",
        "llama-embed",
        "t5encoder",
        "wavtokenizer-dec",
    )
)
_CONTROL: Final = 3
_USER_DEFINED: Final = 4
_SHARD: Final = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.I)
_MAX_KEPT_NUMBERS: Final = 4096
_MAX_KEPT_STRINGS: Final = 256


@dataclass(frozen=True, slots=True)
class Header:
    """What a weights file says about itself.  Counts are 0 and texts empty where it is silent."""

    version: int
    # "weights", "vocabulary" (no tensors), "projector" (vision or audio), "adapter" (LoRA),
    # "encoder" (embeddings, no replies), "imatrix", or "part" (a later file of a sharded one).
    kind: str
    architecture: str
    name: str
    size_label: str
    file_type: int | None
    quantisation: str
    licence: str
    context_length: int
    block_count: int
    embedding_length: int
    feed_forward_length: int
    heads: int
    kv_heads: int
    # One number per block; empty where the file is silent.
    kv_heads_per_block: tuple[int, ...]
    key_length: int
    value_length: int
    sliding_window: int
    expert_count: int
    expert_used_count: int
    vocab_size: int
    rope_freq_base: float
    rope_scaling: str
    rope_scaling_factor: float
    chat_template: str
    tokenizer: str
    tokenizer_pre: str
    # Whether every text can be tokenised.  If not, characters outside of the vocabulary abort
    # llama.cpp: check the text before sending it there.
    has_byte_tokens: bool
    # Well-known prompt markers that are entries of the vocabulary.
    markers: frozenset[str]
    # Control and user-defined entries of the vocabulary (at most 4,096).
    special_tokens: tuple[str, ...]
    tensor_count: int
    # Of this file and, when it is the first of several parts, of all of them.
    tensor_bytes: int
    parameter_count: int
    file_bytes: int
    data_offset: int
    alignment: int
    split_number: int
    split_count: int
    tensors: tuple[TensorInfo, ...]
    # All scalars and short lists; token lists, scores and merges are left out.
    metadata: Mapping[str, MetadataValue]

    @property
    def title(self) -> str:
        """The name to show, or "" when the file has none."""
        return " ".join(self.name.split())[:120]


def read_header(source: Path | bytes | ByteSource, *, with_parts: bool = True) -> Header:
    """Read and check the header of a weights file.

    `source` is a path, the file's bytes, or anything with `size_bytes` and `read_at`.  For a path
    to the first part of a sharded file the other parts must lie beside it and are read as well,
    unless `with_parts` is false.

    Raises `KnownError` with the codes ``weights-missing``, ``weights-unreadable``,
    ``weights-not-gguf``, ``weights-version-1``, ``weights-version``, ``weights-big-endian``,
    ``weights-truncated``, ``weights-damaged``, ``weights-shard-missing``.
    """
    if isinstance(source, Path):
        with FileSource(source) as file:
            header = _interpret(parse(file))
        return _add_parts(source, header) if with_parts and header.split_count > 1 else header
    if isinstance(source, bytes):
        return _interpret(parse(BytesSource(source)))
    return _interpret(parse(source, first_fetch_bytes=512 << 10))


def part_paths(path: Path) -> list[Path]:
    """All parts of the sharded file that `path` is a part of, in order; else just `path`."""
    match = _SHARD.match(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    if not 1 <= count <= 4096:
        return [path]
    stem, end = match["stem"], path.name[-5:]
    return [path.with_name(f"{stem}-{i:05d}-of-{count:05d}{end}") for i in range(1, count + 1)]


def first_part(path: Path) -> Path:
    """The part that must be opened to load the file that `path` belongs to."""
    return part_paths(path)[0]


def _add_parts(path: Path, header: Header) -> Header:
    """Check the parts beside the first one and add their sizes."""
    if header.split_number != 0:
        return header
    paths = part_paths(path)
    if len(paths) != header.split_count or paths[0].name != path.name:
        raise KnownError(
            "weights-shard-missing",
            f"This file is one of {header.split_count} parts, but its name does not say which. "
            "Give the parts their original names again.",
        )
    missing = [part.name for part in paths[1:] if not part.is_file()]
    if missing:
        raise KnownError(
            "weights-shard-missing",
            f"{len(missing)} of the {header.split_count} parts of these weights are missing. "
            "Download them into the same folder.",
            detail=", ".join(missing[:8]),
        )
    tensors = list(header.tensors)
    file_bytes = header.file_bytes
    for number, part in enumerate(paths[1:], start=1):
        other = read_header(part, with_parts=False)
        if (other.split_number, other.split_count) not in ((number, header.split_count),):
            raise damaged(f"{part.name} says it is part {other.split_number}")
        tensors += other.tensors
        file_bytes += other.file_bytes
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise damaged("a tensor is in two parts")
    expected = header.metadata.get("split.tensors.count")
    if isinstance(expected, int) and expected != len(tensors):
        raise damaged(f"{len(tensors)} of {expected} tensors are in the parts")
    return _with_tensors(header, tuple(tensors), file_bytes)


def _with_tensors(header: Header, tensors: tuple[TensorInfo, ...], file_bytes: int) -> Header:
    from dataclasses import replace

    return replace(
        header,
        tensors=tensors,
        tensor_count=len(tensors),
        tensor_bytes=sum(tensor.size_bytes for tensor in tensors),
        parameter_count=sum(tensor.elements for tensor in tensors),
        quantisation=_quantisation(header.file_type, tensors),
        file_bytes=file_bytes,
    )


def _interpret(raw: RawHeader) -> Header:
    architecture = _text(raw, "general.architecture")
    split_number, split_count = _split(raw)
    kind = _kind(raw, architecture, split_number)
    if kind in ("weights", "vocabulary", "encoder"):
        if not architecture:
            raise damaged("general.architecture is missing")
        gguf_checks.check(raw, architecture)
    tokens = raw.values.get("tokenizer.ggml.tokens")
    known = set(tokens.strings) if tokens is not None else set()
    embedding = _number(raw, architecture, "embedding_length")
    heads_per_block = _counts(raw, architecture, "attention.head_count")
    kv_per_block = _counts(raw, architecture, "attention.head_count_kv") or heads_per_block
    heads = max(heads_per_block, default=0)
    # Bounded here for the kinds whose numbers nobody else checks.
    blocks = min(_number(raw, architecture, "block_count"), gguf_checks.MAX_BLOCKS)
    head = embedding // heads if heads else 0
    file_type = _file_type(raw)
    return Header(
        version=raw.version,
        kind=kind,
        architecture=architecture,
        name=_text(raw, "general.name"),
        size_label=_text(raw, "general.size_label"),
        file_type=file_type,
        quantisation=_quantisation(file_type, tuple(raw.tensors)),
        licence=_text(raw, "general.license"),
        context_length=_number(raw, architecture, "context_length"),
        block_count=blocks,
        embedding_length=embedding,
        feed_forward_length=max(_counts(raw, architecture, "feed_forward_length"), default=0),
        heads=heads,
        kv_heads=max(kv_per_block, default=0),
        kv_heads_per_block=kv_per_block * blocks if len(kv_per_block) == 1 else kv_per_block,
        key_length=_number(raw, architecture, "attention.key_length") or head,
        value_length=_number(raw, architecture, "attention.value_length") or head,
        sliding_window=_number(raw, architecture, "attention.sliding_window"),
        expert_count=_number(raw, architecture, "expert_count"),
        expert_used_count=max(_counts(raw, architecture, "expert_used_count"), default=0),
        vocab_size=tokens.length if tokens is not None else 0,
        rope_freq_base=_real(raw, architecture, "rope.freq_base"),
        rope_scaling=_text(raw, f"{architecture}.rope.scaling.type"),
        rope_scaling_factor=_real(raw, architecture, "rope.scaling.factor"),
        chat_template=_text(raw, "tokenizer.chat_template"),
        tokenizer=_text(raw, "tokenizer.ggml.model"),
        tokenizer_pre=_text(raw, "tokenizer.ggml.pre"),
        has_byte_tokens=_spells_every_byte(_text(raw, "tokenizer.ggml.model"), known),
        markers=frozenset(marker for marker in _MARKERS if marker.encode() in known),
        special_tokens=_special_tokens(raw),
        tensor_count=len(raw.tensors),
        tensor_bytes=sum(tensor.size_bytes for tensor in raw.tensors),
        parameter_count=sum(tensor.elements for tensor in raw.tensors),
        file_bytes=raw.file_bytes,
        data_offset=raw.data_offset,
        alignment=raw.alignment,
        split_number=split_number,
        split_count=split_count,
        tensors=tuple(raw.tensors),
        metadata=_metadata(raw),
    )


def _kind(raw: RawHeader, architecture: str, split_number: int) -> str:
    declared = _text(raw, "general.type")
    if split_number > 0:
        return "part"
    if architecture == "clip" or declared in ("mmproj", "clip-vision"):
        return "projector"
    if declared == "adapter" or "adapter.type" in raw.values:
        return "adapter"
    if declared == "imatrix" or "imatrix.datasets" in raw.values:
        return "imatrix"
    if not raw.tensors and _split(raw)[1] <= 1:
        return "vocabulary"
    return "encoder" if architecture in _ENCODERS else "weights"


def _split(raw: RawHeader) -> tuple[int, int]:
    """(number of this part from 0, number of parts).  llama.cpp demands u16 and asserts it."""
    found = []
    for key in ("split.no", "split.count"):
        value = raw.values.get(key)
        if value is not None and (value.is_array or KIND_NAMES[value.kind] != "u16"):
            raise damaged(f"{key} is not a u16")
        found.append(int(value.scalar) if value is not None else 0)
    number, count = found
    if count > 1 and number >= count:
        raise damaged(f"this is part {number} of {count}")
    return number, count


def _special_tokens(raw: RawHeader) -> tuple[str, ...]:
    """Control and user-defined tokens."""
    tokens = raw.values.get("tokenizer.ggml.tokens")
    kinds = raw.values.get("tokenizer.ggml.token_type")
    if tokens is None or kinds is None or kinds.length != tokens.length:
        return ()
    special = [
        token.decode("utf-8", "replace")
        for token, number in zip(tokens.strings, kinds.numbers(), strict=True)
        if number in (_CONTROL, _USER_DEFINED)
    ]
    return tuple(special[:4096])


def _spells_every_byte(tokenizer: str, known: set[bytes]) -> bool:
    """Whether any text can be tokenised.  Without this an emoji takes llama.cpp down.

    Byte-level BPE and RWKV spell bytes by ordinary tokens or skip them; the others look up
    ``<0x0A>`` in upper case, or the bare byte, and throw when neither is there.
    """
    if tokenizer in ("gpt2", "rwkv", "hybriddna", "whitespace"):
        return True
    return all(b"<0x%02X>" % byte in known or bytes([byte]) in known for byte in range(256))


def _text(raw: RawHeader, key: str) -> str:
    value = raw.values.get(key)
    if value is None or value.is_array or not isinstance(value.scalar, bytes):
        return ""
    return gguf_checks.c_string(value.scalar).decode("utf-8", "replace")


def _number(raw: RawHeader, architecture: str, name: str) -> int:
    return max(_counts(raw, architecture, name), default=0)


def _counts(raw: RawHeader, architecture: str, name: str) -> tuple[int, ...]:
    value = raw.values.get(f"{architecture}.{name}")
    if value is None or KIND_NAMES[value.kind] in ("str", "f32", "f64"):
        return ()
    if not value.is_array:
        return (max(0, int(value.scalar)),)
    if value.length > _MAX_KEPT_NUMBERS:
        return ()
    return tuple(max(0, int(number)) for number in value.numbers())


def _real(raw: RawHeader, architecture: str, name: str) -> float:
    value = raw.values.get(f"{architecture}.{name}")
    if value is None or value.is_array or isinstance(value.scalar, bytes):
        return 0.0
    return float(value.scalar)


def _file_type(raw: RawHeader) -> int | None:
    value = raw.values.get("general.file_type")
    if value is None or value.is_array or isinstance(value.scalar, bytes):
        return None
    return int(value.scalar)


def _quantisation(file_type: int | None, tensors: tuple[TensorInfo, ...]) -> str:
    """The declared type, or the one that most bytes have."""
    if file_type is not None and file_type in FILE_TYPES:
        return FILE_TYPES[file_type]
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.type_name] += tensor.size_bytes
    return sizes.most_common(1)[0][0] if sizes else ""


def _metadata(raw: RawHeader) -> dict[str, MetadataValue]:
    kept: dict[str, MetadataValue] = {}
    for key, value in raw.values.items():
        if value.is_array and KIND_NAMES[value.kind] == "str":
            if value.length <= _MAX_KEPT_STRINGS:
                kept[key] = tuple(item.decode("utf-8", "replace") for item in value.strings)
        elif value.is_array:
            if value.length <= _MAX_KEPT_NUMBERS:
                kept[key] = value.numbers()
        elif isinstance(value.scalar, bytes):
            kept[key] = value.scalar.decode("utf-8", "replace")
        else:
            kept[key] = value.scalar
    return kept
