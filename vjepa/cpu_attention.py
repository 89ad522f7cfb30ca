"""Attention for training in bfloat16 on a CPU, where torch's fused kernel is slow.

The fused kernel works in products of small blocks. CPUs with AVX512-BF16 or AMX do large bfloat16
products at several times the rate of float32; here a few heads at a time, whose scores stay in the
cache, go through such. Scores and softmax are float32, as in the fused kernel, so that the error is
the same. Probabilities are kept for the backward pass where they are small, and else made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CACHE = 2 << 20  # bytes of float32 scores at a time
_KEPT = 64 << 20  # bytes of one call's probabilities that are kept


def suits(q: Tensor) -> bool:
    """Whether :func:`attention` is meant for these queries ``[B, h, N, d]``."""
    bf16 = q.device.type == "cpu" and q.dtype == torch.bfloat16
    return bf16 and torch.is_grad_enabled() and q.requires_grad


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` of bfloat16 ``[B, h, N, d]``; differentiable once."""
    shape = q.shape
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    kept = 2 * len(q) * q.shape[1] * k.shape[1] <= _KEPT
    return _Attention.apply(q, k, v, kept).view(shape)


class _Attention(torch.autograd.Function):
    """Of heads ``[B h, N, d]``."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, kept: bool) -> Tensor:
        out = torch.empty_like(q)
        kept_p = q.new_empty(*q.shape[:2], k.shape[1]) if kept else None
        with torch.autocast("cpu", enabled=False):
            for part, p in _probabilities(q, k, kept_p):
                torch.bmm(p, v[part], out=out[part])
        ctx.save_for_backward(q, k, v, kept_p)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, kept_p = ctx.saved_tensors
        g = grads[0].contiguous()
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        with torch.autocast("cpu", enabled=False):
            if kept_p is None:
                made = _probabilities(q, k, None)
            else:
                made = ((part, kept_p[part]) for part in _parts(q, k))
            for part, p in made:
                torch.bmm(p.transpose(1, 2), g[part], out=dv[part])
                dp = torch.bmm(g[part], v[part].transpose(1, 2))
                ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
                torch.bmm(ds, k[part], out=dq[part])
                torch.bmm(ds.transpose(1, 2), q[part], out=dk[part])
        scale = q.shape[-1] ** -0.5
        return dq.mul_(scale), dk.mul_(scale), dv, None


def _parts(q: Tensor, k: Tensor) -> Iterator[slice]:
    """The heads, as many at a time as the cache holds the scores of."""
    step = max(1, _CACHE // (4 * q.shape[1] * k.shape[1]))
    return (slice(first, min(first + step, len(q))) for first in range(0, len(q), step))


def _probabilities(q: Tensor, k: Tensor, into: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Part after part of the heads, and its probabilities bfloat16 ``[h, N, M]``: in ``into``, or
    in memory that the next part overwrites."""
    scores = half = None
    for part in _parts(q, k):
        count = part.stop - part.start
        if scores is None:
            scores = q.new_empty(count, q.shape[1], k.shape[1], dtype=torch.float32)
            half = q.new_empty(scores.shape) if into is None else None
        s, p = scores[:count], into[part] if half is None else half[:count]  # pyright: ignore
        torch.bmm(q[part].float().mul_(q.shape[-1] ** -0.5), k[part].float().mT, out=s)
        yield part, p.copy_(torch.softmax(s, dim=-1, out=s))
