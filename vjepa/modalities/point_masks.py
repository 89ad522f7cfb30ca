"""Which tokens of a sequenced point cloud are hidden (Point-JEPA, arXiv 2404.16432)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ConfigError
from ...core.rng import numpy_generator


@dataclass(frozen=True, kw_only=True)
class PointMaskConfig:
    """Ranges of token numbers; the defaults are the published ones."""

    targets: int = 4
    """Target ranges; they may overlap."""
    target_ratio: tuple[float, float] = (0.15, 0.2)
    """Range of a target's length as a share of the tokens."""
    context_ratio: tuple[float, float] = (0.4, 0.75)
    """Range of the context's length as a share of the tokens that are in no target."""

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise ConfigError(f"masks.targets = {self.targets}: must be at least 1")
        for name in ("target_ratio", "context_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ConfigError(f"masks.{name} = {(low, high)}: needs 0 < low <= high <= 1")

    def check(self, count: int) -> None:
        """Raise ConfigError where targets may leave none of ``count`` tokens to the context."""
        longest = self.targets * _length(count, self.target_ratio[1])
        if longest >= count:
            raise ConfigError(
                f"masks.targets = {self.targets} of up to {self.target_ratio[1]:g} of the tokens "
                f"may cover all {count} of them: use fewer or shorter targets, or more centres"
            )


def sample_point_masks(
    config: PointMaskConfig, count: int, *, seed: int, step: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Sorted token numbers of the context int64 ``[K]`` and of each target ``[M]``, of step
    ``step``: the same for its whole batch.

    One length is drawn for all targets. The context is a run of the tokens that are left, in
    order: contiguous but for the targets that it steps over.

    Raises ConfigError for targets that may cover all ``count`` tokens.
    """
    config.check(count)
    draw = numpy_generator(seed, "point-masks", step)
    length = _length(count, draw.uniform(*config.target_ratio))
    starts = draw.integers(0, count - length + 1, size=config.targets)
    targets = [np.arange(start, start + length) for start in starts]
    left = np.setdiff1d(np.arange(count), np.concatenate(targets))
    kept = _length(len(left), draw.uniform(*config.context_ratio))
    first = int(draw.integers(0, len(left) - kept + 1))
    context = torch.from_numpy(left[first : first + kept])
    return context, tuple(torch.from_numpy(ids) for ids in targets)


def _length(count: int, ratio: float) -> int:
    return max(1, int(count * ratio))
