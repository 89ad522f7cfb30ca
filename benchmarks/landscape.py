"""The planner's view: latent cost of every configuration on a grid, for one fixed goal.

A cost that falls towards the goal from everywhere can be planned with. Its rank correlation with
the true distance says in one number how close a model comes to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.latent import Latent

if TYPE_CHECKING:
    from ..planning.protocol import Cost, LatentDynamics


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape:
    """Latent cost and true distance on a grid of two coordinates.

    Attributes:
        axes: names of the two coordinates. x: float ``[X]``. y: float ``[Y]``, grid values.
        goal: the goal's (x, y). cost: float ``[Y, X]``. distance: float ``[Y, X]``, true.
        distance_name: what the true distance is. spearman: rank correlation of the two, in [-1, 1].
    """

    name: str
    axes: tuple[str, str]
    x: np.ndarray
    y: np.ndarray
    goal: tuple[float, float]
    cost: np.ndarray
    distance: np.ndarray
    distance_name: str
    spearman: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        value = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in value.items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Landscape:
        """The landscape that :meth:`to_json` wrote."""
        arrays = {k: np.array(value[k], float) for k in ("x", "y", "cost", "distance")}
        pairs = {k: tuple(value[k]) for k in ("axes", "goal")}
        return cls(**{**value, **arrays, **pairs})


def latent_landscape(
    dynamics: LatentDynamics,
    cost: Cost,
    env: Any,
    goal_state: np.ndarray,
    *,
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    axes: tuple[str, str] = ("shoulder (rad)", "wrist (rad)"),
    distance_name: str | None = None,
    batch: int = 256,
) -> Landscape:
    """Cost of ``encode(render(state))`` against the goal, for resting states at all (x, y).

    Args:
        env: a GoalEnv whose position has two coordinates. goal_state: float64 ``[S]``.
        x, y: grid values of the first and second coordinate.
        distance_name: key of ``env.distance``; its first if None.
        batch: states encoded at a time.
    """
    import torch
    from scipy.stats import rankdata

    env = env.unwrapped
    states = [env.state_at(np.array([a, b])) for b in y for a in x]
    distances = [env.distance(state, goal_state) for state in states]
    key = distance_name or next(iter(distances[0]))
    costs = []
    with torch.inference_mode():
        goal = dynamics.encode_goal({"pixels": env.render_state(goal_state)[None]})
        for first in range(0, len(states), batch):
            images = np.stack([env.render_state(s) for s in states[first : first + batch]])
            latent = dynamics.encode_goal({"pixels": images})  # [batch, N, D]
            candidates: Latent = latent.map(lambda t: t[None, :, None])  # [1, S, H=1, N, D]
            costs.append(cost(candidates, goal)[0].float().cpu().numpy())
    shape = (len(y), len(x))
    flat, truth = np.concatenate(costs), np.array([d[key] for d in distances])
    gx, gy = (float(value) for value in env.position(goal_state)[:2])
    return Landscape(
        name=name,
        axes=axes,
        x=np.asarray(x, float),
        y=np.asarray(y, float),
        goal=(gx, gy),
        cost=flat.astype(float).reshape(shape),
        distance=truth.reshape(shape),
        distance_name=key,
        spearman=float(np.corrcoef(rankdata(flat), rankdata(truth))[0, 1]),
    )
