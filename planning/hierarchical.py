"""Planning at several clocks: where to be next is planned far ahead and coarsely, how to get there
finely and soon.

The highest level searches macro-actions that end at the goal; the first latent that it imagines is
the goal of the level below, down to level 1, whose actions are carried out (LeCun 2022; HWM, arXiv
2604.03208). Every level is searched by CEM. Macro-actions far from those of the training data mean
nothing to a learned level, and an unbounded search finds exactly these (arXiv 2607.12547), so it
stays among them; without (``macro_support`` = none) it is the naive hierarchy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from math import ceil
from typing import Any, Literal, cast

import torch
from torch import Tensor

from ..core.errors import PlanningError
from ..core.latent import Latent
from .candidates import check_problem
from .cem import CEM, CEMConfig
from .costs import LatentCost
from .levels import MacroDynamics, levels_of
from .protocol import Cost, Generators, LatentDynamics, Plan
from .search import Search, SearchConfig
from .support import ActionSupport, NeighbourSupport, Support, action_range

NAIVE = 10.0
"""The box of the naive search, in half-widths of the training macro-actions' range."""

Where = Literal["quantile", "range", "neighbours", "density", "none"]


@dataclass(frozen=True, kw_only=True)
class HierarchicalConfig(CEMConfig):
    """Settings of :class:`Hierarchical`; those of CEM are of level 1, whose goal is near."""

    macro: CEMConfig = field(
        default_factory=lambda: CEMConfig(
            horizon=4, samples=64, iterations=4, elites=10, init_std=1.0, returns="best"
        )
    )
    """The search of every higher level, bounded by macro_support. Its horizon is the highest
    level's; one in between plans for one step of the level above it."""
    macro_support: Where = "quantile"
    """Where macro-actions must stay: the range of the training data without its tails; the range;
    near single ones; an ellipsoid that holds most; or nowhere, the naive hierarchy."""
    macro_tail: float = 0.01
    """Share of the training macro-actions left out: at either end (quantile), in all (neighbours,
    density)."""
    macro_share: float = 0.5
    """Share of max_model_calls and of max_seconds that the levels above level 1 may use, in
    (0, 1). Level 1 has what they leave."""
    replan: int = 1
    """Plans of a level per plan of the level above it."""
    hand_goal: bool = True
    """Hand down the goal itself where it is within reach of the level below: the first imagined
    latent is the nearest to it of all, or as near as ``near``."""
    near: float = 0.25
    """Cost of a single latent that counts as at the goal."""

    @property
    def least_calls(self) -> tuple[str, int]:
        share = self.macro_share if 0 < self.macro_share < 1 else 0.5
        low, high = self.horizon * (max(self.elites, 1) + 1), self.macro_least
        formula = (
            "the larger of horizon * (elites + 1) / (1 - macro_share) and "
            "macro.horizon * (macro.elites + 2) / macro_share"
        )
        return formula, max(ceil(low / (1 - share)), ceil(high / share))

    @property
    def macro_least(self) -> int:
        """Model calls of the smallest search of the highest level, and to see where it leads."""
        return self.macro.horizon * (self.macro.elites + 2)

    @property
    def level1(self) -> CEMConfig:
        """The search of level 1."""
        return CEMConfig(**{f.name: getattr(self, f.name) for f in fields(CEMConfig)})

    def _checks(self) -> dict[str, bool]:
        given = ("horizon", "chunk", "max_bytes")
        own = [f.name for f in fields(SearchConfig) if f.name not in given]
        plain = CEMConfig()
        checks = super()._checks() | {
            f"macro.{name} = {getattr(self.macro, name)}: leave it alone; bounds of macro-actions "
            "come from the data (macro_support), budgets are shared (macro_share)": (
                getattr(self.macro, name) == getattr(plain, name)
            )
            for name in own
        }
        known = Where.__args__
        return checks | {
            f"macro_support = {self.macro_support!r}: choose one of {', '.join(known)}": (
                self.macro_support in known
            ),
            f"macro_tail = {self.macro_tail}: must be in [0, 0.5)": 0 <= self.macro_tail < 0.5,
            f"macro_share = {self.macro_share}: must be in (0, 1)": 0 < self.macro_share < 1,
            f"replan = {self.replan}: must be 1 or more": self.replan >= 1,
            f"near = {self.near}: must be 0 or more": self.near >= 0,
        }


@dataclass(frozen=True, eq=False)
class _Held:
    """What a level keeps between its plans: its macro-actions ``[B, K, m]``, and the goal of the
    level below."""

    macros: Tensor
    subgoal: Latent


