"""Transformer blocks shared by the encoder and the predictors.

Notation: B batch, N tokens, D width, h heads, d = D / h head width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .positions import Rotation


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
        """Queries, keys and values ``[B, h, N, d]`` of ``x [B, N, D]``, rotated."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention output ``[B, N, D]``; ``mask`` bool ``[N, M]``, True where q may see k."""
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).flatten(2))

    def forward(
        self, x: Tensor, rotation: Rotation | None = None, mask: Tensor | None = None
    ) -> Tensor:
        return self.attend(*self.project(x, rotation), mask)


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

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, int(width * mlp_ratio))

    def forward(
        self, x: Tensor, rotation: Rotation | None = None, mask: Tensor | None = None
    ) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation, mask)
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
