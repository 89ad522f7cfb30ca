"""What planners share: horizon, bounds and budgets, and everything around the search itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import ConfigError, PlanningError
from ..core.latent import Latent
from .bounds import ActionBounds
from .budget import Budget
from .candidates import Evaluator, check_problem
from .costs import LatentCost
from .proposals import cheapest_start
from .protocol import Cost, Generators, LatentDynamics, Plan
from .support import Support


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of every planner.

    Raises :class:`ConfigError` naming every impossible value.
    """

    horizon: int = 6
    """H, model steps per plan."""
    low: tuple[float, ...] = (-1.0,)
    """Lower box bounds in action units, finite; one number, one per entry, or one per entry of a
    repeated block."""
    high: tuple[float, ...] = (1.0,)
    """Upper box bounds, likewise."""
    norm_groups: tuple[int, ...] = ()
    """Sizes of consecutive groups of entries whose Euclidean norm is bounded."""
    max_norms: tuple[float, ...] = ()
    """The largest norm of each group."""
    chunk: int | None = None
    """Most candidates per rollout call, all problems together; None for all at once. Limits memory,
    does not change the result."""
    max_bytes: int | None = None
    """Most bytes a rollout call may take; for a dynamics that can tell (``candidate_bytes``)."""
    max_model_calls: int | None = None
    """Budget of candidate-step predictions per problem and plan; None for no limit. The search is
    cut short to stay within it. A differentiated prediction counts as three."""
    max_seconds: float | None = None
    """Budget of wall-clock seconds per plan, all problems together; None for no limit. What was
    found until then is returned, so plans depend on the machine's speed."""
    effort: float = 0.0
    """Weight of the mean squared action, in half-widths of the box, beside the cost. Of plans that
    end about as near it prefers the quieter one, and a search that is held back from large actions
    finds fewer of the model's errors."""
    propose: tuple[int, ...] = ()
    """Numbers of model steps for which the model's own head is asked for actions (a model trained
    with one): the search begins at the cheapest of these and the warm start. Empty: at the latter.
    Their evaluation counts as model calls."""

    def __post_init__(self) -> None:
        wrong = [message for message, fine in self._checks().items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))

    @property
    def least_calls(self) -> tuple[str, int]:
        """The smallest budget of model calls that the search works with: a formula, its value."""
        return "horizon", self.horizon

    @property
    def first_stage(self) -> tuple[int, float]:
        """Candidates that the search needs after its start was chosen, and the share of a budget
        that these may use."""
        return ceil(self.least_calls[1] / self.horizon), 1.0

    def _checks(self) -> dict[str, bool]:
        """Messages about values, and whether the value is fine."""
        formula, least = self.least_calls
        checks = {
            f"horizon = {self.horizon}: must be 1 or more": self.horizon >= 1,
            f"max_model_calls = {self.max_model_calls}: must be at least {formula} = {least}, or "
            "None": self.max_model_calls is None or self.max_model_calls >= least,
            f"max_seconds = {self.max_seconds}: must be above 0 and finite, or None": (
                self.max_seconds is None or 0 < self.max_seconds < float("inf")
            ),
            f"effort = {self.effort}: must be 0 or more, and finite": (
                0 <= self.effort < float("inf")
            ),
            f"propose = {self.propose}: numbers of steps, each 1 or more": (
                all(steps >= 1 for steps in self.propose)
            ),
        }
        for name in ("chunk", "max_bytes"):
            value = getattr(self, name)
            checks[f"{name} = {value}: must be 1 or more, or None"] = value is None or value >= 1
        return checks


