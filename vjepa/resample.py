"""Pillow's bilinear resize in torch, to the bit.

Pillow resizes in two passes, along the rows and then down the columns. Each output value is a sum
over the input values under a triangle, which is as wide as one input pixel on either side of its
centre, or as one output pixel where the image shrinks (that is its antialiasing). The weights are
integers, in units of 2**-22, and after each pass the sum is rounded to 8 bits.

The order of the passes shows in the last bit. Here it is rows first, as in every Pillow up to 12
(and so in the published evaluations). Pillow 13 takes the columns first where the height shrinks by
more than twice what the width does, which touches images over about twice as high as wide.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BITS = 22


def pillow_bilinear(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames uint8 ``[..., H, W]`` resized to ``size`` = (height, width), as Pillow's
    ``Image.resize((width, height), BILINEAR)`` does (rows first), on the frames' device."""
    height, width = size
    frames = _pass(frames, width)
    return _pass(frames.transpose(-1, -2), height).transpose(-1, -2)


def _pass(x: Tensor, size: int) -> Tensor:
    """``x`` uint8 ``[..., L]`` resized along its last axis to ``size``."""
    if x.shape[-1] == size:
        return x
    index, weight = (table.to(x.device) for table in _taps(x.shape[-1], size))
    total = torch.full((*x.shape[:-1], size), 1 << (_BITS - 1), dtype=torch.int32, device=x.device)
    for tap in range(len(index)):
        total.add_(x.index_select(-1, index[tap]).int().mul_(weight[tap]))
    return (total >> _BITS).clamp_(0, 255).to(torch.uint8)


def _taps(length: int, size: int) -> tuple[Tensor, Tensor]:
    """For each of ``size`` outputs, which inputs (int64 ``[K, size]``) and how much of each (int32
    ``[K, size]``, in 2**-22; 0 beyond the triangle)."""
    scale = length / size
    stretch = max(scale, 1.0)
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (centre - stretch + 0.5).long().clamp(min=0)  # .long() cuts towards 0, as Pillow does
    last = (centre + stretch + 0.5).long().clamp(max=length)
    offset = torch.arange(2 * math.ceil(stretch) + 1)[:, None]
    index = first + offset
    distance = (index - centre + 0.5).abs() * (1.0 / stretch)
    weight = (1.0 - distance).clamp(min=0) * (index < last)
    weight = weight / weight.sum(0)
    return index.clamp(max=length - 1), (weight * (1 << _BITS) + 0.5).int()
