"""The tables of :mod:`.flow_study`: end-point errors, probes, and paired differences of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .objective_tables import show, t_interval
from .results import Table
from .stats import Estimate

ORDER = ("both", "both, flow heavier", "flow", "flow longer", "content", "untrained", "pixel PCA")
FACTORS = ("shape", "colour", "count")
FLOWS = {
    "textures": ("textures", "epe"),
    "textures, visible": ("textures", "epe_visible"),
    "sprites": ("sprites", "epe"),
    "sprites, visible": ("sprites", "epe_visible"),
}
"""Column -> kind of pairs and which pixels."""
AGREEMENT = {"agree, visible": "consistent_visible", "agree, hidden": "consistent_hidden"}
FLOW_PAIRS = (
    ("both", "flow"),
    ("both, flow heavier", "flow"),
    ("both, flow heavier", "both"),
    ("both", "flow longer"),
)
PROBE_PAIRS = tuple(("both", other) for other in ("content", "flow", "untrained", "pixel PCA"))
Arms = dict[str, list[dict[str, Any]]]


def study_tables(scores: Sequence[dict[str, Any]]) -> list[Table]:
    """All tables that the stored scores allow. Raises ConfigError without scores."""
    if not scores:
        raise ConfigError("a table needs at least one score")
    arms: Arms = {name: [] for name in ORDER}
    for score in sorted(scores, key=lambda s: s["settings"]["seed"]):
        arms[score["settings"]["arm"]].append(score)
    arms = {name: some for name, some in arms.items() if some}
    makers = (flow_table, flow_differences, probe_table, probe_differences)
    return [table for make in makers if (table := make(arms)).rows]


def flow_table(arms: Arms) -> Table:
    """End-point error of each arm with a flow, of no flow, and how well both directions agree."""
    rows = []
    seen = {name: some for name, some in arms.items() if some[0]["flow"]}
    for name, some in seen.items():
        errors = [show(t_interval(_flow(some, *where))) for where in FLOWS.values()]
        agree = [show(t_interval(_flow(some, "sprites", key))) for key in AGREEMENT.values()]
        rows.append([name, str(len(some)), *errors, *agree])
    if seen:
        first = next(iter(seen.values()))[:1]
        zero = [f"{_flow(first, kind, f'zero_{key}')[0]:.3f}" for kind, key in FLOWS.values()]
        rows.append(["no flow", "–", *zero, *("–" for _ in AGREEMENT)])
    return Table(
        title="End-point error in pixels",
        columns=["arm", "seeds", *FLOWS, *AGREEMENT],
        rows=rows,
        note=f"{_setting(arms)} Mean over pixels of test pairs; visible: without pixels that the "
        "second frame does not show. The last columns: the share of sprites' pixels where forward "
        "and backward flow agree; hidden pixels should not. Mean over seeds with Student's 95 % "
        "interval.",
    )


def flow_differences(arms: Arms) -> Table:
    """Paired differences of end-point error, below zero if the first arm is better."""
    rows = _differences(
        arms, FLOW_PAIRS, lambda s, c: _flow(s, *FLOWS[c]), tuple(FLOWS), below=True
    )
    for name, some in arms.items():
        if not some[0]["flow"]:
            continue
        gaps = [
            t_interval(_flow(some, kind, key) - _flow(some, kind, f"zero_{key}"))
            for kind, key in FLOWS.values()
        ]
        words = "; ".join(f"{c}: {word(g, below=True)}" for c, g in zip(FLOWS, gaps, strict=True))
        cells = [show(g, sign=True) for g in gaps]
        rows.append([f"{name} − no flow", str(len(some)), *cells, words])
    return Table(
        title="End-point error: paired differences",
        columns=["difference", "seeds", *FLOWS, "first arm is"],
        rows=rows,
        note="Differences of the same seed with Student's 95 % interval over seeds. Better or "
        "worse is a difference whose interval excludes 0, with no correction for the number of "
        "comparisons; undecided is any other.",
    )


def probe_table(arms: Arms) -> Table:
    """Test accuracy of linear probes of the sprites' factors."""
    rows = []
    for name, some in arms.items():
        cells = [show(t_interval(_probe(some, factor))) for factor in (*FACTORS, "mean")]
        rows.append([name, str(len(some)), *cells])
    return Table(
        title="Content: test accuracy of linear probes of the frozen encoder",
        columns=["encoder", "seeds", *FACTORS, "mean"],
        rows=rows,
        note=f"{_setting(arms)} Logistic regression on the mean token of a picture of sprites "
        "(half of the pictures to fit, a fifth to choose the penalty, the rest to report). Mean "
        "over seeds with Student's 95 % interval. By chance: shape and count 0.250, colour 0.167.",
    )


def probe_differences(arms: Arms) -> Table:
    """Paired differences of accuracy, above zero if the first arm is better."""
    columns = (*FACTORS, "mean")
    return Table(
        title="Content: paired differences",
        columns=["difference", "seeds", *columns, "first arm is"],
        rows=_differences(arms, PROBE_PAIRS, _probe, columns, below=False),
        note="As above.",
    )


def word(estimate: Estimate, *, below: bool) -> str:
    """better, worse or undecided, by whether the interval excludes 0; ``below``: less is better."""
    if math.isinf(estimate.low):
        return "not judged"
    if estimate.low <= 0 <= estimate.high:
        return "undecided"
    return "better" if (estimate.high < 0) == below else "worse"


def _differences(
    arms: Arms,
    pairs: Sequence[tuple[str, str]],
    values: Callable[[list[dict[str, Any]], str], np.ndarray],
    columns: Sequence[str],
    *,
    below: bool,
) -> list[list[str]]:
    rows = []
    for first, second in pairs:
        one, other = _shared(arms.get(first, []), arms.get(second, []))
        if not one:
            continue
        gaps = [t_interval(values(one, c) - values(other, c)) for c in columns]
        words = "; ".join(
            f"{c}: {word(g, below=below)}" for c, g in zip(columns, gaps, strict=True)
        )
        cells = [show(g, sign=True) for g in gaps]
        rows.append([f"{first} − {second}", str(len(one)), *cells, words])
    return rows


def _shared(
    one: list[dict[str, Any]], other: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The scores of seeds that both have."""
    seeds = {s["settings"]["seed"] for s in one} & {s["settings"]["seed"] for s in other}
    kept = [[s for s in some if s["settings"]["seed"] in seeds] for some in (one, other)]
    return kept[0], kept[1]


def _flow(some: list[dict[str, Any]], kind: str, key: str) -> np.ndarray:
    return np.array([score["flow"][kind][key] for score in some])


def _probe(some: list[dict[str, Any]], factor: str) -> np.ndarray:
    names = FACTORS if factor == "mean" else (factor,)
    return np.array([np.mean([score["probes"][name] for name in names]) for score in some])


def _setting(arms: Arms) -> str:
    s = next(iter(arms.values()))[0]["settings"]
    return (
        f"Generated pairs of {s['side']} pixels; {s['steps']} steps with both losses "
        f"({s['flow_batch']} pairs or {s['content_batch']} pictures each), the other arms as many "
        f"as that one takes of their kind; {s['tests']} test pairs of each kind, {s['probes']} "
        "pictures."
    )
