"""Worker processes that may crash or hang without taking the work with them.

A worker answers one request at a time. One that dies, hangs beyond its time or raises is killed,
named, counted and replaced, and its request is made again, a limited number of times. Processes are
spawned, since OpenGL must not cross a fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from ..core.errors import TubeletError

START_SECONDS = 300.0
"""Time to import everything and build the handler; far more than it takes on a busy machine."""

Handler = Callable[[Any], Any]
"""Answers a request; what it raises ends up in the parent."""


class WorkerError(TubeletError):
    """A request failed as often as it may."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One failure of one worker.

    Attributes:
        worker: its name. request: what it was doing. reason: how it failed.
    """

    worker: str
    request: str
    reason: str

    def __str__(self) -> str:
        return f"{self.worker}, {self.request}: {self.reason}"


class Worker:
    """One process around ``make_handler()``, restarted after a fault.

    Args:
        name: for messages. make_handler: picklable; called in the process.
    """

    def __init__(self, name: str, make_handler: Callable[[], Handler]):
        self.name, self._make_handler = name, make_handler
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self.connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._make_handler), name=self.name, daemon=True
        )
        self._process.start()
        theirs.close()
        self._ready = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process.pid or 0)

    def send(self, request: Any, seconds: float) -> None:
        """Make a request that must be answered within ``seconds``."""
        self.deadline = time.monotonic() + seconds + (0.0 if self._ready else START_SECONDS)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # dead: receive() says how
            self.connection.send(request)

    def receive(self) -> tuple[Any, str | None]:
        """Wait for the answer: (value, None), or (None, what went wrong) after killing the process.

        Raises:
            TubeletError: raised by the handler, which by that says that trying again is no use.
        """
        kind, value = "late", "no answer in time"
        try:
            if self.connection.poll(max(0.0, self.deadline - time.monotonic())):
                kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(5.0)
            kind, value = "dead", f"died with exit code {self._process.exitcode}"
        if kind == "answer":
            self._ready = True
            return value, None
        if isinstance(value, TubeletError):
            raise value
        self.kill()
        return None, value

    def kill(self) -> None:
        """End the process, whatever it is doing. Killing twice is harmless."""
        self.connection.close()
        self._process.kill()
        self._process.join()

    def restart(self) -> None:
        """Replace the process."""
        self.kill()
        self._start()

    def close(self) -> None:
        """End the process, gently if it is idle."""
        self.connection.close()  # it sees the end of its input
        self._process.join(2.0)
        self.kill()


def run_jobs(
    make_handler: Callable[[], Handler],
    jobs: Iterable[Any],
    *,
    workers: int,
    seconds: float,
    retries: int,
    on_fault: Callable[[Fault], None] = lambda fault: None,
    name: Callable[[Any], str] = str,
) -> Iterator[Any]:
    """Answers to all ``jobs`` in the order in which they come, from ``workers`` processes.

    Args:
        make_handler: picklable; makes what answers a job in each process.
        seconds: a job may take. retries: how often a failed job is tried again.
        on_fault: told of every fault. name: of a job, for messages.

    Raises:
        WorkerError: a job failed ``retries + 1`` times. TubeletError: raised by the handler.
    """
    waiting, attempts = list(jobs)[::-1], {}
    pool = [Worker(f"worker {number}", make_handler) for number in range(workers)]
    busy: dict[Connection, tuple[Worker, Any]] = {}
    try:
        idle = list(pool)
        while waiting or busy:
            while waiting and idle:
                worker, job = idle.pop(), waiting.pop()
                worker.send(job, seconds)
                busy[worker.connection] = (worker, job)
            soonest = min(worker.deadline for worker, _ in busy.values())
            answered = wait(list(busy), max(0.0, soonest - time.monotonic()))
            late = [c for c, (worker, _) in busy.items() if worker.deadline <= time.monotonic()]
            for connection in {*answered, *late}:
                worker, job = busy.pop(connection)
                value, reason = worker.receive()
                if reason is None:
                    yield value
                else:
                    attempts[name(job)] = attempts.get(name(job), 0) + 1
                    _report(worker, name(job), reason, attempts[name(job)], retries, on_fault)
                    waiting.append(job)
                    worker.restart()
                idle.append(worker)
    finally:
        for worker in pool:
            worker.kill()


def _report(
    worker: Worker,
    request: str,
    reason: str,
    attempts: int,
    retries: int,
    on_fault: Callable[[Fault], None],
) -> None:
    """Tell of a fault, and give up after too many of one request."""
    fault = Fault(worker=worker.name, request=request, reason=reason)
    on_fault(fault)
    if attempts > retries:
        raise WorkerError(f"{request} failed {attempts} times, at last so: {fault}")


def _serve(connection: Connection, make_handler: Callable[[], Handler]) -> None:
    """The process: build the handler, then answer until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends this
    try:
        handler = make_handler()
        while True:
            connection.send(("answer", handler(connection.recv())))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone or done
    except TubeletError as error:
        connection.send(("error", error))
    except Exception as error:  # a bug in an environment: reported, and the request made again
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}, line {place.lineno}"
        connection.send(("error", f"{type(error).__name__}: {error} ({where})"))
