"""Where the training actions lie: a model knows nothing of others, so plans stay among them.

Unbounded planners leave the data and exploit a model's errors there; bounds from the data are what
keeps them honest (the ablation of arXiv 2512.24497 and V-JEPA 2-AC both bound their actions).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import PlanningError


def action_range(actions: Tensor, tail: float = 0.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Box ``(low, high)`` of training actions ``[M, A]``, for a planner's ``low`` and ``high``.

    ``tail`` in [0, 0.5) is the share of the data cut off at either end of each entry (0: the
    smallest and the largest action). An entry that never varies gets a sliver around its value.

    Raises :class:`PlanningError` for actions of another shape, none, or not finite.
    """
    if not 0 <= tail < 0.5:
        raise PlanningError(f"tail = {tail}: must be in [0, 0.5)")
    ends = _checked(actions).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    low, high = ends[0], ends[1]
    flat = high - low < 1e-6
    low, high = torch.where(flat, low - 1e-6, low), torch.where(flat, high + 1e-6, high)
    return tuple(low.tolist()), tuple(high.tolist())


@dataclass(frozen=True, eq=False)
class ActionSupport:
    """The ellipsoid of the most likely training actions under a Gaussian fitted to them.

    It follows correlations between entries, which a box cannot: actions outside are drawn towards
    the mean until they are on its surface.

    Attributes:
        mean: float32 ``[A]``. whiten: float32 ``[A, A]``, so that ``|whiten (a - mean)|`` is the
            Mahalanobis distance. radius: largest distance allowed.
    """

    mean: Tensor
    whiten: Tensor
    radius: float

    @classmethod
    def fit(cls, actions: Tensor, coverage: float = 0.99) -> ActionSupport:
        """Fit to training actions ``[M, A]`` so that the share ``coverage`` of them is inside.

        Raises :class:`PlanningError` for actions of another shape, fewer than A + 1, not finite.
        """
        actions = _checked(actions)
        if not 0 < coverage <= 1:
            raise PlanningError(f"coverage = {coverage}: must be in (0, 1]")
        if len(actions) <= actions.shape[1]:
            raise PlanningError(
                f"{len(actions)} actions of width {actions.shape[1]}: a density needs more actions "
                "than entries"
            )
        mean = actions.mean(0)
        covariance = (actions - mean).T @ (actions - mean) / len(actions)
        floor = 1e-6 * covariance.diagonal().mean().clamp_min(1e-12)
        factor = torch.linalg.cholesky(covariance + floor * torch.eye(len(mean)).double())
        whiten = torch.linalg.inv(factor)
        radius = ((actions - mean) @ whiten.T).norm(dim=1).quantile(coverage)
        return cls(mean.float(), whiten.float(), float(radius))

    def to(self, device: torch.device) -> ActionSupport:
        """A copy on ``device``."""
        return ActionSupport(self.mean.to(device), self.whiten.to(device), self.radius)

    def distance(self, actions: Tensor) -> Tensor:
        """Mahalanobis distance ``[...]`` of actions ``[..., A]``; inside at most ``radius``."""
        return ((actions - self.mean) @ self.whiten.T).norm(dim=-1)

    def project(self, actions: Tensor) -> Tensor:
        """Actions ``[..., A]`` drawn towards the mean where they are outside."""
        scale = (self.radius * (1 - 1e-5) / self.distance(actions)).clamp(max=1.0)
        return torch.lerp(self.mean, actions, scale.unsqueeze(-1))


def _checked(actions: Tensor) -> Tensor:
    if actions.ndim != 2 or not actions.numel() or not torch.isfinite(actions).all():
        raise PlanningError(
            f"training actions of shape {tuple(actions.shape)}: give finite ones as [M, A]"
        )
    return actions.double()
