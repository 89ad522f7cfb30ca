"""Intervals and paired tests: every number a table prints comes with one of these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its confidence interval ``[low, high]``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """A paired comparison of two methods on the same problems.

    Attributes:
        only_first: problems that only the first method solved. only_second: likewise.
        p: two-sided p-value under "both are equally likely to win a problem they disagree on".
    """

    only_first: int
    only_second: int
    p: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """The share ``successes / n`` with its Wilson score interval (Wilson 1927).

    Raises ValueError unless ``0 <= successes <= n`` and ``n >= 1``.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n and n >= 1")
    from scipy.stats import norm

    z2 = float(norm.ppf(0.5 + confidence / 2)) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if successes == 0 else max(0.0, float(centre - half))
    high = 1.0 if successes == n else min(1.0, float(centre + half))
    return Estimate(share, low, high)


def mcnemar_exact(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact McNemar test: a two-sided binomial test on the problems where the methods disagree.

    Args:
        first, second: bool ``[n]``, success per problem, in the same order.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"need two vectors of equal length, got shapes {a.shape} and {b.shape}")
    wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
    if wins + losses == 0:
        return McNemar(0, 0, 1.0)
    from scipy.stats import binomtest

    return McNemar(wins, losses, float(binomtest(wins, wins + losses, 0.5).pvalue))


def bootstrap_mean(
    values: ArrayLike,
    *,
    generator: np.random.Generator,
    resamples: int = 5000,
    confidence: float = 0.95,
) -> Estimate:
    """The mean of ``values [n]`` with a percentile-bootstrap interval."""
    values = np.asarray(values, np.float64)
    return bootstrap_ratio(
        values,
        np.ones_like(values),
        generator=generator,
        resamples=resamples,
        confidence=confidence,
    )


def cluster_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    generator: np.random.Generator,
    resamples: int = 5000,
    confidence: float = 0.95,
) -> Estimate:
    """The mean of ``values [n]``, its interval from resampling whole clusters.

    Use it when values come in dependent groups (frames of one episode, say).

    Args:
        clusters: ``[n]`` any labels; equal labels are one cluster.
    """
    values = np.asarray(values, np.float64)
    _, which = np.unique(np.asarray(clusters), return_inverse=True)
    if which.shape != values.shape:
        raise ValueError(f"{values.shape} values but {which.shape} cluster labels")
    return bootstrap_ratio(
        np.bincount(which, values),
        np.bincount(which),
        generator=generator,
        resamples=resamples,
        confidence=confidence,
    )


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    generator: np.random.Generator,
    resamples: int = 5000,
    confidence: float = 0.95,
) -> Estimate:
    """``sum(numerators) / sum(denominators)`` with a percentile interval over resampled units.

    Args:
        numerators, denominators: ``[n]``, one pair per independent unit; denominators sum > 0.
        generator: source of the resamples; equal generators give equal intervals.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top.ndim != 1 or top.shape != bottom.shape or top.size == 0:
        raise ValueError(f"need two equal non-empty vectors, got {top.shape} and {bottom.shape}")
    if not bottom.sum() > 0:
        raise ValueError(
            "the denominators sum to 0: a target that never varies cannot be explained"
        )
    n = top.size
    counts = generator.multinomial(n, np.full(n, 1 / n), size=resamples)  # [R, n] draws per unit
    drawn = counts @ bottom
    ratios = (counts @ top)[drawn > 0] / drawn[drawn > 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high))
