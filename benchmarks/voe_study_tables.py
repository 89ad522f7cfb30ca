"""Tables of :mod:`.voe_study`: what the base arm's accuracy depends on, and what arms change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.voe.record import VoeVideo
from ..datasets.voe.tubelet_set import read_tubelet
from .results import Table
from .voe.judge import judged, paired
from .voe.settings import Reading
from .voe.store import VoeRun, open_run
from .voe.tables import PairScores, chance_groups, in_order, pair_scores
from .voe.words import interval, percent, signed


def chosen(path: Path) -> tuple[VoeRun, Reading]:
    """A scoring run without the split val, and the reading that was chosen on it."""
    run = open_run(path)
    facts = json.loads((path / "chosen.json").read_text(encoding="utf-8"))
    reading = Reading(context=facts["context"], aggregate=facts["aggregate"])
    splits = sorted({video.split for video in run.videos} - {"val"})
    return run.select(splits=splits, kinds=["probe"]), reading


def strata_table(path: Path, data: Path) -> Table:
    """The base arm by principle and condition, in halves of what may limit it."""
    run, reading = chosen(path)
    facts = {video.name: video for video in read_tubelet(data).videos}
    scores, copy = (pair_scores(run, name, reading) for name in ("model", "copy"))
    chance, half = chance_groups(run), run.config.span // 2
    splits: dict[str, Callable[[VoeVideo], bool | None]] = {
        f"gap < {half} / longer": lambda v: _below(v.tags["gap"], half),
        "object < 10 px / larger": lambda v: _below(v.tags["axes"].get("object_px"), 10),
        "copying decides / not": lambda v: v.tags["copy_friendly"],
    }
    rows = []
    for cell in in_order(scores.cells):
        picked = [i for i, c in enumerate(scores.cells) if c == cell]
        groups = [scores.groups[i] for i in picked]
        name = f"{cell[1]}, {cell[2]}"
        gain = paired(scores.values[picked], copy.values[picked], groups, name=f"{name}/gain")
        row = [
            name,
            f"{len(picked)} ({len(set(groups))})",
            percent(float(np.mean([chance[g] for g in groups]))),
            interval(judged(scores.values[picked].tolist(), groups, name=name).estimate),
            signed(gain.estimate),
        ]
        for test in splits.values():
            sides = [_side(scores, picked, facts, test, wanted) for wanted in (True, False)]
            row.append(" / ".join(sides))
        rows.append(row)
    how = "filtered" if reading.context == 0 else f"context {reading.context}"
    return Table(
        title=f"What the accuracy depends on, by principle ({reading.aggregate}, {how})",
        columns=["principle", "pairs (groups)", "at chance", "model", "gain over copy", *splits],
        rows=rows,
        note="Percent of pairs, 95 % intervals over groups; in halves: percent (pairs). At chance: "
        "groups that average surprise cannot tell, whatever the model, since windows are too "
        "short. Gap: frames without evidence, against half of what a window spans. Copying "
        "decides: the last informative frame, kept, is nearer to what is possible.",
    )


def arms_table(runs: Mapping[str, Path]) -> Table:
    """Each arm's accuracy, and its paired difference from the first, by principle."""
    scored: dict[str, PairScores] = {}
    for name, path in runs.items():
        run, reading = chosen(path)
        scored[name] = pair_scores(run, "model", reading)
    base = next(iter(scored.values()))
    rows = []
    cells: list[Any] = [*dict.fromkeys(c[1] for c in in_order(base.cells)), None]
    for cell in cells:
        picked = [i for i, c in enumerate(base.cells) if cell in (c[1], None)]
        groups = [base.groups[i] for i in picked]
        row = [cell or "all", f"{len(picked)} ({len(set(groups))})"]
        for name, scores in scored.items():
            place = {pair: i for i, pair in enumerate(scores.names)}
            values = scores.values[[place[base.names[i]] for i in picked]]
            if scores is base:
                row.append(interval(judged(values.tolist(), groups, name=f"{cell}").estimate))
                continue
            gap = paired(values, base.values[picked], groups, name=f"{cell}/{name}")
            row.append(f"{percent(float(values.mean()))}, {signed(gap.estimate)}")
        rows.append(row)
    return Table(
        title=f"Arms: what changes from {next(iter(scored))}",
        columns=["principle", "pairs (groups)", *scored],
        rows=rows,
        note="Percent of pairs; after the comma the difference from the first arm on the same "
        "pairs, 95 % intervals over groups. Each arm's context and aggregate were chosen on val.",
    )


def costs_table(stages: Mapping[str, dict[str, Any]]) -> Table:
    """Processor time of each stage."""
    rows = [
        [name, f"{facts['cpu_seconds'] / 60:.1f}", str(facts.get("verdict", ""))]
        for name, facts in stages.items()
    ]
    return Table(
        title="Cost",
        columns=["stage", "processor minutes", "encoder"],
        rows=rows,
        note="Of the run that finished the stage, children included.",
    )


def _below(value: float | None, limit: float) -> bool | None:
    return None if value is None else value < limit


def _side(
    scores: PairScores,
    picked: list[int],
    facts: dict[str, VoeVideo],
    test: Callable[[VoeVideo], bool | None],
    wanted: bool,
) -> str:
    rows = [i for i in picked if test(facts[scores.names[i][1]]) is wanted]
    return f"{percent(float(scores.values[rows].mean()))} ({len(rows)})" if rows else "–"
