"""CEM, then Adam from its best: find the valley by sampling, its bottom by gradient."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from .bounds import ActionBounds
from .candidates import GRADIENT_PRICE, Evaluator, cheaper
from .cem import CEM, CEMConfig
from .gradient import Adam, AdamConfig
from .noise import standard_normal
from .protocol import Cost, Generators
from .search import SearchConfig
from .support import ActionSupport


@dataclass(frozen=True, kw_only=True)
class HybridConfig(CEMConfig):
    """Settings of :class:`Hybrid`: those of CEM, and of the refinement."""

    refine_iterations: int = 20
    """Steps of Adam."""
    refine_restarts: int = 4
    """Sequences refined: CEM's plan, and others drawn around it with its last deviation."""
    refine_lr: float = 0.05
    """Largest step of an entry in half-widths of the box."""
    refine_share: float = 0.5
    """Share of a budget (calls or seconds) that is kept for the refinement, in (0, 1)."""

    @property
    def least_calls(self) -> tuple[str, int]:
        least = max(
            super().least_calls[1] / (1 - self.refine_share),
            GRADIENT_PRICE * self.horizon / self.refine_share,
        )
        return "what CEM and one gradient need of their shares", int(least) + 1

    @property
    def first_stage(self) -> tuple[int, float]:
        return max(self.elites, 1) + 1, 1 - self.refine_share

    def _checks(self) -> dict[str, bool]:
        share = f"refine_share = {self.refine_share}: must be in (0, 1)"
        if not 0 < self.refine_share < 1:
            return {share: False}  # the other checks divide by it
        return super()._checks() | {
            f"refine_iterations = {self.refine_iterations}: must be 1 or more": (
                self.refine_iterations >= 1
            ),
            f"refine_restarts = {self.refine_restarts}: must be 1 or more": (
                self.refine_restarts >= 1
            ),
            f"refine_lr = {self.refine_lr}: must be above 0": 0 < self.refine_lr < float("inf"),
        }


class Hybrid(CEM):
    """CEM, then Adam; never worse than the plan of CEM. See :class:`HybridConfig`."""

    config: HybridConfig
    differentiates: ClassVar[bool] = True

    def __init__(
        self,
        config: HybridConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: ActionSupport | None = None,
    ):
        super().__init__(config, action_dim, cost, support)
        shared = {f.name: getattr(config, f.name) for f in fields(SearchConfig)}
        shared["max_model_calls"] = None  # one budget, kept by the evaluator
        adam = AdamConfig(
            **shared,
            iterations=config.refine_iterations,
            restarts=config.refine_restarts,
            lr=config.refine_lr,
        )
        self._adam = Adam(adam, action_dim, self.cost, support)

    def _search(
        self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        c = self.config
        evaluate.share = 1 - c.refine_share
        found, cost, diagnostics = super()._search(evaluate, start, bounds, generator)
        evaluate.share = 1.0
        std = diagnostics["std_per_iteration"][:, -1].to(found.device)
        around = found[:, None].expand(-1, c.refine_restarts, -1, -1)
        noise = standard_normal(generator, len(found), around.shape[1:], found.device)
        noise[:, 0] = 0.0
        starts = bounds.project(around + std[:, None, None, None] * noise)
        best, best_cost, costs = self._adam._descend(evaluate, starts, bounds)
        best, best_cost = cheaper(found, cost, best, best_cost)
        diagnostics["cost_after_cem"] = cost.cpu()
        diagnostics["cost_per_iteration"] = torch.cat([diagnostics["cost_per_iteration"], costs], 1)
        diagnostics["best_cost"] = torch.minimum(diagnostics["best_cost"], best_cost.cpu())
        return best, best_cost, diagnostics
