"""What a scene of moving shapes may have besides: a ground of some colour, and a patch of noise.

The colour says nothing of what moves, and the patch cannot be predicted by anyone: it shows fresh
noise around a fresh level in every frame. Drawn from streams of their own, so that the scenes are
those of a corpus without them.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from ...core.errors import ConfigError
from ...core.rng import numpy_generator
from .moving_shapes import Scene, shapes_cover

LEVELS = (50.0, 205.0)
"""Range of the noise's level, of 255."""
GRAIN = 35.0
"""Deviation of single pixels around the level."""


@dataclass(frozen=True, kw_only=True)
class Nuisances:
    """How strong they are; nothing by default."""

    tint: float = 0.0
    """How far the ground's colour departs from grey, of 255; its hue is drawn for each video."""
    noise: float = 0.0
    """Side of the noisy patch in the lower right corner, in frame heights."""

    def __post_init__(self) -> None:
        if not 0 <= self.tint <= 100:
            raise ConfigError(f"nuisances.tint = {self.tint}: must lie in [0, 100]")
        if not 0 <= self.noise <= 0.5:
            raise ConfigError(f"nuisances.noise = {self.noise}: must lie in [0, 0.5]")

    @property
    def on(self) -> bool:
        """Whether there are any."""
        return self.tint > 0 or self.noise > 0


def hue(seed: int, number: int) -> float:
    """The hue of a video's ground, uniform in [0, 1)."""
    return float(numpy_generator(seed, "moving-shapes", "hue", number).uniform())


def noise_level(seed: int, number: int, time: int) -> float:
    """The level of the noise in one frame, uniform in ``LEVELS``."""
    return float(_noise_stream(seed, number, time).uniform(*LEVELS))


def disturbed(
    frame: np.ndarray, scene: Scene, nuisances: Nuisances, *, seed: int, number: int, time: int
) -> np.ndarray:
    """``frame`` of ``scene`` at ``time`` with the nuisances of video ``number``: uint8 ``[H, W,
    3]``. Shapes keep their colours."""
    image = frame.astype(np.float64)
    if nuisances.tint:
        colour = np.array(colorsys.hsv_to_rgb(hue(seed, number), 1.0, 1.0))
        offset = nuisances.tint * (colour - colour.mean()) / np.linalg.norm(colour - colour.mean())
        image += (1 - shapes_cover(scene, time))[..., None] * offset
    if nuisances.noise:
        side = round(nuisances.noise * scene.height)
        rng = _noise_stream(seed, number, time)
        level = rng.uniform(*LEVELS)
        image[-side:, -side:] = level + GRAIN * rng.standard_normal((side, side, 1))
    return np.rint(image.clip(0, 255)).astype(np.uint8)


def nuisance_row(nuisances: Nuisances, *, seed: int, number: int, frames: int) -> dict[str, float]:
    """What a corpus' table says of them: ``tint_cos``, ``tint_sin`` of the hue's angle, and
    ``noise_mean``, the mean level over all frames."""
    row = {}
    if nuisances.tint:
        angle = 2 * math.pi * hue(seed, number)
        row |= {"tint_cos": math.cos(angle), "tint_sin": math.sin(angle)}
    if nuisances.noise:
        row["noise_mean"] = float(np.mean([noise_level(seed, number, t) for t in range(frames)]))
    return row


def _noise_stream(seed: int, number: int, time: int) -> np.random.Generator:
    return numpy_generator(seed, "moving-shapes", "noise", number, time)
