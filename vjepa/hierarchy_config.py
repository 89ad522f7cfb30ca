"""The config of a hierarchy: slower clocks over the latents of one world model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from typing import Literal

from ..core.errors import ConfigError
from .action_predictor import ActionPredictorConfig


@dataclass(frozen=True, kw_only=True)
class HierarchyConfig:
    """Levels above the world model's own predictor, which is level 1.

    Each has a slower clock, an encoder of chunks of actions into macro-actions, and a predictor of
    the same latents under them (H-JEPA; HWM, arXiv 2604.03208).
    """

    strides: tuple[int, ...] = ()
    """Steps of the level below that one step of each higher level takes, from level 2 up: 4 3 adds
    levels of 4 and of 12 model steps. Empty: no levels."""
    first: Literal["frozen", "joint"] = "frozen"
    """Level 1 is a trained world model that stays as it is, or is trained with the others."""
    macro_dim: int = 4
    """Width of a macro-action; low, so that a search can cover it (4 to 8)."""
    encoder: Literal["mlp", "transformer"] = "mlp"
    """What makes a chunk of actions a macro-action."""
    encoder_width: int = 64
    """Width of that encoder; the transformer has heads of width 16."""
    encoder_depth: int = 2
    """Its hidden layers, or blocks."""
    predictor: ActionPredictorConfig = field(
        default_factory=lambda: ActionPredictorConfig(width=160, depth=2, heads=4)
    )
    """Predictor of each higher level."""
    loss: Literal["l1", "l2"] = "l1"
    """Mean absolute or squared error."""
    teacher_weight: float = 1.0
    """Weight of each level's one-step loss."""
    rollout_weight: float = 1.0
    """Weight of each level's multi-step loss."""
    buffer: int = 1024
    """Training chunks kept with the model: where a search may go."""

    def __post_init__(self) -> None:
        for stride in self.strides:
            if stride < 2:
                raise ConfigError(
                    f"hierarchy.strides = {self.strides}: each level must be slower than the one "
                    "below, by 2 or more"
                )
        for name in ("macro_dim", "encoder_width", "encoder_depth", "buffer"):
            if getattr(self, name) < 1:
                raise ConfigError(f"hierarchy.{name} = {getattr(self, name)}: must be at least 1")
        if self.encoder == "transformer" and self.encoder_width % 16:
            raise ConfigError(
                f"hierarchy.encoder_width = {self.encoder_width}: a multiple of 16 for the "
                f"transformer (nearest: {max(16, 16 * round(self.encoder_width / 16))})"
            )
        for name in ("teacher_weight", "rollout_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"hierarchy.{name} = {getattr(self, name)}: must be 0 or more, and finite"
                )
        if self.teacher_weight == self.rollout_weight == 0:
            raise ConfigError(
                "hierarchy.teacher_weight = hierarchy.rollout_weight = 0: nothing would train the "
                "levels; give one of them a positive weight"
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Model steps that one step of each higher level takes: 4, 12 for strides 4, 3."""
        return tuple(accumulate(self.strides, mul))

    def check_horizon(self, horizon: int) -> None:
        """Raise :class:`ConfigError` unless windows of ``horizon`` model steps are whole steps of
        every level."""
        for level, length in enumerate(self.lengths, start=2):
            if horizon % length:
                near = length * max(1, round(horizon / length))
                raise ConfigError(
                    f"horizon = {horizon}: a step of level {level} takes {length} model steps "
                    f"(hierarchy.strides = {self.strides}), which must divide it (nearest: {near})"
                )
