"""Random shooting: draw, evaluate, return the cheapest. The yardstick of every other planner.

Around a warm start with Gaussian noise it is predictive sampling (arXiv:2212.00541).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .bounds import ActionBounds
from .candidates import Evaluator, cheaper, check_finite, lowest
from .noise import colouring, standard_normal, uniform
from .protocol import Cost, Generators
from .search import Search, SearchConfig
from .support import ActionSupport


@dataclass(frozen=True, kw_only=True)
class ShootingConfig(SearchConfig):
    """Settings of :class:`RandomShooting`."""

    samples: int = 3000
    """Candidates per problem, the start among them."""
    batch: int = 300
    """Candidates drawn and evaluated at a time; between, the budget is looked at."""
    noise: Literal["uniform", "gaussian"] = "uniform"
    """Uniform inside the bounds, or Gaussian around the start."""
    std: float = 0.5
    """Of Gaussian noise, in half-widths of the box."""
    noise_beta: float = 0.0
    """Colour of Gaussian noise over the horizon: 0 white, 2 red (smooth actions)."""

    def _checks(self) -> dict[str, bool]:
        return super()._checks() | {
            f"samples = {self.samples}: must be 1 or more": self.samples >= 1,
            f"batch = {self.batch}: must be 1 or more": self.batch >= 1,
            f"noise = {self.noise!r}: choose uniform or gaussian": (
                self.noise in ("uniform", "gaussian")
            ),
            f"std = {self.std}: must be above 0": 0 < self.std < float("inf"),
            f"noise_beta = {self.noise_beta}: must be in [0, 4]": 0 <= self.noise_beta <= 4,
        }


class RandomShooting(Search):
    """The cheapest of ``samples`` random sequences and the start; see :class:`ShootingConfig`."""

    def __init__(
        self,
        config: ShootingConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: ActionSupport | None = None,
    ):
        super().__init__(config, action_dim, cost, support)
        self.config = config
        self._colour = colouring(config.horizon, config.noise_beta)

    def _search(
        self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        c, best = self.config, start
        best_cost = start.new_full((len(start),), torch.inf)
        lowest_costs, left = [], c.samples
        while left and not (lowest_costs and evaluate.exhausted(reserve=0)):
            now = evaluate.budget.clock()
            fresh = self._sample(start, min(left, c.batch), bounds, generator)
            if not lowest_costs:
                fresh = torch.cat([start[:, None], fresh[:, 1:]], 1)
            evaluate.timed("sampling", now)
            fresh, cost = evaluate(fresh, reserve=0)
            if not cost.shape[1]:
                break
            one, one_cost = lowest(fresh, cost, 1)
            best, best_cost = cheaper(best, best_cost, one[:, 0], one_cost[:, 0])
            lowest_costs.append(one_cost[:, 0])
            left -= cost.shape[1]
        check_finite(best_cost, len(lowest_costs) - 1)
        diagnostics = {
            "cost_per_iteration": torch.stack(lowest_costs, 1).cpu(),
            "best_cost": best_cost.cpu(),
        }
        return best, best_cost, diagnostics

    def _sample(
        self, start: Tensor, count: int, bounds: ActionBounds, generator: Generators
    ) -> Tensor:
        """Candidates ``[B, count, H, A]`` inside the bounds."""
        shape = (count, *start.shape[1:])
        if self.config.noise == "uniform":
            return bounds.sample(uniform(generator, len(start), shape, start.device))
        white = standard_normal(generator, len(start), shape, start.device)
        noise = torch.einsum("hk,bska->bsha", self._colour.to(start.device), white)
        return bounds.project(start[:, None] + self.config.std * bounds.half_range * noise)
