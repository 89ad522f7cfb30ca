"""AdamW with the published parameter groups, and schedules as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedules. Defaults follow V-JEPA 2's pretraining."""

    lr: float = 5.25e-4
    """Peak learning rate."""
    start_lr: float = 1e-4
    """Learning rate at the first step."""
    final_lr: float = 1e-6
    """Learning rate at the last step (cosine and linear schedules)."""
    warmup: float = 0.1
    """Share of the steps that ramps linearly from start_lr to lr."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """What follows the warm-up."""
    weight_decay: float = 0.04
    """Decay of matrices at the first step; biases and norms are never decayed."""
    final_weight_decay: float = 0.04
    """Decay at the last step, reached by a cosine."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decay rates."""
    clip: float = 0.0
    """Largest gradient norm; 0 leaves gradients alone."""

    def __post_init__(self) -> None:
        if min(self.lr, self.start_lr, self.final_lr, self.clip, self.weight_decay) < 0:
            raise ConfigError("optim: learning rates, decay and clip must not be negative")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"optim.warmup = {self.warmup}: a share of the steps, in [0, 1]")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``steps``."""
    warm = round(config.warmup * steps)
    if step < warm:
        return config.start_lr + (config.lr - config.start_lr) * step / warm
    if config.schedule == "constant":
        return config.lr
    share = (step - warm) / max(1, steps - warm)
    if config.schedule == "linear":
        return config.lr + (config.final_lr - config.lr) * share
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * share))


def weight_decay(config: OptimConfig, step: int, steps: int) -> float:
    """The weight decay of step ``step`` (from 0) of ``steps``: cosine from first to final."""
    share = step / max(1, steps)
    first, last = config.weight_decay, config.final_weight_decay
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


def ema_momentum(first: float, last: float, step: int, steps: int) -> float:
    """Momentum of the target encoder at step ``step`` (from 0) of ``steps``: linear."""
    return first + (last - first) * step / max(1, steps)


def make_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients: matrices decayed, the rest not."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "decayed": True},
        {"params": [p for p in trainable if p.ndim <= 1], "decayed": False, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int
) -> float:
    """Put the learning rate and decay of ``step`` into the optimiser; returns the rate."""
    lr = learning_rate(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["decayed"]:
            group["weight_decay"] = weight_decay(config, step, steps)
    return lr


@torch.no_grad()
def ema_update(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """``target <- momentum * target + (1 - momentum) * source`` over parameters, in place."""
    pairs = zip(target.parameters(), source.parameters(), strict=True)
    targets, sources = zip(*pairs, strict=True)
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        list(targets), list(sources), 1.0 - momentum
    )