class Hierarchical(Search):
    """CEM at every level of a dynamics with levels, from the highest down.

    Arguments as :class:`Search`; ``cost`` is every level's, ``support`` is of level 1's actions.
    Between plans it keeps where the higher levels want to be, for as long as ``replan`` says;
    :meth:`reset` forgets it, and so does another goal.

    Raises :class:`PlanningError` as Search does, and for a cost with weights of single steps, which
    cannot fit the horizons of several levels.
    """

    def __init__(
        self,
        config: HierarchicalConfig,
        action_dim: int,
        cost: Cost | None = None,
        support: Support | None = None,
    ):
        super().__init__(config, action_dim, cost, support)
        if isinstance(self.cost, LatentCost) and self.cost.steps == "weights":
            raise PlanningError(
                'cost.steps = "weights": levels have different horizons; choose last, sum or '
                "discounted"
            )
        self.config, self._support = config, support
        self.reset()

    def reset(self) -> None:
        """Forget everything about the last problems."""
        self._plans = 0
        self._goal: Latent | None = None
        self._held: dict[int, _Held] = {}
        self._searches: dict[int, Callable[[int | None, float | None], CEM]] = {}
        self._centres: dict[int, Tensor] = {}

    def plan(
        self,
        dynamics: LatentDynamics,
        context: Latent,
        goal: Latent,
        *,
        warm_start: Tensor | None = None,
        generator: Generators,
    ) -> Plan:
        """Plan for B problems at once; arguments as :meth:`Search.plan`, ``warm_start`` is of level
        1, and ``dynamics`` has ``levels``.

        Returns:
            Level 1's plan and its cost *to the goal it was handed*. Diagnostics are those of its
            search, but ``model_calls``, ``invalid_costs``, ``seconds`` and ``profile`` are of all
            levels, and ``levels`` tells of each higher one that planned, the highest first:
            ``level`` (2 is the lowest of them), ``macros`` ``[B, K, m]``, ``cost`` ``[B]``,
            ``subgoal`` (tokens ``[B, N, D]``), ``handed`` bool ``[B]`` (the goal itself was),
            ``model_calls``.

        Raises:
            PlanningError: shapes that do not fit, a dynamics without levels, a level that carries
                no training macro-actions, or a problem without one finite cost.
        """
        began = self.clock()
        check_problem(self, dynamics, context, goal, warm_start)
        levels = levels_of(dynamics)
        if self._goal is None or not torch.equal(self._goal.tokens, goal.tokens):
            self.reset()
        due = [n for n in range(len(levels)) if self._plans % self.config.replan ** (n + 1) == 0]
        told: list[dict[str, Any]] = []
        target, c = goal, self.config
        for n in reversed(range(len(levels))):
            if n in due:
                above = levels[n + 1].length if n + 1 < len(levels) else None
                horizon = c.macro.horizon if above is None else above // levels[n].length
                search = self._search_of(levels[n], n, horizon)
                limits = self._limits(levels[n].price, len(due), horizon)
                told.append(self._higher(n, levels[n], search(*limits), context, target, generator))
            target = self._held[n].subgoal
        spent = sum(each["model_calls"] for each in told)
        plan = self._lowest(spent, began).plan(
            dynamics, context, target, warm_start=warm_start, generator=generator
        )
        self._plans, self._goal = self._plans + 1, goal.map(torch.clone)
        return Plan(
            actions=plan.actions,
            cost=plan.cost,
            diagnostics=_summed(plan.diagnostics, told, self.clock() - began),
        )

    def _higher(
        self,
        n: int,
        level: MacroDynamics,
        search: CEM,
        context: Latent,
        goal: Latent,
        generator: Generators,
    ) -> dict[str, Any]:
        """Plan at a higher level and keep where it wants to be; what is told of it."""
        held = self._held.get(n)
        centre = self._centres[n].to(goal.tokens.device)
        start = centre.expand(len(goal.tokens), search.horizon, -1)
        plan = search.plan(
            cast(LatentDynamics, level),
            context,
            goal,
            warm_start=start if held is None else held.macros,
            generator=generator,
        )
        with torch.inference_mode():
            path = level.rollout(context, plan.actions[:, None])
            first = path.map(lambda x: x[:, 0, 0])
            if goal.proprio is None:
                first = Latent(first.tokens)
            # Steps in the place of candidates: how far each is from the goal.
            each = self.cost(path.map(lambda x: x[:, 0, :, None]), goal)
            handed = (each.argmin(1) == 0) | (each[:, 0] <= self.config.near)
            handed = handed & self.config.hand_goal
        subgoal = Latent(
            _chosen(handed, goal.tokens, first.tokens),
            None
            if goal.proprio is None or first.proprio is None
            else _chosen(handed, goal.proprio, first.proprio),
        )
        self._held[n] = _Held(plan.actions, subgoal)
        calls = plan.diagnostics["model_calls"] + search.horizon
        return {
            **{key: plan.diagnostics[key] for key in ("invalid_costs", "profile")},
            "level": n + 2,
            "macros": plan.actions,
            "cost": plan.cost,
            "subgoal": subgoal,
            "handed": handed.clone(),
            "model_calls": level.price * calls,
        }

    def _search_of(
        self, level: MacroDynamics, n: int, horizon: int
    ) -> Callable[[int | None, float | None], CEM]:
        """Makes the search of a level, given model calls and seconds; its bounds are kept."""
        if n not in self._searches:
            config, support = _bounded(self.config, level, n + 2)
            config, self._centres[n] = replace(config, horizon=horizon), level.macros().mean(0)

            def make(calls: int | None, seconds: float | None) -> CEM:
                limited = replace(config, max_model_calls=calls, max_seconds=seconds)
                search = CEM(limited, level.action_dim, self.cost, support)
                search.clock = self.clock
                return search

            self._searches[n] = make
        return self._searches[n]

    def _limits(self, price: int, due: int, horizon: int) -> tuple[int | None, float | None]:
        """Model calls, in steps of a level that cost ``price``, and seconds of its search, if
        ``due`` levels plan now. What it takes to see where the plan leads is put aside."""
        c = self.config
        calls, seconds = c.max_model_calls, c.max_seconds
        if calls is not None:
            calls = int(c.macro_share * calls / due) // price - horizon
        return calls, None if seconds is None else c.macro_share * seconds / due

    def _lowest(self, spent: int, began: float) -> CEM:
        """The search of level 1, with what is left of the budgets."""
        c = self.config.level1
        if c.max_model_calls is not None:
            c = replace(c, max_model_calls=c.max_model_calls - spent)
        if c.max_seconds is not None:
            c = replace(c, max_seconds=max(1e-6, c.max_seconds - (self.clock() - began)))
        search = CEM(c, self.action_dim, self.cost, self._support)
        search.clock = self.clock
        return search


