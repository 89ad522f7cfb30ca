"""What the flow between two frames, and the features that it is read from, are trained by.

All of them are means over the batch, of both directions, and need no labels (MC-JEPA, arXiv
2307.12698). The published weights of levels and terms were not to be had: those here are our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import ConfigError
from ..objectives.distributed import samples_over_ranks
from ..objectives.vicreg import hinge_std, off_diagonal_covariance
from .warp import inside, resize_flow, warp

C1, C2 = 0.01**2, 0.03**2
"""Of SSIM, for values in [0, 1] (Wang et al. 2004)."""


@dataclass(frozen=True, kw_only=True)
class FlowLossConfig:
    """Weights of the flow's losses; 0 leaves a term out."""

    l2: float = 1.0
    """Of the squared difference of a frame and the other one, warped."""
    l1: float = 1.0
    """Of its absolute value."""
    ssim: float = 1.0
    """Of (1 - SSIM) / 2."""
    regress: float = 0.01
    """Of the squared difference of features and the other frame's, warped."""
    smooth: float = 0.03
    """Of the flow's slope where the picture has none."""
    edge: float = 10.0
    """How soon the slope of the picture (per pixel, in [0, 1]) lifts that."""
    cycle: float = 0.01
    """Of the change of features that are warped there and back."""
    std: float = 0.1
    """Of the hinge on the deviation of features, a mean over all levels."""
    cov: float = 0.004
    """Of their squared off-diagonal covariances, likewise."""
    gamma: float = 1.0
    """Deviation that the hinge aims at."""
    levels: tuple[float, ...] = ()
    """Weight of each level that has a flow, the finest first; empty: all alike. They are scaled to
    sum to 1."""

    def __post_init__(self) -> None:
        names = ("l2", "l1", "ssim", "regress", "smooth", "edge", "cycle", "std", "cov", "gamma")
        for name in names:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"motion.losses.{name} = {getattr(self, name)}: must be 0 or more, and finite"
                )
        if self.l2 + self.l1 + self.ssim == 0:
            raise ConfigError(
                "motion.losses: l2, l1 and ssim are all 0, and nothing else tells the flow where "
                "the pixels went"
            )
        if self.levels and (min(self.levels) < 0 or not 0 < sum(self.levels) < math.inf):
            raise ConfigError(
                f"motion.losses.levels = {self.levels}: must be 0 or more, and not all 0"
            )

    def shares(self, levels: int) -> tuple[float, ...]:
        """The weight of each of ``levels`` levels; they sum to 1."""
        given = self.levels or (1.0,) * levels
        return tuple(value / sum(given) for value in given)


def masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``error [B, C, H, W]`` over ``mask`` (bool ``[B, 1, H, W]``), of each sample by
    itself, then over samples; a sample without a place counts as 0."""
    weight = mask.to(error.dtype)
    total = (error * weight).sum(dim=(1, 2, 3))
    return (total / (error.shape[1] * weight.sum(dim=(1, 2, 3))).clamp(min=1)).mean()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of images ``[B, C, H, W]`` in [0, 1], over windows of 3 x 3.

    Returns ``[B, C, H, W]``, at most 1, which is what equal images have.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + C1) * (2 * both + C2)
    return above / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))


def reconstruction(first: Tensor, second: Tensor, flow: Tensor, config: FlowLossConfig) -> Tensor:
    """L2 + L1 + SSIM between ``first`` and ``second`` warped by ``flow``, where it ends inside.

    Args:
        first, second: images ``[B, 3, H, W]`` in [0, 1]. flow: ``[B, 2, H, W]``.
    """
    made, mask = warp(second, flow), inside(flow)
    gap = first - made
    error = config.l2 * gap.square() + config.l1 * gap.abs()
    if config.ssim:
        error = error + config.ssim * (1 - ssim(first, made)) / 2
    return masked_mean(error, mask)


def regression(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """Mean squared difference of features ``[B, C, H, W]`` and the second's, warped by ``flow``,
    where it ends inside."""
    return masked_mean((first - warp(second, flow)).square(), inside(flow))


def smoothness(flow: Tensor, image: Tensor, edge: float) -> Tensor:
    """Mean slope of the flow, ``exp(-edge |dI|) |df|``, along x and along y.

    Args:
        flow: ``[B, 2, H, W]``. image: ``[B, 3, H, W]`` in [0, 1]; |dI| is the mean over colours.
    """
    total = flow.new_zeros(())
    for axis in (-1, -2):
        slope = flow.diff(dim=axis).abs()
        lifted = torch.exp(-edge * image.diff(dim=axis).abs().mean(1, keepdim=True))
        total = total + (lifted * slope).mean()
    return total


def cycle(first: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Mean squared change of features ``[B, C, H, W]`` that are warped into the second frame and
    back, where both ways end inside.

    Args:
        forward, backward: flows ``[B, 2, H, W]`` from the first frame to the second, and from there
            to the first. Exact ones give 0 where nothing is lost.
    """
    there = warp(first, backward)
    kept = warp(inside(backward).to(first.dtype), forward) > 0.999
    return masked_mean((first - warp(there, forward)).square(), inside(forward) & kept)


