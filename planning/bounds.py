"""The set of allowed actions: a box, balls around zero, and the support of the data."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from ..core.errors import PlanningError
from .support import Support

_SHRINK = 1 - 1e-6  # so that rounding never leaves a scaled group outside its ball


class ActionBounds:
    """Box ``low <= action <= high`` and norm bounds, for actions of width A.

    A tuple shorter than A is tiled: its length must divide A. So bounds given for one environment
    action serve a block of them.

    Args:
        action_dim: A. low, high: box bounds in action units, finite.
        norm_groups: sizes of consecutive groups of entries, tiled over A like the box.
        max_norms: the largest Euclidean norm of each group (``inf``: none). The box of a bounded
            group must contain zero, so that shrinking towards zero stays inside the box.
        support: of the training actions; its mean must be inside the other bounds, so that drawing
            actions towards it stays inside them.

    Raises :class:`PlanningError` if the bounds do not fit ``action_dim`` or are impossible.
    """

    def __init__(
        self,
        action_dim: int,
        low: Sequence[float],
        high: Sequence[float],
        norm_groups: Sequence[int] = (),
        max_norms: Sequence[float] = (),
        support: Support | None = None,
    ):
        self.support: Support | None = None
        self.low, self.high = _tiled("low", low, action_dim), _tiled("high", high, action_dim)
        if not (torch.isfinite(self.low).all() and torch.isfinite(self.high).all()):
            raise PlanningError(f"bounds must be finite, got low = {low}, high = {high}")
        if (self.low >= self.high).any():
            raise PlanningError(f"low must be below high, got low = {low}, high = {high}")
        alike = len(set(low)) == len(set(high)) == 1
        self._alike = (float(low[0]), float(high[0])) if alike else None  # numbers clamp faster
        self.groups = _groups(action_dim, norm_groups, max_norms)
        for start, stop, _ in self.groups:
            if (self.low[start:stop] > 0).any() or (self.high[start:stop] < 0).any():
                raise PlanningError(
                    f"entries {start}..{stop - 1} have a norm bound, so their box must contain 0; "
                    f"got low = {low}, high = {high}"
                )
        if support is not None:
            self._check_support(support, action_dim)
            self.support = support

    def to(self, device: torch.device) -> ActionBounds:
        """A copy on ``device``."""
        moved = copy(self)
        moved.low, moved.high = self.low.to(device), self.high.to(device)
        if self.support is not None:
            moved.support = self.support.to(device)
        return moved

    @property
    def half_range(self) -> Tensor:
        """Half the width of the box, float32 ``[A]``."""
        return (self.high - self.low) / 2

    def project(self, actions: Tensor) -> Tensor:
        """Actions ``[..., A]`` brought inside: clamped to the box, then groups scaled down, then
        drawn towards the mean of the training actions."""
        return self.project_(actions.clone())

    def project_(self, actions: Tensor) -> Tensor:
        """The same in place."""
        if self._alike:
            actions.clamp_(*self._alike)
        else:
            actions.clamp_(self.low, self.high)
        for start, stop, max_norm in self.groups:
            group = actions[..., start:stop]
            norm = group.norm(dim=-1, keepdim=True)
            scale = torch.where(norm > max_norm, max_norm * _SHRINK / norm, 1.0)
            group.mul_(scale)
        if self.support is not None:  # rounding may leave the box by one unit in the last place
            actions.copy_(self.support.project(actions)).clamp_(self.low, self.high)
        return actions

    def sample(self, uniform: Tensor) -> Tensor:
        """Actions inside, from numbers ``[..., A]`` uniform in [0, 1): uniform in the box where it
        is the only bound."""
        return self.project_(torch.lerp(self.low, self.high, uniform))

    def _check_support(self, support: Support, action_dim: int) -> None:
        if support.mean.shape != (action_dim,):
            raise PlanningError(
                f"the support is of actions of width {len(support.mean)}, not {action_dim}"
            )
        if not torch.equal(self.project(support.mean), support.mean):
            raise PlanningError(
                f"the mean of the training actions {support.mean.tolist()} is outside the bounds"
            )


def _tiled(key: str, values: Sequence[float], action_dim: int) -> Tensor:
    if not values or action_dim % len(values):
        raise PlanningError(
            f"{key} has {len(values)} numbers for actions of width {action_dim}; "
            "give one number, one per entry, or one per entry of a repeated block"
        )
    return torch.tensor(values, dtype=torch.float32).repeat(action_dim // len(values))


def _groups(
    action_dim: int, sizes: Sequence[int], max_norms: Sequence[float]
) -> list[tuple[int, int, float]]:
    """Spans ``(start, stop, max_norm)`` of the bounded groups, tiled over ``action_dim``."""
    if len(sizes) != len(max_norms):
        raise PlanningError(
            f"norm_groups = {tuple(sizes)} and max_norms = {tuple(max_norms)} must be equally long"
        )
    if not sizes:
        return []
    if any(size < 1 for size in sizes) or action_dim % sum(sizes):
        raise PlanningError(
            f"norm_groups = {tuple(sizes)} cover {sum(sizes)} entries, which must divide the "
            f"action width {action_dim}"
        )
    if not all(norm > 0 for norm in max_norms):
        raise PlanningError(f"max_norms = {tuple(max_norms)} must all be above 0")
    spans, start = [], 0
    for _ in range(action_dim // sum(sizes)):
        for size, max_norm in zip(sizes, max_norms, strict=True):
            if max_norm != float("inf"):
                spans.append((start, start + size, float(max_norm)))
            start += size
    return spans
