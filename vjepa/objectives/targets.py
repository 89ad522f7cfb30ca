"""Where prediction targets come from: a moving average, the encoder itself, or a frozen teacher."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from ..optim import ema_momentum, ema_update


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """The target provider and the normalisation of what it returns."""

    kind: Literal["ema", "shared", "frozen"] = "ema"
    """A moving average of the encoder, the encoder itself, or a teacher that never changes."""
    momentum: tuple[float, float] = (0.99925, 0.99925)
    """Of the moving average, at the first and last step; linear between."""
    stop_gradient: bool = False
    """Shared only: targets carry no gradient."""
    norm: Literal["none", "layer"] = "none"
    """Layer norm over channels, without affine."""
    levels: int = 1
    """Channels are this many concatenated levels (V-JEPA 2.1: 4), each normalised by itself."""

    def __post_init__(self) -> None:
        if not all(0 <= m <= 1 for m in self.momentum):
            raise ConfigError(f"momentum = {self.momentum}: momenta lie in [0, 1]")
        if self.levels < 1:
            raise ConfigError(f"levels = {self.levels}: must be at least 1")
        if self.stop_gradient and self.kind != "shared":
            raise ConfigError(
                f'stop_gradient = true with kind = "{self.kind}": only a shared encoder could pass '
                "a gradient; leave it false"
            )


def normalise(tokens: Tensor, config: TargetConfig) -> Tensor:
    """``tokens [..., D]`` normalised as ``config`` says; D must be a multiple of its levels."""
    if config.norm == "none":
        return tokens
    if tokens.shape[-1] % config.levels:
        raise ConfigError(f"levels = {config.levels} does not divide {tokens.shape[-1]} channels")
    if tokens.dtype in (torch.bfloat16, torch.float16):
        tokens = tokens.float()
    split = tokens.unflatten(-1, (config.levels, -1))
    return F.layer_norm(split, split.shape[-1:]).flatten(-2)


class Target(nn.Module):
    """Makes targets with ``config``'s encoder. Part of the trained module, so that it is saved.

    Attributes:
        teacher: the moving average or frozen encoder (no gradients); None when shared.
    """

    def __init__(self, config: TargetConfig, encoder: nn.Module, teacher: nn.Module | None = None):
        """
        Args:
            encoder: the trained encoder; the moving average starts as its copy.
            teacher: the frozen teacher, taken as it is.

        Raises:
            ConfigError: a frozen provider without a teacher, or a teacher without a use.
        """
        super().__init__()
        self.config = config
        if (config.kind == "frozen") != (teacher is not None):
            raise ConfigError(
                f'target kind = "{config.kind}" '
                + ("needs a teacher" if teacher is None else "takes no teacher")
            )
        source = copy.deepcopy(encoder) if config.kind == "ema" else teacher
        self.teacher = None if source is None else source.requires_grad_(False)
        self.train(self.training)

    def forward(self, encoder: nn.Module, *inputs: Any, **options: Any) -> Tensor:
        """Normalised targets ``[..., D]`` of ``inputs``; without gradient unless shared."""
        if self.teacher is not None:
            with torch.no_grad():
                return normalise(self.teacher(*inputs, **options), self.config)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.stop_gradient):
            return normalise(encoder(*inputs, **options), self.config)

    def update(self, encoder: nn.Module, step: int, steps: int) -> None:
        """Call after the optimiser's step: moves the average (parameters; buffers are copied)."""
        if self.config.kind == "ema" and self.teacher is not None:
            ema_update(self.teacher, encoder, ema_momentum(*self.config.momentum, step, steps))
            pairs = zip(self.teacher.buffers(), encoder.buffers(), strict=True)
            for mine, theirs in pairs:
                mine.copy_(theirs)

    def train(self, mode: bool = True) -> Target:
        """A frozen teacher stays in evaluation mode: its running statistics must not move."""
        super().train(mode)
        if self.config.kind == "frozen" and self.teacher is not None:
            self.teacher.eval()
        return self
