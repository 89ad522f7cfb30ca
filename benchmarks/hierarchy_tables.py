"""Tables of the hierarchy study: success by how far the goal is and by what planning may spend,
every arm beside the flat one on the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core.errors import ConfigError
from ..core.rng import numpy_generator
from .goal_reaching import GoalReachingResult
from .results import Table
from .stats import Estimate, cluster_bootstrap, mcnemar_exact, wilson_interval

NAMES = {2: ("nearer half", "farther half"), 3: ("nearest third", "middle third", "farthest third")}


def bins(distance: np.ndarray, count: int = 3) -> list[np.ndarray]:
    """Problems by distance: ``count`` equal groups of indices int ``[n / count]``, nearest first.

    Raises ConfigError for fewer problems than groups.
    """
    if len(distance) < count:
        raise ConfigError(f"problems = {len(distance)}: at least {count}, one for each distance")
    return [np.sort(part) for part in np.array_split(np.argsort(distance, kind="stable"), count)]


def difference(
    arm: Sequence[GoalReachingResult], base: Sequence[GoalReachingResult], rows: np.ndarray
) -> Estimate:
    """Success at the end of ``arm`` minus that of ``base`` on the problems ``rows``, paired by
    problem and seed; the interval resamples problems.

    Raises ConfigError unless both have the same seeds and problems.
    """
    if [r.seed for r in arm] != [r.seed for r in base] or len(
        {r.episodes_sha256 for r in (*arm, *base)}
    ) != 1:
        raise ConfigError("differences need the same seeds and problems on both sides")
    gaps = [a.at_end[rows].astype(float) - b.at_end[rows] for a, b in zip(arm, base, strict=True)]
    return cluster_bootstrap(
        np.concatenate(gaps),
        np.tile(rows, len(gaps)),
        generator=numpy_generator(0, "hierarchy-study"),
    )


def distance_table(
    title: str,
    results: Mapping[str, Sequence[GoalReachingResult]],
    distance: np.ndarray,
    *,
    unit: str,
    baseline: str,
    floors: Sequence[GoalReachingResult] = (),
) -> Table:
    """Success by distance, all arms at the same budget.

    Args:
        results: by arm, one per seed. distance: float ``[n]``. baseline: the arm that the others
            are compared with, on every group of problems. floors: shown without a comparison.
    """
    groups = bins(distance)
    base = results[baseline]
    columns = ["planner", "model calls / action", "all"]
    for name, rows in zip(NAMES[3], groups, strict=True):
        low, high = distance[rows].min(), distance[rows].max()
        columns += [f"{name} ({low:.1f} to {high:.1f} {unit})", f"minus {baseline}"]
    columns += [f"McNemar, {NAMES[3][-1]}"]
    body = []
    for name, arm in results.items():
        row = [name, f"{_calls(arm):.0f}", _share(arm, np.arange(len(distance)))]
        for rows in groups:
            gap = "" if arm is base else _signed(difference(arm, base, rows))
            row += [_share(arm, rows), gap]
        body.append([*row, "" if arm is base else _mcnemar(arm, base, groups[-1])])
    for floor in floors:
        row = [floor.name, "", _share([floor], np.arange(len(distance)))]
        for rows in groups:
            row += [_share([floor], rows), ""]
        body.append([*row, ""])
    seeds = len(base)
    note = (
        f"Success at the end of {base[0].budget} environment steps, {len(distance)} problems × "
        f"{seeds} training seed(s), the same for every row; 95 % Wilson intervals. Differences are "
        "paired by problem and seed, 95 % bootstrap intervals over problems. McNemar: problems "
        "that only this arm, and only the flat one, solved, first seed, exact p."
    )
    return Table(title=title, columns=columns, rows=body, note=note)


def seed_table(
    title: str,
    results: Mapping[str, Sequence[GoalReachingResult]],
    distance: np.ndarray,
    *,
    baseline: str,
) -> Table:
    """Success of each training seed alone: do seeds agree? Arguments as for
    :func:`distance_table`."""
    base, everywhere = results[baseline], np.arange(len(distance))
    far = bins(distance)[-1]
    columns = ["planner"]
    for result in base:
        columns += [f"seed {result.seed}: all", NAMES[3][-1], f"minus {baseline}"]
    body = []
    for name, arm in results.items():
        row = [name]
        for one, other in zip(arm, base, strict=True):
            gap = "" if arm is base else _signed(difference([one], [other], far))
            row += [_share([one], everywhere), _share([one], far), gap]
        body.append(row)
    note = (
        f"Success at the end, {len(distance)} problems, the same for every seed; 95 % Wilson "
        f"intervals. Differences on the {NAMES[3][-1]}, paired by problem."
    )
    return Table(title=title, columns=columns, rows=body, note=note)


def compute_table(
    title: str,
    results: Mapping[str, Mapping[int, Sequence[GoalReachingResult]]],
    distance: np.ndarray,
) -> Table:
    """Success against the budget: ``results`` by arm and by model calls per plan."""
    far = bins(distance)[-1]
    budgets = sorted({calls for by_calls in results.values() for calls in by_calls})
    columns = ["planner"]
    for calls in budgets:
        columns += [f"{calls} calls / plan: all", NAMES[3][-1], "seconds / action"]
    body = []
    for name, by_calls in results.items():
        row = [name]
        for calls in budgets:
            arm = by_calls[calls]
            seconds = float(np.mean([r.seconds for r in arm]))
            row += [_share(arm, np.arange(len(distance))), _share(arm, far), f"{seconds:.4f}"]
        body.append(row)
    note = (
        "Success at the end. Seconds are the agent's own, problems side by side, on a machine that "
        "other work may share: an indication, not a measurement."
    )
    return Table(title=title, columns=columns, rows=body, note=note)


def verdict(
    arm: Sequence[GoalReachingResult], base: Sequence[GoalReachingResult], distance: np.ndarray
) -> str:
    """What was asked beforehand, in a sentence: is the hierarchy above the flat planner on the
    farthest third?"""
    gap = difference(arm, base, bins(distance)[-1])
    told = f"{_signed(gap)} on the {NAMES[3][-1]}"
    if gap.low > 0:
        return f"The hierarchy is above the flat planner: {told}."
    if gap.high < 0:
        return f"The hierarchy is below the flat planner: {told}."
    return f"No difference shown between the hierarchy and the flat planner: {told}."


def prediction_table(title: str, reports: Sequence[Mapping[str, float]]) -> Table:
    """Prediction errors of both levels on held-out windows, one column per seed."""
    wanted = {
        "over_copy_H": "level 1, last step, error over copying",
        "level2_over_copy_H": "level 2, last step, error over copying",
        "level2_over_level1_H": "level 2 over level 1, last step",
        "shuffled": "level 1, other actions over true ones",
        "level2_shuffled": "level 2, other macro-actions over true ones",
    }
    rows = [[label, *(f"{report[key]:.3f}" for report in reports)] for key, label in wanted.items()]
    columns = ["squared error of rollouts", *(f"seed {n}" for n in range(len(reports)))]
    return Table(title=title, columns=columns, rows=rows, note="Held-out episodes.")


def _share(arm: Sequence[GoalReachingResult], rows: np.ndarray) -> str:
    hits = int(sum(r.at_end[rows].sum() for r in arm))
    found = wilson_interval(hits, len(rows) * len(arm))
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _signed(gap: Estimate) -> str:
    return f"{100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def _mcnemar(
    arm: Sequence[GoalReachingResult], base: Sequence[GoalReachingResult], rows: np.ndarray
) -> str:
    test = mcnemar_exact(arm[0].at_end[rows], base[0].at_end[rows])
    return f"{test.only_first}–{test.only_second}, p = {test.p:.2g}"


def _calls(arm: Sequence[GoalReachingResult]) -> float:
    return float(np.mean([r.model_calls or 0.0 for r in arm]))
