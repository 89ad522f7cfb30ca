"""Planning without search: the actions that the model's own head proposes.

Amortised planning: what a search would find is learned beforehand, from trajectories whose later
states stand for goals (hindsight, arXiv 1707.01495; as supervised learning, arXiv 1912.06088). The
model is asked once what the few proposals cost, and the cheapest is the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .bounds import ActionBounds
from .candidates import Evaluator, check_finite, lowest
from .noise import standard_normal
from .proposals import proposals
from .protocol import Cost, Generators
from .search import Search, SearchConfig
from .support import ActionSupport


@dataclass(frozen=True, kw_only=True)
class AmortisedConfig(SearchConfig):
    """Settings of :class:`Amortised`."""

    propose: tuple[int, ...] = (2, 4, 8, 16)
    """Numbers of model steps in which the goal might be reached; the head is asked for each."""
    choose: Literal["cheapest", "proposal"] = "cheapest"
    """"cheapest": of the warm start and all candidates, by the model; "proposal": the first
    proposal, whatever it costs (the head alone: its cost is computed, and decides nothing)."""
    samples: int = 0
    """Noisy copies of the proposals that compete too."""
    std: float = 0.2
    """Deviation of their noise, in half-widths of the box."""

    def _checks(self) -> dict[str, bool]:
        return super()._checks() | {
            "propose = (): name at least one number of steps": bool(self.propose),
            f"choose = {self.choose!r}: choose cheapest or proposal": (
                self.choose in ("cheapest", "proposal")
            ),
            f"samples = {self.samples}: must be 0 or more": self.samples >= 0,
            f"std = {self.std}: must be above 0": 0 < self.std < float("inf"),
        }


class Amortised(Search):
    """The cheapest proposal of the model's head; see :class:`AmortisedConfig`.

    Raises :class:`PlanningError` for a model without one.
    """

    begins_with_proposals = False  # they are all there is: compared once, below

    def __init__(
        self,
        config: AmortisedConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: ActionSupport | None = None,
    ):
        super().__init__(config, action_dim, cost, support)
        self.config = config

    def _search(
        self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        c = self.config
        now = evaluate.budget.clock()
        found = proposals(evaluate.dynamics, evaluate.context, evaluate.goal, c.propose, c.horizon)
        found = bounds.project_(found.to(start.device))
        if c.choose == "proposal":
            candidates = found[:, :1]
        else:
            near = self._near(found, bounds, generator)
            candidates = torch.cat([start[:, None], found, near], 1)
        evaluate.timed("sampling", now)
        candidates, cost = evaluate(candidates, reserve=0)
        best, best_cost = lowest(candidates, cost, 1)
        check_finite(best_cost[:, 0], 0)
        costs = best_cost.cpu()
        return best[:, 0], best_cost[:, 0], {"cost_per_iteration": costs, "best_cost": costs[:, 0]}

    def _near(self, found: Tensor, bounds: ActionBounds, generator: Generators) -> Tensor:
        """Noisy copies ``[B, samples, H, A]`` of proposals ``[B, K, H, A]``, each in turn."""
        count = self.config.samples
        turn = torch.arange(count, device=found.device) % found.shape[1]
        shape = (count, *found.shape[2:])
        noise = standard_normal(generator, len(found), shape, found.device)
        return bounds.project_(found[:, turn] + self.config.std * bounds.half_range * noise)
