"""Jobs that depend on one another, run side by side, each once: killed or failed, the next start
goes on with what is missing.

A job is a command in a process of its own. It is done when it has exited with 0, which a file
records together with its command; a job whose command has changed since is done again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.errors import ConfigError
from ..core.io import atomic_write_json

POLL = 0.2
"""Seconds between looks at running jobs."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command.

    Attributes:
        name: unique; also the name of its files, so letters, digits, dots, dashes and slashes.
        command: program and arguments. needs: names of jobs that must be done before.
        limit: seconds after which it is ended and counts as failed.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    limit: float = 6 * 3600.0


class Running(Protocol):
    """A job under way."""

    def code(self) -> int | None:
        """Its exit code, or None while it runs."""

    def end(self) -> None:
        """Stop it, with every process that it started."""


Start = Callable[[Job, Path], Running]
"""``start(job, log)``: begin the job, its output going to the file ``log``."""


@dataclass
class Outcome:
    """How a set of jobs ended: names by what became of them."""

    done: list[str] = field(default_factory=list)
    earlier: list[str] = field(default_factory=list)
    """Done by an earlier start."""
    failed: dict[str, str] = field(default_factory=dict)
    """With the reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """With the failed job that it needed."""


class LocalProcess:
    """A job as a process of this machine, in a process group of its own."""

    def __init__(self, job: Job, log: Path, environment: Mapping[str, str] | None = None):
        self._log = open(log, "ab")  # noqa: SIM115
        self._process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )

    def code(self) -> int | None:
        code = self._process.poll()
        if code is not None:
            self._log.close()
        return code

    def end(self) -> None:
        """SIGTERM to the group, SIGKILL to what is left after ten seconds."""
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        self._log.close()


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    start: Start = LocalProcess,
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Run every job that is not done yet, at most ``workers`` at a time.

    Args:
        folder: holds ``done/NAME.json`` and ``logs/NAME.txt``.

    Returns:
        what became of each. A failed job stops only those that need it.

    Raises:
        ConfigError: two jobs of a name, an unknown or circular need.
    """
    by_name = _checked(jobs)
    outcome, running = Outcome(), {}
    waiting = dict(by_name)
    for job in jobs:
        if _is_done(job, folder):
            outcome.earlier.append(job.name)
            del waiting[job.name]
    if outcome.earlier:
        say(f"{len(outcome.earlier)} of {len(jobs)} jobs were done before")
    try:
        with _interruptible():
            while waiting or running:
                _skip(waiting, outcome, say)
                _launch(waiting, running, folder, outcome, start, workers, say)
                for name in list(running):
                    _look_after(by_name[name], running, folder, outcome, say)
                if running:
                    time.sleep(POLL)
    finally:
        for process, _ in running.values():  # of an interrupted start
            process.end()
    return outcome


@contextmanager
def _interruptible() -> Iterator[None]:
    """While open, SIGTERM is Ctrl-C: it ends what runs, rather than leaving it behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _checked(jobs: Sequence[Job]) -> dict[str, Job]:
    by_name = {job.name: job for job in jobs}
    if len(by_name) < len(jobs):
        names = [job.name for job in jobs]
        raise ConfigError(f"two jobs of a name: {sorted({n for n in names if names.count(n) > 1})}")
    resolved: set[str] = set()
    left = dict(by_name)
    while left:
        ready = [name for name, job in left.items() if resolved.issuperset(job.needs)]
        if not ready:
            needs = {name: job.needs for name, job in left.items()}
            raise ConfigError(f"jobs need one another, or jobs that there are not: {needs}")
        resolved.update(ready)
        for name in ready:
            del left[name]
    return by_name


def _record(job: Job, folder: Path) -> Path:
    return folder / "done" / f"{job.name.replace('/', '.')}.json"


def _is_done(job: Job, folder: Path) -> bool:
    try:
        return json.loads(_record(job, folder).read_text())["command"] == list(job.command)
    except (OSError, ValueError, KeyError):
        return False


def _skip(waiting: dict[str, Job], outcome: Outcome, say: Callable[[str], None]) -> None:
    lost = True
    while lost:
        bad = {*outcome.failed, *outcome.skipped}
        lost = [(job, need) for job in waiting.values() for need in job.needs if need in bad]
        for job, need in lost:
            if waiting.pop(job.name, None):
                outcome.skipped[job.name] = need
                say(f"skipped: {job.name}, which needs {need}")


def _launch(
    waiting: dict[str, Job],
    running: dict[str, tuple[Running, float]],
    folder: Path,
    outcome: Outcome,
    start: Start,
    workers: int,
    say: Callable[[str], None],
) -> None:
    finished = {*outcome.done, *outcome.earlier}
    ready = [job for job in waiting.values() if finished.issuperset(job.needs)]
    for job in ready[: max(0, workers - len(running))]:
        log = _log(job, folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        say(f"started: {job.name}")
        running[job.name] = (start(job, log), time.monotonic())
        del waiting[job.name]


def _look_after(
    job: Job,
    running: dict[str, tuple[Running, float]],
    folder: Path,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    process, began = running[job.name]
    code, seconds = process.code(), time.monotonic() - began
    if code is None and seconds <= job.limit:
        return
    del running[job.name]
    if code == 0:
        record = {"command": list(job.command), "seconds": round(seconds, 1)}
        atomic_write_json(_record(job, folder), record)
        outcome.done.append(job.name)
        say(f"done: {job.name} ({seconds:.0f} s)")
        return
    if code is None:
        process.end()
    why = f"exit code {code}" if code is not None else f"longer than its {job.limit:.0f} s"
    outcome.failed[job.name] = why
    log = _log(job, folder)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    say(f"failed: {job.name}: {why}{': ' + last[0] if last else ''} (all of it: {log})")


def _log(job: Job, folder: Path) -> Path:
    return folder / "logs" / f"{job.name.replace('/', '.')}.txt"
