"""Multi-block 3-D tube masks (V-JEPA, arXiv 2404.08471, section 3) that lose no token.

A mask is the union of a few blocks that span the clip in time. The targets are the hidden tokens,
the context is the rest. Block shapes are drawn once per batch, places per sample.

**Equal lengths.** Samples of a batch hide different numbers of tubes, and rectangular tensors need
one. Meta's collator cuts the sorted ids of every sample to the shortest: a quarter of all tokens
is lost, nearly all from the end of the clip. Here (``equalise = "border"``) every sample hides the
batch's mean number of tubes: of eight drawn placements the one nearest to it is kept, then tubes at
the border of the union change sides (1 % of them on 16 x 16). Every token stays context or target
and tubes stay tubes, so time steps are masked at exactly equal rates. Positions are masked as by
single draws to within 0.05, 0.01 on average.

**Space.** Blocks inside the frame cover its middle more than its edges: on 16 x 16, ``short_range``
hides a corner in 7 % of the samples and the middle in 96 %, ``long_range`` in 19 % and all. That is
the published placement. With ``wrap = True`` blocks leave on one side and come in on the other:
every position is hidden equally often (72 % and 91 %, where blocks inside hide 62 % and 81 %).

**Streams.** A sample's random numbers stand at a fixed place of the stream ``(seed, name)``, found
by its number; the block shape is a function of ``(seed, name, first sample)``. Placements depend on
nothing else: not on workers, ranks or earlier batches. What equalising does depends on the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..core.errors import ConfigError
from .mask_batch import MaskBatch, PackedIds, PackedMasks
from .mask_batch import context_distance as context_distance
from .mask_draw import (
    block_starts,
    check_request,
    first,
    ids,
    nearness,
    pick_alike,
    top,
    uniforms,
    unions,
)
from .positions import Grid

_PLACEMENTS = 8  # drawn per sample: one is kept


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """One kind of mask; the defaults are V-JEPA's short range, but for ``equalise``."""

    kind: Literal["blocks", "tubes"] = "blocks"
    """Unions of blocks, or single tubes hidden at random (VideoMAE, V-JEPA 1)."""
    blocks: int = 8
    """Blocks per sample; their union is predicted."""
    scale: float = 0.15
    """Area of a block as a share of the frame."""
    aspect: tuple[float, float] = (0.75, 1.5)
    """Range of a block's height over width."""
    temporal_scale: tuple[float, float] = (1.0, 1.0)
    """Range of a block's length as a share of the clip; (1, 1) makes tubes."""
    max_temporal_keep: float = 1.0
    """Share of the time steps, from the first on, that may be context; later ones are targets."""
    wrap: bool = False
    """Blocks leave the grid on one side and come in on the other, so that all positions are hidden
    equally often. False keeps them inside, as published."""
    ratio: float = 0.9
    """Tubes: share of them that is hidden."""
    equalise: Literal["border", "subsample", "truncate", "ragged"] = "border"
    """How samples come to equal lengths: see :func:`sample_masks`."""
    leftover: Literal["drop", "target", "context"] = "drop"
    """What "subsample" and "truncate" cut away: lost, given to the targets (Meta's
    full_complement) or to the context (Meta's pred_full_complement)."""
    max_keep: int | None = None
    """At most this many context tokens per sample (targets, if ``inverse``)."""
    inverse: bool = False
    """Swap context and target in the end (Meta's inv_block)."""

    def __post_init__(self) -> None:
        if self.blocks < 1 or not 0 < self.scale < 1 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise ConfigError(
                f"mask with blocks = {self.blocks}, scale = {self.scale}, aspect = {self.aspect}: "
                "needs blocks >= 1, 0 < scale < 1 and 0 < aspect[0] <= aspect[1]"
            )
        if not math.isfinite(self.aspect[1]):
            raise ConfigError(f"mask aspect = {self.aspect}: must be finite")
        if not 0 < self.temporal_scale[0] <= self.temporal_scale[1] <= 1:
            raise ConfigError(
                f"mask temporal_scale = {self.temporal_scale}: needs 0 < low <= high <= 1"
            )
        if not 0 < self.max_temporal_keep <= 1:
            raise ConfigError(f"mask max_temporal_keep = {self.max_temporal_keep}: lies in (0, 1]")
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask ratio = {self.ratio}: the hidden share lies in (0, 1)")
        if self.max_keep is not None and self.max_keep < 1:
            raise ConfigError(f"mask max_keep = {self.max_keep}: a context needs at least a token")
        limited = self.max_keep is not None or self.max_temporal_keep < 1
        if limited and self.leftover == "context":
            raise ConfigError(
                f"mask max_keep = {self.max_keep}, max_temporal_keep = {self.max_temporal_keep} "
                "with leftover = 'context': the context would be whatever the targets leave over, "
                "beyond these limits; choose leftover = 'target'"
            )

    @property
    def tubes(self) -> bool:
        """Whether a place is drawn to be hidden at all time steps or at none."""
        return self.kind == "tubes" or (self.temporal_scale[0] == self.max_temporal_keep == 1)


