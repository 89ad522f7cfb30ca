"""Token positions on a (T, H, W) grid: 3-D rotary tables and fixed sin-cos embeddings.

Token ids are time-major: ``id = (t * H + h) * W + w``. Tables are computed once per grid and
gathered by id, so that masked encoders and predictors share them across layers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import ConfigError


class Grid(NamedTuple):
    """Tokens along time, height and width."""

    t: int
    h: int
    w: int

    @property
    def size(self) -> int:
        return self.t * self.h * self.w


class Rotation:
    """Rotary positions for one set of tokens: rotates adjacent channel pairs of q and k.

    Args:
        cos, sin: ``[N, d]`` or ``[B, 1, N, d]``, each angle twice: once per channel of a pair.
    """

    def __init__(self, cos: Tensor, sin: Tensor):
        self.cos, self.sin = cos, sin

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate ``x [B, h, N, d]``, keeping its dtype."""
        pairs = x.unflatten(-1, (-1, 2))
        turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
        return (x * self.cos + turned * self.sin).to(x.dtype)

    def select(self, ids: Tensor) -> Rotation:
        """The rotations of the tokens ``ids [B, K]`` (int64, indices into a ``[N, d]`` table)."""
        return Rotation(self.cos[ids].unsqueeze(1), self.sin[ids].unsqueeze(1))


def rope_axis_width(head_width: int) -> int:
    """Channels of a head that rotate with each of the three axes; the rest is left alone."""
    return 2 * ((head_width // 3) // 2)


def check_rope(name: str, width: int, heads: int) -> None:
    """Raise ConfigError unless heads of ``width / heads`` channels can carry rotary positions."""
    head = width // heads
    if head % 2 or rope_axis_width(head) == 0:
        raise ConfigError(
            f"{name}: width {width} over {heads} heads gives heads of {head} channels; rotary 3-D "
            "positions need an even number of at least 6: use fewer heads or another width"
        )


@lru_cache(maxsize=64)
def rope_table(grid: Grid, head_width: int, device: torch.device | str = "cpu") -> Rotation:
    """3-D rotary table of a grid, ``[N, head_width]``, float32, laid out [t | h | w | rest].

    Angles are ``position * 10000^(-i / (d/2))`` per axis with d channels; pairs are adjacent
    channels (V-JEPA 2's layout, the pairing of V-JEPA 2.1).
    Positions are token indices, so other grids extrapolate.
    """
    with torch.inference_mode(False):  # a cached inference tensor could not be trained through
        return _rope_table(grid, head_width, device)


def _rope_table(grid: Grid, head_width: int, device: torch.device | str) -> Rotation:
    t, h, w = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    width = rope_axis_width(head_width)
    omega = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = [axis.reshape(-1, 1).double() * omega for axis in (t, h, w)]
    rest = torch.zeros(grid.size, (head_width - 3 * width + 1) // 2, dtype=torch.float64)
    angle = torch.cat([*angles, rest], dim=1).repeat_interleave(2, dim=1)[:, :head_width]
    return Rotation(angle.cos().float().to(device), angle.sin().float().to(device))


@lru_cache(maxsize=64)
def sincos_table(grid: Grid, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Fixed sin-cos embedding ``[N, width]`` of a grid, float32 (V-JEPA 1, uniform power).

    Each axis takes ``2 * ceil(width / 6)`` channels, sines first; the concatenation [t | h | w] is
    cut to ``width``.
    """
    with torch.inference_mode(False):
        return _sincos_table(grid, width, device)


def _sincos_table(grid: Grid, width: int, device: torch.device | str) -> Tensor:
    axis_width = 2 * -(-width // 6)
    omega = 10000.0 ** (-torch.arange(axis_width // 2, dtype=torch.float64) / (axis_width / 2))
    parts = []
    for axis in torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij"):
        angle = axis.reshape(-1, 1).double() * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1)[:, :width].float().to(device)
