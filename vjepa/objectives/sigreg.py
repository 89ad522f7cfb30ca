"""SIGReg: sliced Epps-Pulley regularisation towards an isotropic Gaussian (arXiv 2511.08544).

For samples x of one dimension, with the empirical characteristic function
``ecf(t) = mean exp(i t x)`` and ``phi(t) = exp(-t^2 / 2)``,

    T = N * integral |ecf(t) - phi(t)|^2 exp(-t^2 / 2) dt

and SIGReg is the mean of T over random unit directions. Nothing is standardised: mean 0 and
variance 1 are part of what is tested, and what keeps an encoder from collapsing.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ...core.rng import torch_generator
from .distributed import mean_over_samples, samples_over_ranks
from .latents import Latents, Source, samples, source_field
from .term import Sizes, Term, TermConfig, refuse_single


@dataclass(frozen=True, kw_only=True)
class SigregConfig(TermConfig):
    """SIGReg on the encoder's embeddings."""

    on: Source = "views"
    """What is tested: each view, each time step of the sequence, each token position, or the mean
    prediction of each mask kind; always across the batch."""
    flat: bool = False
    """Test all views (steps, tokens) together as one sample: N is larger, and correlated."""
    slices: int = 256
    """Random directions, fresh at every step."""
    nodes: int = 17
    """Odd number of quadrature nodes on [0, t_max]; 9 nodes on [0, 5] are the paper's 17 on
    [-5, 5]."""
    t_max: float = 3.0
    """End of the integral."""
    scale: Literal["N", "1"] = "N"
    """"N": the statistic times the (global) number of samples, as published, whose weight then acts
    in proportion to the batch; "1": without that factor, as in eb_jepa."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slices < 1:
            raise ConfigError(f"slices = {self.slices}: must be at least 1")
        _check_grid(self.nodes, self.t_max)


class Sigreg(Term):
    """The SIGReg term. Directions come from the stream (seed, step), so all ranks agree on them."""

    def __init__(self, config: SigregConfig, sizes: Sizes):
        super().__init__()
        self.config, self.seed = config, sizes.seed
        self.needs = frozenset({source_field(config.on)})

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        c = self.config
        parts = sigreg_parts(
            samples(latents, c.on, flat=c.flat),
            slices=c.slices,
            nodes=c.nodes,
            t_max=c.t_max,
            generator=torch_generator(self.seed, "sigreg", latents.step),
        )
        loss = parts.statistic if c.scale == "N" else parts.statistic / parts.count
        return loss, {"excess": parts.excess}


class SigregParts(NamedTuple):
    """SIGReg and what one wants to know beside it."""

    statistic: Tensor
    """Times N; about 1.05 for a Gaussian, whatever N."""
    excess: Tensor
    """Debiased, without N, detached: 0 on average for a Gaussian, the gap to it otherwise."""
    count: int
    """N, over all ranks."""


def sigreg(
    x: Tensor,
    *,
    generator: torch.Generator,
    slices: int = 256,
    nodes: int = 17,
    t_max: float = 3.0,
) -> Tensor:
    """Mean over random directions of the Epps-Pulley statistic against N(0, 1), times N.

    The integral over the real line is cut to ``[-t_max, t_max]`` and done by the trapezoid rule on
    the half line. A standard normal sample gives 1.0525 on average whatever N (17 nodes, t_max 3);
    full collapse at zero gives 0.40205 N, and has no gradient.

    Args:
        x: ``[..., N, D]``: N samples; leading axes are averaged over (time steps, say). With
            ranks, each gives its part of the samples and gets the statistic of all.
        generator: a CPU generator that draws the directions; in the same state on all ranks.
        slices: number of random unit directions. nodes: odd. t_max: positive.

    Returns:
        scalar, float32 (float64 for float64 samples).

    Raises:
        ConfigError: one sample, or an impossible grid.

    Warns:
        RuntimeWarning: a projection beyond half the period of the discretised statistic.
    """
    return sigreg_parts(x, generator=generator, slices=slices, nodes=nodes, t_max=t_max).statistic


def sigreg_parts(
    x: Tensor, *, generator: torch.Generator, slices: int, nodes: int, t_max: float
) -> SigregParts:
    """:func:`sigreg` with the debiased excess and the number of samples."""
    count = samples_over_ranks(x)
    refuse_single(count, "SIGReg")
    with torch.autocast(x.device.type, enabled=False):  # low precision would drown the statistic
        x = x if x.dtype == torch.float64 else x.float()
        directions = torch.randn(x.shape[-1], slices, generator=generator).to(x)
        projected = x @ (directions / directions.norm(dim=0))  # [..., N, M]
        _warn_if_aliased(projected, nodes, t_max)
        statistic, excess = _epps_pulley(projected, count, nodes, t_max)
    return SigregParts(count * statistic.mean(), excess.detach().mean(), count)


def epps_pulley(x: Tensor, *, nodes: int = 17, t_max: float = 3.0) -> Tensor:
    """The Epps-Pulley statistic T (times N) of samples ``x [..., N]`` against N(0, 1): ``[...]``.

    By the same quadrature as :func:`sigreg`; its period in x is 2 pi (nodes - 1) / t_max.
    """
    statistic, _ = _epps_pulley(x.unsqueeze(-1), x.shape[-1], nodes, t_max)
    return x.shape[-1] * statistic.squeeze(-1)


def epps_pulley_sample(x: Tensor) -> Tensor:
    """T (times N) of samples ``x [..., N]`` over the full line, in closed form (float64).

    ``T / N = sqrt(2 pi) mean_jk exp(-(xj - xk)^2 / 2) - 2 sqrt(pi) mean_j exp(-xj^2 / 4)
    + sqrt(2 pi / 3)``; O(N²) memory.
    """
    x = x.double()
    pairs = (x.unsqueeze(-1) - x.unsqueeze(-2)).square()
    return x.shape[-1] * (
        math.sqrt(2 * math.pi) * torch.exp(-pairs / 2).mean(dim=(-2, -1))
        - 2 * math.sqrt(math.pi) * torch.exp(-x.square() / 4).mean(dim=-1)
        + math.sqrt(2 * math.pi / 3)
    )


def epps_pulley_population(mean: float, variance: float) -> float:
    """T / N over the full line of the law N(mean, variance): 0 only for N(0, 1).

    A sample of N has the expectation ``N * this + sqrt(2 pi) (1 - 1 / sqrt(1 + 2 variance))``.
    """
    shift = math.exp(-(mean**2) / (2 * (2 + variance)))
    return math.sqrt(2 * math.pi) * (
        1 / math.sqrt(1 + 2 * variance) - 2 * shift / math.sqrt(2 + variance) + 1 / math.sqrt(3)
    )


def period(nodes: int, t_max: float) -> float:
    """The period in x of the discretised statistic: 33.5 for 17 nodes on [0, 3]."""
    return 2 * math.pi * (nodes - 1) / t_max


def _epps_pulley(x: Tensor, count: int, nodes: int, t_max: float) -> tuple[Tensor, Tensor]:
    """T / N and its debiased form, ``[..., M]`` each, of ``x [..., N, M]``."""
    _check_grid(nodes, t_max)
    t = torch.linspace(0, t_max, nodes, device=x.device, dtype=x.dtype)
    weight = torch.full_like(t, 2 * t_max / (nodes - 1))
    weight[[0, -1]] = t_max / (nodes - 1)
    phi = torch.exp(-t.square() / 2)
    angle = (x.unsqueeze(-1) * t).movedim(-3, -2)  # [..., M, N, K]
    cosine = mean_over_samples(angle.cos(), count)
    sine = mean_over_samples(angle.sin(), count)
    statistic = ((cosine - phi).square() + sine.square()) @ (weight * phi)
    with torch.no_grad():
        modulus = cosine.square() + sine.square()
        unbiased = (count * modulus - 1) / max(count - 1, 1)
        excess = (unbiased - 2 * phi * cosine + phi.square()) @ (weight * phi)
    return statistic, excess


def _check_grid(nodes: int, t_max: float) -> None:
    if nodes < 3 or nodes % 2 == 0:
        raise ConfigError(f"nodes = {nodes}: must be odd, and 3 or more (17 as published)")
    if not 0 < t_max < math.inf:
        raise ConfigError(f"t_max = {t_max}: must be positive and finite (3 as published)")


@torch.no_grad()
def _warn_if_aliased(projected: Tensor, nodes: int, t_max: float) -> None:
    largest, limit = float(projected.abs().max()), period(nodes, t_max) / 2
    if largest > limit:
        warnings.warn(
            f"SIGReg: an embedding projects to {largest:.2g}, beyond half the period "
            f"({limit:.1f}) of the statistic on {nodes} nodes up to {t_max}: it is scored as if it "
            "were closer to zero. Normalise the embeddings (batch norm before SIGReg) or use more "
            "nodes",
            RuntimeWarning,
            stacklevel=3,
        )