def _bounded(
    config: HierarchicalConfig, level: MacroDynamics, number: int
) -> tuple[CEMConfig, Support | None]:
    """The search of a level, bounded by its training macro-actions, and a support for it."""
    macros, where, tail = level.macros().cpu(), config.macro_support, config.macro_tail
    if not len(macros):
        raise PlanningError(
            f"macro_support = {where!r}: the buffer of training macro-actions of level {number} is "
            "empty, so nothing says where to search; train the level first"
        )
    low, high = action_range(macros, tail if where == "quantile" else 0.0)
    if where == "none":
        middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
        half = [NAIVE * (b - a) / 2 for a, b in zip(low, high, strict=True)]
        return replace(
            config.macro,
            low=tuple(m - h for m, h in zip(middle, half, strict=True)),
            high=tuple(m + h for m, h in zip(middle, half, strict=True)),
            init_std=config.macro.init_std / NAIVE,
            min_std=config.macro.min_std / NAIVE,
        ), None
    bounded = replace(config.macro, low=low, high=high)
    if where == "neighbours":
        return bounded, NeighbourSupport.fit(macros, 1 - tail)
    return bounded, ActionSupport.fit(macros, 1 - tail) if where == "density" else None


def _chosen(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where ``which`` ``[B]``, else ``b``, as an ordinary tensor."""
    return torch.where(which.view(-1, *[1] * (a.ndim - 1)), a, b.to(a.dtype)).clone()


def _summed(found: dict[str, Any], told: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Level 1's diagnostics with what all levels took together."""
    profile = dict(found["profile"])
    for each in told:
        for name, part in each.pop("profile").items():
            profile[name] = profile.get(name, 0.0) + part
    profile["overhead"] = seconds - sum(v for k, v in profile.items() if k != "overhead")
    invalid = found["invalid_costs"] + sum(each.pop("invalid_costs") for each in told)
    return found | {
        "model_calls": found["model_calls"] + sum(each["model_calls"] for each in told),
        "invalid_costs": invalid,
        "seconds": seconds,
        "profile": profile,
        "levels": told,
    }
