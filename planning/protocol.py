"""What planners see of the world: a dynamics with latents, a cost on them, and a plan.

Shapes: B problems, T context steps, N tokens per step, D latent width, S candidates, H horizon in
model steps, A action width per model step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ..core.errors import PlanningError
from ..core.latent import Latent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Observation: TypeAlias = Mapping[str, Any]
"""Arrays by name: ``pixels`` uint8, optional ``proprio`` float32; NumPy or torch."""

Cost: TypeAlias = "Callable[[Latent, Latent], Tensor]"
"""``(trajectory [B, S, H, ...], goal [B, ...]) -> float [B, S]``; lower is better."""

Generators: TypeAlias = "torch.Generator | Sequence[torch.Generator]"
"""One generator for the whole batch, or one per problem (then problems never share a draw)."""


@runtime_checkable
class LatentDynamics(Protocol):
    """A world model as planners see it; nothing else of it may be used.

    Attributes:
        action_dim: A, the action width per *model* step. With action blocks it is the block length
            times the environment's action width, environment step major.
    """

    action_dim: int

    def encode(self, obs: Observation) -> Latent:
        """Encode the context, ``pixels`` uint8 ``[B, T, H, W, 3]``, to tokens ``[B, T, N, D]``."""
        ...

    def encode_goal(self, obs: Observation) -> Latent:
        """Encode one goal image per problem, ``pixels`` ``[B, H, W, 3]``, to ``[B, N, D]``."""
        ...

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Imagine ``actions`` float32 ``[B, S, H, A]``; tokens ``[B, S, H, N, D]``.

        Step h of the result is the latent *after* action h.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of one call of a planner.

    Attributes:
        actions: float32 ``[B, H, A]``, inside the planner's bounds.
        cost: float32 ``[B]``, the model's cost of exactly these actions.
        diagnostics: what the search did; every planner gives ``model_calls`` (candidate-step
            predictions per problem, int) and ``seconds`` (wall clock of the whole batch, float).
    """

    actions: Tensor
    cost: Tensor
    diagnostics: dict[str, Any]


class Planner(Protocol):
    """Searches for actions whose imagined latents come near the goal.

    Attributes:
        horizon: H, model steps per plan. action_dim: A, action width per model step.
    """

    horizon: int
    action_dim: int

    def plan(
        self,
        dynamics: LatentDynamics,
        context: Latent,
        goal: Latent,
        *,
        warm_start: Tensor | None = None,
        generator: Generators,
    ) -> Plan:
        """Plan for B problems at once from ``context`` ``[B, T, N, D]`` to ``goal`` ``[B, N, D]``.

        ``warm_start`` float ``[B, H, A]`` is where the search begins.
        """
        ...


class HeldActions:
    """Plan one held action per model step for a dynamics that takes blocks of actions.

    The wrapped dynamics' action width is ``block * a`` (the block's environment actions in order);
    this adapter's is ``a``, repeated ``block`` times before it reaches the dynamics. A search space
    ``block`` times smaller, at the price of actions that are constant over each model step.

    Raises :class:`PlanningError` if ``block`` does not divide the dynamics' action width.
    """

    def __init__(self, dynamics: LatentDynamics, block: int):
        if block < 1 or dynamics.action_dim % block:
            raise PlanningError(
                f"block = {block} does not divide the dynamics' action width "
                f"{dynamics.action_dim}; give the number of environment actions per model step"
            )
        self.dynamics, self.block = dynamics, block
        self.action_dim = dynamics.action_dim // block

    def encode(self, obs: Observation) -> Latent:
        return self.dynamics.encode(obs)

    def encode_goal(self, obs: Observation) -> Latent:
        return self.dynamics.encode_goal(obs)

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        return self.dynamics.rollout(context, self.expand(actions))

    def __getattr__(self, name: str) -> Any:
        """``candidate_bytes`` of the dynamics, if it has it: its candidates are ours; and its
        proposals, if it makes some: the mean action of each block is held."""
        if name in ("candidate_bytes", "levels"):  # higher levels see no single actions
            return getattr(self.dynamics, name)
        if name == "propose":
            propose = getattr(self.dynamics, name)
            return lambda *problem: propose(*problem).unflatten(-1, (self.block, -1)).mean(-2)
        raise AttributeError(name)

    def expand(self, actions: Tensor) -> Tensor:
        """Repeat actions ``[..., a]`` to blocks ``[..., block * a]``."""
        return actions.repeat(*[1] * (actions.ndim - 1), self.block)
