"""The cross-entropy method for discrete actions: one categorical distribution per choice."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import PlanningError
from .bounds import ActionBounds
from .candidates import Evaluator, cheaper, check_finite, lowest
from .noise import uniform
from .protocol import Cost, Generators
from .search import Search, SearchConfig
from .support import ActionSupport


@dataclass(frozen=True, kw_only=True)
class CategoricalConfig(SearchConfig):
    """Settings of :class:`CategoricalCEM`. Give ``choices`` or ``levels``, not both."""

    choices: tuple[int, ...] = ()
    """One-hot actions: options of each choice (a Discrete space has one number, a MultiDiscrete
    several); their sum is the action width, or divides it (repeated blocks)."""
    levels: tuple[float, ...] = ()
    """Actions of numbers: every entry is one of these values."""
    samples: int = 300
    """Candidates per iteration and problem, the most probable sequence among them."""
    iterations: int = 10
    """Refits of the probabilities."""
    elites: int = 30
    """Candidates the probabilities are refitted to."""
    momentum: float = 0.1
    """Share of the old probabilities kept at each refit, in [0, 1)."""
    min_probability: float = 0.01
    """Share of uniform probability mixed in at each refit, in [0, 1)."""
    keep_elites: float = 0.3
    """Share of the elites that compete again in the next iteration, at no cost in model calls."""

    @property
    def least_calls(self) -> tuple[str, int]:
        return "horizon * elites", self.horizon * self.elites

    def _checks(self) -> dict[str, bool]:
        return super()._checks() | {
            f"propose = {self.propose}: categorical actions have no proposals": not self.propose,
            f"choices = {self.choices}, levels = {self.levels}: give one of them": (
                bool(self.choices) != bool(self.levels)
            ),
            f"choices = {self.choices}: each must be 2 or more": all(n >= 2 for n in self.choices),
            f"levels = {self.levels}: two or more different numbers": (
                not self.levels or len(set(self.levels)) == len(self.levels) > 1
            ),
            f"iterations = {self.iterations}: must be 1 or more": self.iterations >= 1,
            f"samples = {self.samples}: must be 2 or more": self.samples >= 2,
            f"elites = {self.elites}: must be in 1..samples = {self.samples}": (
                1 <= self.elites <= self.samples
            ),
            f"momentum = {self.momentum}: must be in [0, 1)": 0 <= self.momentum < 1,
            f"min_probability = {self.min_probability}: must be in [0, 1)": (
                0 <= self.min_probability < 1
            ),
            f"keep_elites = {self.keep_elites}: must be in [0, 1]": 0 <= self.keep_elites <= 1,
        }


class CategoricalCEM(Search):
    """Returns the cheapest sequence evaluated; see :class:`CategoricalConfig`.

    Every candidate is a sequence of allowed actions, one-hot or of levels, never anything between.
    A warm start is rounded to the nearest of them. Adds ``entropy_per_iteration`` float32
    ``[B, I]`` to the diagnostics (mean over H and choices, nats).

    Raises :class:`PlanningError` for levels outside ``low`` and ``high``, norm bounds or a support.
    """

    def __init__(
        self,
        config: CategoricalConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: ActionSupport | None = None,
    ):
        super().__init__(config, action_dim, cost)
        self.config = config
        if support is not None or self.bounds.groups:
            raise PlanningError(
                "discrete actions are bounded by what can be chosen: leave out norm bounds and "
                "the data's support"
            )
        self.levels = torch.tensor(config.levels, dtype=torch.float32)
        self.sizes = self._sizes()
        values = (0.0, 1.0) if config.choices else config.levels
        if (self.bounds.low > min(values)).any() or (self.bounds.high < max(values)).any():
            raise PlanningError(
                f"low = {config.low}, high = {config.high} must contain every value of the "
                f"actions, {min(values)} to {max(values)}"
            )

    def _sizes(self) -> list[int]:
        """Options of each of the G choices of a model step."""
        c, width = self.config, self.action_dim
        if c.levels:
            return [len(c.levels)] * width
        if width % sum(c.choices):
            raise PlanningError(
                f"choices = {c.choices} are {sum(c.choices)} one-hot entries, which must divide "
                f"the action width {width}"
            )
        return list(c.choices) * (width // sum(c.choices))

    def _search(
        self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        c = self.config
        allowed = self._allowed(start)  # [G, K]
        flat = allowed / allowed.sum(-1, keepdim=True)
        likely = self._encode(start)
        chance = flat.expand(*likely.shape, -1)  # [B, H, G, K]
        kept, kept_cost = likely[:, None][:, :0], start.new_empty(len(start), 0)
        best, best_cost = likely, start.new_full((len(start),), torch.inf)
        lowest_costs, entropies = [], []
        for iteration in range(c.iterations):
            if iteration and evaluate.exhausted(reserve=0):
                break
            now = evaluate.budget.clock()
            fresh = torch.cat([likely[:, None], self._sample(chance, generator)], 1)
            evaluate.timed("sampling", now)
            cost = evaluate(self._decode(fresh), reserve=0)[1]
            if not cost.shape[1]:
                break
            entropies.append(torch.special.entr(chance).sum(-1).mean((1, 2)))
            share = ceil(c.elites * cost.shape[1] / c.samples)
            pool = torch.cat([kept, fresh[:, : cost.shape[1]]], 1)
            elites, elite_cost = lowest(pool, torch.cat([kept_cost, cost], 1), share)
            check_finite(elite_cost[:, 0], iteration)
            lowest_costs.append(elite_cost[:, 0])
            best, best_cost = cheaper(best, best_cost, elites[:, 0], elite_cost[:, 0])
            weight = torch.isfinite(elite_cost).float()
            weight = weight / weight.sum(1, keepdim=True)
            counted = F.one_hot(elites, allowed.shape[-1]).float()
            refit = torch.einsum("bk,bkhgc->bhgc", weight, counted)
            refit = torch.lerp(refit, flat.expand_as(refit), c.min_probability)
            chance = torch.lerp(refit, chance, c.momentum)
            likely = chance.argmax(-1)
            keep = ceil(c.keep_elites * share)
            kept, kept_cost = elites[:, :keep], elite_cost[:, :keep]
        diagnostics = {
            "cost_per_iteration": torch.stack(lowest_costs, 1).cpu(),
            "entropy_per_iteration": torch.stack(entropies, 1).cpu(),
            "best_cost": best_cost.cpu(),
        }
        return self._decode(best), best_cost, diagnostics

    def _sample(self, chance: Tensor, generator: Generators) -> Tensor:
        """Options int64 ``[B, samples - 1, H, G]`` drawn with chances ``[B, H, G, K]``."""
        shape = (self.config.samples - 1, *chance.shape[1:3])
        drawn = uniform(generator, len(chance), shape, chance.device)
        below = chance.cumsum(-1)[..., :-1]  # the last is 1
        last = torch.tensor(self.sizes, device=chance.device) - 1
        return (drawn[..., None] >= below[:, None]).sum(-1).minimum(last)

    def _allowed(self, like: Tensor) -> Tensor:
        """float32 ``[G, K]``: 1 for the options that a choice has."""
        sizes = torch.tensor(self.sizes, device=like.device)
        return (torch.arange(max(self.sizes), device=like.device) < sizes[:, None]).float()

    def _encode(self, actions: Tensor) -> Tensor:
        """The nearest options int64 ``[B, H, G]`` of actions ``[B, H, A]``."""
        if self.config.levels:
            levels = self.levels.to(actions.device)
            return (actions[..., None] - levels).abs().argmin(-1)
        return torch.stack([part.argmax(-1) for part in actions.split(self.sizes, -1)], -1)

    def _decode(self, options: Tensor) -> Tensor:
        """Actions float32 ``[..., A]`` of options ``[..., G]``."""
        if self.config.levels:
            return self.levels.to(options.device)[options]
        parts = zip(options.unbind(-1), self.sizes, strict=True)
        return torch.cat([F.one_hot(part, size).float() for part, size in parts], -1)
