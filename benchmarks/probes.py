"""Frozen-feature probes: how much of the true state can be read off linearly?

Closed-form ridge regression with splits by episode, so that no test frame has a neighbour in
training. The penalty is chosen on the validation episodes, never on the test episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..core.rng import numpy_generator
from .stats import Estimate, bootstrap_ratio

PENALTIES = tuple(10.0**k for k in range(-4, 5))
"""Ridge penalties tried, relative to the number of training rows."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """R² on held-out episodes, with 95 % intervals from resampling episodes.

    Attributes:
        name: of the features. width: feature dimensions.
        mean: R² over all targets pooled, each scaled to unit variance.
        targets: R² by target name. penalty: the ridge penalty chosen on validation episodes.
        episodes: (training, validation, test) episode counts. step: training step of the features.
    """

    name: str
    width: int
    mean: Estimate
    targets: dict[str, Estimate]
    penalty: float
    episodes: tuple[int, int, int]
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ProbeResult:
        """The result that :meth:`to_json` wrote."""
        return cls(
            **value
            | {
                "mean": Estimate(**value["mean"]),
                "targets": {k: Estimate(**v) for k, v in value["targets"].items()},
                "episodes": tuple(value["episodes"]),
            }
        )


def ridge_probe(
    features: np.ndarray,
    targets: np.ndarray,
    episodes: np.ndarray,
    *,
    name: str,
    target_names: Sequence[str],
    seed: int = 0,
    step: int | None = None,
    split: tuple[float, float] = (0.6, 0.2),
    penalties: Sequence[float] = PENALTIES,
) -> ProbeResult:
    """Fit on training episodes, choose the penalty on validation ones, report on test ones.

    Args:
        features: float ``[M, D]``. targets: float ``[M, F]``. episodes: ``[M]`` labels.
        seed: of the split (equal for equal episode labels) and of the bootstrap.
        split: shares of episodes for training and validation; the rest is the test set.

    Raises ConfigError for shapes that do not fit or fewer than 5 episodes.
    """
    features, targets = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    if features.ndim != 2 or targets.shape != (len(features), len(target_names)):
        raise ConfigError(
            f"features {features.shape} and targets {targets.shape} must be [M, D] and "
            f"[M, {len(target_names)}]"
        )
    train, valid, test, counts = split_episodes(episodes, split, seed)
    x, y = _standardiser(features[train]), _standardiser(targets[train])
    gram_values, basis, projected = _decompose(x(features[train]), y(targets[train]))
    scores = []
    for penalty in penalties:
        weights = basis @ (projected / (gram_values + penalty * train.sum())[:, None])
        left = (y(targets[valid]) - x(features[valid]) @ weights) ** 2
        scores.append((left.sum(), penalty, weights))
    _, penalty, weights = min(scores, key=lambda score: score[0])
    truth = y(targets[test])
    left = (truth - x(features[test]) @ weights) ** 2  # [M', F]
    total = (truth - truth.mean(0)) ** 2
    still = [t for t, spread in zip(target_names, total.sum(0), strict=True) if spread < 1e-12]
    if still:
        raise ConfigError(
            f"{', '.join(still)} never vary over the {counts[2]} test episodes: probe more episodes"
        )
    scale = total.mean(0).clip(1e-12)

    def r2(residual: np.ndarray, spread: np.ndarray, stream: str) -> Estimate:
        _, which = np.unique(np.asarray(episodes)[test], return_inverse=True)
        parts = (np.bincount(which, spread - residual), np.bincount(which, spread))
        return bootstrap_ratio(*parts, generator=numpy_generator(seed, "probe", stream))

    return ProbeResult(
        name=name,
        width=features.shape[1],
        mean=r2((left / scale).sum(1), (total / scale).sum(1), "mean"),
        targets={t: r2(left[:, f], total[:, f], t) for f, t in enumerate(target_names)},
        penalty=penalty,
        episodes=counts,
        step=step,
    )


def split_episodes(
    episodes: np.ndarray, split: tuple[float, float], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Row masks bool ``[M]`` of training, validation and test episodes, and the episode counts."""
    labels = np.unique(episodes)
    first, second = round(split[0] * len(labels)), round((split[0] + split[1]) * len(labels))
    if not 0 < first < second < len(labels):
        raise ConfigError(
            f"{len(labels)} episodes cannot be split {split} into three: give 5 or more"
        )
    parts = np.split(numpy_generator(seed, "probe", "split").permutation(labels), [first, second])
    train, valid, test = (np.isin(episodes, part) for part in parts)
    return train, valid, test, (len(parts[0]), len(parts[1]), len(parts[2]))


def pca_features(
    frames: np.ndarray, width: int, *, fit_rows: np.ndarray | None = None, fit_limit: int = 1500
) -> np.ndarray:
    """Principal components, of raw pixels for one: the features that cost nothing to learn.

    Args:
        frames: ``[M, ...]`` images or clips (uint8), or wider features (float) to cut down.
        width: components, to match a model's features.
        fit_rows: rows or bool mask the components are fitted on (the training episodes' rows).
        fit_limit: at most this many of them, evenly spaced (exact SVD of a fit_limit² Gram matrix).

    Returns float32 ``[M, width]``; components beyond the rank of the data are zero.
    """
    flat = frames.reshape(len(frames), -1)
    rows = np.arange(len(flat)) if fit_rows is None else np.arange(len(flat))[fit_rows]
    rows = rows[np.linspace(0, len(rows) - 1, min(fit_limit, len(rows))).astype(int)]
    if not 1 <= width <= len(rows):
        raise ConfigError(f"width {width} needs at least as many frames to fit on, not {len(rows)}")
    sample = flat[rows].astype(np.float32)
    mean = sample.mean(0)
    sample -= mean
    values, vectors = np.linalg.eigh((sample @ sample.T).astype(np.float64))
    values, vectors = values[::-1][:width], vectors[:, ::-1][:, :width]
    inverse = np.where(values > 1e-7 * values[0], 1 / np.sqrt(values.clip(1e-30)), 0)
    components = (sample.T @ (vectors * inverse).astype(np.float32)).astype(np.float32)
    chunks = (flat[i : i + 1024].astype(np.float32) - mean for i in range(0, len(flat), 1024))
    return np.concatenate([chunk @ components for chunk in chunks])


def _standardiser(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The map to zero mean and unit variance over ``rows``; constant columns become zero."""
    mean, std = rows.mean(0), rows.std(0)
    scale = np.where(std > 1e-9 * (1 + np.abs(mean)), std, np.inf)
    return lambda values: (values - mean) / scale


def _decompose(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues [K], basis [D, K] and projected targets [K, F] so that every penalty is cheap."""
    if x.shape[0] >= x.shape[1]:
        values, basis = np.linalg.eigh(x.T @ x)
        return values.clip(0), basis, basis.T @ (x.T @ y)
    values, left = np.linalg.eigh(x @ x.T)  # dual: rows are fewer, and their Gram matrix smaller
    keep = values > 1e-10 * values[-1]
    values, left = values[keep], left[:, keep]
    singular = np.sqrt(values)
    return values, x.T @ (left / singular), singular[:, None] * (left.T @ y)
