"""AdamW with the published parameter groups (or Muon for the matrices of blocks), and schedules as
pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedules. Defaults follow V-JEPA 2's pretraining."""

    kind: Literal["adamw", "muon"] = "adamw"
    """AdamW for everything, or Muon (momentum .95, orthogonalised) for the matrices inside
    transformer blocks and AdamW for the rest. Muon's steps are scaled to the size of AdamW's, so
    that one learning rate serves both."""
    lr: float = 5.25e-4
    """Peak learning rate."""
    start_lr: float = 1e-4
    """Learning rate at the first step."""
    final_lr: float = 1e-6
    """Learning rate where the schedule ends: a cosine's, a line's or a cool-down's."""
    warmup: float = 0.1
    """Share of the steps that ramps linearly from start_lr to lr."""
    warmup_steps: int = 0
    """The same as a number of steps; 0 goes by the share."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """What follows the warm-up."""
    cooldown: float = 0.0
    """Share of the steps, the last ones, that falls linearly from lr to final_lr: warm-up,
    constant, cool-down. For the constant schedule; 0 stays at lr."""
    stretch: float = 1.0
    """Schedules (rate, decay, the target's momentum) are laid out over this many times the steps,
    so that a run ends before they do: 1.25 in V-JEPA, 1 for all of a schedule. Warm-up is not
    stretched."""
    weight_decay: float = 0.04
    """Decay of matrices at the first step; biases and norms are never decayed."""
    final_weight_decay: float = 0.04
    """Decay at the last step, reached by a cosine."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decay rates."""
    clip: float = 0.0
    """Largest gradient norm; 0 leaves gradients alone."""

    def __post_init__(self) -> None:
        if self.kind not in ("adamw", "muon"):
            raise ConfigError(f'optim.kind = "{self.kind}": must be "adamw" or "muon"')
        if min(self.lr, self.start_lr, self.final_lr, self.clip, self.weight_decay) < 0:
            raise ConfigError("optim: learning rates, decay and clip must not be negative")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"optim.warmup = {self.warmup}: a share of the steps, in [0, 1]")
        if self.warmup_steps < 0:
            raise ConfigError(f"optim.warmup_steps = {self.warmup_steps}: must be at least 0")
        if not 0 <= self.cooldown <= 1:
            raise ConfigError(f"optim.cooldown = {self.cooldown}: a share of the steps, in [0, 1]")
        if self.cooldown and self.schedule != "constant":
            raise ConfigError(
                f'optim.cooldown = {self.cooldown} with schedule = "{self.schedule}", which falls '
                'by itself: set schedule = "constant" or leave the cool-down out'
            )
        if not self.stretch >= 1:
            raise ConfigError(f"optim.stretch = {self.stretch}: must be at least 1")


def warmup_steps(config: OptimConfig, steps: int) -> int:
    """How many of ``steps`` warm up."""
    return config.warmup_steps or round(config.warmup * steps)


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``steps``."""
    warm = warmup_steps(config, steps)
    if step < warm:
        return config.start_lr + (config.lr - config.start_lr) * step / warm
    total = config.stretch * steps
    if config.schedule == "constant":
        length = config.cooldown * total
        share = (step - (total - length)) / length if length else 0.0
        return config.lr + (config.final_lr - config.lr) * max(0.0, share)
    share = (step - warm) / max(1, total - warm)
    if config.schedule == "linear":
        return config.lr + (config.final_lr - config.lr) * share
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * share))


def weight_decay(config: OptimConfig, step: int, steps: int) -> float:
    """The weight decay of step ``step`` (from 0) of ``steps``: cosine from first to final."""
    share = step / max(1, config.stretch * steps)
    first, last = config.weight_decay, config.final_weight_decay
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


def ema_momentum(first: float, last: float, step: int, steps: int) -> float:
    """Momentum of the target encoder at step ``step`` (from 0) of ``steps``: linear."""
    return first + (last - first) * step / max(1, steps)


# --- the published schedules, as shares, so that they fit a run of any length -----------------


def vjepa2_schedule() -> OptimConfig:
    """V-JEPA 2's pretraining (arXiv 2506.09985): 12,000 of 240,000 steps up, then constant."""
    return OptimConfig(warmup=0.05, schedule="constant")


