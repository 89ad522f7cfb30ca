"""Processes that make batches ahead, and are replaced when they hang or die.

Worker w of n makes the steps w, w + n, w + 2n, … Each has its own pipe and its own block of shared
memory with room for two batches, so that one that is killed leaves nothing behind that another
waits for. Before each clip it notes in that memory which file it turns to, and when: so the file
at which it hangs or dies is known by name.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import DatasetError
from .clip_source import ClipSource, RawBatch

SLOTS = 2
MAX_LOST = 10
"""Workers that may be lost in a row without a batch in between."""
_START_SECONDS = 60.0  # to start, before the first clip
_HEARTBEAT = 5.0  # how often an idle worker looks whether its parent is alive
_log = logging.getLogger(__name__)


class _Result(NamedTuple):
    """What a worker says of one step; the arrays lie in its shared memory.

    Attributes:
        step, slot: which step, and where in memory. complete: false if a sample failed all its
        draws. bad: path -> reason of the files that failed. bug: a traceback, or "".
    """

    step: int
    slot: int
    complete: bool
    bad: dict[str, str]
    bug: str = ""


class WorkerPool:
    """Iterates over ``(arrays or None, path -> reason)`` of the steps from ``start_step`` on.

    A file at which a worker hangs for longer than the config's ``clip_timeout``, or at which two
    workers die, is left out from then on; a step that was lost is made again.

    Attributes:
        lost: how many workers hung (``"hung"``) and died (``"died"``) so far.
    """

    def __init__(self, source: ClipSource, start_step: int, workers: int):
        self._source, self._start, self._next = source, start_step, start_step
        self._banned: dict[int, str] = {}
        self._deaths: Counter[int] = Counter()
        self.lost: Counter[str] = Counter()
        self._workers = [_Worker(source) for _ in range(workers)]
        self._finalizer = weakref.finalize(self, _stop_all, self._workers)
        for ahead in range(SLOTS * workers):
            self._workers[ahead % workers].assign(start_step + ahead, self._banned)

    def __iter__(self) -> WorkerPool:
        return self

    def __next__(self) -> tuple[RawBatch | None, dict[str, str]]:
        """The next step's batch, in memory of its own.

        Raises :class:`DatasetError` if workers are lost again and again, and RuntimeError with the
        worker's traceback for a bug.
        """
        step, self._next = self._next, self._next + 1
        place = (step - self._start) % len(self._workers)
        why = ""
        for _ in range(MAX_LOST):
            worker = self._workers[place]
            result = worker.wait(self._source.config.clip_timeout)
            if isinstance(result, _Result):
                if result.bug:
                    raise RuntimeError(f"a worker failed at step {step}:\n{result.bug}")
                batch = worker.batch(result).copied() if result.complete else None
                worker.assign(step + SLOTS * len(self._workers), self._banned)
                return batch, result.bad
            why = self._replace(place, result)
        raise DatasetError(
            f"{MAX_LOST} decoding processes in a row were lost at step {step}; the last one {why}. "
            "Check the memory of this machine, or decode with workers=0 to see the crash itself"
        )

    def pids(self) -> list[int]:
        """The ids of the workers' processes."""
        return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """Stop all workers. Closing twice is harmless."""
        self._finalizer()

    def _replace(self, place: int, lost: str) -> str:
        """Put a new worker in the place of one that ``hung`` or ``died``; says what happened."""
        worker = self._workers[place]
        worker.stop()
        number = worker.busy_with()
        self.lost[lost] += 1
        timeout = self._source.config.clip_timeout
        why = f"took longer than {timeout:g} s" if lost == "hung" else worker.exit_reason()
        at = "before its first clip"
        if number is not None:
            at = f"at {self._source.entry(number).path}"
            self._deaths[number] += 1
            if lost == "hung":
                self._banned[number] = f"decoding took longer than {timeout:g} s"
            elif self._deaths[number] > 1:
                self._banned[number] = f"the decoding process died at it twice, {why}"
        _log.warning("a decoding process %s %s; another one takes its place", why, at)
        self._workers[place] = fresh = _Worker(self._source)
        for step in worker.steps:
            fresh.assign(step, self._banned)
        return f"{why} {at}"


