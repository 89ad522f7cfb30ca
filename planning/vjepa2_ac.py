"""The planner published with V-JEPA 2-AC (arXiv:2506.09985), batched over problems.

A cross-entropy method over four numbers per step, the end effector's move and its gripper, for
models whose actions are those of :mod:`tubelet.vjepa.pose`: ``[dx, dy, dz, three angles, gripper]``
in metres, radians and closedness. It differs from :class:`tubelet.planning.CEM` in what it searches
(no rotation), in its units (metres, per axis), in having momenta of their own for mean and standard
deviation and for the gripper, in the unbiased standard deviation, and in what it leaves out: the
mean is no candidate and no elite is kept.

Two additions to the published procedure: the plan's cost is evaluated (one more rollout), and what
the settings fix holds exactly in the plan (as published it is off by momentum ** iterations).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.latent import Latent
from .budget import Budget
from .candidates import Evaluator, cheaper, check_finite, check_problem, lowest
from .costs import LatentCost
from .noise import standard_normal
from .protocol import Cost, Generators, LatentDynamics, Plan
from .search import finished

ACTION = 7
"""Width of the actions: move, three angles, gripper."""
FREE = (0, 1, 2, 6)
"""The entries of an action that are searched: x, y, z and the gripper."""


@dataclass(frozen=True, kw_only=True)
class VJEPA2ACConfig:
    """Settings of :class:`VJEPA2ACPlanner`; the defaults are those of the published world model."""

    horizon: int = 2
    """H, model steps per plan. The paper's experiments: 1."""
    samples: int = 400
    """Candidates per iteration and problem. The paper's experiments: 800."""
    iterations: int = 10
    """Refits of the Gaussian."""
    elites: int = 10
    """Candidates the Gaussian is refitted to; at least 2, for the standard deviation."""
    momentum_mean: float = 0.15
    """Share of the old mean of the move that is kept at each refit, in [0, 1)."""
    momentum_std: float = 0.15
    """The same for the standard deviation of the move."""
    momentum_mean_gripper: float = 0.15
    """The same for the mean of the gripper."""
    momentum_std_gripper: float = 0.15
    """The same for the standard deviation of the gripper."""
    max_move: float = 0.05
    """Bound of the move in metres *on each axis* (a box: the diagonal is sqrt(3) times as long),
    and its standard deviation at the start."""
    max_gripper: float = 0.75
    """Bound of the gripper's change; its standard deviation at the start is 1."""
    gripper_dead_zone: float = 0.25
    """Planned changes of the gripper smaller than this become 0."""
    fixed: tuple[tuple[int, float], ...] = ()
    """Pairs (which, value): search with x (0), y (1), z (2) or the gripper (3) held at a value."""
    close_gripper: int | None = None
    """From this step of the horizon on (0 is the first), candidates close the gripper (+1, beyond
    ``max_gripper``); None: never."""
    chunk: int | None = None
    """Most candidates per rollout call, all problems together; None for all at once. Limits memory,
    does not change the result."""
    max_model_calls: int | None = None
    """Budget of candidate-step predictions per problem and plan; None for no limit."""
    max_seconds: float | None = None
    """Budget of wall-clock seconds per plan, all problems together; None for no limit."""

    def __post_init__(self) -> None:
        momenta = ("mean", "std", "mean_gripper", "std_gripper")
        checks = {
            f"horizon = {self.horizon}: must be 1 or more": self.horizon >= 1,
            f"iterations = {self.iterations}: must be 1 or more": self.iterations >= 1,
            f"elites = {self.elites}: must be in 2..samples = {self.samples}": (
                2 <= self.elites <= self.samples
            ),
            f"max_move = {self.max_move}: must be above 0": 0 < self.max_move < float("inf"),
            f"max_gripper = {self.max_gripper}: must be in (0, 1]": 0 < self.max_gripper <= 1,
            f"gripper_dead_zone = {self.gripper_dead_zone}: must be in [0, 1]": (
                0 <= self.gripper_dead_zone <= 1
            ),
            f"fixed = {self.fixed}: pairs of 0..3 and a value inside that entry's bound": all(
                which in range(4) and abs(value) <= self.bound[which] for which, value in self.fixed
            ),
            f"close_gripper = {self.close_gripper}: must be a step below {self.horizon}, or None": (
                self.close_gripper is None or 0 <= self.close_gripper < self.horizon
            ),
            f"chunk = {self.chunk}: must be 1 or more, or None": (
                self.chunk is None or self.chunk >= 1
            ),
            f"max_model_calls = {self.max_model_calls}: must be at least horizon * (elites + 1) = "
            f"{self.horizon * (self.elites + 1)}, or None": (
                self.max_model_calls is None
                or self.max_model_calls >= self.horizon * (self.elites + 1)
            ),
            f"max_seconds = {self.max_seconds}: must be above 0 and finite, or None": (
                self.max_seconds is None or 0 < self.max_seconds < float("inf")
            ),
        }
        for name in momenta:
            value = getattr(self, f"momentum_{name}")
            checks[f"momentum_{name} = {value}: must be in [0, 1)"] = 0 <= value < 1
        wrong = [message for message, fine in checks.items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))

    @property
    def bound(self) -> tuple[float, ...]:
        """Largest size of each searched entry."""
        return (self.max_move,) * 3 + (self.max_gripper,)


