"""The tables of :mod:`.video_study`: final probes, paired differences, compute, and few labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .objective_tables import show, t_interval
from .results import Table
from .stats import Estimate
from .video_probes import READOUTS

PAIRS = (
    ("latent", "untrained"),
    ("latent", "pixel PCA"),
    ("latent", "pixels"),
    ("pixels", "untrained"),
    ("pixels", "pixel PCA"),
)
"""Arms that are compared, seed by seed."""

Scores = dict[str, list[dict[str, Any]]]
"""Stored scores by arm, by rising seed."""


def study_tables(scores: Sequence[dict[str, Any]], factors: Sequence[str]) -> list[Table]:
    """All tables that the stored scores allow. Raises ConfigError without scores."""
    if not scores:
        raise ConfigError("a table needs at least one score")
    arms: Scores = {}
    for score in sorted(scores, key=lambda s: s["settings"]["seed"]):
        arms.setdefault(score["settings"]["arm"], []).append(score)
    order = ("latent", "pixels", "untrained", "pixel PCA", "motion by hand")
    arms = {name: arms[name] for name in order if name in arms}
    tables = []
    for readout in READOUTS:
        tables.append(final_table(arms, factors, readout))
        tables.append(difference_table(arms, factors, readout))
    tables.append(compute_table(arms, factors))
    for readout in READOUTS:
        tables.append(final_table(arms, factors, readout, few=True))
        tables.append(difference_table(arms, factors, readout, few=True))
    return [table for table in tables if table.rows]


def final_table(arms: Scores, factors: Sequence[str], readout: str, *, few: bool = False) -> Table:
    """Test accuracy of each arm's last encoder by factor, with intervals over seeds."""
    rows = []
    for name, some in arms.items():
        values = {f: accuracies(some, readout, [f], few=few) for f in factors}
        mean = accuracies(some, readout, factors, few=few)
        cells = [show(t_interval(values[f])) for f in factors] + [show(t_interval(mean))]
        rows.append([name, str(len(some)), *cells])
    return Table(
        title=f"{_title(arms, readout, few)}: test accuracy",
        columns=["encoder", "seeds", *factors, "mean"],
        rows=rows,
        note=f"{_setting(arms, readout, few)} Mean over seeds with Student's 95 % interval; a seed "
        "names weights, clips and split alike. By chance: direction 0.125, the others 0.25.",
    )


def difference_table(
    arms: Scores, factors: Sequence[str], readout: str, *, few: bool = False
) -> Table:
    """Paired differences of test accuracy, seed by seed, and what they say."""
    rows = []
    for first, second in PAIRS:
        if first not in arms or second not in arms:
            continue
        one, other = _shared(arms[first], arms[second])
        if not one:
            continue
        differences = [
            t_interval(
                accuracies(one, readout, some, few=few) - accuracies(other, readout, some, few=few)
            )
            for some in (*([f] for f in factors), factors)
        ]
        cells = [show(d, sign=True) for d in differences]
        rows.append([f"{first} − {second}", str(len(one)), *cells, word(differences[-1])])
    return Table(
        title=f"{_title(arms, readout, few)}: paired differences",
        columns=["difference", "seeds", *factors, "mean", "on the mean"],
        rows=rows,
        note="Differences of the same seed, with Student's 95 % interval over seeds. The last "
        "column says whether that of the mean over factors excludes 0; no correction for the "
        "number of comparisons.",
    )


def compute_table(arms: Scores, factors: Sequence[str]) -> Table:
    """Accuracy during training, and the compute at which both arms know equally much."""
    rows = []
    for readout in READOUTS:
        for name in ("latent", "pixels"):
            some = arms.get(name, [])
            count = min((len(score["checkpoints"]) for score in some), default=0)
            for number in range(count):
                points = [score["checkpoints"][number] for score in some]
                cells = [
                    show(t_interval([_mean(p["probes"][readout], fs) for p in points]))
                    for fs in (*([f] for f in factors), factors)
                ]
                flops, steps = points[0]["flops"], points[0]["steps"]
                rows.append([readout, name, str(steps), f"{flops / 1e12:.2f}", *cells])
    notes = [
        "Operations of training alone, counted from the configs (a backward pass counts as two "
        "forward passes; the latent arm's teacher is counted). Earlier rows are of encoders in the "
        "middle of their schedule."
    ]
    if "latent" in arms and "pixels" in arms:
        notes += [_equal(arms, factors, readout) for readout in READOUTS]
    return Table(
        title="Latents or pixels: test accuracy over compute",
        columns=["probe", "predicts", "steps", "TFLOP", *factors, "mean"],
        rows=rows,
        note=" ".join(notes),
    )


