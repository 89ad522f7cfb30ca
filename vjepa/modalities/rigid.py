"""Random rigid motions, with mirror images: other views of the same skeleton."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RigidConfig:
    """Ranges of a random view."""

    degrees: tuple[float, float, float] = (15.0, 15.0, 45.0)
    """Largest angle about the first, second and third axis (up is the third)."""
    shift: float = 0.1
    """Largest shift along each axis, in the data's unit."""
    flip: float = 0.5
    """Probability of a mirror image (the first axis changes sign)."""

    def __post_init__(self) -> None:
        if min(self.degrees) < 0 or max(self.degrees) > 180:
            raise ConfigError(f"rigid.degrees = {self.degrees}: angles lie in [0, 180]")
        if not self.shift >= 0:
            raise ConfigError(f"rigid.shift = {self.shift}: must be 0 or more")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"rigid.flip = {self.flip}: a probability, in [0, 1]")


def random_rigid(config: RigidConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """An orthogonal matrix float32 ``[3, 3]`` and a shift ``[3]``: ``x -> x @ matrix.T + shift``.

    Angles and shifts are uniform within their ranges; the flip comes before the turns about the
    first, second and third axis, in this order.
    """
    u = torch.rand(7, generator=generator)
    angles = torch.deg2rad((2 * u[:3] - 1) * torch.tensor(config.degrees))
    shift = (2 * u[3:6] - 1) * config.shift
    sign = -1.0 if u[6].item() < config.flip else 1.0
    matrix = torch.diag(torch.tensor([sign, 1.0, 1.0]))
    for axis, angle in enumerate(angles):
        matrix = turn(axis, angle) @ matrix
    return matrix, shift


def turn(axis: int, angle: Tensor) -> Tensor:
    """The right-handed rotation ``[3, 3]`` about coordinate axis 0, 1 or 2."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out = torch.eye(3)
    out[a, a] = out[b, b] = angle.cos()
    out[a, b], out[b, a] = -angle.sin(), angle.sin()
    return out