def variance_covariance(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """VICReg's two terms (arXiv 2105.04906) of features ``[B, C, H, W]``: each place of each image
    is a sample, of all processes together. Returns the hinge and the covariance term."""
    samples = x.movedim(1, -1).reshape(1, -1, x.shape[1])
    samples = samples if samples.dtype == torch.float64 else samples.float()
    count = samples_over_ranks(samples)
    return (
        hinge_std(samples, gamma=gamma, count=count),
        off_diagonal_covariance(samples, "dim", count=count),
    )


def flow_losses(
    images: tuple[Tensor, Tensor],
    levels: tuple[list[Tensor], list[Tensor]],
    flows: tuple[list[Tensor], list[Tensor]],
    config: FlowLossConfig,
) -> dict[str, Tensor]:
    """Every term, unweighted but for the levels, and ``flow``, their weighted sum.

    The finest flow is brought to the size of the whole pictures; other levels have pictures of
    their own size.

    Args:
        images: both frames, ``[B, 3, H, W]`` in [0, 1]. levels: their features, the finest first.
        flows: from the first to the second and back, the finest first, of the coarsest levels; the
        features of the others have to be spread, and nothing more.
    """
    terms: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        terms[name] = terms.get(name, value.new_zeros(())) + value

    if config.std or config.cov:
        for pair in zip(*levels, strict=True):
            std, cov = variance_covariance(torch.cat(pair), config.gamma)
            add("std", std / len(levels[0]))
            add("cov", cov / len(levels[0]))
    levels = (levels[0][-len(flows[0]) :], levels[1][-len(flows[0]) :])
    for number, share in enumerate(config.shares(len(flows[0]))):
        sized = [image if number == 0 else _pooled(image, levels[0][number]) for image in images]
        for one, other in ((0, 1), (1, 0)):
            x, flow = levels[one][number], flows[one][number]
            whole = resize_flow(flow, *images[0].shape[-2:]) if number == 0 else flow
            half = share / 2  # of the two directions
            add("reconstruct", half * reconstruction(sized[one], sized[other], whole, config))
            if config.regress:
                add("regress", half * regression(x, levels[other][number], flow))
            if config.smooth:
                add("smooth", half * smoothness(whole, sized[one], config.edge))
            if config.cycle:
                add("cycle", half * cycle(x, flow, flows[other][number]))
    weights = {"reconstruct": 1.0} | {
        name: getattr(config, name) for name in terms if name != "reconstruct"
    }
    total = sum(
        (weights[name] * value for name, value in terms.items()), start=terms["reconstruct"] * 0
    )
    return {**terms, "flow": total}


def _pooled(image: Tensor, like: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(image, (like.shape[-2], like.shape[-1]))