def short_range() -> MaskConfig:
    """V-JEPA's short-range masks: eight blocks of 15 % each."""
    return MaskConfig(blocks=8, scale=0.15)


def long_range() -> MaskConfig:
    """V-JEPA's long-range masks: two blocks of 70 % each."""
    return MaskConfig(blocks=2, scale=0.7)


def random_tubes() -> MaskConfig:
    """Nine tubes in ten hidden, at random."""
    return MaskConfig(kind="tubes", ratio=0.9)


def sample_masks(
    config: MaskConfig, grid: Grid, batch: int, *, seed: int, name: str, first_sample: int
) -> MaskBatch:
    """Draw the masks of samples ``first_sample .. first_sample + batch - 1``.

    ``config.equalise`` says how samples come to equal lengths:

    - "border": tubes at the union's border change sides; nothing is lost, time is exact.
    - "subsample": context and target are thinned at random, in whole tubes, to the shortest.
    - "truncate": sorted ids are cut to the shortest, as Meta does: for comparisons with it.
    - "ragged": not at all; :func:`sample_packed_masks` returns such masks.

    Args:
        config: mask kind. grid: token grid of the clips. batch: B.
        seed: run seed. name: stream name of this mask kind. first_sample: global sample number.

    Returns:
        ids of context and target tokens, disjoint, neither empty.

    Raises:
        ConfigError: a grid of one place, a mask that leaves no context, ragged masks.
    """
    if config.equalise == "ragged":
        raise ConfigError(
            "mask equalise = 'ragged' gives samples of different lengths, which do not fit a "
            "rectangle: use sample_packed_masks, or equalise = 'border'"
        )
    masks = _sample(config, grid, batch, seed, name, first_sample)
    return MaskBatch(*(torch.from_numpy(ids(mask, grid)) for mask in masks))


