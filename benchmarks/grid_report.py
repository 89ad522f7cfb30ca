"""The report of a suite: leaderboards, and what success depends on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .charts import INK, PALETTE, axes_of, svg
from .goal_reaching import GoalReachingResult
from .report import Report
from .results import load_results
from .run_report import boards, build_report
from .stats import wilson_interval
from .tables import Leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 4


def build_suite_report(run: str | os.PathLike[str], *, title: str) -> Report:
    """The run folder's report with, for every set of problems, success against the distance of the
    goal and against what an action costs.

    Raises TubeletError as :func:`build_report`.
    """
    report = build_report(run, title=title)
    stored = load_results(run)
    for board in boards(stored):
        results = [
            s.value
            for s in stored
            if isinstance(s.value, GoalReachingResult)
            and s.value.episodes_sha256 == board.episodes_sha256
        ]
        report.add_section(f"What success depends on — {board.title}")
        report.add_figure(
            success_by_distance(results),
            "Success at the end against the distance of the goal at the start, in quarters of the "
            "problems (whiskers: 95 % Wilson).",
        )
        report.add_figure(
            success_by_cost(board), "Success at the end against seconds and model calls per action."
        )
    _diagnoses(report, Path(run))
    return report


def _diagnoses(report: Report, run: Path) -> None:
    found = [json.loads(path.read_text()) for path in sorted(run.glob("diagnoses/*.json"))]
    if not found:
        return
    report.add_section("What limits the models")
    columns = ["environment", "model", "seed", *found[0]["cells"]]
    report.add_table(
        columns,
        [[d["env"], d["model"], d["seed"], *d["cells"].values()] for d in found],
        note="On held-out episodes of each environment's training data, with bootstrap intervals "
        "over episodes or windows. The rank correlation is that of the latent cost to an episode's "
        "last frame with the true distance (1: a planner can descend it). Imagined over copied "
        "squared error is below 1 where imagining beats standing still; shuffled over true is "
        "above 1 where actions count.",
    )


def distance_bins(
    results: Sequence[GoalReachingResult], key: str
) -> dict[str, list[tuple[float, int, int]]]:
    """Per method, of :data:`BINS` equal shares of the problems by distance at the start: (median
    distance, successes at the end, problems), seeds pooled."""
    start = results[0].distance[key][:, 0]
    shares = np.array_split(np.argsort(start, kind="stable"), min(BINS, len(start)))
    methods: dict[str, list[GoalReachingResult]] = {}
    for result in results:
        methods.setdefault(result.name, []).append(result)
    return {
        name: [
            (
                float(np.median(start[rows])),
                int(sum(r.at_end[rows].sum() for r in group)),
                len(rows) * len(group),
            )
            for rows in shares
        ]
        for name, group in methods.items()
    }


def success_by_distance(results: Sequence[GoalReachingResult]) -> str:
    """A panel per named distance: success at the end of near and far problems, as SVG."""
    names = list(results[0].distance)

    def draw(figure: Figure) -> None:
        panels = axes_of(figure, len(names))
        roles = {result.name: result.role for result in results}
        for axes, key in zip(panels, names, strict=True):
            for i, (name, shares) in enumerate(distance_bins(results, key).items()):
                x = [distance for distance, _, _ in shares]
                found = [wilson_interval(hits, n) for _, hits, n in shares]
                y = np.array([[e.value, e.low, e.high] for e in found]) * 100
                style = {"model": "-", "ceiling": "-.", "floor": ":"}[roles[name]]
                axes.errorbar(
                    x,
                    y[:, 0],
                    yerr=[y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]],
                    fmt=f"o{style}",
                    ms=3,
                    lw=1.4,
                    elinewidth=0.7,
                    color=PALETTE[i % len(PALETTE)],
                    label=name,
                )
            axes.set_xlabel(f"{key} at the start")
            axes.set_ylabel("success at the end, %")
            axes.set_ylim(-2, 104)
            axes.grid(alpha=0.2, color=INK)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8
        )

    return svg(draw, (4.6 * len(names), 3.6 + 0.2 * (len({r.name for r in results}) // 4)))


def success_by_cost(board: Leaderboard) -> str:
    """Success at the end over seconds, and over model calls, per action; as SVG."""
    rows = [row for row in board.rows if row.role != "floor"]

    def draw(figure: Figure) -> None:
        left, right = axes_of(figure, 2)
        for i, row in enumerate(rows):
            y, colour = 100 * row.at_end.value, PALETTE[i % len(PALETTE)]
            whisker = [[y - 100 * row.at_end.low], [100 * row.at_end.high - y]]
            for axes, x in ((left, row.seconds), (right, row.model_calls)):
                if x:
                    axes.errorbar([x], [y], yerr=whisker, fmt="o", color=colour, label=row.name)
        for axes, name in ((left, "seconds per action"), (right, "model calls per action")):
            axes.set_xscale("log")
            axes.set_xlabel(name)
            axes.set_ylabel("success at the end, %")
            axes.set_ylim(-2, 104)
            axes.grid(alpha=0.2, color=INK)
        handles, labels = left.get_legend_handles_labels()
        if handles:
            figure.legend(
                handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8
            )

    return svg(draw, (9.2, 3.8 + 0.2 * (len(rows) // 3)))
