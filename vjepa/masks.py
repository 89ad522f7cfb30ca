"""Multi-block 3-D tube masks (V-JEPA, arXiv 2404.08471, section 3).

A mask is the union of a few spatial blocks that span the clip in time. The context is what is left;
the targets are the masked tokens. Block shapes are drawn once per batch, locations per sample.

Batches need equal lengths. Cutting sorted ids would drop the end of the clip (a quarter of all
tokens); here each sample is subsampled uniformly to the shortest length of the batch instead.
Every draw comes from a stream of its own, ``(seed, mask kind, sample number)``, so masks do not
depend on workers, ranks or the batches before them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.rng import numpy_generator
from .positions import Grid


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """One kind of multi-block mask."""

    blocks: int = 8
    """Blocks per sample; their union is predicted."""
    scale: float = 0.15
    """Area of a block as a share of the frame."""
    aspect: tuple[float, float] = (0.75, 1.5)
    """Range of a block's height over width."""

    def __post_init__(self) -> None:
        if self.blocks < 1 or not 0 < self.scale < 1 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise ConfigError(
                f"mask with blocks = {self.blocks}, scale = {self.scale}, aspect = {self.aspect}: "
                "needs blocks >= 1, 0 < scale < 1 and 0 < aspect[0] <= aspect[1]"
            )


def short_range() -> MaskConfig:
    """V-JEPA's short-range masks: eight blocks of 15 % each."""
    return MaskConfig(blocks=8, scale=0.15)


def long_range() -> MaskConfig:
    """V-JEPA's long-range masks: two blocks of 70 % each."""
    return MaskConfig(blocks=2, scale=0.7)


@dataclass(frozen=True)
class MaskBatch:
    """Sorted token ids of a batch: ``context`` int64 ``[B, K]`` and ``target`` int64 ``[B, M]``."""

    context: Tensor
    target: Tensor


def sample_masks(
    config: MaskConfig, grid: Grid, batch: int, *, seed: int, name: str, first_sample: int
) -> MaskBatch:
    """Draw the masks of samples ``first_sample .. first_sample + batch - 1``.

    Args:
        config: mask kind. grid: token grid of the clips. batch: B.
        seed: run seed. name: stream name of this mask kind. first_sample: global sample number.

    Returns:
        ids of context and target tokens, disjoint, neither empty.
    """
    height, width = block_shape(config, grid, numpy_generator(seed, name, "shape", first_sample))
    rngs = [numpy_generator(seed, name, first_sample + b) for b in range(batch)]
    masked = np.stack([_union(config.blocks, height, width, grid, rng) for rng in rngs])
    context, target = (_equalise(m.reshape(batch, -1), grid.t, rngs) for m in (~masked, masked))
    return MaskBatch(torch.from_numpy(context), torch.from_numpy(target))


def block_shape(config: MaskConfig, grid: Grid, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of the batch's blocks in tokens, smaller than the frame in one direction."""
    aspect = rng.uniform(*config.aspect)
    area = grid.h * grid.w * config.scale
    height = min(max(1, round(math.sqrt(area * aspect))), grid.h)
    width = min(max(1, round(math.sqrt(area / aspect))), grid.w)
    if (height, width) == (grid.h, grid.w):
        if grid.h * grid.w == 1:
            raise ConfigError("a frame of a single token cannot be masked; use a smaller patch")
        height, width = (height - 1, width) if height > 1 else (height, width - 1)
    return height, width


def _union(
    blocks: int, height: int, width: int, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    """Bool ``[H, W]``: the union of randomly placed blocks, never the whole frame."""
    for _ in range(20):
        top = rng.integers(0, grid.h - height + 1, blocks)[:, None]
        left = rng.integers(0, grid.w - width + 1, blocks)[:, None]
        rows, cols = np.arange(grid.h), np.arange(grid.w)
        in_rows = (rows >= top) & (rows < top + height)
        in_cols = (cols >= left) & (cols < left + width)
        union = np.logical_or.reduce(in_rows[:, :, None] & in_cols[:, None, :], axis=0)
        if not union.all():
            return union
    union[rng.integers(grid.h), rng.integers(grid.w)] = False  # twenty full covers: open one tube
    return union


def _equalise(chosen: np.ndarray, steps: int, rngs: list[np.random.Generator]) -> np.ndarray:
    """Ids int64 ``[B, steps * k]`` of the chosen ``[B, H * W]`` tubes, cut to the least count."""
    area = chosen.shape[1]
    k = int(chosen.sum(axis=1).min()) * steps
    out = np.empty((len(rngs), k), dtype=np.int64)
    for b, rng in enumerate(rngs):
        tube = np.flatnonzero(chosen[b])
        ids = (np.arange(steps)[:, None] * area + tube).ravel()
        out[b] = ids if len(ids) == k else np.sort(rng.choice(ids, k, replace=False))
    return out
