"""VICReg: keep channels spread and uncorrelated, and views alike (arXiv 2105.04906).

The statistics are of the whole batch: with ranks, sums and second moments are added up over them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import ConfigError
from .distributed import mean_over_samples, samples_over_ranks, sum_over_ranks
from .latents import Latents, Source, given, samples, source_field
from .regress import mean
from .term import Sizes, Term, TermConfig, refuse_single

EPS = 1e-4
"""Inside the square root of the deviation, as published."""

Norm = Literal["dim", "pairs"]


@dataclass(frozen=True, kw_only=True)
class VicregConfig(TermConfig):
    """Variance, covariance and invariance, over the batch and over time.

    Every part is a mean over groups (views, time steps, …). VICReg's own loss is for two views and
    adds their covariance terms up: ``cov = 2`` here is its 1.
    """

    on: Source = "views"
    """Whose statistics; see SigregConfig."""
    flat: bool = False
    """All groups together as one sample."""
    std: float = 25.0
    """Weight of the mean over channels of max(0, gamma - sqrt(variance + 1e-4))."""
    cov: float = 2.0
    """Weight of the squared off-diagonal covariances."""
    inv: float = 25.0
    """Weight of the mean squared difference of pairs of views (or means)."""
    std_t: float = 0.0
    """As std, over the steps of each sequence (PLDM)."""
    cov_t: float = 0.0
    """As cov, over the steps of each sequence."""
    gamma: float = 1.0
    """Deviation aimed at."""
    cov_norm: Norm = "dim"
    """Off-diagonal squares: their sum over D ("dim", VICReg) or their mean over the D (D - 1)
    entries ("pairs", eb_jepa)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("std", "cov", "inv", "std_t", "cov_t", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 or more, and finite")
        if self.inv > 0 and self.on not in ("views", "means"):
            raise ConfigError(f'inv = {self.inv} compares views: it needs on = "views" or "means"')
        if (self.std_t > 0 or self.cov_t > 0) and self.on != "sequence":
            raise ConfigError('std_t and cov_t are over time: they need on = "sequence"')


def hinge_std(x: Tensor, *, gamma: float = 1.0, count: int | None = None) -> Tensor:
    """Mean over groups and channels of ``max(0, gamma - sqrt(var + 1e-4))`` of ``x [G, N, D]``.

    The variance is unbiased. A constant input gives ``gamma - 0.01``. ``count``: samples over all
    ranks, if ``x`` is a rank's part of the batch.
    """
    _, variance = _centred_variance(x, count)
    return (gamma - (variance + EPS).sqrt()).relu().mean()


def off_diagonal_covariance(x: Tensor, norm: Norm, *, count: int | None = None) -> Tensor:
    """Mean over groups of the squared off-diagonal entries of the covariance of ``x [G, N, D]``.

    Summed over D ("dim") or averaged over D (D - 1) ("pairs"): for a Gaussian of N samples the
    latter is 1 / (N - 1) on average. 0 for one channel.
    """
    width = x.shape[-1]
    centred, _ = _centred_variance(x, count)
    local = centred.mT @ centred
    total = local if count is None else sum_over_ranks(local)
    covariance = total / ((count or x.shape[-2]) - 1)
    diagonal = torch.eye(width, dtype=torch.bool, device=x.device)
    squares = covariance.masked_fill(diagonal, 0).square().sum(dim=(-2, -1)).mean()
    return squares / (width if norm == "dim" else max(width * (width - 1), 1))


def invariance(x: Tensor) -> Tensor:
    """Mean over pairs of groups of the mean squared difference, of ``x [G, N, D]``; G >= 2."""
    if len(x) < 2:
        raise ConfigError(f"vicreg: invariance between {len(x)} group of samples; it needs two")
    pairs = itertools.combinations(range(len(x)), 2)
    return mean([(x[i] - x[j]).square().mean() for i, j in pairs])


class Vicreg(Term):
    """The weighted sum of VICReg's parts; logs each part of non-zero weight, unweighted."""

    def __init__(self, config: VicregConfig, sizes: Sizes):
        super().__init__()
        self.config = config
        self.needs = frozenset({source_field(config.on)})

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        c = self.config
        x = samples(latents, c.on, flat=False)
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            groups = x.reshape(1, -1, x.shape[-1]) if c.flat else x
            parts: dict[str, Tensor] = {}
            if c.std > 0 or c.cov > 0:
                count = samples_over_ranks(groups)
                refuse_single(count, "VICReg")
                if c.std > 0:
                    parts["std"] = hinge_std(groups, gamma=c.gamma, count=count)
                if c.cov > 0:
                    parts["cov"] = off_diagonal_covariance(groups, c.cov_norm, count=count)
            if c.inv > 0:
                parts["inv"] = invariance(x)
            if c.std_t > 0 or c.cov_t > 0:
                parts |= self._over_time(given(latents.sequence))
            total = x.new_zeros(())
            for name, value in parts.items():
                total = total + getattr(c, name) * value
        return total, {name: value.detach() for name, value in parts.items()}

    def _over_time(self, sequence: Tensor) -> dict[str, Tensor]:
        """Statistics over T, a group per window (and token): no rank needs another's samples."""
        c, z = self.config, sequence
        z = z if z.dtype == torch.float64 else z.float()
        x = z.movedim(1, -2).flatten(0, -3)  # [B (* n), T, D]
        refuse_single(x.shape[-2], "VICReg over time")
        parts = {}
        if c.std_t > 0:
            parts["std_t"] = hinge_std(x, gamma=c.gamma)
        if c.cov_t > 0:
            parts["cov_t"] = off_diagonal_covariance(x, c.cov_norm)
        return parts


def _centred_variance(x: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """``x [G, N, D]`` less its mean, and the unbiased variance ``[G, D]``."""
    if count is None:
        return x - x.mean(dim=-2, keepdim=True), x.var(dim=-2)
    centred = x - mean_over_samples(x, count).unsqueeze(-2)
    return centred, sum_over_ranks(centred.square().sum(dim=-2)) / (count - 1)
