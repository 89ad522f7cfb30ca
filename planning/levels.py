"""What planners see of slower clocks over the same latents: macro-actions and where they lead."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..core.errors import PlanningError
from ..core.latent import Latent

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class MacroDynamics(Protocol):
    """A level above a :class:`.protocol.LatentDynamics`, which is level 1.

    A dynamics with levels has them in its attribute ``levels``, a tuple from level 2 up.

    Attributes:
        action_dim: m, width of a macro-action. length: h, model steps of level 1 per step.
        price: model calls that one predicted step counts as (a learned level: 1; a simulator, which
            has to go through all steps: h).
    """

    action_dim: int
    length: int
    price: int

    def macros(self) -> Tensor:
        """Macro-actions float32 ``[M, m]`` of the training data: what the level knows."""
        ...

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Imagine macro-actions float32 ``[B, S, K, m]`` from a context of level 1; tokens
        ``[B, S, K, N, D]``, h model steps apart."""
        ...


def levels_of(dynamics: Any) -> tuple[MacroDynamics, ...]:
    """The levels above level 1, from level 2 up.

    Raises :class:`PlanningError` for a dynamics that has none, or whose lengths do not divide each
    other.
    """
    levels: tuple[MacroDynamics, ...] = tuple(getattr(dynamics, "levels", ()))
    if not levels:
        raise PlanningError(
            f"{type(dynamics).__name__} has no levels above its actions: a hierarchical planner "
            "needs a model trained with some (tubelet train --preset hjepa), or another planner"
        )
    lengths = [1] + [level.length for level in levels]
    for below, length in pairwise(lengths):
        if length <= below or length % below:
            raise PlanningError(
                f"levels of {lengths[1:]} model steps: each must be a multiple of the one below"
            )
    return levels