class VJEPA2ACPlanner:
    """Plans moves and gripper of an arm in the latent space of an action-conditioned model.

    Args:
        config: settings.
        cost: what to minimise; as published, the mean absolute difference between the last
            imagined latent and the goal, when None.
    """

    action_dim = ACTION
    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self, config: VJEPA2ACConfig, cost: Cost | None = None):
        self.config, self.horizon = config, config.horizon
        self.cost: Cost = cost or LatentCost(kind="l1", steps="last")

    def plan(
        self,
        dynamics: LatentDynamics,
        context: Latent,
        goal: Latent,
        *,
        warm_start: Tensor | None = None,
        generator: Generators,
    ) -> Plan:
        """Plan for B problems at once, all candidates of all problems in one rollout call.

        Args:
            dynamics: the model, of action width 7. context: tokens ``[B, T, N, D]``. goal: tokens
                ``[B, N, D]``.
            warm_start: float ``[B, H, 7]``, the first mean (its rotation is not used, the rest is
                brought inside the bounds); as published, zeros if None.
            generator: one, or a list of one per problem; with a list, a problem's plan does not
                depend on its batch.

        Returns:
            A plan whose actions are the final mean without rotation, the gripper's small changes
            taken out, and whose cost is the model's of exactly these actions (where that is not
            finite: the cheapest candidate and its cost). Diagnostics: ``cost_per_iteration``
            float32 ``[B, I]`` (lowest of each iteration), ``std_per_iteration`` float32
            ``[B, I, 4]`` (searched with, mean over the horizon), ``model_calls`` (candidate-step
            predictions per problem: H (samples * iterations + 1)), ``invalid_costs`` (NaN or
            infinite costs over all problems, each treated as the worst), ``seconds`` and
            ``profile``; fewer iterations and calls where a budget ends the search.

        Raises:
            PlanningError: shapes that do not fit, or a problem without one finite cost.
        """
        began = self.clock()
        check_problem(self, dynamics, context, goal, warm_start)
        c = self.config
        with torch.inference_mode():
            budget = Budget(
                horizon=c.horizon,
                max_calls=c.max_model_calls,
                max_seconds=c.max_seconds,
                began=began,
                clock=self.clock,
            )
            evaluate = Evaluator(dynamics, context, goal, self.cost, budget=budget, chunk=c.chunk)
            if warm_start is None:
                warm_start = torch.zeros(len(goal.tokens), self.horizon, ACTION)
            mean = warm_start.to(goal.tokens.device, torch.float32)[..., list(FREE)]
            actions, cost, diagnostics = self._search(evaluate, mean, generator)
        return finished(actions, cost, diagnostics, evaluate)

    def _search(
        self, evaluate: Evaluator, mean: Tensor, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Search from ``mean`` ``[B, H, 4]``; actions ``[B, H, 7]``, costs ``[B]``, diagnostics."""
        c = self.config
        bound = mean.new_tensor(c.bound)
        keep_mean = mean.new_tensor([c.momentum_mean] * 3 + [c.momentum_mean_gripper])
        keep_std = mean.new_tensor([c.momentum_std] * 3 + [c.momentum_std_gripper])
        mean = mean.clamp(-bound, bound)
        std = mean.new_tensor([c.max_move] * 3 + [1.0]).expand_as(mean)
        best, best_cost = mean, mean.new_full((len(mean),), torch.inf)
        lowest_costs, stds = [], []
        for iteration in range(c.iterations):
            if iteration and evaluate.exhausted():
                break
            now = evaluate.budget.clock()
            noise = standard_normal(generator, len(mean), (c.samples, c.horizon, 4), mean.device)
            candidates = (mean[:, None] + std[:, None] * noise).clamp(-bound, bound)
            candidates = self._overwritten(candidates)
            evaluate.timed("sampling", now)
            cost = evaluate(_actions(candidates))[1]
            if not cost.shape[1]:
                break
            stds.append(std.mean(1))
            share = max(2, c.elites * cost.shape[1] // c.samples)
            elites, cost = lowest(candidates[:, : cost.shape[1]], cost, share)
            check_finite(cost[:, 0], iteration)
            lowest_costs.append(cost[:, 0])
            best, best_cost = cheaper(best, best_cost, elites[:, 0], cost[:, 0])
            elite_mean, elite_std = _moments(elites, torch.isfinite(cost))
            mean = (1 - keep_mean) * elite_mean + keep_mean * mean
            std = (1 - keep_std) * elite_std + keep_std * std

        mean[..., 3].masked_fill_(mean[..., 3].abs() < c.gripper_dead_zone, 0.0)
        mean = self._overwritten(mean)
        final = evaluate(_actions(mean)[:, None], reserve=0)[1]
        cost = final[:, 0] if final.shape[1] else torch.full_like(best_cost, torch.inf)
        usable = torch.isfinite(cost)
        plan = torch.where(usable[:, None, None], mean, best)
        diagnostics = {
            "cost_per_iteration": torch.stack(lowest_costs, 1).cpu(),
            "std_per_iteration": torch.stack(stds, 1).cpu(),
        }
        return _actions(plan), torch.where(usable, cost, best_cost), diagnostics

    def _overwritten(self, moves: Tensor) -> Tensor:
        """``moves`` ``[..., H, 4]`` with what the settings fix and force."""
        for which, value in self.config.fixed:
            moves[..., which] = value
        if self.config.close_gripper is not None:
            moves[..., self.config.close_gripper :, 3] = 1.0
        return moves


def _actions(moves: Tensor) -> Tensor:
    """Actions ``[..., 7]`` without rotation from moves and gripper ``[..., 4]``."""
    actions = moves.new_zeros(*moves.shape[:-1], ACTION)
    actions[..., list(FREE)] = moves
    return actions


def _moments(elites: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation ``[B, H, 4]`` of the usable of elites ``[B, K, H, 4]``;
    zero deviation where only one is usable."""
    weight = usable[:, :, None, None].float()
    count = weight.sum(1)
    mean = (weight * elites).sum(1) / count
    squares = (weight * (elites - mean[:, None]).square()).sum(1)
    return mean, (squares / (count - 1).clamp(min=1)).sqrt()