class _Worker:
    """One process, its pipe and its shared memory.

    Attributes:
        pid: its process. steps: those assigned to it and not yet handed over.
    """

    def __init__(self, source: ClipSource):
        context = multiprocessing.get_context()
        self._source, self._assigned = source, 0.0
        self.steps: list[int] = []
        self._memory = [context.RawArray("B", _slot_bytes(source)) for _ in range(SLOTS)]
        self._watch = context.RawArray("q", 2)  # video + 1, or 0; since when, in ns
        self._watch[1] = time.monotonic_ns() + int(_START_SECONDS * 1e9)
        self._pipe, theirs = context.Pipe()
        args = (source, theirs, self._memory, self._watch, os.getpid())
        self._process: Any = context.Process(target=_work, args=args, daemon=True)
        self._process.start()
        self.pid: int = self._process.pid
        theirs.close()

    def assign(self, step: int, banned: Mapping[int, str]) -> None:
        """Let it make ``step`` after those it has."""
        self.steps.append(step)
        self._assigned = time.monotonic()
        with contextlib.suppress(OSError):  # it is dead, which the next wait finds
            self._pipe.send((step, dict(banned)))

    def wait(self, timeout: float) -> _Result | str:
        """What it says of its first step; ``"hung"`` or ``"died"`` instead."""
        while True:
            since = max(self._watch[1] / 1e9, self._assigned)  # it may have been idle before
            left = since + timeout - time.monotonic()
            if left <= 0 and not self._pipe.poll():
                return "hung"
            # Never longer than a clip may take: the worker's clock may have moved meanwhile.
            pause = min(max(0.0, left), timeout) + 0.01
            ready = wait([self._pipe, self._process.sentinel], timeout=pause)
            if self._pipe in ready:
                try:
                    result = self._pipe.recv()
                except (EOFError, OSError):
                    return "died"
                self.steps.remove(result.step)
                return result
            if ready:
                return "died"

    def batch(self, result: _Result) -> RawBatch:
        """The arrays of a result, in the worker's memory until its next assignment."""
        return _layout(self._memory[result.slot], self._source, self._source.shape(result.step))

    def busy_with(self) -> int | None:
        """The video that it was decoding, if any."""
        return self._watch[0] - 1 if self._watch[0] else None

    def exit_reason(self) -> str:
        """How it ended, in words."""
        code = self._process.exitcode
        if code is not None and code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"was killed by {signal.Signals(-code).name}{hint}"
        return f"ended with exit code {code}"

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join(10)
        self._pipe.close()


def _stop_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.stop()


def _slot_bytes(source: ClipSource) -> int:
    most = max(source.shapes(), key=lambda shape: shape[1])
    return int(np.prod(most)) + 8 * most[0] * (most[1] + 1)


def _layout(memory: Any, source: ClipSource, shape: tuple[int, ...]) -> RawBatch:
    """The arrays of a batch in a slot: ids, times, pixels."""
    batch, length = shape[:2]
    at = 8 * batch * (length + 1)
    return RawBatch(
        video=np.frombuffer(memory, np.uint8, int(np.prod(shape)), at).reshape(shape),
        ids=np.frombuffer(memory, np.int64, batch),
        times=np.frombuffer(memory, np.float64, batch * length, 8 * batch).reshape(batch, length),
    )


def _work(source: ClipSource, pipe: Connection, memory: list[Any], watch: Any, parent: int) -> None:
    """Make steps until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends this one

    def begin(number: int) -> None:
        watch[1] = time.monotonic_ns()
        watch[0] = number + 1

    watch[1] = time.monotonic_ns()
    slot = 0
    while True:
        while not pipe.poll(_HEARTBEAT):
            if os.getppid() != parent:
                return
        try:
            step, banned = pipe.recv()
        except EOFError:
            return
        try:
            raw = _layout(memory[slot], source, source.shape(step))
            complete, bad = source.make(step, raw, banned=banned, begin=begin)
            result = _Result(step, slot, complete, bad)
        except Exception:  # a bug: it travels to the parent, which raises it
            result = _Result(step, slot, False, {}, traceback.format_exc())
        watch[1], watch[0] = time.monotonic_ns(), 0
        pipe.send(result)
        slot = (slot + 1) % SLOTS
