"""Multi-block masks of images (I-JEPA, arXiv 2301.08243, section 3).

Four target blocks, predicted one by one, and one large context block without the tokens of any
target. Block sizes are drawn once per batch, places per sample.

Tokens outside the context block are neither context nor target, by design. Contexts differ in
size over a batch; of four drawn placements each sample keeps the one nearest to the batch's mean
size, and the rest is thinned at random to the smallest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError
from .mask_draw import block_starts, check_request, first, ids, pick_alike, top, uniforms, unions
from .positions import Grid

_PLACEMENTS = 4  # drawn per sample: one is kept


@dataclass(frozen=True, kw_only=True)
class ImageMaskConfig:
    """I-JEPA's masks; the defaults are the published ones."""

    targets: int = 4
    """Target blocks per sample; they may overlap."""
    target_scale: tuple[float, float] = (0.15, 0.2)
    """Range of a target block's area as a share of the image."""
    target_aspect: tuple[float, float] = (0.75, 1.5)
    """Range of a target block's height over width."""
    context_scale: tuple[float, float] = (0.85, 1.0)
    """Range of the context block's area as a share of the image; its shape is the image's."""
    min_keep: int = 10
    """A context has at least this many tokens of the frame."""
    full_complement: bool = False
    """The context is all that no target covers, without a context block."""
    meta_compat: bool = False
    """Repeat what the published sampler does beyond its paper: one random number drives both scale
    and aspect, blocks never reach the last row and column, context blocks are square, contexts are
    cut to the shortest by order of ids, so from the bottom."""

    def __post_init__(self) -> None:
        if self.targets < 1 or self.min_keep < 1:
            raise ConfigError(
                f"image mask with targets = {self.targets}, min_keep = {self.min_keep}: "
                "both must be at least 1"
            )
        for name in ("target_scale", "context_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ConfigError(f"image mask {name} = {(low, high)}: needs 0 < low <= high <= 1")
        low, high = self.target_aspect
        if not 0 < low <= high < math.inf:
            raise ConfigError(
                f"image mask target_aspect = {(low, high)}: needs 0 < low <= high, finite"
            )


@dataclass(frozen=True)
class ImageMaskBatch:
    """Sorted token ids: ``context`` int64 ``[B, C]`` and one int64 ``[B, M]`` per target block."""

    context: Tensor
    targets: tuple[Tensor, ...]


def sample_image_masks(
    config: ImageMaskConfig, grid: Grid, batch: int, *, seed: int, name: str, first_sample: int
) -> ImageMaskBatch:
    """Draw the masks of samples ``first_sample .. first_sample + batch - 1``.

    Streams as in :func:`~tubelet.vjepa.masks.sample_masks`. On a grid of several time steps (an
    image that is repeated) blocks span them all.

    Returns:
        ids of context and targets; no context token is in any target of its sample.

    Raises:
        ConfigError: target blocks that leave fewer than ``min_keep`` tokens of the frame.
    """
    check_request(grid, batch, first_sample)
    frame = grid._replace(t=1)
    u = uniforms(seed, name, "shape", first=first_sample, rows=1, draws=4)[0]
    size = _target_size(config, grid, u)
    places = _PLACEMENTS * (config.targets + 1) * 3
    numbers = uniforms(seed, name, first=first_sample, rows=batch, draws=places + frame.size)
    noise = numbers[:, places:]
    numbers = numbers[:, :places].reshape(batch, _PLACEMENTS, config.targets + 1, 3)
    reach = Grid(1, frame.h - 1, frame.w - 1) if config.meta_compat else frame
    starts = block_starts(numbers[:, :, 1:], size, reach)
    free = ~unions(starts, size, frame)
    if not config.full_complement:
        block = _context_size(config, grid, u)
        free &= unions(block_starts(numbers[:, :, :1], block, reach), block, frame)
    starts, free = _choose(config, starts, free, size, frame)
    count = int(free.sum(axis=1).min())
    kept = first(free, count) if config.meta_compat else top(np.where(free, noise, -1.0), count)
    return ImageMaskBatch(torch.from_numpy(ids(kept, grid)), _block_ids(starts, size, grid))


def _target_size(config: ImageMaskConfig, grid: Grid, u: np.ndarray) -> tuple[int, int, int]:
    aspect = _between(config.target_aspect, u[0] if config.meta_compat else u[1])
    size = _block_size(grid, _between(config.target_scale, u[0]), aspect, config.meta_compat)
    rest = grid.h * grid.w - math.prod(size)
    if rest < config.min_keep:
        raise ConfigError(
            f"target blocks of {size[1]} x {size[2]} tokens leave {rest} of a frame of {grid.h} x "
            f"{grid.w} to the context: needs at least min_keep = {config.min_keep}; use a smaller "
            "patch, target_scale or min_keep"
        )
    return size


def _context_size(config: ImageMaskConfig, grid: Grid, u: np.ndarray) -> tuple[int, int, int]:
    aspect = 1.0 if config.meta_compat else grid.h / grid.w
    return _block_size(grid, _between(config.context_scale, u[2]), aspect, config.meta_compat)


def _block_size(grid: Grid, scale: float, aspect: float, strict: bool) -> tuple[int, int, int]:
    """A block ``(1, h, w)`` inside the frame; ``strict`` keeps it smaller both ways."""
    if strict and min(grid.h, grid.w) < 2:
        raise ConfigError(f"meta_compat masks need two rows and columns, not {grid.h} x {grid.w}")
    area = max(1, int(grid.h * grid.w * scale))
    height = min(max(1, round(math.sqrt(area * aspect))), grid.h - strict)
    width = min(max(1, round(math.sqrt(area / aspect))), grid.w - strict)
    return 1, height, width


def _between(bounds: tuple[float, float], u: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _choose(
    config: ImageMaskConfig,
    starts: np.ndarray,
    free: np.ndarray,
    size: tuple[int, int, int],
    frame: Grid,
) -> tuple[np.ndarray, np.ndarray]:
    """Of P placements per sample one that keeps enough context: starts ``[B, K, 3]`` of its target
    blocks and its context, bool ``[B, n]``."""
    count = free.sum(axis=2)
    possible = count >= config.min_keep
    pick = possible.argmax(axis=1) if config.meta_compat else pick_alike(count, possible)
    rows = np.arange(len(starts))
    starts, free = starts[rows, pick], free[rows, pick]
    crowded = np.flatnonzero(~possible.any(axis=1))
    if len(crowded):  # no placement does: all targets in one place and the rest as context
        starts[crowded] = starts[crowded, :1]
        free[crowded] = ~unions(starts[crowded], size, frame)
    return starts, free


def _block_ids(starts: np.ndarray, size: tuple[int, int, int], grid: Grid) -> tuple[Tensor, ...]:
    """Ids int64 ``[B, M]`` of each of the blocks at ``starts`` ``[B, K, 3]``, at all time steps."""
    _, height, width = size
    block = np.add.outer(np.arange(height) * grid.w, np.arange(width)).ravel()
    ids = np.add.outer(np.arange(grid.t) * grid.h * grid.w, block).ravel()
    corner = starts[..., 1] * grid.w + starts[..., 2]
    return tuple(torch.from_numpy(corner[:, k, None] + ids) for k in range(starts.shape[1]))