def flops_to_reach(curve: Sequence[tuple[float, float]], accuracy: float) -> float:
    """The compute at which a curve first reaches ``accuracy``, straight between its points in the
    logarithm of compute; that of the first point if it starts above, infinite if it never does.

    Args:
        curve: (operations, accuracy), operations rising.
    """
    if curve[0][1] >= accuracy:
        return curve[0][0]
    for (flops, low), (more, high) in pairwise(curve):
        if high >= accuracy:
            share = (accuracy - low) / (high - low)
            return math.exp(math.log(flops) + share * (math.log(more) - math.log(flops)))
    return math.inf


def flops_ratio(
    latent: Sequence[tuple[float, float]], pixels: Sequence[tuple[float, float]]
) -> float:
    """How many times the latent arm's compute the pixel arm needs to reach what the worse of the
    two ends with."""
    level = min(latent[-1][1], pixels[-1][1])
    return flops_to_reach(pixels, level) / flops_to_reach(latent, level)


def accuracies(
    some: Sequence[dict[str, Any]], readout: str, factors: Sequence[str], *, few: bool = False
) -> np.ndarray:
    """Final test accuracy by seed ``[n]``, the mean over ``factors``."""
    probes = [score["few"] if few else score["checkpoints"][-1]["probes"] for score in some]
    return np.array([_mean(probe[readout], factors) for probe in probes])


def word(estimate: Estimate) -> str:
    """``"better"``, ``"worse"``, ``"no difference shown"``, or ``"not judged: one seed"``."""
    if math.isinf(estimate.low):
        return "not judged: one seed"
    if estimate.low > 0:
        return "better"
    return "worse" if estimate.high < 0 else "no difference shown"


def _equal(arms: Scores, factors: Sequence[str], readout: str) -> str:
    latent, pixels = _shared(arms["latent"], arms["pixels"])
    if not latent:
        return ""

    def curve(score: dict[str, Any]) -> list[tuple[float, float]]:
        points = score["checkpoints"]
        return [(point["flops"], _mean(point["probes"][readout], factors)) for point in points]

    ratios = [flops_ratio(curve(a), curve(b)) for a, b in zip(latent, pixels, strict=True)]
    middle = t_interval(np.log(ratios))
    interval = (
        f" [{math.exp(middle.low):.2f}, {math.exp(middle.high):.2f}]"
        if math.isfinite(middle.low)
        else ""
    )
    return (
        f"To the mean accuracy that the worse arm of a seed ends with, by the {readout} probe, "
        f"predicting pixels takes {math.exp(middle.value):.2f}{interval} times the operations of "
        "predicting latents (geometric mean over seeds; an arm that is there at its first "
        "checkpoint counts as reaching it then)."
    )


def _mean(probe: dict[str, float], factors: Sequence[str]) -> float:
    return float(np.mean([probe[factor] for factor in factors]))


def _shared(
    one: list[dict[str, Any]], other: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The scores of the seeds that both have."""
    first, second = ({s["settings"]["seed"]: s for s in some} for some in (one, other))
    seeds = sorted(first.keys() & second.keys())
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def _title(arms: Scores, readout: str, few: bool) -> str:
    settings = next(iter(arms.values()))[0]["settings"]
    return f"Frozen {readout} probes" + (f", {settings['labels']} labels a class" if few else "")


def _setting(arms: Scores, readout: str, few: bool) -> str:
    settings = next(iter(arms.values()))[0]["settings"]
    kept = "" if few else " (50 % to train the probe, 20 % to choose its settings, 30 % to report)"
    chosen = f" {settings['labels']} clips of each class to train and to choose." if few else ""
    return (
        f"{READOUTS[readout].capitalize()}. {settings['videos']} videos of moving shapes without "
        f"labels to pretrain on; {settings['probes']} others to probe{kept}.{chosen}"
    )
