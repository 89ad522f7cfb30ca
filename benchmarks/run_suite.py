"""Run a suite: every job of it that is not done yet, here or on a cluster, into one folder."""

from __future__ import annotations

import os
from pathlib import Path

from .executors import ClusterConfig, Executor, starter
from .grid import keep_suite, load_suite, suite_jobs
from .jobs import Outcome, run_jobs


def run_suite(
    source: str,
    out: Path,
    *,
    device: str,
    workers: int = 1,
    threads: int = 0,
    executor: Executor = "local",
    cluster: ClusterConfig | None = None,
) -> Outcome:
    """Do what is missing of a suite.

    Args:
        source: a built-in suite or a YAML file; a copy is kept in ``out``.
        device: of every job. workers: jobs side by side.
        threads: torch threads per job; 0 shares this machine's cores among the workers (on a
            cluster: leaves them to it).
        executor, cluster: where jobs run, and what each asks for there.

    Raises:
        ConfigError: the suite is wrong, ``out`` holds another one, or the executor's library is
            not installed. Jobs that fail are named in the outcome.
    """
    suite, copy = load_suite(source), keep_suite(source, out)
    if not threads and executor == "local":
        threads = max(1, (os.cpu_count() or 1) // workers)
    jobs = suite_jobs(suite, copy, out, device=device, threads=threads)
    start = starter(executor, cluster or ClusterConfig(), out, threads=threads)
    return run_jobs(jobs, out, start=start, workers=workers)
