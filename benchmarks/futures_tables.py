"""The tables of :mod:`.futures_study`: how good futures are, and who reaches goals with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .objective_tables import show, t_interval
from .results import Table
from .stats import Estimate, mcnemar_exact, wilson_interval

BASE = "deterministic"
"""What differences are to."""
PLANS = {
    "likely": "most probable future",
    "expected": "expected cost",
    "worst": "worst case",
    "cvar": "worst quarter",
    "optimistic": "best case",
    "none": "–",
}


def study_tables(scores: Sequence[dict[str, Any]]) -> list[Table]:
    """Futures, then plans, of all stored scores of one size.

    Raises ConfigError without scores.
    """
    if not scores:
        raise ConfigError("a table needs at least one score")
    arms: dict[str, list[dict[str, Any]]] = {}
    for score in sorted(scores, key=lambda s: s["settings"]["seed"]):
        arms.setdefault(score["settings"]["arm"], []).append(score)
    return [futures_table(arms), plans_table(arms)]


def futures_table(arms: dict[str, list[dict[str, Any]]]) -> Table:
    """One row per trained arm: coverage and precision where the world forks and where not."""
    columns = ["arm", "seeds", "coverage", "− deterministic", "precision", "− deterministic"]
    columns += ["missed", "stray", "excess NLL", "coverage in calm", "precision in calm"]
    rows = []
    for name, arm in arms.items():
        if not arm[0]["futures"]:
            continue
        cells = []
        for metric in ("coverage", "precision"):
            cells += [_cell(arm, "wind", metric), _difference(arm, arms.get(BASE), metric)]
        cells += [_cell(arm, "wind", metric) for metric in ("missed", "stray", "excess")]
        cells += [_cell(arm, "calm", metric) for metric in ("coverage", "precision")]
        rows.append([name, len(arm), *cells])
    settings = next(iter(arms.values()))[0]["settings"]
    return Table(
        title="Futures of plans through the gate, beside the true branches",
        columns=columns,
        rows=rows,
        note=f"{settings['cases']} plans per seed, judged after three steps by "
        f"{settings['futures']} futures drawn (one of the deterministic arm), within 0.2 of a "
        "branch; in wind the world forks 50:50, in calm it does not. Coverage: probability of "
        "the branches that were imagined. Precision: share of the futures that can happen. "
        "Missed, stray: mean distance of branches from futures, and of futures from branches "
        "(the pits are 2.2 apart). Excess NLL: nats over the branches' entropy, with 1 % taken "
        "for granted. Mean over seeds with "
        "Student's 95 % interval; differences are paired by seed. "
        f"{settings['training']['steps']} training steps.",
    )


def plans_table(arms: dict[str, list[dict[str, Any]]]) -> Table:
    """One row per arm and way of planning: goals reached in wind and in calm."""
    base = _outcomes(arms[BASE], "likely", "wind") if BASE in arms else None
    columns = ["dynamics", "plans by", "n", "success in wind", "in a pit", "only it : only det."]
    columns += ["p", "success in calm"]
    rows = []
    for name, arm in arms.items():
        for rule in arm[0]["plans"]:
            wind, calm = _outcomes(arm, rule, "wind"), _outcomes(arm, rule, "calm")
            pits = _outcomes(arm, rule, "wind", "sunk")
            paired = ["–", "–"]
            if base is not None and name != BASE and base.keys() == wind.keys():
                test = mcnemar_exact(_all(wind), _all(base))
                paired = [f"{test.only_first} : {test.only_second}", f"{test.p:.2g}"]
            rows.append(
                [
                    name,
                    PLANS[rule],
                    _all(wind).size,
                    _share(wind),
                    f"{_all(pits).mean():.2f}",
                    *paired,
                    _share(calm),
                ]
            )
    settings = next(iter(arms.values()))[0]["settings"]
    c = settings["planner"]
    return Table(
        title="Goals on the other side of the gate",
        columns=columns,
        rows=rows,
        note=f"{settings['problems']} problems in wind per seed and half as many in calm, the same "
        "for all rows; at the goal (within 0.2) after 12 steps, with Wilson's 95 % interval over "
        f"all problems. CEM ({c['samples']} candidates, {c['iterations']} iterations, horizon "
        f"{c['horizon']}) plans anew after every {settings['execute']} steps, with "
        f"{settings['futures']} futures of each candidate. p: exact "
        "McNemar test against the deterministic arm on the problems in wind.",
    )


def _cell(arm: list[dict[str, Any]], kind: str, metric: str) -> str:
    return show(t_interval(_values(arm, kind, metric)))


def _values(arm: list[dict[str, Any]], kind: str, metric: str) -> np.ndarray:
    return np.array([score["futures"][kind][metric] for score in arm])


def _difference(arm: list[dict[str, Any]], base: list[dict[str, Any]] | None, metric: str) -> str:
    """Paired by seed, of the seeds that both have."""
    if base is None or arm is base:
        return "–"
    other = {score["settings"]["seed"]: score for score in base}
    both = [score for score in arm if score["settings"]["seed"] in other]
    if not both:
        return "–"
    same = [other[score["settings"]["seed"]] for score in both]
    found: Estimate = t_interval(_values(both, "wind", metric) - _values(same, "wind", metric))
    return show(found, sign=True)


def _outcomes(
    arm: list[dict[str, Any]], rule: str, kind: str, what: str = "reached"
) -> dict[int, np.ndarray]:
    """Outcomes by seed."""
    return {s["settings"]["seed"]: np.array(s["plans"][rule][kind][what]) for s in arm}


def _all(outcomes: dict[int, np.ndarray]) -> np.ndarray:
    return np.concatenate([outcomes[seed] for seed in sorted(outcomes)])


def _share(outcomes: dict[int, np.ndarray]) -> str:
    flat = _all(outcomes)
    found = wilson_interval(int(flat.sum()), flat.size)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
