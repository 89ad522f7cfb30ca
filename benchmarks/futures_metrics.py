"""How good is a set of imagined futures? Beside the true branches, both ways round.

* *coverage*: of what can happen, how much was imagined (the recall of branches);
* *precision*: of what was imagined, how much can happen. The mean of two branches has neither.
* *branch NLL*: minus the log of the probability that the model gives to what then happens; its
  lowest possible value is the entropy of the branches, its excess over that is their KL divergence.

A set that holds everything has perfect coverage, one sure thing perfect precision: only both
together mean something. Shapes: C cases, F futures, M branches, D coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FuturesScore:
    """Scores of C cases, each float64 ``[C]``.

    Attributes:
        coverage: probability of the branches that have a future within the radius.
        precision: weight of the futures that have a branch within the radius.
        missed: mean distance of branches from their nearest futures. stray: of futures from their
            nearest branches. Both in the units of the coordinates, whatever the radius.
        nll: expected branch NLL in nats. excess: over the branches' own entropy; 0 is calibrated.
    """

    coverage: np.ndarray
    precision: np.ndarray
    missed: np.ndarray
    stray: np.ndarray
    nll: np.ndarray
    excess: np.ndarray


def score_futures(
    futures: np.ndarray,
    weights: np.ndarray,
    branches: np.ndarray,
    probabilities: np.ndarray,
    *,
    radius: float,
    floor: float = 0.01,
) -> FuturesScore:
    """Judge futures ``[C, F, D]`` of weights ``[C, F]`` by branches ``[C, M, D]`` of
    ``probabilities [C, M]``.

    A future counts for its nearest branch, if that is within ``radius``. So that a branch that was
    never imagined costs something finite, the model's distribution over branches is mixed with the
    true one: a share ``floor`` of it is taken for granted.

    Raises:
        ConfigError: shapes that do not fit, weights or probabilities that do not sum to 1, a radius
            that is not positive, or a floor outside (0, 1).
    """
    _check(futures, weights, branches, probabilities, radius, floor)
    # Futures of weight 0 and branches of probability 0 do not exist.
    real = (weights > 0)[:, :, None] & (probabilities > 0)[:, None, :]
    gap = np.linalg.norm(futures[:, :, None] - branches[:, None], axis=-1)
    gap = np.where(real, gap, np.inf)  # [C, F, M]
    to_future, to_branch = gap.min(axis=1), gap.min(axis=2)
    held = np.zeros(probabilities.shape)
    inside = to_branch <= radius
    cases, number = np.nonzero(inside)
    np.add.at(held, (cases, gap.argmin(axis=2)[cases, number]), weights[cases, number])
    given = (1 - floor) * held + floor * probabilities
    nll = -_mean(probabilities, np.log(np.where(probabilities > 0, given, 1.0)))
    entropy = -_mean(probabilities, np.log(np.where(probabilities > 0, probabilities, 1.0)))
    return FuturesScore(
        coverage=_mean(probabilities, to_future <= radius),
        precision=_mean(weights, inside),
        missed=_mean(probabilities, to_future),
        stray=_mean(weights, to_branch),
        nll=nll,
        excess=nll - entropy,
    )


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means ``[C]`` of values ``[C, K]``; what weighs nothing may be infinite."""
    return np.where(weights > 0, weights * np.where(weights > 0, values, 0.0), 0.0).sum(axis=1)


def _check(
    futures: np.ndarray,
    weights: np.ndarray,
    branches: np.ndarray,
    probabilities: np.ndarray,
    radius: float,
    floor: float,
) -> None:
    if futures.ndim != 3 or branches.ndim != 3 or futures.shape[::2] != branches.shape[::2]:
        raise ConfigError(
            f"futures {list(futures.shape)} and branches {list(branches.shape)}: give [C, F, D] "
            "and [C, M, D] of the same cases and coordinates"
        )
    for name, w, points in (
        ("weights", weights, futures),
        ("probabilities", probabilities, branches),
    ):
        if w.shape != points.shape[:2]:
            raise ConfigError(f"{name} {list(w.shape)} for points {list(points.shape)}")
        if (w < 0).any() or not np.allclose(w.sum(axis=1), 1, atol=1e-4):
            raise ConfigError(f"{name} must be 0 or more, and sum to 1 in every case")
    if not 0 < radius < np.inf:
        raise ConfigError(f"radius = {radius}: must be positive and finite")
    if not 0 < floor < 1:
        raise ConfigError(f"floor = {floor}: a share, in (0, 1)")
