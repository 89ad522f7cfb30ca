"""``tubelet report``: rebuild the HTML page of a run folder from its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Turn a run folder into one self-contained HTML page, and print its tables.

    Of a run of training: curves, a verdict on collapse, the corpus, masks and features in colour.
    """

    folder: tyro.conf.Positional[Path | None] = None
    """Run folder: of training, or with results/*.json, metrics.jsonl and speed_*.json below it."""
    run: Path | None = None
    """The same as a flag."""
    out: Path | None = None
    """Where to write the page; report.html in the run folder by default."""
    title: str = "tubelet report"
    """Title of the page."""
    baseline: str | None = None
    """Method that the others are tested against; the strongest floor by default."""


def run(config: Config) -> int:
    """Write the page and print the leaderboards. Raises ConfigError if there is no such folder."""
    from ..benchmarks.results import load_results
    from ..benchmarks.run_report import boards, build_report
    from ..benchmarks.tables import print_leaderboard

    folder = config.folder or config.run
    if folder is None:
        raise ConfigError("name the run folder: tubelet report runs/first")
    if config.run not in (None, folder):
        raise ConfigError(f"{folder} and --run {config.run}: name one run folder")
    if not folder.is_dir():
        raise ConfigError(f"run = {folder}: no such folder")
    report = build_report(folder, title=config.title, baseline=config.baseline)
    path = config.out or folder / "report.html"
    report.write(path)
    for board in boards(load_results(folder), config.baseline):
        print_leaderboard(board)
    print(f"report: {path}")
    return 0
