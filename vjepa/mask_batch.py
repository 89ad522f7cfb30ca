"""What a mask sampler returns: token ids, as rectangles or packed, and distances between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .positions import Grid


@dataclass(frozen=True)
class PackedIds:
    """Token ids of samples of any length, one sample after the other, sorted within each."""

    ids: Tensor
    """int64 ``[sum of lengths]``."""
    lengths: Tensor
    """int64 ``[B]``."""

    @classmethod
    def from_mask(cls, mask: Tensor) -> PackedIds:
        """The tokens marked in each row of ``mask``, bool ``[B, N]``."""
        return cls(mask.nonzero()[:, 1], mask.sum(1))

    @property
    def cu_seqlens(self) -> Tensor:
        """Where samples begin and the last one ends, int32 ``[B + 1]``: for varlen attention."""
        ends = self.lengths.cumsum(0)
        return torch.cat([ends.new_zeros(1), ends]).to(torch.int32)

    @property
    def rows(self) -> Tensor:
        """Sample of each id, int64 ``[sum of lengths]``: ``tokens[packed.rows, packed.ids]``."""
        batch = torch.arange(len(self.lengths), device=self.lengths.device)
        return batch.repeat_interleave(self.lengths)

    def split(self) -> tuple[Tensor, ...]:
        """The ids of each sample."""
        return self.ids.split(self.lengths.tolist())

    def to(self, device: str | torch.device) -> PackedIds:
        """The same on ``device``."""
        return PackedIds(self.ids.to(device), self.lengths.to(device))


@dataclass(frozen=True)
class PackedMasks:
    """Context and target of a batch whose samples may differ in length."""

    context: PackedIds
    target: PackedIds


@dataclass(frozen=True)
class MaskBatch:
    """Sorted token ids of a batch: ``context`` int64 ``[B, K]`` and ``target`` int64 ``[B, M]``."""

    context: Tensor
    target: Tensor

    def packed(self) -> PackedMasks:
        """The same ids, samples one after the other."""
        return PackedMasks(*(_pack(ids) for ids in (self.context, self.target)))


def _pack(ids: Tensor) -> PackedIds:
    lengths = torch.full((len(ids),), ids.shape[1], dtype=torch.int64, device=ids.device)
    return PackedIds(ids.flatten(), lengths)


def context_distance(context_ids: Tensor, target_ids: Tensor, grid: Grid) -> Tensor:
    """Distance from each context token to the nearest target token of its sample, in tokens.

    Euclidean in the ``(t, h, w)`` grid, as V-JEPA 2.1 weights its context loss. Computed as a
    distance transform, one axis at a time: the cost grows with ``T + H + W`` per token and not
    with the number of targets, and squared distances are exact.

    Args:
        context_ids: int64 ``[B, C]``. target_ids: int64 ``[B, M]``, M at least 1.

    Returns:
        float32 ``[B, C]``, at least 1 where context and target are disjoint.

    Raises:
        ValueError: no target, batches that differ, or an id that is not of the grid.
    """
    batch = len(context_ids)
    if len(target_ids) != batch or target_ids.shape[1] == 0:
        raise ValueError(
            f"distances from context {tuple(context_ids.shape)} to target "
            f"{tuple(target_ids.shape)}: batches must agree and targets not be empty"
        )
    for ids in (context_ids, target_ids):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < grid.size:
            raise ValueError(f"token ids up to {int(ids.max())} on a grid of {grid.size} tokens")
    squared = torch.full((batch, grid.size), torch.inf, device=context_ids.device)
    squared = squared.scatter(1, target_ids, 0.0).view(batch, *grid)
    for axis, length in enumerate(grid, start=1):
        steps = torch.arange(length, device=context_ids.device, dtype=torch.float32)
        gaps = (steps[:, None] - steps).square()
        squared = (squared.movedim(axis, -1).unsqueeze(-2) + gaps).amin(-1).movedim(-1, axis)
    return squared.reshape(batch, -1).gather(1, context_ids).sqrt()
