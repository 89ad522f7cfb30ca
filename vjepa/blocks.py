"""Transformer blocks shared by the encoder, the predictors and the probes.

Notation: B batch, N tokens, D width, h heads, d = D / h head width.

Several token sets of different lengths (the contexts of both mask kinds, say) go through a block
as one *packed* sequence ``[1, total, D]``: everything that works token by token runs once on all of
them, attention within each set. ``sets`` then lists the ``(B, N)`` of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .positions import Rotation

Sets = Sequence[tuple[int, int]]
"""(samples, tokens per sample) of each set of a packed sequence, in order."""


class Attention(nn.Module):
    """Multi-head self-attention through fused SDPA, with optional rotary positions.

    Args:
        width: D, divisible by ``heads``.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def project(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[B, N, h, d]`` of ``x [B, N, D]``, rotated."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, N, 3, h, d]
        if rotation is None:
            q, k, v = qkv.unbind(2)
        else:
            (q, k), v = rotation(qkv[:, :, :2]).unbind(2), qkv[:, :, 2]
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention output ``[B, N, D]``; ``mask`` bool ``[N, M]``, True where q may see k."""
        return self.proj(_attend(q, k, v, mask))

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        mask: Tensor | None = None,
        sets: Sets | None = None,
    ) -> Tensor:
        q, k, v = self.project(x, rotation)
        return self.proj(
            _attend(q, k, v, mask) if sets is None else packed_attention(q, k, v, sets)
        )


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return x.transpose(1, 2).flatten(2)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, sets: Sets) -> Tensor:
    """Attention within each of the sets of a packed sequence.

    Args:
        q, k, v: ``[1, total, h, d]``. sets: as in the module's docstring.

    Returns:
        ``[1, total, D]``.
    """
    sizes = [samples * tokens for samples, tokens in sets]
    parts = zip(*(x[0].split(sizes) for x in (q, k, v)), sets, strict=True)
    out = [_attend(*(x.unflatten(0, shape) for x in qkv), None) for *qkv, shape in parts]
    return torch.cat([x.flatten(0, 1) for x in out]).unsqueeze(0)


class MLP(nn.Module):
    """Two linear layers with GELU (erf)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block (ViT; LayerNorm eps 1e-6 as in the V-JEPA family)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, eps: float = 1e-6):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, round(width * mlp_ratio))

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        mask: Tensor | None = None,
        sets: Sets | None = None,
    ) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation, mask, sets)
        return x + self.mlp(self.norm2(x))


def init_weights(module: nn.Module, blocks: nn.ModuleList) -> None:
    """The V-JEPA initialisation: normal(0, .02) weights, zero biases, scaled residual outputs.

    The output projections of layer i (from 1) are divided by sqrt(2 i), in attention and MLP.
    """
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    with torch.no_grad():
        for i, block in enumerate(blocks, start=1):
            assert isinstance(block, Block)
            block.attn.proj.weight.div_(math.sqrt(2.0 * i))
            block.mlp.fc2.weight.div_(math.sqrt(2.0 * i))
