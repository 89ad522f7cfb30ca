"""The cross-entropy method over action sequences, batched over problems and candidates.

Rubinstein's CEM with a diagonal Gaussian, as used by latent-space planners (DINO-WM,
arXiv:2411.04983), plus what iCEM (arXiv:2008.06389) adds: kept elites, warm start, coloured noise,
and the mean as a candidate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.latent import Latent
from .bounds import ActionBounds
from .candidates import Evaluator, cheaper, check_finite, check_problem, lowest
from .costs import LatentCost
from .noise import colouring, standard_normal
from .protocol import Cost, Generators, LatentDynamics, Plan


@dataclass(frozen=True, kw_only=True)
class CEMConfig:
    """Settings of :class:`CEM`.

    Attributes:
        horizon: H, model steps per plan.
        samples: candidates evaluated per iteration and problem, the current mean among them.
        iterations: refits of the Gaussian.
        elites: candidates the Gaussian is refitted to.
        init_std: standard deviation at the start, in half-widths of the box (so in action units for
            the box [-1, 1]).
        min_std: floor of the standard deviation, same unit.
        momentum_mean, momentum_std: share of the old value kept at each refit, in [0, 1).
        keep_elites: share of the elites that compete again in the next iteration, in [0, 1]. Their
            cost is known, so they cost no model calls.
        noise_beta: colour of the search noise over the horizon: 0 white, 2 red (smooth actions).
        low, high: box bounds in action units, finite; one number, one per entry, or one per entry
            of a repeated block.
        norm_groups, max_norms: sizes of consecutive groups of entries and the largest Euclidean
            norm of each; empty for none.
        returns: "mean" the final mean (the cheapest sequence where the mean's own cost is NaN);
            "best" the cheapest sequence evaluated, final mean included.
        chunk: most candidates per rollout call, all problems together (but at least one of each
            problem); None for all at once. Limits memory, does not change the result.
        max_model_calls: budget of candidate-step predictions per problem and plan; None for no
            limit. Iterations are cut short to stay within it.

    Raises :class:`ConfigError` naming every impossible value.
    """

    horizon: int = 6
    samples: int = 300
    iterations: int = 10
    elites: int = 30
    init_std: float = 0.5
    min_std: float = 0.05
    momentum_mean: float = 0.0
    momentum_std: float = 0.0
    keep_elites: float = 0.3
    noise_beta: float = 0.0
    low: tuple[float, ...] = (-1.0,)
    high: tuple[float, ...] = (1.0,)
    norm_groups: tuple[int, ...] = ()
    max_norms: tuple[float, ...] = ()
    returns: Literal["mean", "best"] = "mean"
    chunk: int | None = None
    max_model_calls: int | None = None

    def __post_init__(self) -> None:
        least = self.horizon * (self.elites + 1)
        checks = {
            f"horizon = {self.horizon}: must be 1 or more": self.horizon >= 1,
            f"iterations = {self.iterations}: must be 1 or more": self.iterations >= 1,
            f"samples = {self.samples}: must be 2 or more": self.samples >= 2,
            f"elites = {self.elites}: must be in 1..samples = {self.samples}": (
                1 <= self.elites <= self.samples
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
            f"chunk = {self.chunk}: must be 1 or more, or None": (
                self.chunk is None or self.chunk >= 1
            ),
            f"max_model_calls = {self.max_model_calls}: must be at least horizon * (elites + 1) = "
            f"{least}, or None": self.max_model_calls is None or self.max_model_calls >= least,
        }
        wrong = [message for message, fine in checks.items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))

    def candidate_counts(self) -> list[int]:
        """Candidates evaluated in each iteration, within the budget.

        One more evaluation, of the final mean, is always made and fits the budget too.
        """
        total = self.samples * self.iterations
        if self.max_model_calls is not None:
            total = min(total, self.max_model_calls // self.horizon - 1)
        full, rest = divmod(total, self.samples)
        return [self.samples] * full + [rest] * (rest > 0)


class CEM:
    """Cross-entropy method planner; see :class:`CEMConfig` for every knob.

    Args:
        config: settings.
        action_dim: A, action width per model step of the dynamics it will be used with.
        cost: what to minimise; :class:`LatentCost` by default.

    Raises :class:`PlanningError` if the bounds do not fit ``action_dim``.
    """

    def __init__(self, config: CEMConfig, action_dim: int, cost: Cost | None = None):
        self.config, self.horizon, self.action_dim = config, config.horizon, action_dim
        self.cost: Cost = cost or LatentCost()
        self.bounds = ActionBounds(
            action_dim, config.low, config.high, config.norm_groups, config.max_norms
        )
        self._colour = colouring(config.horizon, config.noise_beta)

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
            dynamics: the model. context: tokens ``[B, T, N, D]``. goal: tokens ``[B, N, D]``.
            warm_start: float ``[B, H, A]``, the first mean (brought inside the bounds), zeros if
                None. It is evaluated first, so the best cost is never above its cost.
            generator: one, or a list of one per problem; with a list, a problem's plan does not
                depend on its batch.

        Returns:
            A plan whose diagnostics hold ``cost_per_iteration`` float32 ``[B, I]`` (lowest cost
            among each iteration's candidates), ``std_per_iteration`` float32 ``[B, I]`` (mean
            standard deviation searched with, action units), ``best_cost`` ``[B]``, ``model_calls``
            (candidate-step predictions per problem), ``invalid_costs`` (NaN or infinite costs over
            all problems, each treated as the worst) and ``seconds``.

        Raises:
            PlanningError: shapes that do not fit, or a problem without one finite cost.
        """
        started = time.perf_counter()
        check_problem(self, dynamics, context, goal, warm_start)
        with torch.inference_mode():
            evaluate = Evaluator(dynamics, context, goal, self.cost, self.config.chunk)
            if warm_start is None:
                warm_start = torch.zeros(len(goal.tokens), self.horizon, self.action_dim)
            mean = warm_start.to(goal.tokens.device, torch.float32)
            actions, cost, diagnostics = self._search(evaluate, mean, generator)
        diagnostics["model_calls"] = evaluate.model_calls
        diagnostics["invalid_costs"] = evaluate.invalid_costs
        diagnostics["seconds"] = time.perf_counter() - started
        # Copies made outside inference mode are ordinary tensors, usable with autograd.
        return Plan(actions=actions.clone(), cost=cost.clone(), diagnostics=diagnostics)

    def _search(
        self, evaluate: Evaluator, mean: Tensor, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Search from ``mean`` ``[B, H, A]``; actions ``[B, H, A]``, costs ``[B]``, diagnostics."""
        config, bounds = self.config, self.bounds.to(mean.device)
        colour = self._colour.to(mean.device)
        mean = bounds.project(mean)
        std = (config.init_std * bounds.half_range).expand_as(mean)
        kept, kept_cost = mean[:, None][:, :0], mean.new_empty(len(mean), 0)
        best, best_cost = mean, mean.new_full((len(mean),), torch.inf)
        lowest_costs, stds = [], []

        for iteration, count in enumerate(config.candidate_counts()):
            stds.append(std.mean((1, 2)))
            white = standard_normal(generator, len(mean), (count - 1, *mean.shape[1:]), mean.device)
            noise = torch.einsum("hk,bska->bsha", colour, white)
            samples = bounds.project(mean[:, None] + std[:, None] * noise)
            fresh = torch.cat([mean[:, None], samples], 1)
            pool = torch.cat([kept, fresh], 1)
            pool_cost = torch.cat([kept_cost, evaluate(fresh)], 1)
            share = ceil(config.elites * count / config.samples)
            elites, elite_cost = lowest(pool, pool_cost, share)

            check_finite(elite_cost[:, 0], iteration)
            lowest_costs.append(elite_cost[:, 0])
            best, best_cost = cheaper(best, best_cost, elites[:, 0], elite_cost[:, 0])
            mean, std = self._refit(mean, std, elites, elite_cost, bounds)
            keep = ceil(config.keep_elites * share)
            kept, kept_cost = elites[:, :keep], elite_cost[:, :keep]

        mean_cost = evaluate(mean[:, None])[:, 0]
        best, best_cost = cheaper(best, best_cost, mean, mean_cost)
        diagnostics = {
            "cost_per_iteration": torch.stack(lowest_costs, 1).cpu(),
            "std_per_iteration": torch.stack(stds, 1).cpu(),
            "best_cost": best_cost.cpu(),
        }
        if config.returns == "best":
            return best, best_cost, diagnostics
        usable = torch.isfinite(mean_cost)
        actions = torch.where(usable[:, None, None], mean, best)
        return actions, torch.where(usable, mean_cost, best_cost), diagnostics

    def _refit(
        self, mean: Tensor, std: Tensor, elites: Tensor, cost: Tensor, bounds: ActionBounds
    ) -> tuple[Tensor, Tensor]:
        """New mean and std ``[B, H, A]`` from the elites ``[B, K, H, A]`` of finite cost."""
        config = self.config
        weight = torch.isfinite(cost)[:, :, None, None].float()
        weight = weight / weight.sum(1, keepdim=True)
        new_mean = (weight * elites).sum(1)
        new_std = (weight * (elites - new_mean[:, None]).square()).sum(1).sqrt()
        mean = torch.lerp(new_mean, mean, config.momentum_mean)
        std = torch.lerp(new_std, std, config.momentum_std)
        return bounds.project(mean), std.maximum(config.min_std * bounds.half_range)
