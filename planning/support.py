"""Where the training actions lie: a model knows nothing of others, so plans stay among them.

Unbounded planners leave the data and exploit a model's errors there; bounds from the data are what
keeps them honest (the ablation of arXiv 2512.24497 and V-JEPA 2-AC both bound their actions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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


class Support(Protocol):
    """A set of actions that plans stay in.

    Attributes:
        mean: float32 ``[A]``, an action inside, from which the set can be reached.
    """

    @property
    def mean(self) -> Tensor: ...

    def to(self, device: torch.device) -> Support:
        """A copy on ``device``."""
        ...

    def project(self, actions: Tensor) -> Tensor:
        """Actions ``[..., A]``, those outside brought inside."""
        ...


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


@dataclass(frozen=True, eq=False)
class NeighbourSupport:
    """Everything as near to a training action as training actions are to each other.

    It follows any shape of the data, holes included: an action farther than ``radius`` from its
    nearest training action is drawn towards that one (the nearest point of the set).

    Attributes:
        data: float32 ``[M, A]``, training actions. scale: float32 ``[A]``, their deviations, the
            unit of distances. radius: largest distance allowed. mean: float32 ``[A]``, the training
            action nearest to their mean.
    """

    data: Tensor
    scale: Tensor
    radius: float
    mean: Tensor

    @classmethod
    def fit(cls, actions: Tensor, coverage: float = 0.99) -> NeighbourSupport:
        """Fit to training actions ``[M, A]``: the radius is that within which the share
        ``coverage`` of them have another.

        Raises :class:`PlanningError` for actions of another shape, fewer than two, not finite.
        """
        data = _checked(actions).float()
        if not 0 < coverage <= 1:
            raise PlanningError(f"coverage = {coverage}: must be in (0, 1]")
        if len(data) < 2:
            raise PlanningError(f"{len(data)} training actions: neighbours need at least 2")
        scale = data.std(0).clamp_min(1e-6)
        apart = torch.cdist(data / scale, data / scale, compute_mode=_EXACT)
        apart.fill_diagonal_(torch.inf)
        radius = float(apart.amin(1).quantile(coverage))
        central = (data - data.mean(0)).div(scale).norm(dim=1).argmin()
        return cls(data, scale, radius, data[central])

    def to(self, device: torch.device) -> NeighbourSupport:
        """A copy on ``device``."""
        moved = (x.to(device) for x in (self.data, self.scale, self.mean))
        data, scale, mean = moved
        return NeighbourSupport(data, scale, self.radius, mean)

    def nearest(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The training actions ``[..., A]`` nearest to actions ``[..., A]``, and how far ``[...]``
        they are; inside at most ``radius``."""
        own = self.data / self.scale
        flat = (actions / self.scale).reshape(-1, len(self.scale))
        parts = [torch.cdist(x, own, compute_mode=_EXACT).min(1) for x in flat.split(_ROWS)]
        apart = torch.cat([part.values for part in parts])
        which = torch.cat([part.indices for part in parts])
        return self.data[which].view_as(actions), apart.view(actions.shape[:-1])

    def project(self, actions: Tensor) -> Tensor:
        """Actions ``[..., A]`` drawn towards their neighbours where they are outside."""
        near, apart = self.nearest(actions)
        share = torch.where(apart <= self.radius, 1.0, self.radius * (1 - 1e-5) / apart)
        return torch.lerp(near, actions, share.unsqueeze(-1))


_EXACT = "donot_use_mm_for_euclid_dist"
_ROWS = 8192


def _checked(actions: Tensor) -> Tensor:
    if actions.ndim != 2 or not actions.numel() or not torch.isfinite(actions).all():
        raise PlanningError(
            f"training actions of shape {tuple(actions.shape)}: give finite ones as [M, A]"
        )
    return actions.double()
