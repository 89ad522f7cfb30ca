"""``tubelet report``: rebuild the HTML page of a run folder from its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Turn the results in a run folder into one self-contained HTML page, and print its tables."""

    run: Path
    """Run folder: results/*.json, and metrics.jsonl and speed_*.json anywhere below it."""
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

    if not config.run.is_dir():
        raise ConfigError(f"run = {config.run}: no such folder")
    report = build_report(config.run, title=config.title, baseline=config.baseline)
    path = config.out or config.run / "report.html"
    report.write(path)
    for board in boards(load_results(config.run), config.baseline):
        print_leaderboard(board)
    print(f"report: {path}")
    return 0
