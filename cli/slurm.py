"""Hands a command's work to a SLURM cluster, or to a stand-in for one on this machine.

submitit writes the job's script and starts it once per process; here those processes learn of each
other as under torchrun. A job that is preempted or runs out of time saves at the end of its step,
is put back into the queue, and goes on where it was.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..core.errors import ConfigError, Stopped, TubeletError


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What to ask of the cluster."""

    partition: str = ""
    """Partition; empty takes the cluster's default."""
    account: str = ""
    """Account that is charged; empty takes the default."""
    nodes: int = 1
    """Machines."""
    gpus: int = 0
    """GPUs per machine; one process is started for each."""
    processes: int = 0
    """Processes per machine, if not one per GPU."""
    cpus: int = 4
    """Processor cores per process."""
    memory: int = 0
    """GiB of memory per machine; 0 takes the cluster's default."""
    hours: float = 24.0
    """Time limit; a job that reaches it goes on in another go."""
    warning: int = 120
    """Seconds before the limit at which the job is told to save."""
    requeues: int = 20
    """How often a job that ran out of time is put back; after preemptions it always is."""
    setup: tuple[str, ...] = ()
    """Shell lines to run first, such as "module load cuda"."""

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus", "warning"):
            if getattr(self, name) < 1:
                raise ConfigError(f"slurm.{name} = {getattr(self, name)}: must be at least 1")
        for name in ("gpus", "processes", "memory", "requeues"):
            if getattr(self, name) < 0:
                raise ConfigError(f"slurm.{name} = {getattr(self, name)}: must be at least 0")
        if not self.hours > 0:
            raise ConfigError(f"slurm.hours = {self.hours}: must be positive")

    def parameters(self, cluster: Literal["slurm", "local"], name: str) -> dict[str, Any]:
        """The same in submitit's words, for its executor of ``cluster``."""
        processes, minutes = self.processes or max(1, self.gpus), self.hours * 60
        common: dict[str, Any] = {
            "nodes": self.nodes,
            "gpus_per_node": self.gpus,
            "signal_delay_s": self.warning,
            **({"setup": list(self.setup)} if self.setup else {}),
        }
        if cluster == "local":
            return {**common, "tasks_per_node": processes, "timeout_min": minutes}
        asked = {
            "partition": self.partition,
            "account": self.account,
            "mem": f"{self.memory}GB" if self.memory else "",
        }
        return {
            **common,
            "job_name": name,
            "ntasks_per_node": processes,
            "cpus_per_task": self.cpus,
            "time": max(1, round(minutes)),
            **{key: value for key, value in asked.items() if value},
        }


@dataclass(frozen=True)
class Job:
    """``work(config)`` in every process of a job. Submitit pickles it, and calls it there."""

    work: Callable[[Any], Any]
    config: Any

    def __call__(self) -> None:
        """Work until it is done, or until the cluster wants the machine back."""
        submitit = submitit_or_explain()
        submitit.helpers.TorchDistributedEnvironment().export(
            set_cuda_visible_devices=False, overwrite=True
        )
        with _Preemption(submitit.JobEnvironment()._usr_sig()) as preemption:
            try:
                self.work(self.config)
            except Stopped:
                if not preemption.asked:
                    raise
        if preemption.asked:
            preemption.requeue()

    def checkpoint(self) -> Any:
        """What goes into the queue instead: the same, which resumes."""
        return submitit_or_explain().helpers.DelayedSubmission(self)


class _Preemption:
    """Turns submitit's signal to give up into the one that training saves and stops at."""

    def __init__(self, number: int):
        self.number, self.asked, self._owner = number, False, os.getpid()
        self._submitit: Any = signal.getsignal(number)

    def __enter__(self) -> _Preemption:
        signal.signal(self.number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(self.number, self._submitit)

    def requeue(self) -> None:
        """Let submitit put the job back; it ends the process."""
        self._submitit(self.number, None)

    def _ask(self, number: int, frame: Any) -> None:
        if os.getpid() != self._owner:  # a process that decodes: its parent will end it
            return
        if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:  # nothing is being trained yet
            self._submitit(number, frame)
            return
        self.asked = True
        os.kill(self._owner, signal.SIGUSR1)


def submit(
    work: Callable[[Any], Any],
    config: Any,
    slurm: SlurmConfig,
    *,
    cluster: Literal["slurm", "local"],
    folder: Path,
    name: str,
) -> Any:
    """Put ``work(config)`` into the queue; returns submitit's job.

    Args:
        work: a function of a module, which resumes what it finds. config: a dataclass.
        cluster: a real one, or submitit's imitation of one on this machine.
        folder: for the job's script and what it prints; on a disk that all machines see.

    Raises:
        TubeletError: submitit is not installed, or there is no SLURM here.
    """
    submitit = submitit_or_explain()
    try:
        if cluster == "local":
            executor = submitit.LocalExecutor(folder=folder, max_num_timeout=slurm.requeues)
        else:
            executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=slurm.requeues)
        executor.update_parameters(**slurm.parameters(cluster, name))
        return executor.submit(Job(work, config))
    except RuntimeError as error:
        raise TubeletError(
            f'executor = "{cluster}": {error}; submit from a machine that has sbatch, or try '
            'executor = "local"'
        ) from error


def submitit_or_explain() -> Any:
    """The module. Raises TubeletError naming the extra where it is missing."""
    try:
        import submitit
        import submitit.helpers
    except ImportError as error:
        raise TubeletError(
            'jobs on a cluster need submitit: pip install "tubelet[slurm]"'
        ) from error
    return submitit
