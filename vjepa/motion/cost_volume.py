"""How alike places of two frames are, for every displacement up to some pixels.

As in PWC-Net (arXiv 1709.02371).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def cost_volume(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Correlations with every displacement of at most ``radius`` along x and y.

    Args:
        first, second: ``[B, C, H, W]``; normed over channels, so that a value is in [-1, 1].

    Returns:
        ``[B, (2 radius + 1)², H, W]``: the mean over channels of ``first(p) second(p + d)``, d row
        by row from (-radius, -radius) on; 0 where p + d is outside.
    """
    return _CostVolume.apply(first.contiguous(), second.contiguous(), radius)  # pyright: ignore[reportReturnType]


class _CostVolume(torch.autograd.Function):
    """One displacement after another: no [B, C, displacements, H, W] in memory, either way."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.radius = radius
        around, (height, width) = _padded(second, radius), first.shape[-2:]
        volume = first.new_empty(len(first), (2 * radius + 1) ** 2, height, width)
        for number, (y, x) in enumerate(_shifts(radius)):
            volume[:, number] = (first * around[..., y : y + height, x : x + width]).mean(1)
        return volume

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (first, second), radius = ctx.saved_tensors, ctx.radius
        around, (height, width) = _padded(second, radius), first.shape[-2:]
        to_first, to_around = torch.zeros_like(first), torch.zeros_like(around)
        grad = grads[0] / first.shape[1]
        for number, (y, x) in enumerate(_shifts(radius)):
            place = (..., slice(y, y + height), slice(x, x + width))
            share = grad[:, number : number + 1]
            to_first.addcmul_(share, around[place])
            to_around[place].addcmul_(share, first)
        cut = (..., slice(radius, radius + height), slice(radius, radius + width))
        return to_first, to_around[cut], None


def _padded(x: Tensor, radius: int) -> Tensor:
    return F.pad(x, (radius, radius, radius, radius))


def _shifts(radius: int) -> list[tuple[int, int]]:
    """(y, x) of every displacement, from 0 on."""
    side = range(2 * radius + 1)
    return [(y, x) for y in side for x in side]
