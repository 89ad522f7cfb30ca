"""How good a flow is: against the truth, and against itself backwards."""

from __future__ import annotations

import torch
from torch import Tensor

from .warp import inside, warp

SLACK = (0.01, 0.5)
"""Forward and backward flow agree when their squared mismatch is below the first number times their
squared lengths plus the second (Sundaram et al., ECCV 2010)."""


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Distance in pixels between where both flows end: ``[B, H, W]`` of ``[B, 2, H, W]``."""
    return (flow - truth).norm(dim=1)


def inconsistency(forward: Tensor, backward: Tensor) -> Tensor:
    """How far from its place a pixel comes back, there by ``forward`` and back by ``backward``, in
    pixels: ``[B, H, W]`` of flows ``[B, 2, H, W]``."""
    return (forward + warp(backward, forward)).norm(dim=1)


def consistent(forward: Tensor, backward: Tensor) -> Tensor:
    """Where both flows agree, and the forward one ends in the frame: bool ``[B, H, W]``.

    What is hidden in the second frame has no flow there that leads back: False marks occlusions.
    """
    returned = warp(backward, forward)
    mismatch = (forward + returned).square().sum(1)
    lengths = forward.square().sum(1) + returned.square().sum(1)
    return (mismatch < SLACK[0] * lengths + SLACK[1]) & torch.squeeze(inside(forward), 1)
