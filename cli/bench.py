"""``tubelet bench``: whole suites of environments, models, planners and seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..benchmarks.executors import ClusterConfig, Executor
from ..benchmarks.grid import built_in, load_suite, suite_jobs
from ..benchmarks.run_suite import run_suite
from ..benchmarks.tables import print_leaderboard
from ..benchmarks.tidy import write_tidy
from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train and evaluate every model with every planner in every environment of a suite.

    The same command again goes on where it stopped. Results: results.csv (a row per method, seed
    and problem), a leaderboard per environment, and report.html.
    """

    what: Annotated[Literal["goal-reaching"], tyro.conf.Positional] = "goal-reaching"
    """Which benchmark."""
    suite: str = "core"
    """A built-in suite (see --list), or a YAML file of the same form."""
    out: str = "runs/bench"
    """Run folder."""
    workers: int = 1
    """Jobs side by side."""
    threads: int = 0
    """Torch threads per job; 0 shares this machine's cores among the workers."""
    executor: Executor = "local"
    """Where jobs run."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """What a job asks a cluster for."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""
    list: bool = False
    """Print the jobs and leave."""

    def __post_init__(self) -> None:
        for name, least in {"workers": 1, "threads": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {least}")


def run(config: Config) -> int:
    """Run what is missing; 1 if a job failed."""
    out = Path(config.out)
    if config.list:
        print(f"built-in suites: {', '.join(built_in())}")
        suite = load_suite(config.suite)
        for job in suite_jobs(suite, config.suite, out, device=config.device, threads=0):
            print(f"{job.name}{' after ' + ', '.join(job.needs) if job.needs else ''}")
        return 0
    outcome = run_suite(
        config.suite,
        out,
        device=config.device,
        workers=config.workers,
        threads=config.threads,
        executor=config.executor,
        cluster=config.cluster,
    )
    _report(out)
    for name, why in outcome.failed.items():
        print(f"failed: {name}: {why}")
    for name, need in outcome.skipped.items():
        print(f"skipped: {name}, which needs {need}")
    print(f"run: {out}")
    return 1 if outcome.failed else 0


def _report(out: Path) -> None:
    from ..benchmarks.grid_report import build_suite_report
    from ..benchmarks.results import load_results
    from ..benchmarks.run_report import boards

    stored = load_results(out)
    if not stored:
        return
    for board in boards(stored):
        print_leaderboard(board)
    print(f"results: {write_tidy(out)}")
    page = out / "report.html"
    build_suite_report(out, title="tubelet bench").write(page)
    print(f"report: {page}")
