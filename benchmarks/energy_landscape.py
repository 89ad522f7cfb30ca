"""Energies of the actions around the true one, and where their minimum lies.

See :mod:`.energy`, which measures them for models on disk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import ConfigError, PlanningError
from .landscape import Landscape
from .results import Table
from .stats import wilson_interval

if TYPE_CHECKING:
    from torch import Tensor

    from ..planning.protocol import Cost, LatentDynamics, Observation

Dims = tuple[Sequence[int], Sequence[int]]
"""Entries of an action along x and along y; several move together (a block's steps, say)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EnergyLandscape:
    """Energy over offsets from the true action.

    Attributes:
        axes: names of the two axes. x: float ``[X]``, y: float ``[Y]``, offsets from the truth.
        energy: float ``[Y, X]``. true_energy: at the true action itself.
    """

    name: str
    axes: tuple[str, str]
    x: np.ndarray
    y: np.ndarray
    energy: np.ndarray
    true_energy: float

    @property
    def minimum(self) -> tuple[float, float]:
        """Offsets (x, y) of the lowest energy on the grid."""
        row, column = np.unravel_index(self.energy.argmin(), self.energy.shape)
        return float(self.x[column]), float(self.y[row])

    @property
    def gap(self) -> float:
        """Distance of the minimum from the true action."""
        return math.hypot(*self.minimum)

    @property
    def rank(self) -> float:
        """Share of the grid whose energy is below the true action's: 0 is best, 1/2 chance."""
        below, ties = self.energy < self.true_energy, self.energy == self.true_energy
        return float(below.mean() + ties.mean() / 2)

    def within(self, distance: float) -> bool:
        """Whether the minimum is at most ``distance`` from the true action."""
        return self.gap <= distance

    def chance(self, distance: float) -> float:
        """How often a minimum anywhere on the grid would be: the share of points that near."""
        return float((self._distance() <= distance).mean())

    def landscape(self) -> Landscape:
        """As the cost landscape that reports draw: the true action is the goal."""
        from scipy.stats import rankdata

        distance, flat = self._distance(), np.ptp(self.energy) == 0
        ranks = rankdata(self.energy), rankdata(distance)
        return Landscape(
            name=self.name,
            axes=self.axes,
            x=self.x,
            y=self.y,
            goal=(0.0, 0.0),
            cost=self.energy,
            distance=distance,
            distance_name="to the true action",
            spearman=0.0 if flat else float(np.corrcoef(*ranks)[0, 1]),
        )

    def _distance(self) -> np.ndarray:
        return np.hypot(self.x[None, :], self.y[:, None])


def energy_landscapes(
    dynamics: LatentDynamics,
    obs: Observation,
    goal: Observation,
    actions: Tensor,
    *,
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    dims: Dims = ((0,), (1,)),
    axes: tuple[str, str] | None = None,
    cost: Cost | None = None,
    at_once: int = 256,
) -> list[EnergyLandscape]:
    """Energies of the actions around the true ones, for B observations at once.

    Args:
        obs: ``pixels`` uint8 ``[B, T, H, W, 3]`` and what else the model encodes.
        goal: ``pixels`` uint8 ``[B, H, W, 3]``, one model step later.
        actions: float ``[B, A]``, the true ones.
        x, y: offsets from the true action, float ``[X]`` and ``[Y]``.
        dims: the entries that they are added to.
        cost: of one imagined step; None: the mean absolute difference, V-JEPA 2-AC's.
        at_once: candidates per observation that are imagined in one call.

    Raises:
        ConfigError: actions or entries that the model does not have.
        PlanningError: an energy that is not finite.
    """
    import torch

    from ..planning.costs import LatentCost

    grid = _grid(x, y, dims, dynamics.action_dim)
    if actions.ndim != 2 or actions.shape[1] != dynamics.action_dim:
        raise ConfigError(
            f"actions of shape {list(actions.shape)}: the model wants [B, {dynamics.action_dim}]"
        )
    cost = LatentCost(kind="l1") if cost is None else cost
    with torch.inference_mode():
        context, target = dynamics.encode(obs), dynamics.encode_goal(goal)
        offsets = torch.from_numpy(grid).float()
        candidates = (actions.float().cpu()[:, None] + offsets).to(target.tokens.device)
        parts = [
            cost(dynamics.rollout(context, part[:, :, None]), target)
            for part in candidates.split(at_once, dim=1)
        ]
        energy = torch.cat(parts, dim=1).double().cpu().numpy()
    if not np.isfinite(energy).all():
        raise PlanningError(
            f"{(~np.isfinite(energy)).sum()} of {energy.size} energies are not finite; check the "
            "model's checkpoint, or take smaller offsets"
        )
    return [
        EnergyLandscape(
            name=f"{name} {number}",
            axes=axes or tuple(f"offset of action {list(d)}" for d in dims),  # type: ignore
            x=np.asarray(x, float),
            y=np.asarray(y, float),
            energy=one[:-1].reshape(len(y), len(x)),
            true_energy=float(one[-1]),
        )
        for number, one in enumerate(energy)
    ]


def mean_landscape(landscapes: Sequence[EnergyLandscape]) -> EnergyLandscape:
    """The mean of landscapes over the same grid."""
    energies = [one.energy for one in landscapes]
    return replace(
        landscapes[0],
        name=f"mean of {len(landscapes)}",
        energy=np.mean(energies, axis=0),
        true_energy=float(np.mean([one.true_energy for one in landscapes])),
    )


def energy_table(landscapes: Sequence[EnergyLandscape], tolerance: float, title: str) -> Table:
    """One row per landscape and one for all: where the minimum is, and what chance would give."""
    hits = [one.within(tolerance) for one in landscapes]
    share = wilson_interval(sum(hits), len(hits))
    rows: list[list[str | float]] = [
        [one.name, *one.minimum, one.gap, one.rank, "yes" if hit else "no"]
        for one, hit in zip(landscapes, hits, strict=True)
    ]
    mean = mean_landscape(landscapes)
    gap, rank = (float(np.mean([getattr(one, k) for one in landscapes])) for k in ("gap", "rank"))
    rows.append(["all", *mean.minimum, gap, rank, f"{share.value:.0%}"])
    chance = landscapes[0].chance(tolerance)
    columns = [
        *("observation", "minimum x", "minimum y", "distance to truth", "true action's rank"),
        f"within {tolerance:g}",
    ]
    note = (
        f"n = {len(hits)}; within {tolerance:g} of the true action: {share.value:.0%} "
        f"[{share.low:.0%}, {share.high:.0%}] (95 % Wilson), by chance {chance:.0%}. Rank: share "
        "of the grid with less energy than the true action (0 best, 0.5 chance). Last row: minimum "
        "of the mean landscape, and means."
    )
    return Table(title=title, columns=columns, rows=rows, note=note)


def _grid(x: np.ndarray, y: np.ndarray, dims: Dims, width: int) -> np.ndarray:
    """Offsets ``[Y * X + 1, A]`` of the grid, row by row, and of the true action."""
    used = [*dims[0], *dims[1]]
    if not dims[0] or not dims[1] or len(set(used)) < len(used) or not set(used) <= {*range(width)}:
        raise ConfigError(
            f"dims = {dims}: two sets of different entries, each from 0 to {width - 1}"
        )
    columns, rows = np.meshgrid(x, y)
    grid = np.zeros((columns.size + 1, width))
    grid[:-1, list(dims[0])] = columns.reshape(-1, 1)
    grid[:-1, list(dims[1])] = rows.reshape(-1, 1)
    return grid
