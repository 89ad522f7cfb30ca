"""How far are embeddings from Gaussian, and predictions from targets, as distributions?"""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import ConfigError
from .sigreg import sigreg_parts


def sigreg_excess(
    x: Tensor,
    *,
    generator: torch.Generator,
    slices: int = 1024,
    nodes: int = 17,
    t_max: float = 3.0,
) -> float:
    """Debiased SIGReg (U-statistic) of ``x [N, D]``, without the factor N.

    0 on average for N(0, I) whatever N, 0.444 for a mean of 1 in one dimension; it may be slightly
    negative.
    """
    parts = sigreg_parts(x, generator=generator, slices=slices, nodes=nodes, t_max=t_max)
    return parts.excess.item()


def ecf_distance(
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    slices: int = 256,
    nodes: int = 17,
    t_max: float = 3.0,
) -> Tensor:
    """How differently samples ``x [M, D]`` and ``y [N, D]`` are distributed: a scalar, with
    gradients, 0 for equal sets in any order.

    Mean over random directions of the integral of ``|ecf_x(t) - ecf_y(t)|^2 exp(-t^2 / 2)``: SIGReg
    with the other sample in the Gaussian's place. ``generator``: a CPU generator.
    """
    directions = torch.randn(x.shape[-1], slices, generator=generator).to(x)
    directions = directions / directions.norm(dim=0)
    t = torch.linspace(0, t_max, nodes, device=x.device, dtype=x.dtype)
    weight = torch.full_like(t, 2 * t_max / (nodes - 1))
    weight[[0, -1]] = t_max / (nodes - 1)
    means = []
    for sample in (x, y):
        angle = (sample @ directions).unsqueeze(-1) * t  # [N, M, K]
        means.append((angle.cos().mean(dim=0), angle.sin().mean(dim=0)))
    (cos_x, sin_x), (cos_y, sin_y) = means
    squared = (cos_x - cos_y).square() + (sin_x - sin_y).square()
    return (squared @ (weight * torch.exp(-t.square() / 2))).mean()


def bhep(x: Tensor, *, beta: float = 1.0) -> float:
    """Baringhaus-Henze-Epps-Pulley distance of ``x [N, D]`` from N(0, I), exact, without N.

    ``mean_jk exp(-b² |xj - xk|² / 2) - 2 (1 + b²)^(-D/2) mean_j exp(-b² |xj|² / (2 (1 + b²)))
    + (1 + 2 b²)^(-D/2)``. Nothing is standardised. O(N²) memory; at large D use a small beta.
    """
    x = x.double()
    width, b2 = x.shape[-1], beta**2
    squared = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    cross = torch.exp(-b2 * x.square().sum(dim=-1) / (2 * (1 + b2))).mean()
    constant = (1 + 2 * b2) ** (-width / 2)
    value = torch.exp(-b2 * squared / 2).mean() - 2 * (1 + b2) ** (-width / 2) * cross + constant
    return value.item()


def auc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a score of ``positive [P]`` exceeds one of ``negative [Q]``; ties: half."""
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, right=False).double()
    upto = torch.searchsorted(ordered, positive, right=True).double()
    return ((below + upto) / 2).mean().item() / len(negative)


def classifier_two_sample(
    x: Tensor, y: Tensor, *, generator: torch.Generator, penalty: float = 1e-2, steps: int = 20
) -> float:
    """Held-out AUC of a logistic regression that tells ``x [M, D]`` from ``y [N, D]``.

    The C2ST (arXiv 1610.06545) of two sets, of predictions and targets say: 0.5 if a linear
    classifier cannot tell them apart, 1 if it always can. Sets that differ in spread alone need
    their squares beside them.

    Args:
        generator: a CPU generator; half of each set, drawn by it, is for fitting.
        penalty: ridge on the weights of standardised features. steps: of Newton's method.

    Raises:
        ConfigError: fewer than 4 samples in a set.
    """
    if min(len(x), len(y)) < 4:
        raise ConfigError(f"C2ST of {len(x)} and {len(y)} samples: needs 4 of each at least")
    (fit_x, test_x), (fit_y, test_y) = (_halves(z.double(), generator) for z in (x, y))
    features = torch.cat([fit_x, fit_y])
    label = torch.cat([features.new_ones(len(fit_x)), features.new_zeros(len(fit_y))])
    centre, scale = features.mean(dim=0), features.std(dim=0).clamp_min(1e-12)
    features = _with_one((features - centre) / scale)
    weights = features.new_zeros(features.shape[1])
    ridge = torch.full_like(weights, penalty)
    for _ in range(steps):
        p = torch.sigmoid(features @ weights)
        slope = features.T @ (p - label) / len(label) + ridge * weights
        curvature = (features.T * (p * (1 - p))) @ features / len(label) + torch.diag(ridge)
        weights = weights - torch.linalg.solve(curvature, slope)
    positive, negative = (_with_one((z - centre) / scale) @ weights for z in (test_x, test_y))
    return auc(positive, negative)


def _halves(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = x[torch.randperm(len(x), generator=generator).to(x.device)]
    return x[: len(x) // 2], x[len(x) // 2 :]


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
