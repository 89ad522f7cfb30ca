"""Statistics by which something other than physics could tell possible from impossible."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from ...core.rng import numpy_generator

Quad = tuple[Sequence[float], Sequence[float]]
"""Values of the possible and of the impossible videos of one quadruplet."""
LIMIT = 4.0
"""|z| beyond which a statistic counts as a leak: chance does it once in 16,000 tests."""


def auc(quads: Sequence[Quad]) -> float:
    """How often an impossible video's value is larger than a possible one's of the same
    quadruplet, ties half: .5 tells nothing."""
    wins = [
        np.mean([(i > p) + 0.5 * (i == p) for i in impossible for p in possible])
        for possible, impossible in quads
    ]
    return float(np.mean(wins)) if wins else 0.5


def z_score(quads: Sequence[Quad]) -> float:
    """The within-quadruplet rank statistic over its standard deviation if labels were random."""
    total, variance = 0.0, 0.0
    for possible, impossible in quads:
        values = np.array([*possible, *impossible], np.float64)
        ranks = (values[:, None] > values).sum(1) + 0.5 * (values[:, None] == values).sum(1)
        ranks -= ranks.mean()
        n, k = len(values), len(impossible)
        total += ranks[len(possible) :].sum()
        variance += k * (n - k) / (n - 1) * (ranks**2).mean()  # sampling without replacement
    return float(total / np.sqrt(variance)) if variance > 0 else 0.0


def compressed_size(video: np.ndarray) -> int:
    """Bytes of all frames (uint8 [T, H, W, 3]) compressed one by one, as PNG does after filters."""
    left = np.concatenate([video[:, :, :1], np.diff(video, axis=2)], axis=2)
    return sum(len(zlib.compress(frame.tobytes(), 1)) for frame in left)


def window_scores(video: np.ndarray, window: int, seed: int) -> dict[str, np.ndarray]:
    """Scores of all windows of ``window`` frames, float64 [T - window + 1] by scorer.

    Scorers: mean brightness, largest change between neighbours, optical energy (sum of squared
    changes), and ten random encoders (two-layer, untrained) whose features of the first frame
    predict those of the last.
    """
    small = _pooled(video)
    count = len(video) - window + 1
    change = np.zeros(len(video))
    change[1:] = np.abs(np.diff(video.astype(np.int16), axis=0)).astype(float).mean((1, 2, 3))
    inside = [change[t + 1 : t + window] for t in range(count)]
    scores = {
        "brightness": np.array([small[t : t + window].mean() for t in range(count)]),
        "largest change": np.array([max(c, default=0.0) for c in inside]),
        "optical energy": np.array([float(np.square(c).sum()) for c in inside]),
    }
    for number in range(10):
        code = _random_features(small, seed, number)
        jump = np.abs(code[window - 1 :] - code[:count]).mean(1)
        scores[f"untrained {number}"] = jump
    return scores


def probe(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> list[Quad]:
    """Out-of-fold scores of a ridge probe for "impossible", folds by group, as quadruplets.

    Args:
        features: [N, F]. labels: bool [N]. groups: [N].
    """
    rng = numpy_generator(seed, "voe", "probe")
    names = rng.permutation(np.unique(groups))
    folds = np.array_split(names, min(5, len(names)))
    scores = np.zeros(len(labels))
    x = (features - features.mean(0)) / (features.std(0) + 1e-6)
    y = np.where(labels, 1.0, -1.0)
    for fold in folds:
        test = np.isin(groups, fold)
        kernel = x[~test] @ x[~test].T + 0.1 * x.shape[1] * np.eye((~test).sum())
        scores[test] = x[test] @ x[~test].T @ np.linalg.solve(kernel, y[~test])
    scores = scores.round(9)
    return [
        (scores[(groups == g) & ~labels].tolist(), scores[(groups == g) & labels].tolist())
        for g in np.unique(groups)
    ]


def frame_features(frames: np.ndarray, seed: int) -> np.ndarray:
    """Random features of single frames, averaged over them: float64 [F]."""
    return _random_features(_pooled(frames), seed, 0).mean(0)


def _pooled(video: np.ndarray) -> np.ndarray:
    """Brightness-normalised means over 4 x 4 pixels: float64 [T, H/4 * W/4 * 3]."""
    t, h, w, _ = video.shape
    h, w = h // 4 * 4, w // 4 * 4
    blocks = video[:, :h, :w].reshape(t, h // 4, 4, w // 4, 4, 3).astype(np.float64)
    return blocks.mean((2, 4)).reshape(t, -1) / 255


def _random_features(small: np.ndarray, seed: int, number: int) -> np.ndarray:
    rng = numpy_generator(seed, "voe", "untrained", number)
    first = rng.standard_normal((small.shape[1], 64)) / np.sqrt(small.shape[1])
    second = rng.standard_normal((64, 32)) / 8
    return np.maximum(8 * (small - 0.5) @ first, 0) @ second
