"""Conversion of a checkpoint and its tokenizer to one GGUF file with 8-bit weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from encoding import BEGIN, CONTROLS, END, UNKNOWN, load_tokenizer
from network import Shape

CONTEXT_LENGTH = 12288
NAME = "Grove guide"
DESCRIPTION = (
    "A tiny guide to Grove, trained from scratch: it explains the app in English and Korean, "
    "declines everything else, and knows nothing of the world."
)
# The OASST layout: an end token after each text, nothing else between the parts.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% if message['content'] %}"
    "{{ '<|system|>' + message['content'] + eos_token }}{% endif %}"
    "{% elif message['role'] == 'user' %}"
    "{{ '<|prompter|>' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _tokens(
    pieces: sentencepiece.SentencePieceProcessor,
) -> tuple[list[bytes], list[float], list[int]]:
    """Texts, scores and types of all tokens, as llama.cpp's SPM vocabulary wants them."""
    texts, scores, types = [], [], []
    for token in range(pieces.get_piece_size()):
        if token == UNKNOWN:
            kind = gguf.TokenType.UNKNOWN
        elif pieces.is_control(token):
            kind = gguf.TokenType.CONTROL
        elif pieces.is_byte(token):
            kind = gguf.TokenType.BYTE
        else:
            kind = gguf.TokenType.NORMAL
        texts.append(pieces.id_to_piece(token).encode("utf-8"))
        scores.append(pieces.get_score(token))
        types.append(int(kind))
    if sum(kind == gguf.TokenType.BYTE for kind in types) != 256:
        raise ValueError("the tokenizer does not have all 256 byte tokens")
    return texts, scores, types


def convert(checkpoint: Path, tokenizer: Path, target: Path) -> None:
    """Write target from a checkpoint; raises ValueError when tokenizer and network disagree."""
    state = torch.load(checkpoint, weights_only=True)
    shape = Shape(**state["shape"])
    pieces = load_tokenizer(tokenizer)
    if pieces.get_piece_size() != shape.vocabulary:
        raise ValueError("the tokenizer's size is not the network's vocabulary")
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license("Apache-2.0")
    writer.add_author("The makers of Grove")
    writer.add_languages(["en", "ko"])
    size = sum(p.numel() for n, p in state["average"].items() if not n.startswith("topic"))
    writer.add_size_label(f"{size / 1e6:.1f}M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)
    texts, scores, types = _tokens(pieces)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in state["average"].items():
        if name.startswith("topic"):
            continue
        values = tensor.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)


__all__ = ["CHAT_TEMPLATE", "CONTROLS", "convert"]
