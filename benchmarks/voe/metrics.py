"""From losses to numbers: surprise of a video, pair and quadruplet accuracy, AUROC, timing.

Everything here is arithmetic on stored losses. Higher surprise means less plausible; a tie counts
one half, unless ``strict`` (as in Meta's evaluation) counts it as wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ...core.errors import ConfigError

Aggregate = Literal["avg", "max", "late"]
AGGREGATES: tuple[Aggregate, ...] = ("avg", "max", "late")
"""Mean over windows; maximum; maximum over windows from the first in which the pair differs."""


def window_losses(losses: np.ndarray, context: int | None) -> np.ndarray:
    """Surprise of each window: float64 ``[..., windows]``, NaN for windows that are not there.

    Args:
        losses: ``[..., contexts, windows, steps]``, NaN where nothing is predicted.
        context: number of the context; None: "filtered", the least over contexts.
    """
    x = np.asarray(losses, np.float64)
    known = ~np.isnan(x)
    counts = known.sum(-1)
    total = np.where(known, x, 0).sum(-1)
    means = np.divide(total, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    if context is not None:
        return means[..., context, :]
    least = np.where(np.isnan(means), np.inf, means).min(-2)
    return np.where(np.isinf(least), np.nan, least)


def surprise(windows: np.ndarray, how: Aggregate, late: np.ndarray | None = None) -> float:
    """One number for a video from its windows ``[windows]``; NaN without any.

    Args:
        how: see :data:`AGGREGATES`. late: bool ``[windows]``, those that count for "late".
    """
    if how not in AGGREGATES:
        raise ConfigError(f"aggregate {how!r}: choose {', '.join(AGGREGATES)}")
    there = ~np.isnan(windows)
    if how == "late" and late is not None:
        there = there & late
    values = windows[there]
    if not len(values):
        return math.nan
    # fsum is exact but for one rounding: equal multisets of windows have equal means.
    return math.fsum(values) / len(values) if how == "avg" else float(values.max())


def late_windows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bool ``[windows]``: from the first window in which two videos differ on.

    Args:
        a, b: int64 ``[windows]``, their windows' ids (0: no window).
    """
    return np.maximum.accumulate(a != b)


def compare(possible: float, impossible: float, *, strict: bool = False) -> float:
    """1 if the impossible one is more surprising, 0 if less, one half for a tie (0 if strict)."""
    if math.isnan(possible) or math.isnan(impossible):
        return math.nan
    if possible == impossible:
        return 0.0 if strict else 0.5
    return float(possible < impossible)


def auroc(positive: Sequence[float] | np.ndarray, negative: Sequence[float] | np.ndarray) -> float:
    """Chance that a positive's score is above a negative's, ties one half (Mann-Whitney)."""
    a, b = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if not len(a) or not len(b) or np.isnan(a).any() or np.isnan(b).any():
        return math.nan
    b = np.sort(b)
    below, up_to = (np.searchsorted(b, a, side) for side in ("left", "right"))
    return float((below + up_to).sum() / (2 * len(a) * len(b)))


def by_chance(ids: Mapping[bool, Sequence[np.ndarray]]) -> bool:
    """Whether possible and impossible videos have the same windows, equally often: then every score
    of windows is at chance on average surprise, by construction.

    Args:
        ids: window ids of the possible (True) and of the impossible (False) videos of a group.
    """
    multisets = [np.sort(np.concatenate(list(ids[role]))) for role in (True, False)]
    return len(multisets[0]) == len(multisets[1]) and bool((multisets[0] == multisets[1]).all())


def frame_curve(
    losses: np.ndarray, *, step: int, stride: int, skip: int, first: int, frames: int
) -> np.ndarray:
    """Surprise over time: float64 ``[frames]`` of the video, NaN where nothing was predicted.

    The loss of a time step is that of all its frames; each frame gets the mean over the windows in
    which it was predicted.

    Args:
        losses: ``[windows, steps]`` of one video and context. step: sampled frames per time step.
        stride: sampled frames between windows. skip: frames per sampled frame. first: number of
            the first sampled frame.
    """
    total, count = np.zeros(frames), np.zeros(frames)
    for w, row in enumerate(np.asarray(losses, np.float64)):
        for s, value in enumerate(row):
            if np.isnan(value):
                continue
            start = first + (w * stride + s * step) * skip
            total[start : start + step * skip] += value
            count[start : start + step * skip] += 1
    return np.divide(total, count, out=np.full(frames, np.nan), where=count > 0)


def timing(
    possible: np.ndarray, impossible: np.ndarray, event: int, tolerance: int
) -> tuple[float, float, int | None]:
    """Is the impossible video surprising when it is impossible?

    Args:
        possible, impossible: curves ``[frames]``. event: first frame that shows it.
        tolerance: frames within which the peak of the difference counts as found.

    Returns:
        found (1, 0); false alarm (1 if the peak lies more than ``tolerance`` before the event);
        the peak's frame. NaN, NaN, None where no frame has both.
    """
    gap = impossible - possible
    if np.isnan(gap).all() or not np.nanmax(np.abs(gap)) > 0:
        return math.nan, math.nan, None
    peak = int(np.nanargmax(gap))
    return float(abs(peak - event) <= tolerance), float(peak < event - tolerance), peak
