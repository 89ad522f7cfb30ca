"""An order of patches in which neighbours are near, so that contiguous ranges are regions.

Point-JEPA, arXiv 2404.16432: begin at the centre with the least sum of coordinates, then go to the
nearest centre that is left, until none is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import ConfigError


@torch.no_grad()
def sequence(centres: Tensor) -> Tensor:
    """The order int64 ``[B, N]`` (a permutation of each row) of ``centres [B, N, 3]``.

    Ties go to the lower number. Raises ConfigError for another shape, or no centres.
    """
    if centres.ndim != 3 or 0 in centres.shape:
        raise ConfigError(f"centres {list(centres.shape)}: must be [B, N, 3] with N of at least 1")
    rows = torch.arange(len(centres), device=centres.device)
    distance = squared_distances(centres, centres)
    current = centres.sum(dim=-1).argmin(dim=1)
    order = [current]
    for _ in range(centres.shape[1] - 1):
        distance[rows, :, current] = torch.inf  # nobody goes there again
        current = distance[rows, current].argmin(dim=1)
        order.append(current)
    return torch.stack(order, dim=1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``[B, N, M]`` between ``a [B, N, 3]`` and ``b [B, M, 3]``, without the cancellation of
    ``|a|^2 - 2 a b + |b|^2``."""
    return (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(dim=-1)
