"""Planning by gradient: projected gradient descent, and Adam, from several starts at once.

Gradients pay where the imagined cost is smooth (free space) and fail where it is not (walls,
contacts); restarts help. Steps are measured in half-widths of the box, so learning rates do not
depend on the units of actions. After each step actions are brought back inside the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .bounds import ActionBounds
from .candidates import GRADIENT_PRICE, Evaluator, cheaper, check_finite, lowest
from .noise import uniform
from .protocol import Cost, Generators
from .search import Search, SearchConfig
from .support import ActionSupport

Step = tuple[Tensor, ...]
"""What an optimiser remembers of each sequence."""


@dataclass(frozen=True, kw_only=True)
class GradientConfig(SearchConfig):
    """Settings of every planner by gradient."""

    iterations: int = 50
    """Steps of each restart."""
    restarts: int = 8
    """Sequences refined side by side: the start, and others uniform inside the bounds."""
    lr: float = 0.1
    """Length of a step, see the planner."""

    @property
    def least_calls(self) -> tuple[str, int]:
        return f"{GRADIENT_PRICE} * horizon", GRADIENT_PRICE * self.horizon

    def _checks(self) -> dict[str, bool]:
        return super()._checks() | {
            f"iterations = {self.iterations}: must be 1 or more": self.iterations >= 1,
            f"restarts = {self.restarts}: must be 1 or more": self.restarts >= 1,
            f"lr = {self.lr}: must be above 0": 0 < self.lr < float("inf"),
        }


@dataclass(frozen=True, kw_only=True)
class PGDConfig(GradientConfig):
    """Settings of :class:`PGD`."""

    lr: float = 1.0
    """Times the gradient is the step, both in half-widths of the box. Depends on the cost's scale:
    stable below two over its largest curvature."""


@dataclass(frozen=True, kw_only=True)
class AdamConfig(GradientConfig):
    """Settings of :class:`Adam`."""

    lr: float = 0.1
    """Largest step of an entry in half-widths of the box, whatever the cost's scale."""
    beta1: float = 0.9
    """Decay of the mean of gradients, in [0, 1)."""
    beta2: float = 0.99
    """Decay of the mean of their squares, in [0, 1)."""
    final_lr: float = 0.1
    """The learning rate falls to this share of itself (cosine), in (0, 1]."""

    def _checks(self) -> dict[str, bool]:
        return super()._checks() | {
            f"beta1 = {self.beta1}: must be in [0, 1)": 0 <= self.beta1 < 1,
            f"beta2 = {self.beta2}: must be in [0, 1)": 0 <= self.beta2 < 1,
            f"final_lr = {self.final_lr}: must be in (0, 1]": 0 < self.final_lr <= 1,
        }


class GradientSearch(Search):
    """The shared loop; a planner adds ``_step``. The cheapest sequence ever evaluated is returned.

    Needs a dynamics and a cost that are differentiable, else :class:`PlanningError`. Plans of one
    problem do not depend on its batch.
    """

    differentiates: ClassVar[bool] = True

    def __init__(
        self,
        config: GradientConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: ActionSupport | None = None,
    ):
        super().__init__(config, action_dim, cost, support)
        self.config = config

    def _step(self, gradient: Tensor, memory: Step, iteration: int) -> tuple[Tensor, Step]:
        """The move ``[B, R, H, A]`` for a gradient, both in half-widths, and the new memory."""
        raise NotImplementedError

    def _search(
        self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        now = evaluate.budget.clock()
        shape = (self.config.restarts - 1, *start.shape[1:])
        others = bounds.sample(uniform(generator, len(start), shape, start.device))
        evaluate.timed("sampling", now)
        starts = torch.cat([start[:, None], others], 1)
        best, best_cost, costs = self._descend(evaluate, starts, bounds)
        check_finite(best_cost, costs.shape[1] - 1)
        return best, best_cost, {"cost_per_iteration": costs, "best_cost": best_cost.cpu()}

    def _descend(
        self, evaluate: Evaluator, sequences: Tensor, bounds: ActionBounds
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine sequences ``[B, R, H, A]`` inside the bounds.

        Returns the cheapest met ``[B, H, A]``, its cost ``[B]``, and the lowest cost of each
        iteration ``[B, I]``. Where the budget allows fewer sequences, the later are dropped.
        """
        best, best_cost = sequences[:, 0], sequences.new_full((len(sequences),), torch.inf)
        memory: Step = ()
        costs = []
        for iteration in range(self.config.iterations):
            sequences, cost, gradient = evaluate.gradient(sequences)
            if not cost.shape[1]:
                break
            one, one_cost = lowest(sequences, cost, 1)
            best, best_cost = cheaper(best, best_cost, one[:, 0], one_cost[:, 0])
            costs.append(one_cost[:, 0])
            memory = tuple(m[:, : cost.shape[1]] for m in memory)
            move, memory = self._step(gradient * bounds.half_range, memory, iteration)
            sequences = bounds.project_(sequences - bounds.half_range * move)
        else:  # the last step's outcome; cheap, as it needs no gradient
            sequences, cost = evaluate(sequences, reserve=0)
            if cost.shape[1]:
                one, one_cost = lowest(sequences, cost, 1)
                best, best_cost = cheaper(best, best_cost, one[:, 0], one_cost[:, 0])
        lowest_costs = torch.stack(costs, 1).cpu() if costs else torch.empty(len(best), 0)
        return best, best_cost, lowest_costs


class PGD(GradientSearch):
    """Projected gradient descent; see :class:`PGDConfig`."""

    config: PGDConfig

    def _step(self, gradient: Tensor, memory: Step, iteration: int) -> tuple[Tensor, Step]:
        return self.config.lr * gradient, memory


class Adam(GradientSearch):
    """Adam (Kingma and Ba, arXiv:1412.6980) with projection; see :class:`AdamConfig`."""

    config: AdamConfig

    def _step(self, gradient: Tensor, memory: Step, iteration: int) -> tuple[Tensor, Step]:
        return adam_step(gradient, memory, iteration, self.config)


def adam_step(
    gradient: Tensor, memory: Step, iteration: int, config: AdamConfig
) -> tuple[Tensor, Step]:
    """Adam's move for a gradient of any shape, and its new moments; ``iteration`` counts from 0."""
    c = config
    first, second = memory or (torch.zeros_like(gradient), torch.zeros_like(gradient))
    first = torch.lerp(gradient, first, c.beta1)
    second = torch.lerp(gradient.square(), second, c.beta2)
    mean = first / (1 - c.beta1 ** (iteration + 1))
    square = second / (1 - c.beta2 ** (iteration + 1))
    along = iteration / max(1, c.iterations - 1)
    lr = c.lr * (c.final_lr + (1 - c.final_lr) * (1 + math.cos(math.pi * along)) / 2)
    return lr * mean / (square.sqrt() + 1e-12), (first, second)
