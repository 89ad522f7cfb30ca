"""One HTML page about scoring runs: tables, curves, accuracy by context and bridge, films."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..report import Report
from . import figures, films
from .settings import Reading, ReportConfig
from .store import VoeRun, open_run
from .tables import (
    accuracy_table,
    chance_groups,
    curve,
    grid_table,
    margin_table,
    metrics_table,
    pair_scores,
)


def report(config: ReportConfig) -> Path:
    """Write the page and return its path.

    Raises:
        TubeletError: a folder without a finished run.
    """
    page = Report("Violation of expectation", f"{len(config.runs)} runs of tubelet voe score")
    for name in config.runs:
        run = open_run(Path(name))
        page.add_section(Path(name).name)
        _summary(page, run)
        if not run.pairs:
            page.add_text("The set has no labels: nothing to compare.")
            continue
        _tables(page, run, config.reading)
        _curves(page, run, config.reading, config.curves)
        _bridges(page, run, config.reading)
        _films(page, run, config.reading)
    path = Path(config.out)
    page.write(path)
    return path


def _summary(page: Report, run: VoeRun) -> None:
    c = run.config
    page.add_text(
        f"{run.layout}: {len(run.videos)} videos, {len({p.group for p in run.pairs})} groups, "
        f"{len(run.pairs)} pairs; {len(run.refused)} refused. Windows of {c.window} frames, every "
        f"{c.skip}. frame of the video, a window every {c.stride}; contexts {c.contexts}."
    )
    if run.refused:
        lines = "\n".join(f"{r.what}: {r.reason}" for r in run.refused)
        page.add_details(f"{len(run.refused)} refused", lines)


def _tables(page: Report, run: VoeRun, reading: Reading) -> None:
    for table in (accuracy_table(run, reading), metrics_table(run, reading)):
        page.add_heading(table.title)
        page.add_table(table.columns, table.rows, note=table.note)
    for table in (margin_table(run, reading), grid_table(run)):
        page.add_heading(table.title)
        page.add_table(table.columns, table.rows, note=table.note)


def _model(run: VoeRun) -> str:
    return (run.of_role("model") or list(run.scorers))[0]


def _curves(page: Report, run: VoeRun, reading: Reading, most: int) -> None:
    """Surprise of some prefix pairs over time, principles in turn."""
    index, name, panels = run.index, _model(run), []
    prefix = [p for p in run.pairs if p.match in ("prefix", "all")]
    seen = {}
    for pair in prefix:
        video = run.videos[index[pair.possible]]
        seen.setdefault((video.kind, video.principle, video.condition), pair)
    chosen = [*seen.values(), *(p for p in prefix if p not in seen.values())][:most]
    for pair in chosen:
        p, i = index[pair.possible], index[pair.impossible]
        facts = run.videos[i]
        panels.append(
            figures.Panel(
                title=f"{facts.principle} {facts.condition}".strip(),
                possible=curve(run, name, p, reading),
                impossible=curve(run, name, i, reading),
                event=facts.t_event,
                observable=facts.t_observable,
                hidden=facts.hidden,
            )
        )
    if panels:
        page.add_heading("Surprise over time")
        caption = (
            f"{name}: mean loss of the windows that predict a frame. Solid: the event; dotted: "
            "first frame that shows it; grey: out of sight. Targets see the whole window, so that "
            "surprise rises before the event."
        )
        page.add_figure(figures.curves(panels), caption)


def _bridges(page: Report, run: VoeRun, reading: Reading) -> None:
    """Accuracy by context and bridge length, cells at chance by construction hatched."""
    index, name = run.index, _model(run)
    bridge = {p.group: run.videos[index[p.possible]].bridge for p in run.pairs}
    lengths = sorted({b for b in bridge.values() if b is not None})
    if not lengths:
        return
    chance = chance_groups(run)
    shape = (len(run.config.contexts), len(lengths))
    values, hatched, counts = np.full(shape, math.nan), np.zeros(shape, bool), np.zeros(shape, int)
    for row, context in enumerate(run.config.contexts):
        read = Reading(aggregate=reading.aggregate, context=context, match=reading.match)
        scores = pair_scores(run, name, read)
        for column, length in enumerate(lengths):
            rows = [i for i, g in enumerate(scores.groups) if bridge[g] == length]
            if rows:
                values[row, column] = scores.values[rows].mean()
                counts[row, column] = len(rows)
                hatched[row, column] = all(chance[scores.groups[i]] for i in rows)
    page.add_heading("Accuracy by context and bridge")
    page.add_figure(
        figures.bridge_map(run.config.contexts, lengths, values, hatched, counts),
        f"{name}, {reading.aggregate} surprise. Bridge: equal frames around the swap. Hatched: "
        "every window occurs equally often in possible and impossible videos, so that average "
        "surprise is at chance whatever the model.",
    )


def _films(page: Report, run: VoeRun, reading: Reading) -> None:
    """Hits and misses with token surprise laid over."""
    for word, title in (("hit", "Hits"), ("miss", "Misses")):
        files = sorted((run.path / "tokens").glob(f"{word}-*.npz"))
        if files:
            page.add_heading(title)
            page.add_videos([films.overlay(run, file) for file in files])