def sample_packed_masks(
    config: MaskConfig, grid: Grid, batch: int, *, seed: int, name: str, first_sample: int
) -> PackedMasks:
    """The same masks for every ``equalise``, samples one after the other: no padding, no loss.

    Arguments and errors as in :func:`sample_masks`, which "ragged" is refused by.
    """
    masks = _sample(config, grid, batch, seed, name, first_sample)
    tokens = (torch.from_numpy(np.tile(mask, grid.size // mask.shape[1])) for mask in masks)
    return PackedMasks(*(PackedIds.from_mask(mask) for mask in tokens))


def block_shape(
    config: MaskConfig, grid: Grid, *, seed: int, name: str, first_sample: int
) -> tuple[int, int, int]:
    """Size in tokens ``(t, h, w)`` of the blocks of a batch, smaller than the grid."""
    u = uniforms(seed, name, "shape", first=first_sample, rows=1, draws=2)[0]
    low, high = config.aspect
    aspect = low + (high - low) * u[0]
    area = max(1, int(grid.h * grid.w * config.scale))
    height = min(max(1, round(math.sqrt(area * aspect))), grid.h)
    width = min(max(1, round(math.sqrt(area / aspect))), grid.w)
    low, high = config.temporal_scale
    length = max(1, int(grid.t * (low + (high - low) * u[1])))
    if (length, height, width) == grid:
        if height > 1:
            height -= 1
        elif width > 1:
            width -= 1
        else:
            length -= 1
    return length, height, width


def _sample(
    config: MaskConfig, grid: Grid, batch: int, seed: int, name: str, first_sample: int
) -> tuple[np.ndarray, np.ndarray]:
    """Context and target: bool ``[B, H * W]`` if both are tubes, else ``[B, T * H * W]``."""
    check_request(grid, batch, first_sample)
    if grid.size == 1 or (config.tubes and grid.h * grid.w == 1):
        raise ConfigError(
            f"a frame of a single token cannot be masked: {grid}; use a smaller patch"
        )
    cells = grid._replace(t=1) if config.tubes else grid
    places = 0 if config.kind == "tubes" else _PLACEMENTS * config.blocks * 3
    u = uniforms(seed, name, first=first_sample, rows=batch, draws=places + cells.size)
    starts, noise = u[:, :places].reshape(batch, _PLACEMENTS, -1, 3), u[:, places:]
    keep = _context_limit(config, cells, grid.t // cells.t)
    if config.kind == "tubes":
        target = top(noise, cells.size - keep)
        context = ~target
    else:
        size = block_shape(config, grid, seed=seed, name=name, first_sample=first_sample)
        size = (min(size[0], cells.t), *size[1:])
        starts = block_starts(starts, size, cells, wrap=config.wrap)
        hidden = unions(starts, size, cells, wrap=config.wrap)
        first_late = max(1, int(cells.t * config.max_temporal_keep)) * cells.h * cells.w
        late = np.arange(cells.size) >= first_late
        masked = _choose(hidden | late, np.where(late, -1.0, noise), config.equalise == "border")
        if config.equalise in ("border", "ragged"):
            near = 2 * late + nearness(masked, cells, wrap=config.wrap) + noise / 8
            target = _move_border(masked, near, keep, alike=config.equalise == "border")
            context = ~target
        else:
            context, target = _cut(config, masked, noise, grid, keep)
    return (target, context) if config.inverse else (context, target)


def _context_limit(config: MaskConfig, cells: Grid, steps: int) -> int:
    """At most this many cells are context."""
    limit = cells.size - 1
    if config.kind == "tubes":
        limit = int(round(cells.size * (1 - config.ratio), 9))
        if limit == 0:
            raise ConfigError(
                f"mask ratio = {config.ratio} of {cells.size} tubes leaves no context: use a "
                f"ratio of at most {1 - 1 / cells.size:.4g}"
            )
    if config.max_keep is not None:
        if config.max_keep < steps:
            raise ConfigError(
                f"mask max_keep = {config.max_keep} leaves no context: a tube is {steps} tokens"
            )
        limit = min(limit, config.max_keep // steps)
    return limit


def _choose(hidden: np.ndarray, noise: np.ndarray, alike: bool) -> np.ndarray:
    """One of the placements ``[B, P, n]`` per sample, bool ``[B, n]``, that leaves a context.

    ``alike`` takes one whose size is near to the batch's mean, else it is the first.
    """
    count = hidden.sum(axis=2)
    possible = count < hidden.shape[2]
    pick = pick_alike(count, possible) if alike else possible.argmax(axis=1)
    masked = hidden[np.arange(len(hidden)), pick]
    rows = np.flatnonzero(masked.all(axis=1))  # every placement covers all: open one place
    masked[rows, noise[rows].argmax(axis=1)] = False
    return masked


def _move_border(masked: np.ndarray, near: np.ndarray, keep: int, *, alike: bool) -> np.ndarray:
    """Targets, bool ``[B, n]``: ``masked``, grown where ``near`` is high or shrunk where it is low
    until at most ``keep`` places are context and, if ``alike``, all samples have one size."""
    count = masked.sum(axis=1)
    wanted = round(float(count.mean())) if alike else count
    return top(2 * masked + near, np.maximum(wanted, masked.shape[1] - keep))


def _cut(
    config: MaskConfig, masked: np.ndarray, noise: np.ndarray, grid: Grid, keep: int
) -> tuple[np.ndarray, np.ndarray]:
    """Context and target cut to the shortest of the batch, at random or by order of token ids."""
    if config.equalise == "truncate":
        masked, keep = np.tile(masked, grid.size // masked.shape[1]), config.max_keep or grid.size
    count = masked.sum(axis=1)
    kept, hidden = min(keep, masked.shape[1] - int(count.max())), int(count.min())
    if config.equalise == "truncate":
        context, target = first(~masked, kept), first(masked, hidden)
    else:
        context = top(np.where(masked, -1.0, noise), kept)
        target = top(np.where(masked, noise, -1.0), hidden)
    if config.leftover == "target":
        target = ~context
    elif config.leftover == "context":
        context = ~target
    return context, target
