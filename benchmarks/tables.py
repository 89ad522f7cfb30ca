"""The leaderboard: one table that says how often, how surely, how fast, and against what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ConfigError
from .goal_reaching import GoalReachingResult
from .stats import Estimate, McNemar, mcnemar_exact, wilson_interval

if TYPE_CHECKING:
    from rich.console import Console


ORDER = ("ceiling", "model", "floor")
"""Of roles, from the top of a table."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method, its seeds pooled.

    Attributes:
        n: problems times seeds. seeds: training seeds, empty for methods without training.
        at_end, at_any: success shares with 95 % Wilson intervals.
        worst_seed, best_seed: success at the end of single seeds.
        distance: median final distance by name.
        seconds, model_calls: per environment action of one problem, mean over seeds.
        versus: McNemar's test of this row (first) against the baseline (second), or None.
        beats_floors: lower bound at the end above every floor's upper bound; None for floors.
    """

    name: str
    role: str
    privileged: bool
    seeds: tuple[int, ...]
    n: int
    at_end: Estimate
    at_any: Estimate
    worst_seed: float
    best_seed: float
    solved_at_reset: float
    distance: dict[str, float]
    seconds: float
    model_calls: float | None
    versus: McNemar | None
    beats_floors: bool | None


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All methods on one episode set, ceilings first, then models, then floors."""

    title: str
    env_id: str
    kind: str
    problems: int
    budget: int
    episodes_seed: int
    episodes_sha256: str
    rejected_share: float
    baseline: str | None
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values."""
        return asdict(self)

    def columns(self) -> list[str]:
        """Column titles."""
        names = list(self.rows[0].distance)
        return [
            "method",
            "n",
            "success @end",
            "success @any",
            "beats every floor",
            *(f"final {name} (median)" for name in names),
            "s / action",
            "model calls / action",
            f"McNemar vs {self.baseline}" if self.baseline else "McNemar",
            "seeds (@end worst–best)",
            "solved at reset",
        ]

    def cells(self) -> list[list[str]]:
        """One list of strings per row, in the order of :meth:`columns`."""
        return [_cells(row) for row in self.rows]

    def notes(self) -> str:
        """How to read the table, in a few sentences."""
        redrawn = f"{100 * self.rejected_share:.0f} %"
        return (
            f"{self.env_id}, {self.kind} goals: {self.problems} problems (episode seed "
            f"{self.episodes_seed}, SHA-256 {self.episodes_sha256[:12]}), {self.budget} "
            "environment steps each, never cut short. Success @end is judged at the last step and "
            "is the headline; @any counts one success at any step. Brackets are 95 % Wilson "
            f"intervals over problems × seeds. Pairs solved at reset are redrawn ({redrawn} "
            "of all draws were). Seconds are the agent's own, shared by the batch; a model call is "
            "one candidate advanced by one model step. McNemar is the exact paired test; "
            "wins–losses count problems that only one of the two methods solved. A method beats "
            "every floor when its lower bound lies above all their upper bounds."
        )


def leaderboard(
    results: Sequence[GoalReachingResult], *, title: str, baseline: str | None = None
) -> Leaderboard:
    """Pool ``results`` by name (seeds of one method share a name) into one table.

    Args:
        baseline: the method that all others are tested against.

    Raises ConfigError when results belong to different episode sets, a seed appears twice, or no
    method is called ``baseline``.
    """
    if not results:
        raise ConfigError("a leaderboard needs at least one result")
    first = results[0]
    if len({(r.episodes_sha256, r.budget) for r in results}) > 1:
        raise ConfigError("results belong to different episode sets; make one table for each")
    groups: dict[str, list[GoalReachingResult]] = {}
    for result in results:
        groups.setdefault(result.name, []).append(result)
    for name, group in groups.items():
        if len({r.seed for r in group}) < len(group) or len({r.role for r in group}) > 1:
            raise ConfigError(f"{name!r}: the same seed twice, or two roles, under one name")
    if baseline is not None and baseline not in groups:
        raise ConfigError(f"no method is called {baseline!r}; there are {sorted(groups)}")
    ends = {name: _share(group, "at_end") for name, group in groups.items()}
    floors = [ends[name].high for name, group in groups.items() if group[0].role == "floor"]
    against = groups[baseline] if baseline is not None else None
    rows = [_row(group, floors, against) for group in groups.values()]
    rows.sort(key=lambda row: (ORDER.index(row.role), -row.at_end.value))
    return Leaderboard(
        title=title,
        env_id=first.env_id,
        kind=first.kind,
        problems=len(first),
        budget=first.budget,
        episodes_seed=first.episodes_seed,
        episodes_sha256=first.episodes_sha256,
        rejected_share=first.rejected_share,
        baseline=baseline,
        rows=tuple(rows),
    )


def print_leaderboard(board: Leaderboard, console: Console | None = None) -> None:
    """Print the table with its notes to the terminal: the first columns if it is narrow."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    distances = len(board.rows[0].distance)
    shown = len(board.columns()) if console.width >= 190 else 5 + distances
    table = Table(title=Text(board.title))
    for i, column in enumerate(board.columns()[:shown]):
        table.add_column(Text(column), justify="right" if i else "left", no_wrap=i in (1, 2, 3))
    for row, cells in zip(board.rows, board.cells(), strict=True):
        table.add_row(*map(Text, cells[:shown]), style="dim" if row.role == "floor" else None)
    console.print(table)
    console.print(Text(board.notes(), style="dim"))