class Search:
    """A planner but for ``_search``: checks, budgets, timing, ordinary tensors at the end.

    Args:
        config: settings.
        action_dim: A, action width per model step of the dynamics it will be used with.
        cost: what to minimise; :class:`LatentCost` by default.
        support: where the training actions lie; the search stays there, and inside the bounds.

    Attributes:
        bounds: :class:`ActionBounds` of every candidate and of the plan.
        clock: what budgets of seconds are measured with.

    Raises :class:`PlanningError` if bounds or support do not fit ``action_dim``.
    """

    differentiates: ClassVar[bool] = False
    begins_with_proposals: ClassVar[bool] = True
    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(
        self,
        config: SearchConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: Support | None = None,
    ):
        self.horizon, self.action_dim = config.horizon, action_dim
        self._settings = config
        self.cost: Cost = cost or LatentCost()
        self.bounds = ActionBounds(
            action_dim, config.low, config.high, config.norm_groups, config.max_norms, support
        )

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
            warm_start: float ``[B, H, A]``, where the search begins (brought inside the bounds),
                zeros if None. It is evaluated first, and the plan never costs more.
            generator: one, or a list of one per problem; with a list, a problem's plan does not
                depend on its batch.

        Returns:
            A plan whose diagnostics hold ``cost_per_iteration`` float32 ``[B, I]`` (lowest of each
            iteration), ``best_cost`` ``[B]`` (of anything evaluated), ``model_calls``
            (candidate-step predictions per problem), ``invalid_costs`` (NaN or infinite costs over
            all problems, each treated as the worst), ``seconds``, ``profile`` (where they went:
            ``rollout``, ``cost``, ``gradient``, ``sampling``, ``overhead``) and what the planner
            adds.

        Raises:
            PlanningError: shapes that do not fit, or a problem without one finite cost.
        """
        began = self.clock()
        check_problem(self, dynamics, context, goal, warm_start)
        with torch.inference_mode(not self.differentiates), torch.no_grad():
            if self.differentiates:  # what was made in inference mode cannot take part in autograd
                context, goal = context.map(torch.clone), goal.map(torch.clone)
            evaluate = self._evaluator(dynamics, context, goal, began)
            if warm_start is None:
                warm_start = torch.zeros(len(goal.tokens), self.horizon, self.action_dim)
            start = warm_start.to(goal.tokens.device, torch.float32)
            bounds = self.bounds.to(start.device)
            start = self._start(evaluate, bounds.project(start), bounds)
            actions, cost, found = self._search(evaluate, start, bounds, generator)
        return finished(actions, cost, found, evaluate)

    def _start(self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds) -> Tensor:
        """Where the search begins: at ``start [B, H, A]``, or at a cheaper proposal."""
        c = self._settings
        if not c.propose or not self.begins_with_proposals:
            return start
        reserve, evaluate.share = c.first_stage
        found = cheapest_start(evaluate, start, c.propose, bounds, reserve=reserve)
        evaluate.share = 1.0
        return found

    def _search(
        self, evaluate: Evaluator, start: Tensor, bounds: ActionBounds, generator: Generators
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Search from ``start [B, H, A]``; actions ``[B, H, A]``, costs ``[B]``, diagnostics."""
        raise NotImplementedError

    def _evaluator(
        self, dynamics: LatentDynamics, context: Latent, goal: Latent, began: float
    ) -> Evaluator:
        c = self._settings
        budget = Budget(
            horizon=c.horizon,
            max_calls=c.max_model_calls,
            max_seconds=c.max_seconds,
            began=began,
            clock=self.clock,
        )
        chunk = _chunk(c, dynamics, gradient=self.differentiates)
        effort = None
        if c.effort:
            effort = (c.effort / self.bounds.half_range.square()).to(goal.tokens.device)
        return Evaluator(
            dynamics, context, goal, self.cost, budget=budget, chunk=chunk, effort=effort
        )


def _chunk(config: SearchConfig, dynamics: LatentDynamics, *, gradient: bool) -> int | None:
    """Most candidates per rollout call, from ``chunk`` and ``max_bytes``."""
    if config.max_bytes is None:
        return config.chunk
    size = getattr(dynamics, "candidate_bytes", None)
    if size is None:
        raise PlanningError(
            f"max_bytes = {config.max_bytes} needs a dynamics with `candidate_bytes`, which "
            f"{type(dynamics).__name__} has not: set chunk (in candidates) instead"
        )
    each = size(config.horizon, gradient=gradient)
    if config.max_bytes < each:
        raise PlanningError(
            f"max_bytes = {config.max_bytes}: one candidate of horizon {config.horizon} takes "
            f"{each}"
        )
    return min(config.max_bytes // each, config.chunk or config.max_bytes // each)


def finished(
    actions: Tensor, cost: Tensor, diagnostics: dict[str, Any], evaluate: Evaluator
) -> Plan:
    """The plan that a search found, as ordinary tensors, with what it took."""
    # Copies made outside inference mode are ordinary tensors, usable with autograd.
    actions, cost = actions.clone(), cost.clone()
    seconds = evaluate.budget.clock() - evaluate.budget.began
    profile = evaluate.seconds | {"overhead": seconds - sum(evaluate.seconds.values())}
    diagnostics |= {
        "model_calls": evaluate.budget.calls,
        "invalid_costs": evaluate.invalid_costs,
        "seconds": seconds,
        "profile": profile,
    }
    return Plan(actions=actions, cost=cost, diagnostics=diagnostics)