def vjepa2_cooldown_schedule() -> OptimConfig:
    """V-JEPA 2's cool-down, 12,000 steps from pretrained weights: linear towards 1e-6, laid out
    over 15,000 steps, so that it ends at 1.06e-4."""
    return OptimConfig(start_lr=5.25e-4, warmup=0.0, schedule="linear", stretch=1.25)


def vjepa2_wsd_schedule(cooldown: float = 0.05) -> OptimConfig:
    """Both in one run: warm-up, constant, and the last ``cooldown`` share down to 1e-6."""
    return OptimConfig(warmup=0.05, schedule="constant", cooldown=cooldown)


def vjepa_schedule() -> OptimConfig:
    """V-JEPA's (arXiv 2404.08471): 40 of 300 epochs up to 6.25e-4, a cosine to 1e-6 laid out over
    1.25 times the steps, decay .04 to .4, gradients clipped at 10 (published: after the warm-up
    only)."""
    return OptimConfig(
        lr=6.25e-4,
        start_lr=2e-4,
        warmup=40 / 300,
        final_weight_decay=0.4,
        stretch=1.25,
        clip=10.0,
    )


def ijepa_schedule() -> OptimConfig:
    """I-JEPA's (arXiv 2301.08243): 40 of 300 epochs up to 1e-3, a cosine to 1e-6, decay .04 to
    .4."""
    return OptimConfig(lr=1e-3, start_lr=2e-4, warmup=40 / 300, final_weight_decay=0.4)


def make_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of the parameters that require gradients: matrices decayed, the rest not.

    Modules with an attribute ``own_group`` (lr, betas, …) keep these, whatever the schedule says.
    """
    own = [
        (part, [p for p in part.parameters() if p.requires_grad])
        for part in module.modules()
        if hasattr(part, "own_group")
    ]
    apart = {id(p) for _, parameters in own for p in parameters}
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad and id(p) not in apart]
    muon = [p for n, p in named if config.kind == "muon" and p.ndim == 2 and "blocks." in n]
    taken = {id(p) for p in muon}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "decayed": True},
        {"params": [p for p in rest if p.ndim <= 1], "decayed": False, "weight_decay": 0.0},
    ]
    groups += [
        {"params": parameters, "decayed": False, "scheduled": False, **part.own_group}  # pyright: ignore
        for part, parameters in own
    ]
    adamw = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )
    if not muon:
        return adamw
    return Both(
        torch.optim.Muon(
            [{"params": muon, "decayed": True}],
            lr=config.lr,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        adamw,
    )


class Both(torch.optim.Optimizer):
    """Two optimisers of different parameters that look like one: groups and state are shared."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer):
        super().__init__([*first.param_groups, *second.param_groups], {})
        self._parts = (first, second)
        for part in self._parts:
            part.state = self.state
        self.param_groups = [*first.param_groups, *second.param_groups]

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of each."""
        for part in self._parts:
            part.step()


def set_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, steps: int
) -> float:
    """Put the learning rate and decay of ``step`` into the optimiser; returns the rate."""
    lr = learning_rate(config, step, steps)
    for group in optimizer.param_groups:
        if not group.get("scheduled", True):
            continue
        group["lr"] = lr
        if group["decayed"]:
            group["weight_decay"] = weight_decay(config, step, steps)
    return lr


@torch.no_grad()
def ema_update(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """``target <- momentum * target + (1 - momentum) * source`` over parameters, in place.

    Parameters split over processes must be split alike: each process moves what it holds.
    """
    pairs = zip(target.parameters(), source.parameters(), strict=True)
    targets, sources = zip(*pairs, strict=True)
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        [_held(t) for t in targets], [_held(s) for s in sources], 1.0 - momentum
    )


def _held(parameter: Tensor) -> Tensor:
    """The rows of ``parameter`` that this process holds: all of them, unless it is a DTensor."""
    local = getattr(parameter, "to_local", None)
    return parameter if local is None else local()
