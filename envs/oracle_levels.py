"""Slower clocks over the simulator: what hierarchical planning is worth where no level errs.

A macro-action holds an action for a part of the level's step and then the next one: ``knots`` of
them. The level simulates all of it, which is exact, and counts as so many model calls, unless it
is to stand for a learned one, of which a prediction is one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.latent import Latent
from .oracle import SimulatorDynamics


class SimulatorLevel:
    """``planning.MacroDynamics`` over the true simulator.

    Args:
        dynamics: level 1. length: its model steps per step here. knots: held actions per step,
            which divide the length. price: model calls that a step counts as; None: the length.

    Raises :class:`ConfigError` for knots that do not divide the length.
    """

    def __init__(
        self, dynamics: SimulatorDynamics, length: int, knots: int = 1, price: int | None = None
    ):
        if knots < 1 or length % knots:
            raise ConfigError(
                f"knots = {knots}: held actions per step of {length} model steps; must divide it"
            )
        self.dynamics, self.length, self.knots = dynamics, length, knots
        self.price = length if price is None else price
        self.width = dynamics.action_dim // dynamics.action_block
        self.action_dim = knots * self.width

    def macros(self) -> Tensor:
        """The corners ``[2, m]`` of all that can be done: a simulator has no data to stay near."""
        return torch.tensor([[-1.0], [1.0]]).expand(2, self.action_dim).clone()

    def expand(self, macros: Tensor) -> Tensor:
        """Actions ``[..., K * h, A]`` of level 1 that macro-actions ``[..., K, m]`` stand for."""
        held = macros.unflatten(-1, (self.knots, self.width)).flatten(-3, -2)
        block = held.repeat(*[1] * (held.ndim - 1), self.dynamics.action_block)
        return block.repeat_interleave(self.length // self.knots, dim=-2)

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Simulate macro-actions ``[B, S, K, m]``: features ``[B, S, K, 1, F]``, h model steps
        apart."""
        found = self.dynamics.rollout(context, self.expand(actions))
        return found.map(lambda x: x[:, :, self.length - 1 :: self.length])


def add_levels(
    dynamics: SimulatorDynamics,
    lengths: Sequence[int],
    *,
    knots: int = 1,
    price: int | None = None,
) -> SimulatorDynamics:
    """Give ``dynamics`` levels of so many of its model steps, from level 2 up; returns it."""
    dynamics.levels = tuple(SimulatorLevel(dynamics, length, knots, price) for length in lengths)
    return dynamics
