"""What must hold in a parsed header so that llama.cpp loads it or refuses it, but never aborts.

Each rule here stands before an assertion or a crash seen in llama.cpp's loader, vocabulary or
graph code.  What llama.cpp refuses by itself with a message (unknown architecture, missing
tensors, wrong shapes) is checked only where a clearer sentence helps.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from .gguf_parse import DEFAULT_ALIGNMENT, KIND_NAMES, RawHeader, TensorInfo, Value, damaged

# LLAMA_MAX_LAYERS and LLAMA_MAX_EXPERTS of llama.cpp.
MAX_BLOCKS: Final = 512
MAX_EXPERTS: Final = 1024
MAX_CONTEXT: Final = 1 << 28
_ROPE_SCALINGS: Final = (b"none", b"linear", b"yarn", b"longrope")
_BYTE_TOKEN: Final = 6
_WORD_PIECE: Final = b"bert"
# llama.cpp's default ids: (bos, eos, adds bos, adds eos) by tokenizer.
_SPECIAL_DEFAULTS: Final[dict[bytes, tuple[int, int, bool, bool]]] = {
    b"llama": (1, 2, True, False),
    b"bert": (101, -1, True, False),
    b"gpt2": (11, 11, False, False),
    b"t5": (-1, 1, False, True),
}
# Matrices of these types have kernels; the others (I8 … I64, F64, Q8_1, Q8_K) abort.
_MATRIX_TYPES: Final = frozenset(
    (*range(4), *range(6, 9), *range(10, 15), *range(16, 24), 29, 30, 34, 35, *range(39, 43))
)
_F32: Final = 0
# Networks whose graphs in llama.cpp (0.3.36's copy) assert that keys are as long as values …
_EQUAL_HEADS: Final = frozenset(
    """afmoe apertus arcee arctic baichuan bitnet bloom chameleon chatglm codeshell cogvlm cohere2
    command-r dbrx deci dots1 dream ernie4_5 ernie4_5-moe eurobert exaone falcon glm4 glm4moe gpt2
    gptneox granite granitemoe grok grovemoe hunyuan-moe internlm2 jais jais2 laguna llada
    llada-moe llama llama4 maincoder mistral3 mpt nemotron olmo olmo2 olmoe orion phi2 phi3 phimoe
    plamo qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe refact seed_oss smallthinker
    smollm3 stablelm starcoder starcoder2 xverse""".split()  # noqa: SIM905 - eighty lines otherwise
)
_NEVER_ROTATED: Final = frozenset(("gpt2", "bloom", "mpt", "starcoder", "jais", "refact", "bert"))
# … and that all of a head is rotated.
_ALL_ROTATED: Final = frozenset(
    """apertus arcee arctic baichuan chameleon codeshell dbrx deci dots1 dream ernie4_5 ernie4_5-moe
    exaone falcon granite granitemoe grok grovemoe hunyuan-moe internlm2 jais2 llada llada-moe llama
    llama4 maincoder mistral3 nemotron olmo olmo2 olmoe orion plamo qwen2 qwen2moe qwen2vl qwen3
    qwen3moe qwen3vl qwen3vlmoe seed_oss smallthinker smollm3 starcoder2
    xverse""".split()  # noqa: SIM905 - as above
)


def c_string(text: bytes) -> bytes:
    """What C code sees of a string: all before the first NUL."""
    return text.split(b"\0", 1)[0] if b"\0" in text else text


def text_of(raw: RawHeader, key: str) -> bytes:
    """A string value as C code sees it, or b"" when it is missing.  Raises on another type."""
    value = raw.values.get(key)
    if value is None:
        return b""
    if value.is_array or not isinstance(value.scalar, bytes):
        raise damaged(f"{key} is not a string")
    return c_string(value.scalar)


def count_of(raw: RawHeader, key: str) -> int | None:
    """An unsigned 32-bit value, as llama.cpp demands it, or None when it is missing."""
    value = raw.values.get(key)
    if value is None:
        return None
    if value.is_array or KIND_NAMES[value.kind] != "u32":
        raise damaged(f"{key} is not a u32")
    return int(value.scalar)


def counts_of(raw: RawHeader, key: str) -> tuple[int, ...]:
    """A u32 or an array of 32-bit integers (one per block); empty when it is missing."""
    value = raw.values.get(key)
    if value is None:
        return ()
    if not value.is_array:
        return (count_of(raw, key) or 0,)
    if KIND_NAMES[value.kind] not in ("u32", "i32", "bool") or value.length > MAX_BLOCKS:
        raise damaged(f"{key} is not a list of counts")
    numbers = tuple(int(item) for item in value.numbers())
    if any(item < 0 for item in numbers):
        raise damaged(f"{key} has a negative item")
    return numbers


def check(raw: RawHeader, architecture: str) -> None:
    """Raise KnownError ``weights-damaged`` for everything that would take the engine down."""
    _check_floats(raw)
    check_vocabulary(raw)
    if raw.tensors:
        # Mapped files are used where they lie: llama.cpp asserts that tensors start there.
        if raw.alignment % DEFAULT_ALIGNMENT or raw.data_offset % DEFAULT_ALIGNMENT:
            raise damaged(f"the tensors are aligned to {raw.alignment} B only")
        _check_tensor_types(raw.tensors)
    if raw.tensors and "split.no" not in raw.values:
        check_shape_numbers(raw, architecture)


def _check_floats(raw: RawHeader) -> None:
    for key, value in raw.values.items():
        if value.is_array or not isinstance(value.scalar, float):
            continue
        if not math.isfinite(value.scalar):
            raise damaged(f"{key} is {value.scalar}")
        # ggml asserts a norm's ε ≥ 0; the others divide.
        if key.endswith(("epsilon", ".freq_base", ".factor", "freq_base_swa")) and value.scalar < 0:
            raise damaged(f"{key} is {value.scalar}")


def check_vocabulary(raw: RawHeader) -> None:
    """Token lists: types, lengths, uniqueness as C strings, special ids in range."""
    tokenizer = text_of(raw, "tokenizer.ggml.model")
    listed = raw.values.get("tokenizer.ggml.tokens")
    if listed is None:
        return
    if not listed.is_array or KIND_NAMES[listed.kind] != "str":
        raise damaged("tokenizer.ggml.tokens is not a list of strings")
    if listed.length == 0:
        raise damaged("the vocabulary is empty")
    _check_unique(listed.strings)
    for key, kinds in (("scores", ("f32", "i32")), ("token_type", ("i32",))):
        value = raw.values.get(f"tokenizer.ggml.{key}")
        if value is None:
            continue
        if not value.is_array or KIND_NAMES[value.kind] not in kinds:
            raise damaged(f"tokenizer.ggml.{key} has the wrong type")
        if value.length != listed.length:
            raise damaged(f"{value.length} items in {key} for {listed.length} tokens")
    _check_scores(raw.values.get("tokenizer.ggml.scores"))
    _check_token_types(raw, tokenizer, listed)
    _check_special_ids(raw, tokenizer, listed.length)


def _check_unique(tokens: list[bytes]) -> None:
    """llama.cpp asserts that no two entries are equal as C strings; empty ones get names."""
    seen = set(tokens)
    if len(seen) == len(tokens) and b"" not in seen:
        joined_has_nul = any(b"\0" in token for token in tokens)
        if not joined_has_nul:
            return
    names = [c_string(token) or b"[EMPTY_%d]" % i for i, token in enumerate(tokens)]
    if len(set(names)) != len(names):
        raise damaged("the vocabulary lists a token twice")


def _check_scores(scores: Value | None) -> None:
    if scores is None or KIND_NAMES[scores.kind] != "f32":
        return
    if any(map(math.isnan, struct.unpack(f"<{scores.length}f", scores.packed))):
        raise damaged("a token's score is not a number")


def _check_token_types(raw: RawHeader, tokenizer: bytes, listed: Value) -> None:
    value = raw.values.get("tokenizer.ggml.token_type")
    if value is None:
        return
    kinds = value.numbers()
    if _BYTE_TOKEN not in kinds:
        return
    if tokenizer == _WORD_PIECE:
        raise damaged("a word-piece vocabulary has byte tokens")
    for token, kind in zip(listed.strings, kinds, strict=True):
        # llama.cpp reads two hexadecimal digits at position 3 of "<0x0A>".
        if kind == _BYTE_TOKEN and not _is_byte_token(token):
            raise damaged("a byte token has another form than <0x0A>")


def _is_byte_token(token: bytes) -> bool:
    if len(token) != 6 or not token.startswith(b"<0x") or token[5:] != b">":
        return False
    return all(digit in b"0123456789abcdefABCDEF" for digit in token[3:5])


def _check_special_ids(raw: RawHeader, tokenizer: bytes, tokens: int) -> None:
    """A wrong id is ignored by llama.cpp, except where the tokenizer then has none to add."""
    default = _SPECIAL_DEFAULTS.get(tokenizer)
    if default is None:
        return
    bos, eos, adds_bos, adds_eos = default
    pre = text_of(raw, "tokenizer.ggml.pre")
    adds_bos = adds_bos or (tokenizer == b"gpt2" and pre.startswith((b"llama", b"falcon")))
    for name, fallback, adds in (("bos", bos, adds_bos), ("eos", eos, adds_eos)):
        flag = raw.values.get(f"tokenizer.ggml.add_{name}_token")
        if flag is not None:
            if flag.is_array or KIND_NAMES[flag.kind] != "bool":
                raise damaged(f"tokenizer.ggml.add_{name}_token is not a bool")
            adds = bool(flag.scalar)  # noqa: PLW2901 - the file's own word replaces the default
        special = count_of(raw, f"tokenizer.ggml.{name}_token_id")
        usable = special is not None and special < tokens
        if adds and not usable and not 0 <= fallback < tokens:
            raise damaged(f"the {name} token {special} is not in the vocabulary of {tokens}")


def _check_tensor_types(tensors: list[TensorInfo]) -> None:
    for tensor in tensors:
        flat = len([extent for extent in tensor.shape if extent > 1]) <= 1
        # Vectors are norms, biases and factors: ggml's element-wise code wants F32 there.
        if flat and len(tensor.shape) == 1 and tensor.type_id != _F32:
            raise damaged(f"the vector {tensor.name!r} has the type {tensor.type_name}")
        if tensor.type_id not in _MATRIX_TYPES:
            raise damaged(f"the tensor {tensor.name!r} has the type {tensor.type_name}")


def _in_range(key: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise damaged(f"{key} is {value}, expected {low} to {high}")


def _per_block(raw: RawHeader, key: str, blocks: int, high: int) -> tuple[int, ...]:
    numbers = counts_of(raw, key)
    value = raw.values.get(key)
    if value is not None and value.is_array and len(numbers) != blocks:
        raise damaged(f"{key} has {len(numbers)} items for {blocks} blocks")
    for number in numbers:
        _in_range(key, number, 0, high)
    return numbers


def check_shape_numbers(raw: RawHeader, architecture: str) -> None:
    """The counts that llama.cpp asserts or divides by, and those that size its memory."""

    def key(name: str) -> str:
        return f"{architecture}.{name}"

    def count(name: str) -> int | None:
        return count_of(raw, key(name))

    for name in ("context_length", "embedding_length", "block_count"):
        if count(name) is None:
            raise damaged(f"{key(name)} is missing")
    blocks = count("block_count") or 0
    embedding = count("embedding_length") or 0
    _in_range(key("block_count"), blocks, 1, MAX_BLOCKS)
    _in_range(key("embedding_length"), embedding, 1, 1 << 20)
    _in_range(key("context_length"), count("context_length"), 1, MAX_CONTEXT)
    _in_range(key("nextn_predict_layers"), count("nextn_predict_layers"), 0, blocks - 1)
    _in_range(key("pooling_type"), count("pooling_type"), 0, 4)
    _per_block(raw, key("feed_forward_length"), blocks, 1 << 24)
    _check_heads(raw, architecture, blocks, embedding)
    _check_experts(raw, architecture, blocks)
    scaling = text_of(raw, key("rope.scaling.type"))
    if scaling and scaling not in _ROPE_SCALINGS:
        raise damaged(f"{key('rope.scaling.type')} is {scaling!r}")
    sections = counts_of(raw, key("rope.dimension_sections"))
    if sections and not any(sections[:3]):
        raise damaged(f"{key('rope.dimension_sections')} rotates nothing")
    _check_tokens_fit(raw, embedding)


def _check_heads(raw: RawHeader, architecture: str, blocks: int, embedding: int) -> None:
    heads = _per_block(raw, f"{architecture}.attention.head_count", blocks, 1 << 16)
    kv_heads = _per_block(raw, f"{architecture}.attention.head_count_kv", blocks, 1 << 16)
    for i in range(max(len(heads), len(kv_heads))):
        q = heads[min(i, len(heads) - 1)] if heads else 0
        kv = kv_heads[min(i, len(kv_heads) - 1)] if kv_heads else q
        # Attention repeats each KV head over a whole number of query heads.
        if q and kv and (kv > q or q % kv):
            raise damaged(f"{q} heads share {kv} KV heads")
    if not any(heads):
        return
    # llama.cpp takes the first block's count for the size of a head.
    first = heads[0]
    if not first:
        return  # hybrid networks begin with blocks that have no attention
    key_length = count_of(raw, f"{architecture}.attention.key_length")
    value_length = count_of(raw, f"{architecture}.attention.value_length")
    rotated = count_of(raw, f"{architecture}.rope.dimension_count")
    _in_range(f"{architecture}.attention.key_length", key_length, 1, 1 << 16)
    _in_range(f"{architecture}.attention.value_length", value_length, 1, 1 << 16)
    if (key_length is None or value_length is None) and embedding % first:
        raise damaged(f"{embedding} dimensions do not divide into {first} heads")
    key_length = embedding // first if key_length is None else key_length
    value_length = embedding // first if value_length is None else value_length
    if architecture in _EQUAL_HEADS and key_length != value_length:
        raise damaged(f"keys of {key_length} and values of {value_length} dimensions")
    if rotated is None:
        return
    # A rotation of nothing never ends in ggml; networks without positions by rotation say nothing.
    if (rotated == 0 and architecture not in _NEVER_ROTATED) or rotated > key_length or rotated % 2:
        raise damaged(f"{rotated} of {key_length} dimensions of a head are rotated")
    if architecture in _ALL_ROTATED and rotated != value_length:
        raise damaged(f"only {rotated} of {value_length} dimensions of a head are rotated")


def _check_experts(raw: RawHeader, architecture: str, blocks: int) -> None:
    experts = count_of(raw, f"{architecture}.expert_count") or 0
    used = max(_per_block(raw, f"{architecture}.expert_used_count", blocks, 1 << 16), default=0)
    groups = count_of(raw, f"{architecture}.expert_group_count") or 0
    groups_used = count_of(raw, f"{architecture}.expert_group_used_count") or 0
    _in_range(f"{architecture}.expert_count", experts, 0, MAX_EXPERTS)
    if used > experts or (experts and not used):
        raise damaged(f"{used} of {experts} experts are used")
    if groups and (groups >= max(experts, 1)):
        raise damaged(f"{experts} experts in {groups} groups")
    if groups > 1 and (experts % groups or not 0 < groups_used < groups):
        raise damaged(f"{experts} experts in {groups} groups, {groups_used} used")


def _check_tokens_fit(raw: RawHeader, embedding: int) -> None:
    listed = raw.values.get("tokenizer.ggml.tokens")
    table = next((t for t in raw.tensors if t.name == "token_embd.weight"), None)
    if listed is None:
        if text_of(raw, "tokenizer.ggml.model") in (b"none", b"no_vocab"):
            return
        raise damaged("the vocabulary is missing")
    if not text_of(raw, "tokenizer.ggml.model"):
        raise damaged("tokenizer.ggml.model is missing")
    if table is None:
        return
    if len(table.shape) != 2 or table.shape != (embedding, listed.length):
        raise damaged(f"{listed.length} tokens of {embedding}, but a table of {table.shape}")
