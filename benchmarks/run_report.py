"""From a run folder to its report: every result, metric log and speed file found below it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import TubeletError
from ..core.run import read_metrics
from . import charts
from .goal_reaching import GoalReachingResult
from .landscape import Landscape
from .probes import ProbeResult
from .report import Report
from .results import Stored, Table, load_results
from .stats import Estimate
from .tables import Leaderboard, Row, leaderboard
from .training_report import add_training

EMPHASIS = {"ceiling": "", "model": "strong", "floor": "weak"}


def boards(stored: Sequence[Stored], baseline: str | None = None) -> list[Leaderboard]:
    """One leaderboard per episode set among ``stored``.

    Args:
        baseline: method that the others are tested against; the strongest floor if None.
    """
    return [
        _board([s.value for s in group], baseline)  # type: ignore[misc]
        for group in _by_episodes(stored).values()
    ]


def build_report(
    run: str | os.PathLike[str], *, title: str = "tubelet report", baseline: str | None = None
) -> Report:
    """The report of the run folder ``run``.

    Looks at ``results/*.json``, at ``metrics.jsonl`` anywhere below, and at ``speed_*.json``. A run
    of training itself gets the page of :mod:`.training_report`.

    Raises TubeletError if there is nothing to report, or a damaged file.
    """
    run = Path(run)
    stored = load_results(run)
    metrics = {
        "run" if path.parent == run else path.parent.relative_to(run).as_posix(): lines
        for path in sorted(run.rglob("metrics.jsonl"))
        if (lines := read_metrics(path.parent))
    }
    speeds = sorted(run.rglob("speed_*.json"))
    if not stored and not metrics and not speeds:
        raise TubeletError(
            f"{run}: nothing to report (no results/*.json, no metrics.jsonl): run `tubelet plan` "
            "or `tubelet demo` first, or name the run's folder"
        )
    report = Report(title, f"Run folder: {run.resolve().name}")
    if "run" in metrics:
        add_training(report, run, metrics["run"])
    groups = _by_episodes(stored)
    tables = boards(stored, baseline)
    if tables:
        _summary(report, tables)
    for board, group in zip(tables, groups.values(), strict=True):
        _goal_reaching(report, board, group)
    _tables(report, [s for s in stored if isinstance(s.value, Table)])
    _landscapes(report, [s for s in stored if isinstance(s.value, Landscape)])
    _probes(report, [s for s in stored if isinstance(s.value, ProbeResult)])
    others = {name: lines for name, lines in metrics.items() if name != "run"}
    if others:
        report.add_section("Training")
        report.add_figure(charts.training_curves(others), "Logged scalars over training steps.")
    if speeds:
        _speed(report, speeds)
    _setup(report, run, stored)
    return report


def provenance(stored: Sequence[Stored]) -> str:
    """Machine and commands of results, for the note under a table."""
    machines = dict.fromkeys(_machine(s.machine) for s in stored)
    commands = dict.fromkeys(s.command for s in stored)
    return f"Machine: {'; '.join(machines)}. Command: {'; '.join(commands)}."


def _machine(facts: dict[str, Any]) -> str:
    packages = facts.get("packages", {})
    versions = ", ".join(f"{k} {packages[k]}" for k in ("torch", "mujoco") if packages.get(k))
    devices = "".join(f", {device}" for device in facts.get("devices", []))
    return f"{facts.get('processor')}, {facts.get('cores')} cores{devices} ({versions})"


def _by_episodes(stored: Sequence[Stored]) -> dict[str, list[Stored]]:
    groups: dict[str, list[Stored]] = {}
    for s in stored:
        if isinstance(s.value, GoalReachingResult):
            groups.setdefault(s.value.episodes_sha256, []).append(s)
    return groups


def _board(results: list[GoalReachingResult], baseline: str | None) -> Leaderboard:
    title = f"{results[0].env_id}: {results[0].kind} goals"
    plain = leaderboard(results, title=title)
    floors = [row.name for row in plain.rows if row.role == "floor"]
    baseline = baseline or (floors[0] if floors else None)
    return leaderboard(results, title=title, baseline=baseline) if baseline else plain


def _summary(report: Report, tables: Sequence[Leaderboard]) -> None:
    report.add_section("Summary")
    for board in tables:
        models = [row for row in board.rows if row.role == "model"]
        floors = [row for row in board.rows if row.role == "floor"]
        for row in models:
            report.add_text(_sentence(board, row, floors))


def _sentence(board: Leaderboard, row: Row, floors: Sequence[Row]) -> str:
    verdict = {
        True: "Its lower bound lies above the upper bound of every floor.",
        False: "It does not stand clearly above every floor.",
        None: "No floor was run beside it.",
    }[row.beats_floors]
    best = f" The strongest floor, {floors[0].name}, ends in {_share(floors[0].at_end)}."
    return (
        f"{board.title} — {row.name} ends in success on {_share(row.at_end)} of "
        f"{board.problems} unseen problems"
        + (f" ({len(row.seeds)} seeds). " if len(row.seeds) > 1 else ". ")
        + verdict
        + (best if floors else "")
    )


def _share(e: Estimate) -> str:
    return f"{100 * e.value:.0f} % (95 % interval {100 * e.low:.0f} to {100 * e.high:.0f} %)"


def _goal_reaching(report: Report, board: Leaderboard, group: Sequence[Stored]) -> None:
    report.add_section(f"Goal reaching — {board.title}")
    report.add_text(
        "An agent sees the current camera image and one image of the goal, and must make the world "
        "look like it within a fixed number of environment steps."
    )
    emphasis = [EMPHASIS[row.role] for row in board.rows]
    note = f"{board.notes()} {provenance(group)}"
    report.add_table(board.columns(), board.cells(), note=note, emphasis=emphasis)
    report.add_figure(
        charts.success_bars(board),
        "Success at the end of the episode. Blue: models; green: ceilings that see the simulator; "
        "grey: floors without a trained model.",
    )
    results = [s.value for s in group if isinstance(s.value, GoalReachingResult)]
    report.add_figure(
        charts.distance_curves(results), "Distance to the goal over the episode, all problems."
    )
    videos = [
        (film.path, f"{s.value.name}, problem {film.problem}: {'hit' if film.hit else 'miss'}")
        for s in group
        if isinstance(s.value, GoalReachingResult)
        for film in s.films
    ]
    if videos:
        report.add_heading("Start | goal | rollout")
        report.add_text("The bar under the rollout is green while the goal counts as reached.")
        report.add_videos(videos)


def _tables(report: Report, stored: Sequence[Stored]) -> None:
    for s in stored:
        assert isinstance(s.value, Table)
        report.add_section(s.value.title)
        note = f"{s.value.note} {provenance([s])}".strip()
        report.add_table(s.value.columns, s.value.rows, note=note)


def _landscapes(report: Report, stored: Sequence[Stored]) -> None:
    if not stored:
        return
    report.add_section("What the planner sees: latent cost")
    report.add_text(
        "Each map shows one fixed goal (star). Left: the model's latent distance between the goal "
        "image and the image of every configuration. Right: the true distance. A planner needs the "
        "left map to fall towards the star, as the right one does; ρ is their rank correlation."
    )
    for s in stored:
        assert isinstance(s.value, Landscape)
        caption = f"{s.value.name}: Spearman ρ = {s.value.spearman:.2f} with the true distance."
        report.add_figure(charts.landscape_maps(s.value), caption)


def _probes(report: Report, stored: Sequence[Stored]) -> None:
    if not stored:
        return
    probes = [s.value for s in stored if isinstance(s.value, ProbeResult)]
    probes.sort(key=lambda p: (p.name, -1 if p.step is None else p.step))
    targets = list(probes[0].targets)
    report.add_section("What the features know: linear probes")
    report.add_table(
        ["features", "step", "width", "R² (all)", *(f"R² {t}" for t in targets), "penalty"],
        [
            [p.name, "–" if p.step is None else p.step, p.width, _r2(p.mean)]
            + [_r2(p.targets[t]) if t in p.targets else "–" for t in targets]
            + [f"{p.penalty:g}"]
            for p in probes
        ],
        note=f"Ridge regression from frozen features. {probes[0].episodes[0]} training, "
        f"{probes[0].episodes[1]} validation (choice of penalty) and {probes[0].episodes[2]} test "
        "episodes; brackets are 95 % bootstrap intervals over test episodes. " + provenance(stored),
    )
    report.add_figure(
        charts.probe_curves(probes),
        "R² over all targets. Level lines: features that do not train with the encoder.",
    )


def _r2(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def _speed(report: Report, paths: Sequence[Path]) -> None:
    report.add_section("Speed")
    rows, notes = [], []
    for path in paths:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            machine = f"{_machine(result['machine'])}, {result['command']}"
            for row in result.get("rows", [result]):
                what, (cpu, wall) = result["benchmark"], (row["values"][c] for c in ("cpu", "wall"))
                several = f" ({row['setting']})" if "rows" in result else ""
                rows += [[f"{what}{several}: {n}", cpu[n], wall[n], row["unit"]] for n in cpu]
                notes.append(
                    f"{what} ({row['setting']}): {_ratio(row)}{row['repeats']} rounds, {machine}."
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TubeletError(f"{path}: not a readable speed result ({error!r})") from error
    columns = ["what", "processor time", "clock", "unit"]
    report.add_table(columns, rows, note=" ".join(notes))


def _ratio(row: dict[str, Any]) -> str:
    """The ratios of one setting of a speed result, if it compares anything."""
    if "ratio" in row:
        cpu, wall = row["ratio"]["cpu"], row["ratio"]["wall"]
        return f"ratio {cpu:.1f} in processor time, {wall:.1f} by the clock, "
    ratios = row.get("ratios", {}).items()
    return "".join(
        f"{pair} {r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}], " for pair, r in ratios
    )


def _setup(report: Report, run: Path, stored: Sequence[Stored]) -> None:
    report.add_section("How it was made")
    if stored:
        report.add_text(provenance(stored))
        versions = json.dumps(stored[0].machine, indent=2)
        report.add_details("machine and versions", versions)
    for path in sorted(run.rglob("config.toml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        report.add_details(path.relative_to(run).as_posix(), text)
