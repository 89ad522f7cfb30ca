"""What every planner does with its candidates: check, score, count, time and rank them.

Shapes: B problems, S candidates, H horizon, A action width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core.errors import PlanningError
from ..core.latent import Latent
from .budget import Budget
from .protocol import Cost, LatentDynamics, Planner

GRADIENT_PRICE = 3
"""A differentiated prediction counts as this many: forward, and twice that for the way back."""


def check_problem(
    planner: Planner,
    dynamics: LatentDynamics,
    context: Latent,
    goal: Latent,
    warm_start: Tensor | None,
) -> None:
    """Raise :class:`PlanningError` if the arguments of ``plan`` do not fit each other."""
    if dynamics.action_dim != planner.action_dim:
        raise PlanningError(
            f"the planner was built for actions of width {planner.action_dim} but the dynamics "
            f"takes {dynamics.action_dim}"
        )
    problems = len(context.tokens)
    if problems != len(goal.tokens):
        raise PlanningError(f"{problems} contexts but {len(goal.tokens)} goals: give one each")
    if not problems:
        raise PlanningError("no problems: the context and the goal are empty")
    expected = (problems, planner.horizon, planner.action_dim)
    if warm_start is not None and warm_start.shape != expected:
        raise PlanningError(
            f"warm_start has shape {tuple(warm_start.shape)}, expected [B, H, A] = {expected}"
        )
    if warm_start is not None and not torch.isfinite(warm_start).all():
        raise PlanningError("warm_start holds NaN or infinite actions; pass None to start at 0")


class Evaluator:
    """Costs of candidates for one set of problems, within a budget, counting what it took.

    Args:
        dynamics, context, goal, cost: what to minimise.
        budget: of the search. chunk: most candidates per rollout call, all problems together.
        effort: ``[A]``, weights of squared actions, whose mean is added to the cost; or None.
        share: of the budget that may be used (changed by searches of several stages).

    Attributes:
        invalid_costs: NaN or infinite costs met. seconds: spent in ``rollout``, ``cost`` and
            ``gradient``; a search adds its ``sampling``.
    """

    def __init__(
        self,
        dynamics: LatentDynamics,
        context: Latent,
        goal: Latent,
        cost: Cost,
        *,
        budget: Budget,
        chunk: int | None = None,
        effort: Tensor | None = None,
    ):
        self.dynamics, self.context, self.goal, self.cost = dynamics, context, goal, cost
        self.budget, self.chunk, self.effort, self.share = budget, chunk, effort, 1.0
        self.invalid_costs = 0
        self.seconds = {"rollout": 0.0, "cost": 0.0, "gradient": 0.0, "sampling": 0.0}
        self._accelerator = goal.tokens.device.type == "cuda"

    def __call__(self, candidates: Tensor, *, reserve: int = 1) -> tuple[Tensor, Tensor]:
        """The first m of candidates ``[B, S, H, A]`` and their costs float32 ``[B, m]``.

        m is S unless the budget ends before; it may be 0. Costs that are not finite become inf.
        ``reserve`` candidates' worth of the budget is left over.
        """
        found = self._evaluated(candidates, self._costs, 1, reserve)
        return found[0], found[1]

    def gradient(self, candidates: Tensor, *, reserve: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """As a call, and each cost's gradient by its own actions, float32 ``[B, m, H, A]``.

        Gradients that are not finite become 0. Counts as ``GRADIENT_PRICE`` predictions per step.

        Raises:
            PlanningError: costs that do not depend differentiably on the actions.
        """
        found = self._evaluated(candidates, self._gradients, GRADIENT_PRICE, reserve)
        return found[0], found[1], found[2]

    def exhausted(self, *, price: int = 1, reserve: int = 1) -> bool:
        """Whether the budget does not allow one more candidate."""
        return not self.budget.allowed(1, price=price, reserve=reserve, share=self.share)

    def timed(self, name: str, since: float) -> float:
        """Add the time since ``since`` to ``seconds[name]``; returns the time now."""
        if self._accelerator:
            torch.cuda.synchronize(self.goal.tokens.device)
        now = self.budget.clock()
        self.seconds[name] += now - since
        return now

    def _evaluated(
        self,
        candidates: Tensor,
        evaluate: Callable[[Latent, Latent, Tensor], tuple[Tensor, ...]],
        price: int,
        reserve: int,
    ) -> list[Tensor]:
        """``[candidates, *values]`` of the first m candidates, evaluated in pieces."""
        problems, samples = candidates.shape[:2]
        most = samples if self.chunk is None else max(1, self.chunk // problems)
        pieces: list[list[Tensor]] = []
        done = 0
        while done < samples:
            wanted = min(samples - done, most)
            count = self.budget.allowed(wanted, price=price, reserve=reserve, share=self.share)
            if not count:
                break
            began = self.budget.clock()
            piece = candidates if count == samples else candidates[:, done : done + count]
            pieces.append([piece, *self._grouped(piece, evaluate)])
            self.budget.spend(count, self.budget.clock() - began, price=price)
            done += count
        if not pieces:
            nothing = candidates[:, :0]
            return [nothing, nothing.new_zeros(problems, 0), nothing]
        found = pieces[0]
        if len(pieces) > 1:
            found = [torch.cat(part, 1) for part in zip(*pieces, strict=True)]
        if not math.isfinite(float(found[1].sum())):
            found[1] = self._without_invalid(found[1])
        return found

    def _grouped(
        self,
        candidates: Tensor,
        evaluate: Callable[[Latent, Latent, Tensor], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        """Evaluate candidates, some problems at a time where ``chunk`` is below their number."""
        problems = len(candidates)
        if self.chunk is None or self.chunk >= problems:
            return evaluate(self.context, self.goal, candidates)
        parts = []
        for first in range(0, problems, self.chunk):
            rows = slice(first, first + self.chunk)
            context, goal = (x.map(lambda t: t[rows]) for x in (self.context, self.goal))  # noqa: B023
            parts.append(evaluate(context, goal, candidates[rows]))
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _costs(self, context: Latent, goal: Latent, candidates: Tensor) -> tuple[Tensor]:
        now = self.budget.clock()
        trajectory = self.dynamics.rollout(context, candidates)
        now = self.timed("rollout", now)
        cost = self.cost(trajectory, goal)
        if cost.shape != candidates.shape[:2]:
            raise PlanningError(
                f"the cost has shape {tuple(cost.shape)}, expected [B, S] = "
                f"{tuple(candidates.shape[:2])}"
            )
        cost = cost.float()
        if self.effort is not None:
            cost = cost + (self.effort * candidates.square()).mean((2, 3))
        self.timed("cost", now)
        return (cost,)

    def _gradients(
        self, context: Latent, goal: Latent, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            actions = candidates.detach().clone().requires_grad_()
            (cost,) = self._costs(context, goal, actions)
            if not cost.requires_grad:
                raise PlanningError(
                    "the costs do not depend differentiably on the actions (a simulator, or a "
                    "model that detaches): use a planner that samples, such as cem"
                )
            now = self.budget.clock()
            (gradient,) = torch.autograd.grad(cost.sum(), actions)
            self.timed("gradient", now)
        return cost.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    def _without_invalid(self, cost: Tensor) -> Tensor:
        finite = torch.isfinite(cost)
        self.invalid_costs += int((~finite).sum())
        return torch.where(finite, cost, torch.inf)


def check_finite(lowest_cost: Tensor, iteration: int) -> None:
    """Raise :class:`PlanningError` if the lowest cost ``[B]`` of any problem is not finite."""
    hopeless = (~torch.isfinite(lowest_cost)).nonzero().flatten().tolist()
    if hopeless:
        raise PlanningError(
            f"every candidate of problem(s) {hopeless} has a NaN or infinite cost in iteration "
            f"{iteration}; check the model's checkpoint and its inputs, or narrow the bounds"
        )


def lowest(candidates: Tensor, cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` cheapest of candidates ``[B, S, H, A]``, cheapest first, and their costs."""
    problems, samples = cost.shape
    cost, rows = torch.topk(cost, min(count, samples), largest=False)
    if problems > 1:
        rows = rows + torch.arange(0, problems * samples, samples, device=rows.device)[:, None]
    chosen = candidates.flatten(0, 1).index_select(0, rows.view(-1))
    return chosen.view(problems, -1, *candidates.shape[2:]), cost


def cheaper(a: Tensor, a_cost: Tensor, b: Tensor, b_cost: Tensor) -> tuple[Tensor, Tensor]:
    """Per problem, whichever of sequences a and b ``[B, H, A]`` costs less, and its cost."""
    better = b_cost < a_cost
    return torch.where(better[:, None, None], b, a), torch.where(better, b_cost, a_cost)
