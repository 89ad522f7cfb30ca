"""Configs of the action-conditioned predictor: ours, and V-JEPA 2-AC's.

V-JEPA 2-AC (arXiv 2506.09985; :func:`vjepa2_ac`) conditions by extra tokens, on the robot's state
too; DINO-WM (2411.04983) by concatenation to every token's features; AdaLN (DiT, 2212.09748) is the
better choice on average in the study of 2512.24497.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..core.errors import ConfigError
from .positions import PositionConfig, check_positions


@dataclass(frozen=True, kw_only=True)
class ActionPredictorConfig:
    """Architecture of the action-conditioned predictor."""

    width: int = 256
    """Width of the transformer."""
    depth: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the width."""
    conditioning: Literal["adaln", "tokens", "concat"] = "adaln"
    """How actions enter: modulation of every block, extra tokens in every step, or concatenated to
    the features of every token."""
    action_encoder: Literal["mlp", "linear"] = "mlp"
    """What makes an action a condition: two layers, or one (V-JEPA 2-AC)."""
    state_dim: int = 0
    """Width P of the proprioceptive state that conditions too; 0: none (V-JEPA 2-AC: 7, a pose)."""
    extrinsics_dim: int = 0
    """Width E of the camera extrinsics that the weights have a layer for (V-JEPA 2-AC: 6)."""
    use_extrinsics: bool = False
    """Condition on the extrinsics (the released V-JEPA 2-AC does not)."""
    position: PositionConfig = field(default_factory=PositionConfig)
    """Rotary positions (V-JEPA 2-AC: pairs = "tiled"). Extra tokens turn with time alone."""
    native: int = 0
    """Scale rows by native / rows and columns by native / columns, so that every grid spans the
    same positions (V-JEPA 2-AC: 16). 0 keeps token indices, or what ``position.span`` says."""
    place: bool = True
    """Add a learned vector for each place in the grid."""
    residual: bool = True
    """Predict the change of the latent rather than the latent."""
    normalise: bool = False
    """Layer-norm predictions, without affine: for latents that are layer-normed (V-JEPA 2-AC)."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            near = max(self.heads, 1) * max(1, round(self.width / max(self.heads, 1)))
            raise ConfigError(
                f"predictor.width = {self.width}, depth = {self.depth}, heads = {self.heads}: all "
                f"must be positive and heads divide the width (nearest width: {near})"
            )
        for name in ("state_dim", "extrinsics_dim", "native"):
            if getattr(self, name) < 0:
                raise ConfigError(f"predictor.{name} = {getattr(self, name)}: 0 (none) or more")
        if self.use_extrinsics and not self.extrinsics_dim:
            raise ConfigError("predictor.use_extrinsics needs extrinsics_dim, which is 0")
        if self.position.kind != "rope":
            raise ConfigError(
                f'predictor.position.kind = "{self.position.kind}": rollouts may be of any length, '
                'which only "rope" serves'
            )
        if self.native and self.position.span:
            raise ConfigError(
                f"predictor.native = {self.native} and position.span = {self.position.span} both "
                "scale rows and columns: set one of them to 0"
            )
        check_positions("predictor", self.position, self.width, self.heads)

    def scale(self, grid: tuple[int, int]) -> tuple[float, float]:
        """What the rows and columns of a (height, width) grid are multiplied by."""
        if self.native:
            return self.native / grid[0], self.native / grid[1]
        rows, columns = (
            (self.position.span - 1) / max(1, n - 1) if self.position.span else 1.0 for n in grid
        )
        return rows, columns

    @property
    def extra_tokens(self) -> int:
        """Conditioning tokens that precede a step's own."""
        if self.conditioning != "tokens":
            return 0
        return 1 + (self.state_dim > 0) + self.use_extrinsics


def vjepa2_ac() -> ActionPredictorConfig:
    """V-JEPA 2-AC's predictor: 305.2 M parameters for latents of 1408 and actions of 7.

    Per step, a token of the action, one of the pose, and the frame's layer-normed tokens.
    """
    return ActionPredictorConfig(
        width=1024,
        depth=24,
        heads=16,
        conditioning="tokens",
        action_encoder="linear",
        state_dim=7,
        extrinsics_dim=6,
        position=PositionConfig(pairs="tiled"),
        native=16,
        place=False,
        residual=False,
        normalise=True,
    )
