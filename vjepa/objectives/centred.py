"""Cross-entropy with centred, sharpened targets: channels as classes (DINO, S-JEPA)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import ConfigError
from .distributed import sum_over_ranks, world_size
from .latents import Latents, check_pairs, given
from .regress import mean
from .term import Sizes, Term, TermConfig


@dataclass(frozen=True, kw_only=True)
class CentredConfig(TermConfig):
    """Temperatures and the moving centre. The defaults are DINO's: S-JEPA's were not available."""

    student_temperature: float = 0.1
    """Predictions are divided by it."""
    teacher_temperature: float = 0.04
    """Centred targets are divided by it; lower is sharper."""
    momentum: float = 0.9
    """Of the moving average of the mean target that is the centre."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("student_temperature", "teacher_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"centred.{name} = {getattr(self, name)}: must be positive and finite"
                )
        if not 0 <= self.momentum <= 1:
            raise ConfigError(f"centred.momentum = {self.momentum}: must lie in [0, 1]")


def centred_cross_entropy(
    pred: Tensor, target: Tensor, centre: Tensor, config: CentredConfig
) -> tuple[Tensor, Tensor]:
    """Mean over vectors of ``H(softmax((target - centre) / t_t), softmax(pred / t_s))``.

    Args:
        pred, target: ``[..., D]``. centre: ``[D]``.

    Returns:
        the cross-entropy and, detached, the mean entropy of the targets' distributions, which is
        the least that it can be (both scalars, in nats).
    """
    p = F.softmax((target - centre) / config.teacher_temperature, dim=-1)
    log_q = F.log_softmax(pred / config.student_temperature, dim=-1)
    entropy = torch.special.entr(p.detach()).sum(dim=-1).mean()
    return -(p * log_q).sum(dim=-1).mean(), entropy


class Centred(Term):
    """Mean over groups of :func:`centred_cross_entropy` of ``pred`` and ``target``.

    S-JEPA (ECCV 2024) after DINO, arXiv 2104.14294. The centre moves after the loss, in training
    only, by the mean over all target vectors of the batch (of all processes). Logs ``entropy`` of
    the targets: 0 where they are one-hot, log D where sharpening does nothing.

    Raises ConfigError when built without the width of the latents.
    """

    needs = frozenset({"pred", "target"})
    centre: Tensor

    def __init__(self, config: CentredConfig, sizes: Sizes):
        super().__init__()
        if sizes.latent_dim is None:
            raise ConfigError("centred needs the width of the latents for its centre (latent_dim)")
        self.config = config
        self.register_buffer("centre", torch.zeros(sizes.latent_dim))

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        pred, target = given(latents.pred), given(latents.target)
        check_pairs(pred, target, "centred")
        centre = self.centre.clone()  # it moves below, before the backward pass
        pairs = [
            centred_cross_entropy(p, h, centre, self.config)
            for p, h in zip(pred, target, strict=True)
        ]
        if self.training:
            self._move(target)
        return mean([loss for loss, _ in pairs]), {"entropy": mean([e for _, e in pairs])}

    @torch.no_grad()
    def _move(self, target: tuple[Tensor, ...]) -> None:
        flat = torch.cat([x.reshape(-1, x.shape[-1]) for x in target]).to(self.centre.dtype)
        found = sum_over_ranks(flat.mean(dim=0)) / world_size()
        self.centre.lerp_(found, 1 - self.config.momentum)
