"""Planning over several futures: a dynamics that cannot know what comes says what may come.

A dynamics with a latent variable imagines F futures of every candidate (:class:`FutureDynamics`).
Wrapped in :class:`FutureRollouts` it is a dynamics like any other, and :class:`FutureCost` makes of
any cost a cost of futures: expected, worst, best, or the mean of the worst share of them. Planners
hand what the one gives to the other, and know of nothing:

    dynamics, cost = across_futures(model, LatentCost(), FuturesConfig(judge="worst"))
    plan = CEM(CEMConfig(), dynamics.action_dim, cost).plan(dynamics, context, goal, ...)

Shapes: B problems, S candidates, F futures, H horizon, A action width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import torch
from torch import Tensor

from ..core.errors import ConfigError, PlanningError
from ..core.latent import Latent
from .protocol import Cost, LatentDynamics, Observation

How: TypeAlias = Literal["sample", "likely", "hold"]
"""Which futures: drawn; the most probable one; or one for each code of a discrete z, held."""

Judge: TypeAlias = Literal["likely", "expected", "optimistic", "worst", "cvar"]
"""What a candidate costs: that of its most probable future; or over all of them the mean, the
lowest, the highest, or the mean of the worst share."""


@runtime_checkable
class FutureDynamics(LatentDynamics, Protocol):
    """A dynamics that gives several futures of one context and candidate.

    Attributes:
        codes: how many futures ``how = "hold"`` gives.
    """

    codes: int

    def rollout_futures(
        self, context: Latent, actions: Tensor, *, how: How, count: int, seed: int
    ) -> tuple[Latent, Tensor]:
        """Futures of candidates ``[B, S, H, A]``: tokens ``[B, S, F, H, N, D]``, and their weights
        ``[B, S, F]``, which sum to 1.

        Deterministic: the same arguments give the same futures, and ``seed`` decides the draws in
        the same way for every problem and candidate, so that costs can be compared.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FuturesConfig:
    """How a planner deals with what it cannot know."""

    judge: Judge = "likely"
    """What a candidate costs."""
    tail: float = 0.25
    """Share of the futures, the worst ones, whose mean "cvar" is."""
    how: How = "sample"
    """Which futures are judged."""
    count: int = 8
    """How many are drawn."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        checks = {
            f"judge = {self.judge!r}: choose one of {', '.join(get_args(Judge))}": (
                self.judge in get_args(Judge)
            ),
            f"how = {self.how!r}: choose one of {', '.join(get_args(How))}": (
                self.how in get_args(How)
            ),
            f"tail = {self.tail}: a share, in (0, 1]": 0 < self.tail <= 1,
            f"count = {self.count}: must be 1 or more": self.count >= 1,
        }
        wrong = [message for message, fine in checks.items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True, slots=True)
class ImaginedFutures(Latent):
    """Imagined trajectories with an axis of futures: tokens ``[B, S, F, H, N, D]``.

    Attributes:
        weights: ``[B, S, F]``, of sum 1 over F.
    """

    weights: Tensor = field(kw_only=True)


class FutureRollouts:
    """A dynamics with futures as an ordinary one, whose trajectories are all its futures.

    Args:
        dynamics: with futures. config: which.

    Raises :class:`PlanningError` for a dynamics without futures.
    """

    def __init__(self, dynamics: LatentDynamics, config: FuturesConfig):
        if not isinstance(dynamics, FutureDynamics):
            raise PlanningError(
                f"{type(dynamics).__name__} has no `rollout_futures`: it knows one future; plan "
                'with judge = "likely"'
            )
        self.dynamics, self.config = dynamics, config
        self.action_dim = dynamics.action_dim

    def encode(self, obs: Observation) -> Latent:
        return self.dynamics.encode(obs)

    def encode_goal(self, obs: Observation) -> Latent:
        return self.dynamics.encode_goal(obs)

    def rollout(self, context: Latent, actions: Tensor) -> ImaginedFutures:
        """All futures of candidates ``[B, S, H, A]``."""
        c = self.config
        found, weights = self.dynamics.rollout_futures(
            context, actions, how=c.how, count=c.count, seed=c.seed
        )
        return ImaginedFutures(found.tokens, found.proprio, weights=weights)

    def __getattr__(self, name: str) -> Any:
        """``candidate_bytes`` of the dynamics, if it has it, times the futures of a candidate."""
        if name == "candidate_bytes":
            size = getattr(self.dynamics, name)
            number = {"sample": self.config.count, "likely": 1, "hold": self.dynamics.codes}
            return lambda *args, **options: number[self.config.how] * size(*args, **options)
        raise AttributeError(name)


class FutureCost:
    """Costs of futures, made one cost of a candidate; of a trajectory without futures, the plain
    cost.

    Futures of weight 0 do not exist. Costs that are not finite count as the worst, so one such
    future spoils a candidate except for an optimist.

    Args:
        cost: of one trajectory. judge: what the futures' costs become; "likely" wants trajectories
            of one future. tail: of "cvar" (Rockafellar and Uryasev 2000): the mean over the worst
            futures of that total weight. 1 is the expected cost, and near 0 the worst.
    """

    def __init__(self, cost: Cost, judge: Judge = "expected", tail: float = 0.25):
        self.config = FuturesConfig(judge=judge, tail=tail)
        self.cost = cost

    def __call__(self, trajectory: Latent, goal: Latent) -> Tensor:
        """Cost float32 ``[B, S]`` of imagined trajectories against a goal ``[B, N, D]``."""
        if not isinstance(trajectory, ImaginedFutures):
            return self.cost(trajectory, goal)
        weights = trajectory.weights
        tokens = trajectory.tokens.flatten(1, 2)
        proprio = None if trajectory.proprio is None else trajectory.proprio.flatten(1, 2)
        costs = self.cost(Latent(tokens, proprio), goal).view(weights.shape).float()
        return judged(costs, weights.float(), self.config.judge, self.config.tail)


def judged(costs: Tensor, weights: Tensor, judge: Judge, tail: float = 0.25) -> Tensor:
    """One cost ``[...]`` of the costs of futures ``[..., F]`` and their weights, of sum 1.

    Raises:
        PlanningError: "likely" of several futures.
    """
    if judge == "likely":
        if costs.shape[-1] != 1:
            raise PlanningError('judge = "likely" is of one future: roll out with how = "likely"')
        return costs[..., 0]
    real = weights > 0
    costs = torch.where(torch.isfinite(costs), costs, torch.inf)
    if judge == "optimistic":
        return torch.where(real, costs, torch.inf).amin(dim=-1)
    if judge == "worst":
        return torch.where(real, costs, -torch.inf).amax(dim=-1)
    if judge == "expected":
        return torch.where(real, weights * costs, 0.0).sum(dim=-1)
    order = torch.where(real, costs, -torch.inf).argsort(dim=-1, descending=True)
    costs, weights = costs.gather(-1, order), weights.gather(-1, order)
    before = weights.cumsum(dim=-1) - weights
    share = torch.minimum(weights, (tail - before).clamp_min(0.0))
    return torch.where(share > 0, share * costs, 0.0).sum(dim=-1) / share.sum(dim=-1)


def across_futures(
    dynamics: LatentDynamics, cost: Cost, config: FuturesConfig
) -> tuple[LatentDynamics, Cost]:
    """The dynamics and the cost that a planner is given to plan as ``config`` says.

    Raises:
        PlanningError: several futures of a dynamics that has one.
    """
    if config.judge == "likely":
        return dynamics, cost
    return FutureRollouts(dynamics, config), FutureCost(cost, config.judge, config.tail)
