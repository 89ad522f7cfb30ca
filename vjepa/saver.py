"""Saves a run's checkpoints as it trains: at once or in the background, whole or sharded."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..core.errors import CheckpointError
from . import parallel
from .checkpoint import cannot_save, moments_of, write_checkpoint


class Saver:
    """Writes checkpoints of ``model`` and ``optimizer``; every process calls it alike.

    Process 0 writes a model that all hold whole; a sharded one is written by all, each its part,
    and put together by process 0 (see :mod:`.sharding`): the files are the same.

    With ``background`` a save returns once everything is copied to the CPU, and a thread writes;
    the next save waits for it. A save that failed is an error of the call that waits for it: of the
    next :meth:`save`, of :meth:`finish`, or of leaving the context.

    Args:
        run: the run folder. config: stored beside the tensors. keep: checkpoints to keep.
        sharded: the model is split over the processes.
    """

    def __init__(
        self,
        run: Path,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: Any,
        keep: int = 2,
        background: bool = False,
        sharded: bool = False,
    ):
        self._run, self._model, self._optimizer = run, model, optimizer
        self._config, self._keep = config, keep
        # A thread of its own needs a group of its own.
        self._group: Any = dist.new_group(backend="gloo") if sharded else None
        self._alone: Any = dist.new_group([0], backend="gloo") if sharded else None
        self._thread = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._running: Future[None] | None = None

    def save(self, step: int, extra: Any = None) -> None:
        """Save ``step``. Raises CheckpointError, on every process, if this save failed (the one
        before it, with ``background``); older checkpoints survive."""
        self.finish()
        tensors = self._tensors()
        if self._thread is not None:
            self._running = self._thread.submit(self._write, step, extra, *tensors)
            return
        failed = None
        try:
            self._write(step, extra, *tensors)
        except CheckpointError as error:
            failed = error
        parallel.raise_together(failed)

    def finish(self) -> None:
        """Wait for the save that is running. Raises CheckpointError, on every process, if it
        failed."""
        parallel.raise_together(self._wait())

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
            elif failed := self._wait():  # the error on its way out comes first
                error.add_note(f"besides: {failed}")
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def _wait(self) -> CheckpointError | None:
        running, self._running = self._running, None
        try:
            if running is not None:
                running.result()
        except CheckpointError as error:
            return error
        return None

    def _tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and moments; copies on the CPU if training goes on while they are written."""
        if self._group is None and parallel.rank() > 0:
            return {}, {}
        weights, moments = self._model.state_dict(), moments_of(self._optimizer)
        if self._group is not None:
            from .sharding import copies

            return copies(weights), copies(moments)
        if self._thread is not None:
            return _copied(weights), _copied(moments)
        return weights, moments

    def _write(
        self, step: int, extra: Any, weights: dict[str, Tensor], moments: dict[str, Tensor]
    ) -> None:
        if self._group is not None:
            weights, moments = self._joined(step, weights, moments, self._group)
        if parallel.rank() == 0:
            write_checkpoint(
                self._run,
                step,
                weights,
                moments,
                config=self._config,
                extra=extra,
                keep=self._keep,
            )

    def _joined(
        self,
        step: int,
        weights: dict[str, Tensor],
        moments: dict[str, Tensor],
        group: dist.ProcessGroup,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Whole tensors, on process 0, by way of files of every process's part."""
        from .sharding import CheckpointException, join_parts, write_parts

        parts = self._run / "checkpoints" / ".parts.tmp"
        if parallel.rank() == 0:
            shutil.rmtree(parts, ignore_errors=True)  # of a killed save
        dist.barrier(group)
        named = (("model", weights), ("optimizer", moments))
        try:
            for name, tensors in named:
                write_parts(parts / name, tensors, group)
            if parallel.rank() > 0:
                return {}, {}
            weights, moments = (
                join_parts(parts / name, tensors, self._alone) for name, tensors in named
            )
            return weights, moments
        except (CheckpointException, OSError) as error:
            raise cannot_save(self._run, step, _reason(error)) from error
        finally:
            if parallel.rank() == 0:
                shutil.rmtree(parts, ignore_errors=True)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


def _reason(error: BaseException) -> str:
    """The first failure of a process, in one line."""
    failures = getattr(error, "failures", None)
    if not failures:
        return str(error)
    number, (cause, _) = next(iter(failures.items()))
    return f"process {number}: {cause}"
