"""Writes tiny random weights that llama.cpp really runs: under 1 MB, made in a few milliseconds.

They write nonsense, deterministically.  Kinds: "llama" (everything the usual file has, ChatML
template), "no-bytes" (a vocabulary without byte tokens), "window" (Gemma 3: five layers of six see
a sliding window of 32 tokens), "mamba" (recurrent: no roll-back), "embedder" (BERT: cannot write),
"slow" (as "llama", but 35 MB: it reads some 2,000 tokens a second, so that a test can interrupt,
and never ends a turn by itself).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np

Kind = Literal["llama", "no-bytes", "window", "mamba", "embedder", "slow"]

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
_CONTROLS = 3 + len(SPECIAL)  # <unk>, <s>, </s> and the special ones come first
WINDOW = 32
_WIDTH, _FEED, _HEADS, _KV_HEADS, _LAYERS = 32, 64, 4, 2, 2
_SLOW_WIDTH, _SLOW_FEED, _SLOW_LAYERS = 256, 1024, 8
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def vocabulary(*, with_bytes: bool = True, words: int = 120) -> tuple[list[str], list[int]]:
    """Tokens and their types, as SentencePiece vocabularies have them."""
    tokens = ["<unk>", "<s>", "</s>", *SPECIAL]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_CONTROL] * len(SPECIAL)]
    if with_bytes:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        kinds += [_BYTE] * 256
    letters = "▁etaoinshrdlcumwfgypbvkjxqzETAOINSHRDLCUMWFGYPBVKJXQZ0123456789.,'!?:;-\n()<>|/"
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    text = [*letters, *syllables, *("▁" + s for s in syllables)]
    tokens += text[: len(letters) + words]
    kinds += [_NORMAL] * (len(tokens) - len(kinds))
    return tokens, kinds


def _tokenizer(writer: gguf.GGUFWriter, kind: Kind) -> int:
    tokens, kinds = vocabulary(with_bytes=kind != "no-bytes")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    pairs = zip(tokens, kinds, strict=True)
    writer.add_token_scores([float(len(s)) if t == _NORMAL else 0.0 for s, t in pairs])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    return len(tokens)


def write(path: Path, kind: Kind = "llama", *, seed: int = 1, context: int = 2048) -> Path:
    """Write weights of a kind; the same seed gives the same bytes."""
    architecture = {"window": "gemma3", "mamba": "mamba", "embedder": "bert"}.get(kind, "llama")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"Tiny {kind}")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(context)
    wide = _SLOW_WIDTH if kind == "slow" else _WIDTH
    writer.add_embedding_length(wide)
    writer.add_chat_template(CHATML)
    size = _tokenizer(writer, kind)
    random = np.random.default_rng(seed)

    def add(
        name: str,
        *shape: int,
        scale: float | None = None,
        value: float | None = None,
        zeros: int = 0,
    ) -> None:
        data: Any
        if value is not None:
            data = np.full(shape, value, np.float32)
        else:
            spread = scale if scale is not None else 1.5 / shape[-1] ** 0.5
            data = (random.standard_normal(shape) * spread).astype(np.float32)
            data[:zeros] = 0.0
        writer.add_tensor(name, data)

    add("token_embd.weight", size, wide, scale=1.0)
    if kind != "embedder":
        add("output_norm.weight", wide, value=1.0)
    if kind == "mamba":
        _mamba(writer, add)
    elif kind == "embedder":
        _bert(writer, add)
    else:
        _transformer(writer, add, kind)
    if kind != "embedder":
        # Rows of zeros give the first tokens, all control tokens, a logit of 0: beside ordinary
        # ones, spread by some 10, they never win.
        add("output.weight", size, wide, scale=0.6, zeros=_CONTROLS if kind == "slow" else 0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _transformer(writer: gguf.GGUFWriter, add: Any, kind: Kind) -> None:
    windowed = kind == "window"
    layers = {"window": 6, "slow": _SLOW_LAYERS}.get(kind, _LAYERS)
    wide, feed = (_SLOW_WIDTH, _SLOW_FEED) if kind == "slow" else (_WIDTH, _FEED)
    width = wide // _HEADS
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    if windowed:
        writer.add_sliding_window(WINDOW)
    for layer in range(layers):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", wide, value=1.0)
        add(f"{block}.attn_q.weight", wide, wide)
        add(f"{block}.attn_k.weight", _KV_HEADS * width, wide)
        add(f"{block}.attn_v.weight", _KV_HEADS * width, wide)
        add(f"{block}.attn_output.weight", wide, wide)
        add(f"{block}.ffn_norm.weight", wide, value=1.0)
        add(f"{block}.ffn_gate.weight", feed, wide)
        add(f"{block}.ffn_up.weight", feed, wide)
        add(f"{block}.ffn_down.weight", wide, feed)
        if windowed:
            add(f"{block}.attn_q_norm.weight", width, value=1.0)
            add(f"{block}.attn_k_norm.weight", width, value=1.0)
            add(f"{block}.post_attention_norm.weight", wide, value=1.0)
            add(f"{block}.post_ffw_norm.weight", wide, value=1.0)


def _mamba(writer: gguf.GGUFWriter, add: Any) -> None:
    inner, state, rank, kernel = 2 * _WIDTH, 8, 4, 4
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", _WIDTH, value=1.0)
        add(f"{block}.ssm_in.weight", 2 * inner, _WIDTH)
        add(f"{block}.ssm_conv1d.weight", inner, kernel)
        add(f"{block}.ssm_conv1d.bias", inner, scale=0.1)
        add(f"{block}.ssm_x.weight", rank + 2 * state, inner)
        add(f"{block}.ssm_dt.weight", inner, rank)
        add(f"{block}.ssm_dt.bias", inner, scale=0.1)
        add(f"{block}.ssm_a", inner, state, value=-0.5)
        add(f"{block}.ssm_d", inner, value=1.0)
        add(f"{block}.ssm_out.weight", _WIDTH, inner)


def _bert(writer: gguf.GGUFWriter, add: Any) -> None:
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    add("position_embd.weight", 2048, _WIDTH)
    add("token_types.weight", 2, _WIDTH)
    add("token_embd_norm.weight", _WIDTH, value=1.0)
    add("token_embd_norm.bias", _WIDTH, value=0.0)
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{name}.weight", _WIDTH, _WIDTH)
            add(f"{block}.{name}.bias", _WIDTH, value=0.0)
        for name in ("attn_output_norm", "layer_output_norm"):
            add(f"{block}.{name}.weight", _WIDTH, value=1.0)
            add(f"{block}.{name}.bias", _WIDTH, value=0.0)
        add(f"{block}.ffn_up.weight", _FEED, _WIDTH)
        add(f"{block}.ffn_up.bias", _FEED, value=0.0)
        add(f"{block}.ffn_down.weight", _WIDTH, _FEED)
        add(f"{block}.ffn_down.bias", _WIDTH, value=0.0)
