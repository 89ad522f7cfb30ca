"""One row per objective: probe scores with intervals over seeds, and what they beat or lose to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .factor_scenes import GROUPS
from .results import Table
from .stats import Estimate

READOUTS = {
    "pooled": "mean of the tokens",
    "tokens": "principal components of all tokens side by side, as many as a token is wide",
}
JUDGED = ("semantic", "motion")
"""Groups of factors that a verdict is about: whether to keep nuisances is a matter of taste."""
BASELINES = {"random": "untrained", "pixels": "pixel PCA"}


def t_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Estimate:
    """The mean of ``values [n]`` with Student's t interval; endless for a single value."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, -math.inf, math.inf)
    from scipy.stats import t

    half = float(t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1))
    half /= math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def study_table(scores: Sequence[dict[str, Any]], readout: str) -> Table:
    """The table of one readout; ``scores`` are the stored results of all objectives and seeds.

    An objective's row has R² per group of factors, its paired differences to both baselines and the
    verdict; every kind of data has a row of pixel PCA, and every objective one of its untrained
    encoder. Raises ConfigError without scores.
    """
    if not scores:
        raise ConfigError("a table needs at least one score")
    arms: dict[str, list[dict[str, Any]]] = {}
    for score in scores:
        arms.setdefault(score["settings"]["objective"], []).append(score)
    groups = [g for g in GROUPS if any(g in s["scores"]["trained"][readout] for s in scores)]
    judged = [group for group in groups if group in JUDGED]
    columns = ["encoder", "data", "seeds", *(f"{group} R²" for group in groups)]
    columns += [f"{g} − {label}" for g in judged for label in BASELINES.values()] + ["verdict"]
    rows, floors = [], {}
    for name, arm in arms.items():
        kind, seeds = arm[0]["settings"]["kind"], str(len(arm))
        start = [_cell(arm, "trained", readout, group) for group in groups]
        differences = {
            (group, base): t_interval(
                _r2(arm, "trained", readout, group) - _r2(arm, base, readout, group)
            )
            for group in judged
            for base in BASELINES
            if group in arm[0]["scores"]["trained"][readout]
        }
        cells = [
            show(differences[g, b], sign=True) if (g, b) in differences else "–"
            for g in judged
            for b in BASELINES
        ]
        rows.append([name, kind, seeds, *start, *cells, verdict(differences)])
        for base, label in ((f"untrained {name}", "random"), ("pixel PCA", "pixels")):
            floor = [_cell(arm, label, readout, group) for group in groups]
            floors.setdefault((kind, base), [base, kind, seeds, *floor, *["–"] * len(cells), "–"])
    settings = arms[next(iter(arms))][0]["settings"]
    return Table(
        title=f"Frozen linear probes of known factors: {READOUTS[readout]}",
        columns=columns,
        rows=rows + [floors[key] for key in sorted(floors)],
        note=f"R² of ridge regression on held-out generated scenes ({settings['probes']} scenes "
        "that no encoder was trained on: 60 % to fit, 20 % to choose the penalty, 20 % to report), "
        f"all factors of a group pooled; {settings['steps']} training steps. Mean over seeds with "
        "Student's 95 % interval over seeds, which name weights, batches and split alike. "
        "Differences are paired by seed: with the same encoder before training, and with as many "
        "principal components of the pixels. A verdict counts a difference whose interval excludes "
        "0, with no correction for the number of comparisons.",
    )


def verdict(differences: dict[tuple[str, str], Estimate]) -> str:
    """``"semantic: beats untrained, loses to pixel PCA"``, by group; ``differences`` are those of
    (group, baseline). "Ties with" says that the interval includes 0."""
    parts: dict[str, list[str]] = {}
    for (group, base), estimate in differences.items():
        word = "beats" if estimate.low > 0 else "loses to" if estimate.high < 0 else "ties with"
        parts.setdefault(group, []).append(f"{word} {BASELINES[base]}")
    if any(math.isinf(estimate.low) for estimate in differences.values()):
        return "not judged: one seed"
    return "; ".join(f"{group}: {', '.join(words)}" for group, words in parts.items())


def show(estimate: Estimate, *, sign: bool = False) -> str:
    """``"0.62 [0.55, 0.68]"``; without the interval where there is none."""
    form = "+.3f" if sign else ".3f"
    if math.isinf(estimate.low):
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def to_markdown(table: Table) -> str:
    """The table as Markdown, with its title and note."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    body = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    return f"### {table.title}\n\n{body}\n\n{table.note}\n"


def _r2(arm: list[dict[str, Any]], source: str, readout: str, group: str) -> np.ndarray:
    """R² by seed ``[n]``, in the order of ``arm``."""
    return np.array([score["scores"][source][readout][group]["mean"]["value"] for score in arm])


def _cell(arm: list[dict[str, Any]], source: str, readout: str, group: str) -> str:
    if group not in arm[0]["scores"][source][readout]:
        return "–"
    return show(t_interval(_r2(arm, source, readout, group)))
