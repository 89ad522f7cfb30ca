"""Actions that a model proposes by itself, without search: where planners may begin.

A dynamics may have a head that reads actions off the present latent and the goal's (inverse
dynamics over several steps). What it says is cheap and rough; a search that begins there has less
to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..core.errors import PlanningError
from ..core.latent import Latent
from .bounds import ActionBounds
from .candidates import Evaluator, lowest
from .protocol import LatentDynamics


@runtime_checkable
class Proposer(Protocol):
    """What a dynamics has that proposes actions."""

    def propose(self, context: Latent, goal: Latent, steps: Sequence[int], horizon: int) -> Tensor:
        """Actions float32 ``[B, K, H, A]`` that should reach ``goal`` (tokens ``[B, N, D]``) from
        ``context`` (``[B, T, N, D]``) in each of K numbers of model steps; zeros after that."""
        ...


def proposals(
    dynamics: LatentDynamics, context: Latent, goal: Latent, steps: Sequence[int], horizon: int
) -> Tensor:
    """What ``dynamics`` proposes, checked: float32 ``[B, K, H, A]``.

    Raises:
        PlanningError: it proposes nothing, something of another shape, or NaN.
    """
    propose = getattr(dynamics, "propose", None)
    if propose is None:
        raise PlanningError(
            f"propose = {tuple(steps)}: {type(dynamics).__name__} has no head that proposes "
            "actions; train one (`tubelet amortise`), or plan without"
        )
    found = propose(context, goal, steps, horizon).float()
    wanted = (len(goal.tokens), len(steps), horizon, dynamics.action_dim)
    if tuple(found.shape) != wanted:
        raise PlanningError(
            f"proposals have shape {tuple(found.shape)}, expected [B, K, H, A] = {wanted}"
        )
    if not torch.isfinite(found).all():
        raise PlanningError("the model proposes NaN or infinite actions; check its checkpoint")
    return found


def cheapest_start(
    evaluate: Evaluator,
    start: Tensor,
    steps: Sequence[int],
    bounds: ActionBounds,
    *,
    reserve: int,
) -> Tensor:
    """The cheapest of ``start [B, H, A]`` and the proposals, brought inside the bounds: ``[B, H,
    A]``; ``start`` itself as far as the budget, less ``reserve`` candidates, does not go."""
    found = proposals(evaluate.dynamics, evaluate.context, evaluate.goal, steps, start.shape[1]).to(
        start.device
    )
    candidates = torch.cat([start[:, None], bounds.project(found)], 1)
    evaluated, cost = evaluate(candidates, reserve=reserve)
    if cost.shape[1] < 2:
        return start
    return lowest(evaluated, cost, 1)[0][:, 0]
