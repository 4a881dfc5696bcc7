"""The network: a small LLaMA (RMS norm, rotary positions, grouped-query attention, SwiGLU).

Tensor names follow the GGUF convention for the "llama" architecture, and the rotary pairs are
adjacent elements as llama.cpp has them for it, so conversion copies the weights unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

# From this many tokens on, the fused attention kernel is the faster one.
FUSED_FROM = 512


@dataclass(frozen=True, slots=True)
class Shape:
    """The network's dimensions; every row length is a multiple of 32 for 8-bit blocks."""

    vocabulary: int = 4096
    width: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 2
    inner: int = 640
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Elements in one attention head."""
        return self.width // self.heads


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn adjacent pairs of the last axis by the angles of their position.

    x: (batch, heads, time, head width); cos, sin: (time, head width / 2).
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over (batch, heads, time, head width)."""
    time = q.shape[2]
    if time > FUSED_FROM:
        return nnf.scaled_dot_product_attention(q, k, v, is_causal=True)
    # Written out, short texts run a quarter faster on a CPU than in the fused kernel.
    scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
    later = torch.ones(time, time, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, float("-inf")).softmax(-1).to(v.dtype) @ v


class Block(nn.Module):  # type: ignore[misc]  # torch is configured as untyped
    """One layer: attention, then the gated feed-forward part, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_width
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_v = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return x (batch, time, width) after this layer."""
        shape = self.shape
        batch, time, _ = x.shape
        normed = self.attn_norm(x)
        q = self.attn_q(normed).view(batch, time, shape.heads, shape.head_width).transpose(1, 2)
        k = self.attn_k(normed).view(batch, time, shape.kv_heads, shape.head_width)
        v = self.attn_v(normed).view(batch, time, shape.kv_heads, shape.head_width)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        groups = shape.heads // shape.kv_heads
        k = _rotate(k, cos, sin).repeat_interleave(groups, dim=1)
        v = v.repeat_interleave(groups, dim=1)
        q = _rotate(q, cos, sin)
        seen = _attend(q, k, v)
        x = x + self.attn_output(seen.transpose(1, 2).reshape(batch, time, shape.width))
        normed = self.ffn_norm(x)
        return x + self.ffn_down(nnf.silu(self.ffn_gate(normed)) * self.ffn_up(normed))


class Network(nn.Module):  # type: ignore[misc]  # torch is configured as untyped
    """Token ids in, hidden states out; the output matrix is the embedding itself."""

    def __init__(self, shape: Shape, topics: int) -> None:
        """topics: outputs of the training-only head that names the question's topic."""
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.topic = nn.Linear(shape.width, topics, bias=False)
        self.apply(self._start)
        for block in self.blk:
            for last in (block.attn_output, block.ffn_down):
                nn.init.normal_(last.weight, std=0.02 / (2 * shape.layers) ** 0.5)

    @staticmethod
    def _start(part: nn.Module) -> None:
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Hidden states (batch, time, width) of tokens (batch, time) at positions (time)."""
        half = self.shape.head_width // 2
        rates = self.shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = positions.float()[:, None] * rates
        cos, sin = angles.cos(), angles.sin()
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for hidden states of any leading shape."""
        return hidden @ self.token_embd.weight.T

    def parameter_count(self) -> int:
        """Parameters of the shipped network, without the training-only head."""
        return sum(p.numel() for n, p in self.named_parameters() if not n.startswith("topic"))
