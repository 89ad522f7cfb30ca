"""Tables and verdict of :mod:`.jedi_study`, as docs/family/jedi.md fixed them beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .jedi_arms import BASE, FEEDBACK, JUDGED, LONGER
from .objective_tables import show, t_interval
from .results import Table
from .stats import Estimate

PRIMARY = {"probe": 1, "nuisance": -1, "surprise": 1}
"""End point -> 1 where more is better, -1 where less is."""
TITLES = {
    "probe": "semantic probes (accuracy)",
    "nuisance": "nuisances (R², less is better)",
    "surprise": "surprise (AUROC)",
}
SECONDARY = {
    "rank": "RankMe of the targets",
    "spread": "spread of predictions over targets'",
    "apart": "AUC of a fresh classifier",
    "loss": "prediction error",
}
SEEDS = 5
"""Seeds that the protocol asks for."""
LEVEL = 0.05

Scores = dict[str, dict[int, dict[str, float]]]
"""Arm -> seed -> value by name."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm against another on one end point; differences are signed so that more is better.

    Attributes:
        difference: mean over seeds, with the interval at Holm's level. excludes: whether it, and
            every interval before it in Holm's order, excludes 0.
    """

    difference: Estimate
    excludes: bool

    @property
    def better(self) -> bool:
        return self.excludes and self.difference.value > 0


def by_arm(scores: Sequence[dict[str, Any]]) -> Scores:
    """Stored scores by arm, in the protocol's order, and seed."""
    found: Scores = {}
    for name in FEEDBACK:
        own = {s["settings"]["seed"]: s["values"] for s in scores if s["settings"]["arm"] == name}
        if own:
            found[name] = dict(sorted(own.items()))
    return found


def compare(scores: Scores, arm: str, other: str) -> dict[str, Comparison]:
    """``arm`` against ``other`` on every primary end point, paired by seed, with Holm's correction
    over these end points; empty without two common seeds."""
    seeds = sorted(scores.get(arm, {}).keys() & scores.get(other, {}).keys())
    if len(seeds) < 2:
        return {}
    gaps = {
        point: sign * np.array([scores[arm][s][point] - scores[other][s][point] for s in seeds])
        for point, sign in PRIMARY.items()
    }
    order = sorted(gaps, key=lambda point: p_value(gaps[point]))
    found, still = {}, True
    for place, point in enumerate(order):
        level = LEVEL / (len(order) - place)
        still = still and p_value(gaps[point]) <= level
        found[point] = Comparison(difference=t_interval(gaps[point], 1 - level), excludes=still)
    return {point: found[point] for point in PRIMARY}


def p_value(gaps: np.ndarray) -> float:
    """Of Student's paired t test against no difference; two or more values."""
    deviation = float(np.std(gaps, ddof=1))
    if deviation < 1e-12:
        return 1.0 if abs(float(gaps.mean())) < 1e-12 else 0.0
    from scipy.stats import t

    statistic = float(gaps.mean()) / (deviation / math.sqrt(len(gaps)))
    return float(2 * t.sf(abs(statistic), len(gaps) - 1))


def helps(scores: Scores, arm: str) -> tuple[bool, str]:
    """Whether feedback helps by this arm, by the rule that was fixed beforehand, and why (not)."""
    against = compare(scores, arm, BASE)
    if not against:
        return False, "not judged: no two seeds beside the base"
    better = [point for point, c in against.items() if c.better]
    worse = []
    for point in PRIMARY:
        level = np.array([values[point] for values in scores[BASE].values()])
        if against[point].difference.value < -float(np.std(level, ddof=1)):
            worse.append(point)
    if len(better) < 2:
        return False, f"better than the base on {_named(better)}, of two that are needed"
    if worse:
        return False, f"worse than the base by more than its deviation on {_named(worse)}"
    rivals = [name for name in ("moments", LONGER) if name != arm]
    versus = {name: compare(scores, arm, name) for name in rivals}
    absent = [name for name, found in versus.items() if not found]
    if absent:
        return False, f"not judged: {', '.join(absent)} is missing"
    above = [p for p in better if all(versus[name][p].better for name in rivals)]
    if not above:
        return False, f"not better than {' and '.join(rivals)} on any of {_named(better)}"
    return True, f"better than the base on {_named(better)}, than all rivals on {_named(above)}"


def verdict(scores: Scores) -> str:
    """What the study says, in one line."""
    missing = [name for name in FEEDBACK if name not in scores]
    if missing:
        return f"not judged: the arms {', '.join(missing)} are missing"
    least = min(len(seeds) for seeds in scores.values())
    if least < 2:
        return "not judged: one seed"
    some = "" if least >= SEEDS else f" ({least} of the {SEEDS} seeds that the protocol asks for)"
    won = [name for name in JUDGED if helps(scores, name)[0]]
    return (f"feedback helps: {', '.join(won)}" if won else "no benefit shown") + some


def jedi_tables(stored: Sequence[dict[str, Any]]) -> list[Table]:
    """All tables that the stored scores allow. Raises ConfigError without scores."""
    if not stored:
        raise ConfigError("a table needs at least one score")
    scores = by_arm(stored)
    about = stored[0]["settings"]
    setting = (
        f"{about['videos']} generated videos with nuisances and an unpredictable patch; "
        f"{about['probes']} others to probe, {about['events']} pairs for surprise."
    )
    rows = [
        [name, str(len(seeds)), *(show(t_interval(_column(seeds, point))) for point in PRIMARY)]
        for name, seeds in scores.items()
    ]
    levels = Table(
        title="JeDi: primary end points",
        columns=["arm", "seeds", *TITLES.values()],
        rows=rows,
        note=f"{setting} Mean over seeds with Student's 95 % interval. Verdict: {verdict(scores)}.",
    )
    rows = []
    for name in scores:
        for other in (BASE, "moments", LONGER):
            against = {} if other == name else compare(scores, name, other)
            if not against or (other != BASE and name not in JUDGED):
                continue
            cells = [
                show(c.difference, sign=True) + (" *" if c.excludes else "")
                for c in against.values()
            ]
            word = helps(scores, name)[1] if other == BASE and name in JUDGED else "–"
            rows.append([f"{name} − {other}", *cells, word])
    differences = Table(
        title="JeDi: paired differences",
        columns=["difference", *TITLES.values(), "by the protocol"],
        rows=rows,
        note="Signed so that more is better, also of nuisances. Paired by seed; Student's "
        "intervals at Holm's levels over the three end points (* excludes 0, and so do those "
        "before it).",
    )
    rows = [
        [
            name,
            *(show(t_interval(_column(seeds, key))) for key in SECONDARY),
            f"{np.mean(_column(seeds, 'train_seconds')):.0f}",
        ]
        for name, seeds in scores.items()
    ]
    secondary = Table(
        title="JeDi: secondary",
        columns=["arm", *SECONDARY.values(), "seconds to train"],
        rows=rows,
        note="On held-out clips. The classifier is logistic regression between single predictions "
        "and targets, 0.5 if it cannot tell them apart. Seconds of processor time on a shared "
        "machine: no measure of speed.",
    )
    return [table for table in (levels, differences, secondary) if table.rows]


def _column(seeds: dict[int, dict[str, float]], name: str) -> list[float]:
    return [values[name] for values in seeds.values()]


def _named(points: Sequence[str]) -> str:
    return ", ".join(points) or "none"
