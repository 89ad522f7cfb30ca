"""Transformer blocks shared by the encoder, the predictors and the probes.

Notation: B batch, N tokens, D width, h heads, d = D / h head width.

Several token sets of different lengths (the contexts of both mask kinds, say) go through a block
as one *packed* sequence ``[1, total, D]``: everything that works token by token runs once on all of
them, attention within each set. ``sets`` then lists the ``(B, N)`` of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import cpu_attention
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
        q, k, v = split_heads(self.qkv(x).unflatten(-1, (3, self.heads, -1)), rotation)
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
        """Self-attention of ``x [B, N, D]``, turned by ``rotation``; with ``sets`` ``x`` is
        ``[1, N, D]``, several (samples, tokens) end to end that do not see each other."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        if sets is None or _varlen(qkv):
            q, k, v = split_heads(qkv, rotation)
            return self.attend(q, k, v, mask) if sets is None else self.proj(_each(q, k, v, sets))
        parts = split_heads(qkv, rotation, [samples * tokens for samples, tokens in sets])
        return self.proj(_packed(parts, sets))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if mask is None and cpu_attention.suits(q):
        x = cpu_attention.attention(q, k, v)
    else:
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return x.transpose(1, 2).flatten(2)


def _packed(parts: Sequence[Tensor], sets: Sets) -> Tensor:
    """Attention within each set; ``parts`` are its q, k, v ``[1, samples * tokens, h, d]``."""
    out = []
    for i, shape in enumerate(sets):
        q, k, v = (x.squeeze(0).unflatten(0, shape) for x in parts[3 * i : 3 * i + 3])
        out.append(_attend(q, k, v, None).flatten(0, 1))
    return torch.cat(out).unsqueeze(0)


def _varlen(qkv: Tensor) -> bool:
    """Whether attention within sets can be one kernel: on CUDA, in half precision."""
    return qkv.is_cuda and qkv.dtype in (torch.bfloat16, torch.float16)


def _each(q: Tensor, k: Tensor, v: Tensor, sets: Sets) -> Tensor:
    """Attention within each sample of each set, as one kernel: ``[1, total, h, d]`` to
    ``[1, total, D]``."""
    from torch.nn.attention.varlen import varlen_attn

    lengths = [tokens for samples, tokens in sets for _ in range(samples)]
    ends = torch.tensor([0, *lengths]).cumsum(0).to(q.device, torch.int32, non_blocking=True)
    longest = max(lengths)
    x = varlen_attn(q[0], k[0], v[0], ends, ends, longest, longest)
    return x.flatten(1).unsqueeze(0)  # pyright: ignore[reportAttributeAccessIssue]


def split_heads(
    qkv: Tensor, rotation: Rotation | None, sizes: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """Queries, keys and values of a projection, turned.

    Args:
        qkv: ``[B, N, 3, h, d]``, fresh from the projection: it is turned in place where it can be,
            which is sound because nothing else reads it, the projection's backward included.
        rotation: of its tokens, or None.
        sizes: cut the N tokens into sets of these sizes.

    Returns:
        q, k and v ``[B, n, h, d]``: of all tokens, or of each set in order.
    """
    sizes = [qkv.shape[1]] if sizes is None else list(sizes)
    trained = torch.is_grad_enabled() and qkv.requires_grad
    traced = torch.compiler.is_compiling()  # a compiler fuses what it is shown in real numbers
    if rotation is not None and (traced or (trained and not rotation.paired)):
        (q, k), v = rotation(qkv[:, :, :2]).unbind(2), qkv[:, :, 2]
        cuts = zip(q.split(sizes, 1), k.split(sizes, 1), v.split(sizes, 1), strict=True)
        return tuple(x for cut in cuts for x in cut)
    return _SplitHeads.apply(qkv, rotation, sizes)


class _SplitHeads(torch.autograd.Function):
    """Turn q and k in place and cut; the backward writes all gradients into one buffer and turns
    them back there, where autograd would copy them three times."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, rotation: Rotation | None, sizes: list[int]
    ) -> tuple[Tensor, ...]:
        ctx.rotation, ctx.sizes = rotation, sizes
        if rotation is not None:
            rotation.turn_(qkv[:, :, :2])
        return tuple(x for part in qkv.split(sizes, dim=1) for x in part.unbind(2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        g = grads[0]
        total = g.new_empty(len(g), sum(ctx.sizes), 3, *g.shape[2:])
        parts = (x for part in total.split(ctx.sizes, dim=1) for x in part.unbind(2))
        for part, grad in zip(parts, grads, strict=True):
            part.copy_(grad)
        if ctx.rotation is not None:
            ctx.rotation.back.turn_(total[:, :, :2])
        return total, None, None


class MLP(nn.Module):
    """Two linear layers with GELU (erf)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x))


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
        x = _add(self.attn(self.norm1(x), rotation, mask, sets), x)
        return _add(self.mlp(self.norm2(x)), x)


def _add(fresh: Tensor, x: Tensor) -> Tensor:
    """``x + fresh``; without autograd in the memory of ``fresh``, which no one else needs."""
    if torch.is_grad_enabled() or fresh.dtype != x.dtype:
        return x + fresh
    return fresh.add_(x)


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


def projector(
    width: int, hidden: int, out: int, *, act: Callable[[], nn.Module] = nn.GELU
) -> nn.Sequential:
    """The head ``[M, width] -> [M, out]`` where views are compared: two hidden layers with batch
    norm over M, of GELU (LeJEPA) or ReLU (VICReg's expander)."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        act(),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        act(),
        nn.Linear(hidden, out),
    )
