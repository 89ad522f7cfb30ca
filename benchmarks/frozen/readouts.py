"""Readouts of pooled features that need no tuning by hand: neighbours, ridge, logistic regression.

Each gives candidates that differ in one number (neighbours, penalty), of which one is chosen on
validation clips like everything else (:mod:`.selection`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...core.errors import ConfigError
from .selection import Candidates

NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)
PENALTIES = tuple(10.0**k for k in range(-4, 3))
"""Relative to the number of training rows."""


def knn(
    x: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    classes: int,
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
    temperature: float = 0.07,
) -> Candidates:
    """Votes of the nearest training clips by cosine, weighted by ``exp(cosine / temperature)``
    (Wu et al. 2018, arXiv 1805.01978).

    Args:
        x: float ``[M, D]``. labels: int64 ``[M]``. rows: the clips that vote.
        neighbours: numbers of voters to try; those above ``len(rows)`` are left out.
    """
    tried = [k for k in neighbours if k <= len(rows)] or [len(rows)]
    if len(rows) == 0 or min(tried) < 1:
        raise ConfigError(f"neighbours = {tuple(neighbours)} of {len(rows)} clips: need 1 or more")
    unit = x.astype(np.float32)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True).clip(1e-12)
    memory, votes = unit[rows], np.eye(classes, dtype=np.float32)[labels[rows]]

    def predict(some: np.ndarray) -> np.ndarray:
        near = unit[some] @ memory.T
        order = np.argsort(-near, axis=1, kind="stable")[:, : max(tried)]
        cosine = np.take_along_axis(near, order, axis=1)
        weights = np.exp((cosine - cosine[:, :1]) / temperature)  # the scale cancels below
        tally = np.cumsum(weights[..., None] * votes[order], axis=1)  # [R, K, C]
        chosen = tally[:, [k - 1 for k in tried]].transpose(1, 0, 2)
        return chosen / chosen.sum(-1, keepdims=True)

    return Candidates(settings=[f"k = {k}" for k in tried], predict=predict)


def ridge(
    x: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
) -> Candidates:
    """Least squares on one-hot labels with an L2 penalty, in closed form; probabilities are the
    softmax of the fitted values. Features are scaled by the training rows."""
    x = _standardised(x, rows)
    target = np.eye(classes)[labels[rows]]
    mean = target.mean(0)
    left, singular, right = np.linalg.svd(x[rows], full_matrices=False)
    projected = left.T @ (target - mean)
    weights = [
        right.T @ (projected * (singular / (singular**2 + penalty * len(rows)))[:, None])
        for penalty in penalties
    ]

    def predict(some: np.ndarray) -> np.ndarray:
        return _softmax(np.stack([x[some] @ w + mean for w in weights]))

    return Candidates(settings=[f"penalty {p:g}" for p in penalties], predict=predict)


def logistic(
    x: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
    iterations: int = 200,
) -> Candidates:
    """Multinomial logistic regression, ``mean log loss + penalty / 2 |W|²`` with a free bias, by
    L-BFGS from the largest penalty down, each from the solution before it."""
    x = _standardised(x, rows)
    inputs, target = torch.from_numpy(x[rows]), torch.from_numpy(labels[rows])
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    found: dict[float, tuple[np.ndarray, np.ndarray]] = {}
    for penalty in sorted(penalties, reverse=True):
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=iterations,
            tolerance_grad=1e-8,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure(penalty: float = penalty, solver: torch.optim.LBFGS = solver) -> torch.Tensor:
            solver.zero_grad()
            loss = torch.nn.functional.cross_entropy(inputs @ weight + bias, target)
            loss = loss + penalty / 2 * weight.square().sum()
            loss.backward()
            return loss

        solver.step(closure)  # pyright: ignore[reportArgumentType]
        found[penalty] = weight.detach().numpy().copy(), bias.detach().numpy().copy()

    def predict(some: np.ndarray) -> np.ndarray:
        return _softmax(np.stack([x[some] @ found[p][0] + found[p][1] for p in penalties]))

    return Candidates(settings=[f"penalty {p:g}" for p in penalties], predict=predict)


def majority(labels: np.ndarray, rows: np.ndarray, classes: int) -> Candidates:
    """The most frequent class of the training rows, whatever the clip."""
    share = np.bincount(labels[rows], minlength=classes) / len(rows)
    return Candidates(
        settings=["most frequent class"],
        predict=lambda some: np.broadcast_to(share, (1, len(some), classes)),
    )


def _standardised(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 ``[M, D]`` of zero mean and unit spread over ``rows``; constants become 0."""
    x = x.astype(np.float64)
    std = x[rows].std(0)
    mean = x[rows].mean(0)
    return (x - mean) / np.where(std > 1e-9 * (1 + np.abs(mean)), std, np.inf)


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)