def percent(estimate: Estimate) -> str:
    """``"62 % [55, 68]"``."""
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def _share(group: list[GoalReachingResult], which: str) -> Estimate:
    solved = np.concatenate([getattr(r, which) for r in group])
    return wilson_interval(int(solved.sum()), len(solved))


def _row(
    group: list[GoalReachingResult],
    floors: list[float],
    baseline: list[GoalReachingResult] | None,
) -> Row:
    first, end = group[0], _share(group, "at_end")
    shares = [float(r.at_end.mean()) for r in group]
    calls = [r.model_calls for r in group if r.model_calls is not None]
    return Row(
        name=first.name,
        role=first.role,
        privileged=first.privileged,
        seeds=tuple(r.seed for r in group if r.seed is not None),
        n=sum(map(len, group)),
        at_end=end,
        at_any=_share(group, "at_any"),
        worst_seed=min(shares),
        best_seed=max(shares),
        solved_at_reset=float(np.mean([r.solved_at_reset for r in group])),
        distance={
            key: float(np.median(np.concatenate([r.distance[key][:, -1] for r in group])))
            for key in first.distance
        },
        seconds=float(np.mean([r.seconds for r in group])),
        model_calls=float(np.mean(calls)) if calls else None,
        versus=None if baseline is None or baseline is group else _paired(group, baseline),
        beats_floors=None if first.role == "floor" or not floors else end.low > max(floors),
    )


def _paired(group: list[GoalReachingResult], baseline: list[GoalReachingResult]) -> McNemar | None:
    """McNemar over problems × seeds. Seeds are paired in order; one seed is paired with each."""
    pairs = max(len(group), len(baseline))
    if {len(group), len(baseline)} - {1, pairs}:
        return None
    sides = ([side[i % len(side)].at_end for i in range(pairs)] for side in (group, baseline))
    return mcnemar_exact(*map(np.concatenate, sides))


def _cells(row: Row) -> list[str]:
    spread = f"{len(row.seeds)}" if row.seeds else "–"
    if len(row.seeds) > 1:
        spread += f" ({100 * row.worst_seed:.0f}–{100 * row.best_seed:.0f} %)"
    versus = "–"
    if row.versus is not None:
        versus = f"{row.versus.only_first}–{row.versus.only_second}, p = {row.versus.p:.2g}"
    return [
        row.name + (" (sees the simulator's state)" if row.privileged else ""),
        str(row.n),
        percent(row.at_end),
        percent(row.at_any),
        {True: "yes", False: "no", None: "–"}[row.beats_floors],
        *(f"{value:.3f}" for value in row.distance.values()),
        f"{row.seconds:.2g}",
        "–" if row.model_calls is None else f"{row.model_calls:,.0f}",
        versus,
        spread,
        f"{100 * row.solved_at_reset:.0f} %",
    ]
