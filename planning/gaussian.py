"""Search by a diagonal Gaussian over H x A that moves to the better candidates.

The loop that CEM, iCEM and MPPI share: sample, evaluate, keep the cheapest, weigh them, refit mean
and standard deviation to the weighted. They differ in the weights and in what they carry over.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .bounds import ActionBounds
from .candidates import Evaluator, cheaper, check_finite, lowest
from .noise import colouring, standard_normal
from .protocol import Cost, Generators
from .search import Search, SearchConfig
from .support import Support


@dataclass(frozen=True, kw_only=True)
class GaussianConfig(SearchConfig):
    """Settings of every search by a Gaussian."""

    least_elites: ClassVar[int] = 1

    samples: int = 300
    """Candidates evaluated per iteration and problem, the current mean among them."""
    iterations: int = 10
    """Refits of the Gaussian."""
    elites: int = 30
    """Candidates the Gaussian is refitted to."""
    init_std: float = 0.5
    """Standard deviation at the start, in half-widths of the box (so in action units for the box
    [-1, 1])."""
    min_std: float = 0.05
    """Floor of the standard deviation, same unit."""
    adapt_std: bool = True
    """Refit the standard deviation too; False keeps ``init_std``."""
    momentum_mean: float = 0.0
    """Share of the old mean kept at each refit, in [0, 1)."""
    momentum_std: float = 0.0
    """Share of the old standard deviation kept at each refit, in [0, 1)."""
    keep_elites: float = 0.0
    """Share of the elites that compete again in the next iteration, in [0, 1]. Their cost is known,
    so they cost no model calls."""
    noise_beta: float = 0.0
    """Colour of the search noise over the horizon: 0 white, 2 red (smooth actions)."""
    returns: Literal["mean", "best"] = "mean"
    """"mean": the final mean (the cheapest sequence where the mean's own cost is NaN or above that
    of the start); "best": the cheapest sequence evaluated, final mean included."""

    @property
    def least_calls(self) -> tuple[str, int]:
        return "horizon * (elites + 1)", self.horizon * (max(self.elites, 1) + 1)

    @property
    def weighed(self) -> int:
        """Candidates that are weighed after a full iteration."""
        return self.elites

    def _checks(self) -> dict[str, bool]:
        return super()._checks() | {
            f"iterations = {self.iterations}: must be 1 or more": self.iterations >= 1,
            f"samples = {self.samples}: must be 2 or more": self.samples >= 2,
            f"elites = {self.elites}: must be in {self.least_elites}..samples = {self.samples}": (
                self.least_elites <= self.elites <= self.samples
            ),
            f"init_std = {self.init_std}: must be above 0": 0 < self.init_std < float("inf"),
            f"min_std = {self.min_std}: must be in 0..init_std = {self.init_std}": (
                0 <= self.min_std <= self.init_std
            ),
            f"momentum_mean = {self.momentum_mean}: must be in [0, 1)": 0 <= self.momentum_mean < 1,
            f"momentum_std = {self.momentum_std}: must be in [0, 1)": 0 <= self.momentum_std < 1,
            f"keep_elites = {self.keep_elites}: must be in [0, 1]": 0 <= self.keep_elites <= 1,
            f"noise_beta = {self.noise_beta}: must be in [0, 4]": 0 <= self.noise_beta <= 4,
            f"returns = {self.returns!r}: choose mean or best": self.returns in ("mean", "best"),
        }

    def counts(self) -> list[int]:
        """Candidates of each iteration, before the budget cuts them short."""
        return [self.samples] * self.iterations

    def offers_mean(self, iteration: int) -> bool:
        """Whether the mean is a candidate of that iteration; always of the first."""
        return True


class GaussianSearch(Search):
    """The shared loop; a planner adds ``_weights``. Arguments as :class:`Search`."""

    def __init__(
        self,
        config: GaussianConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: Support | None = None,
    ):
        super().__init__(config, action_dim, cost, support)
        self.config = config
        self._colour = colouring(config.horizon, config.noise_beta)

    def _weights(self, cost: Tensor, valid: bool) -> Tensor | None:
        """Weights ``[B, K]`` that sum to 1, of elites of costs ``[B, K]``, cheapest first, none of
        which is inf if ``valid``. None: all weigh alike."""
        raise NotImplementedError

    def _notes(self, weights: list[Tensor]) -> dict[str, Any]:
        """More diagnostics, from the weights of the iterations that had some."""
        return {}

    def _search(
        self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        c, mean = self.config, start
        colour = self._colour.to(start.device) if c.noise_beta else None
        floor = c.min_std * bounds.half_range
        std = (c.init_std * bounds.half_range).expand_as(mean)
        kept, tops, costs, stds, weights = None, [], [], [], []
        start_cost = mean.new_full((len(mean),), torch.inf)

        for iteration, count in enumerate(c.counts()):
            if iteration and evaluate.exhausted():
                break
            now = evaluate.budget.clock()
            fresh = self._sample(mean, std, colour, count, c.offers_mean(iteration), generator)
            bounds.project_(fresh)
            evaluate.timed("sampling", now)
            fresh, cost = evaluate(fresh)
            if not cost.shape[1]:
                break
            if not iteration:
                start_cost = cost[:, 0]
            share = ceil(c.weighed * cost.shape[1] / count)
            if kept is not None:
                fresh, cost = torch.cat([kept[0], fresh], 1), torch.cat([kept[1], cost], 1)
            elites, elite_cost = lowest(fresh, cost, share)
            if evaluate.invalid_costs:
                check_finite(elite_cost[:, 0], iteration)
            weight = self._weights(elite_cost, evaluate.invalid_costs == 0)
            tops.append(elites.select(1, 0))
            costs.append(elite_cost.select(1, 0))
            stds.append(std)
            if weight is not None:
                weights.append(weight)
            new_mean, new_std = _moments(elites, weight)
            mean = torch.lerp(new_mean, mean, c.momentum_mean) if c.momentum_mean else new_mean
            bounds.project_(mean)
            if c.adapt_std:
                new_std = torch.lerp(new_std, std, c.momentum_std) if c.momentum_std else new_std
                std = new_std.maximum(floor)
            if keep := ceil(c.keep_elites * share):
                kept = elites.narrow(1, 0, keep), elite_cost.narrow(1, 0, keep)

        every_cost = torch.stack(costs, 1)
        best, best_cost = lowest(torch.stack(tops, 1), every_cost, 1)
        diagnostics: dict[str, Any] = {
            "cost_per_iteration": every_cost.cpu(),
            "std_per_iteration": torch.stack(stds, 1).mean((2, 3)).cpu(),
        } | self._notes(weights)
        return self._chosen(evaluate, mean, start_cost, best[:, 0], best_cost[:, 0], diagnostics)

    def _chosen(
        self,
        evaluate: Evaluator,
        mean: Tensor,
        start_cost: Tensor,
        best: Tensor,
        best_cost: Tensor,
        diagnostics: dict[str, Any],
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """What is returned: the final mean, or the cheapest sequence (so far ``best``)."""
        final = evaluate(mean[:, None], reserve=0)[1]
        mean_cost = final[:, 0] if final.shape[1] else torch.full_like(best_cost, torch.inf)
        best, best_cost = cheaper(best, best_cost, mean, mean_cost)
        diagnostics["best_cost"] = best_cost.cpu()
        if self.config.returns == "best":
            return best, best_cost, diagnostics
        use_mean = torch.isfinite(mean_cost) & (mean_cost <= start_cost)
        actions = torch.where(use_mean[:, None, None], mean, best)
        return actions, torch.where(use_mean, mean_cost, best_cost), diagnostics

    def _sample(
        self,
        mean: Tensor,
        std: Tensor,
        colour: Tensor | None,
        count: int,
        with_mean: bool,
        generator: Generators,
    ) -> Tensor:
        """Candidates ``[B, count, H, A]``, the mean first if it is among them."""
        noise = standard_normal(generator, len(mean), (count, *mean.shape[1:]), mean.device)
        if colour is not None:
            noise = torch.einsum("hk,bska->bsha", colour, noise)
        if with_mean:
            noise.select(1, 0).zero_()
        return torch.addcmul(mean.unsqueeze(1), std.unsqueeze(1), noise, out=noise)


def _moments(elites: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation ``[B, H, A]`` of elites ``[B, K, H, A]``."""
    if weight is None:
        weight = elites.new_full(elites.shape[:2], 1 / elites.shape[1])
    flat, weight = elites.flatten(2), weight.unsqueeze(1)
    mean = torch.bmm(weight, flat)
    std = torch.bmm(weight, (flat - mean).square_()).sqrt_()
    shape = (len(flat), *elites.shape[2:])
    return mean.view(shape), std.view(shape)
