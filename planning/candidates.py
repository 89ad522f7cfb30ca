"""What every sampling planner does with its candidates: check, score, count and rank them.

Shapes: B problems, S candidates, H horizon, A action width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import PlanningError
from ..core.latent import Latent
from .protocol import Cost, LatentDynamics, Planner


def check_problem(
    planner: Planner,
    dynamics: LatentDynamics,
    context: Latent,
    goal: Latent,
    warm_start: Tensor | None,
) -> None:
    """Raise :class:`PlanningError` if the arguments of ``plan`` do not fit each other."""
    if dynamics.action_dim != planner.action_dim:
        raise PlanningError(
            f"the planner was built for actions of width {planner.action_dim} but the dynamics "
            f"takes {dynamics.action_dim}"
        )
    problems = len(context.tokens)
    if problems != len(goal.tokens):
        raise PlanningError(f"{problems} contexts but {len(goal.tokens)} goals: give one each")
    expected = (problems, planner.horizon, planner.action_dim)
    if warm_start is not None and warm_start.shape != expected:
        raise PlanningError(
            f"warm_start has shape {tuple(warm_start.shape)}, expected [B, H, A] = {expected}"
        )
    if warm_start is not None and not torch.isfinite(warm_start).all():
        raise PlanningError("warm_start holds NaN or infinite actions; pass None to start at 0")


class Evaluator:
    """Costs of candidates for one set of problems, counting what it took."""

    def __init__(
        self,
        dynamics: LatentDynamics,
        context: Latent,
        goal: Latent,
        cost: Cost,
        chunk: int | None,
    ):
        self.dynamics, self.context, self.goal, self.cost = dynamics, context, goal, cost
        self.chunk = chunk
        self.model_calls = self.invalid_costs = 0

    def __call__(self, candidates: Tensor) -> Tensor:
        """Cost float32 ``[B, S]`` of candidates ``[B, S, H, A]``; inf where it is not finite."""
        problems, samples, horizon, _ = candidates.shape
        chunk = samples if self.chunk is None else max(1, self.chunk // problems)
        parts = [self._part(part) for part in candidates.split(chunk, 1)]
        cost = torch.cat(parts, 1)
        finite = torch.isfinite(cost)
        self.model_calls += samples * horizon
        self.invalid_costs += int((~finite).sum())
        return torch.where(finite, cost, torch.inf)

    def _part(self, candidates: Tensor) -> Tensor:
        cost = self.cost(self.dynamics.rollout(self.context, candidates), self.goal)
        if cost.shape != candidates.shape[:2]:
            raise PlanningError(
                f"the cost has shape {tuple(cost.shape)}, expected [B, S] = "
                f"{tuple(candidates.shape[:2])}"
            )
        return cost.float()


def check_finite(lowest_cost: Tensor, iteration: int) -> None:
    """Raise :class:`PlanningError` if the lowest cost ``[B]`` of any problem is not finite."""
    hopeless = (~torch.isfinite(lowest_cost)).nonzero().flatten().tolist()
    if hopeless:
        raise PlanningError(
            f"every candidate of problem(s) {hopeless} has a NaN or infinite cost in iteration "
            f"{iteration}; check the model's checkpoint and its inputs, or narrow the bounds"
        )


def lowest(candidates: Tensor, cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` cheapest of candidates ``[B, S, H, A]``, cheapest first, and their costs."""
    cost, order = torch.sort(cost, dim=1, stable=True)
    order = order[:, :count, None, None].expand(-1, -1, *candidates.shape[2:])
    return candidates.gather(1, order), cost[:, :count]


def cheaper(a: Tensor, a_cost: Tensor, b: Tensor, b_cost: Tensor) -> tuple[Tensor, Tensor]:
    """Per problem, whichever of sequences a and b ``[B, H, A]`` costs less, and its cost."""
    better = b_cost < a_cost
    return torch.where(better[:, None, None], b, a), torch.where(better, b_cost, a_cost)
