"""Which of many probes counts: chosen on validation clips, reported on test clips.

The published protocol trains a grid of heads and reports the best of them on the very set it is
best on, which flatters: with H heads, the more so the smaller the set. Here the test clips are
looked at after the choice, and the best of the grid on them is only ever shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import ConfigError
from ..stats import Estimate, wilson_interval

Predict = Callable[[np.ndarray], np.ndarray]
"""``predict(rows int64 [R]) -> probabilities [H, R, C]`` of H candidates."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Trained probes that differ in settings.

    Attributes:
        settings: one text for each. predict: their class probabilities for given rows.
    """

    settings: Sequence[str]
    predict: Predict


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What came out for one seed.

    Attributes:
        settings: of all candidates. chosen: the number of the one with the best validation score.
        valid: float [H], validation accuracy of all. right: bool [R], which test clips the chosen
        one classifies rightly. best_on_test: the highest test accuracy of any: optimistic.
    """

    settings: tuple[str, ...]
    chosen: int
    valid: np.ndarray
    right: np.ndarray
    best_on_test: float

    @property
    def accuracy(self) -> float:
        """On the test clips, of the chosen one."""
        return float(self.right.mean())


def score(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are right, bool ``[H, R]``, and mean log loss float64 ``[H]``, of probabilities
    ``[H, R, C]``. A candidate with NaN among them has diverged: all wrong, infinite loss."""
    fine = np.isfinite(probabilities.sum((1, 2)))
    right = (probabilities.argmax(-1) == labels) & fine[:, None]
    of_label = np.take_along_axis(probabilities, labels[None, :, None], axis=-1)[..., 0]
    with np.errstate(invalid="ignore"):
        loss = -np.log(of_label.astype(np.float64).clip(1e-12)).mean(1)
    return right, np.where(fine, loss, np.inf)


def choose(right: np.ndarray, loss: np.ndarray) -> int:
    """The candidate with most validation rows ``[H, R]`` right; of equals, with the least loss."""
    hits = np.asarray(right.sum(1))
    return int(np.lexsort((loss, -hits))[0])


def judge(
    candidates: Candidates, labels: np.ndarray, valid: np.ndarray, test: np.ndarray
) -> Outcome:
    """Choose on the rows ``valid`` and then look at the rows ``test``.

    Raises ConfigError if they share a row.
    """
    shared = np.intersect1d(valid, test)
    if len(shared):
        raise ConfigError(f"{len(shared)} clips are both for validation and for testing")
    on_valid, loss = score(candidates.predict(valid), labels[valid])
    chosen = choose(on_valid, loss)
    on_test, _ = score(candidates.predict(test), labels[test])
    return Outcome(
        settings=tuple(candidates.settings),
        chosen=chosen,
        valid=on_valid.mean(1),
        right=on_test[chosen],
        best_on_test=float(on_test.mean(1).max()),
    )


def accuracy(outcomes: Sequence[Outcome]) -> Estimate:
    """Mean test accuracy over seeds with the Wilson interval of as many clips as there are.

    All seeds see the same test clips, so they do not make it narrower.
    """
    n = len(outcomes[0].right)
    mean = float(np.mean([outcome.accuracy for outcome in outcomes]))
    interval = wilson_interval(round(mean * n), n)
    return Estimate(mean, min(mean, interval.low), max(mean, interval.high))
