"""Where jobs run: this machine, a SLURM cluster (submitit), or a Ray cluster.

Each is a ``start(job, log)`` for :func:`tubelet.benchmarks.jobs.run_jobs`. On a cluster the run
folder must be on a disk that all machines share.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..core.errors import ConfigError, TubeletError
from .jobs import Job, LocalProcess, Start

Executor = Literal["local", "slurm", "ray"]


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """What one job asks a cluster for."""

    cpus: int = 2
    """Cores."""
    gpus: int = 0
    """Accelerators."""
    memory_gb: int = 16
    """Memory in GB (SLURM)."""
    partition: str = ""
    """SLURM partition; empty for the cluster's own."""
    address: str = "auto"
    """Of the Ray cluster; "local" starts one on this machine."""

    def __post_init__(self) -> None:
        for name, least in {"cpus": 1, "gpus": 0, "memory_gb": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"cluster.{name} = {getattr(self, name)}: at least {least}")


def starter(kind: Executor, config: ClusterConfig, folder: Path, *, threads: int) -> Start:
    """The way to start jobs.

    Raises:
        ConfigError: the library that it needs is not installed.
    """
    if kind == "slurm":
        return _slurm(config, folder)
    if kind == "ray":
        return _ray(config)
    own = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return lambda job, log: LocalProcess(job, log, {"OMP_WAIT_POLICY": "PASSIVE", **own})


def run_logged(command: tuple[str, ...], log: str) -> int:
    """Run ``command`` with its output appended to ``log``; its exit code."""
    with open(log, "ab") as file:
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            check=False,
        ).returncode


class _Submitted:
    """A submitit job."""

    def __init__(self, job: Any):
        self._job = job

    def code(self) -> int | None:
        if not self._job.done():
            return None
        try:
            return int(self._job.result())
        except Exception as error:  # whatever the cluster did to it: preempted, out of memory, …
            print(f"{self._job.job_id}: {error}")
            return 1

    def end(self) -> None:
        self._job.cancel()


def _slurm(config: ClusterConfig, folder: Path, cluster: str = "slurm") -> Start:
    """``cluster`` is submitit's: "local" runs the same path on this machine."""
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "executor = slurm needs submitit: pip install 'tubelet[slurm]'"
        ) from error

    def start(job: Job, log: Path) -> _Submitted:
        try:
            executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster)
        except RuntimeError as error:
            raise TubeletError(f"executor = slurm: {error}; submit from a login node") from error
        options: dict[str, Any] = {
            "name": job.name.replace("/", "-"),
            "timeout_min": max(1, round(job.limit / 60)),
            "cpus_per_task": config.cpus,
            "gpus_per_node": config.gpus,
            "mem_gb": config.memory_gb,
        }
        if config.partition:
            options["slurm_partition"] = config.partition
        executor.update_parameters(**options)
        return _Submitted(executor.submit(run_logged, job.command, str(log.resolve())))

    return start


class _Remote:
    """A Ray task."""

    def __init__(self, ray: Any, task: Any):
        self._ray, self._task = ray, task

    def code(self) -> int | None:
        ready, _ = self._ray.wait([self._task], timeout=0)
        return int(self._ray.get(ready[0])) if ready else None

    def end(self) -> None:
        self._ray.cancel(self._task, force=True)


def _ray(config: ClusterConfig) -> Start:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("executor = ray needs Ray: pip install 'tubelet[ray]'") from error
    ray.init(address=None if config.address == "local" else config.address, log_to_driver=False)
    remote: Callable[..., Any] = ray.remote(run_logged)

    def start(job: Job, log: Path) -> _Remote:
        asked = remote.options(num_cpus=config.cpus, num_gpus=config.gpus)  # pyright: ignore
        return _Remote(ray, asked.remote(job.command, str(log.resolve())))

    return start
