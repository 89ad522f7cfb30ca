"""Intervals and tests over groups: videos of one quadruplet are not independent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import ConfigError
from ...core.rng import numpy_generator
from ..stats import Estimate, cluster_bootstrap, wilson_interval

RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An accuracy over groups.

    Attributes:
        estimate: with its 95 % interval. groups, n: clusters, and values in them.
        p: two-sided sign test of groups against one half.
    """

    estimate: Estimate
    groups: int
    n: int
    p: float


def judged(values: Sequence[float], groups: Sequence[str], *, name: str = "") -> Judged:
    """The mean of ``values`` (0, ½, 1) with a bootstrap interval over ``groups``.

    Where all are 0 or all are 1 there is nothing to resample: the interval is then Wilson's for as
    many trials as there are groups.

    Args:
        name: of the number; it names the random stream, so that each has resamples of its own.

    Raises:
        ConfigError: no values, or NaN among them.
    """
    x = np.asarray(values, np.float64)
    if not len(x) or np.isnan(x).any():
        raise ConfigError(
            f"{name or 'accuracy'}: {len(x)} values, {int(np.isnan(x).sum())} unknown"
        )
    count = len(set(groups))
    if (x == x[0]).all() and x[0] in (0.0, 1.0):
        estimate = wilson_interval(round(x[0]) * count, count)
    else:
        generator = numpy_generator(0, "voe", name)
        estimate = cluster_bootstrap(x, list(groups), generator=generator, resamples=RESAMPLES)
    return Judged(estimate=estimate, groups=count, n=len(x), p=sign_test(x - 0.5, groups))


def sign_test(values: Sequence[float] | np.ndarray, groups: Sequence[str]) -> float:
    """Two-sided exact sign test on the means of groups; groups with mean 0 are left out.

    Returns:
        the p-value; 1 where no group is left.
    """
    from scipy.stats import binomtest

    means = group_means(values, groups)
    above, below = int((means > 0).sum()), int((means < 0).sum())
    return float(binomtest(above, above + below, 0.5).pvalue) if above + below else 1.0


def group_means(values: Sequence[float] | np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """The mean of each group's values."""
    _, which = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(which, np.asarray(values, np.float64)) / np.bincount(which)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment: p-values that may be compared with 0.05 all together."""
    ordered = sorted(p_values, key=lambda key: p_values[key])
    adjusted, highest = {}, 0.0
    for rank, key in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - rank) * p_values[key]))
        adjusted[key] = highest
    return {key: adjusted[key] for key in p_values}


def paired(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    groups: Sequence[str],
    *,
    name: str = "",
) -> Judged:
    """The mean of ``first - second`` on the same pairs, its interval over groups.

    Where the two never differ the interval is that value alone.
    """
    gaps = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if np.isnan(gaps).any():
        raise ConfigError(f"{name or 'difference'}: unknown values")
    generator = numpy_generator(0, "voe", name)
    estimate = cluster_bootstrap(gaps, list(groups), generator=generator, resamples=RESAMPLES)
    return Judged(
        estimate=estimate, groups=len(set(groups)), n=len(gaps), p=sign_test(gaps, groups)
    )


def over_seeds(
    values: np.ndarray, groups: Sequence[str], *, name: str = "", resamples: int = RESAMPLES
) -> Estimate:
    """The mean over seeds and pairs; seeds and groups are both resampled.

    Args:
        values: ``[seeds, n]``.
    """
    _, which = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(which)
    sums = np.stack([np.bincount(which, row) for row in np.asarray(values, np.float64)])
    rng = numpy_generator(0, "voe", "seeds", name)
    seeds = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    top = np.einsum("rs,sg,rg->r", seeds, sums, drawn, optimize=True)
    means = top / (len(sums) * (drawn @ sizes))
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(sums.sum() / (len(sums) * sizes.sum())), float(low), float(high))


def auroc_interval(
    scores: np.ndarray, positive: np.ndarray, groups: Sequence[str], *, name: str = ""
) -> Estimate:
    """AUROC of single videos with a bootstrap interval over groups (1,000 resamples).

    Args:
        scores: float ``[n]``. positive: bool ``[n]``, the impossible ones.
    """
    from .metrics import auroc

    _, which = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(which == g) for g in range(which.max() + 1)]
    rng = numpy_generator(0, "voe", "auroc", name)
    drawn = []
    for _ in range(1000):
        rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        value = auroc(scores[rows][positive[rows]], scores[rows][~positive[rows]])
        if not math.isnan(value):
            drawn.append(value)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (math.nan, math.nan)
    value = auroc(scores[positive], scores[~positive])
    return Estimate(value, float(low), float(high))


def permutation_p(
    scores: np.ndarray, positive: np.ndarray, groups: Sequence[str], *, draws: int = 2000
) -> float:
    """One-sided p of the mean over groups of "every P against every I" under shuffled labels.

    Labels are shuffled within groups, as InfLevel does.
    """
    labels, which = (
        np.asarray(positive, bool),
        np.unique(np.asarray(groups), return_inverse=True)[1],
    )
    rng = numpy_generator(0, "voe", "permutation")
    members = [np.flatnonzero(which == g) for g in range(which.max() + 1)]

    def mean(marks: np.ndarray) -> float:
        from .metrics import auroc

        return float(np.mean([auroc(scores[m][marks[m]], scores[m][~marks[m]]) for m in members]))

    seen, above = mean(labels), 0
    for _ in range(draws):
        shuffled = labels.copy()
        for m in members:
            shuffled[m] = rng.permutation(labels[m])
        above += mean(shuffled) >= seen - 1e-12
    return (above + 1) / (draws + 1)
