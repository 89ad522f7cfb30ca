"""The training loop: plain PyTorch, a pure function of (config, step), resumable at any step.

Nothing that steers training lives in hidden state: data, masks and noise of step s come from named
streams keyed by s, schedules are functions of s, and a checkpoint holds the weights and Adam's
moments. A run killed at any moment and resumed therefore ends with the same bits.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, Stopped
from ..core.pace import Pace
from ..core.run import RunDir
from . import parallel
from .checkpoint import latest_checkpoint, load_checkpoint, stored_extra
from .lean import keep_freed_memory, thrift
from .optim import OptimConfig, make_optimizer, set_schedule
from .safeguards import check_finite, clip, closed, stop_signal
from .saver import Saver
from .spikes import SpikeGuard

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train and how often to look and save."""

    steps: int = 1000
    """Optimiser steps."""
    log_every: int = 10
    """Steps between logged losses."""
    report_every: int = 100
    """Steps between diagnostics (and at the last step)."""
    save_every: int = 200
    """Steps between checkpoints (and at the last step)."""
    precision: str = "fp32"
    """fp32, or bf16 autocast where the hardware has it."""
    accumulate: int = 1
    """Parts that a step's batch is cut into and that pass one after the other: the same step in
    less memory. For losses that are means over samples."""
    checkpoint_blocks: bool = False
    """Recompute activations in the backward pass (same numbers, less memory, a third more work)."""
    compile: bool = False
    """Run each block's MLP through torch.compile (the attention stays as it is)."""
    keep: int = 2
    """Newest checkpoints that stay on the disk."""
    background: bool = False
    """Write checkpoints in a thread while training goes on: memory for a copy of weights and
    moments, and a save waits only for the one before. A failure stops the run at the next save."""
    shard: bool = False
    """Split weights, gradients and moments over the processes that torchrun started (FSDP2),
    rather than hold all of them in each."""
    spike: float = 0.0
    """Leave out steps whose loss is more than this many deviations above the mean of the last 300;
    they are counted in the log. 0 takes every step."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "report_every", "save_every", "accumulate", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"loop.{name} = {getattr(self, name)}: must be at least 1")
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f'loop.precision = "{self.precision}": must be "fp32" or "bf16"')
        if self.spike < 0:
            raise ConfigError(f"loop.spike = {self.spike}: must be 0 (off) or more")


def fit(
    model: nn.Module,
    run: RunDir,
    config: Any,
    *,
    loop: LoopConfig,
    optim: OptimConfig,
    batches: Callable[[int], Iterable[Batch]],
    losses: Callable[[Any, int], dict[str, Tensor]],
    after_step: Callable[[int], None] = lambda step: None,
    report: Callable[[Batch, int], dict[str, float]] | None = None,
    split: Callable[[Batch, int], list[Any]] | None = None,
    describe: Callable[[Batch], str] = lambda batch: "",
    start_from: Path | None = None,
    device: str = "cpu",
    description: str = "train",
    pace: Pace | None = None,
) -> int:
    """Train ``model`` in place for ``loop.steps`` steps, from the run's newest checkpoint if any.

    Args:
        model: holds everything that is trained or saved (targets too).
        run: an open run folder. config: what the run was made from; stored in checkpoints.
        batches: ``batches(first_step)`` iterates over the batches of first_step, first_step + 1, …;
            closed at the end, also by an error, if it can be.
        losses: ``losses(batch, step)``: a dict of scalar terms with the key ``loss``, their total.
        after_step: called after the optimiser's step (EMA updates).
        report: diagnostics, called without gradients every ``loop.report_every`` steps: on process
            0, and with ``loop.shard`` on all, of which process 0 logs.
        split: ``split(batch, n)`` cuts a batch into n equal parts, which ``losses`` then gets;
            needed for ``loop.accumulate`` above 1.
        describe: names a batch in errors.
        start_from: a checkpoint whose weights and moments a new run starts with.
        device: where autocast applies. description: shown beside the progress bar.
        pace: what a step amounts to, for the console and the log.

    Returns:
        the step at which training started: 0, or that of the checkpoint resumed from.

    Raises:
        TubeletError: a loss term or the gradient is NaN or Inf; names the step, the term and the
            batch. The last checkpoint is from before it.
        Stopped: SIGTERM or SIGUSR1 asked any process to stop; a checkpoint was saved.
        CheckpointError: a checkpoint cannot be read, or not be written.
        ConfigError: ``loop.accumulate`` without ``split``, or processes that do not know each
            other.
    """
    if loop.accumulate > 1 and split is None:
        raise ConfigError(
            f"loop.accumulate = {loop.accumulate}: the losses trained here are no means over "
            "samples, so that parts of a batch do not add up to it; set it to 1"
        )
    thrift(model, checkpoint_blocks=loop.checkpoint_blocks, compile_mlps=loop.compile)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    forward = parallel.distribute(model, losses, shard=loop.shard)
    optimizer = make_optimizer(model, optim)
    first, guard = _restored(model, optimizer, run, loop, start_from)
    run.truncate_after(first - 1)  # everything, if it was killed before its first checkpoint
    if first < loop.steps:
        model.train()
        training = _Training(
            model=model,
            forward=forward,
            optimizer=optimizer,
            guard=guard,
            run=run,
            loop=loop,
            optim=optim,
            after_step=after_step,
            report=report,
            split=split,
            describe=describe,
            device=device,
            pace=pace or Pace(),
        )
        training.go(iter(batches(first)), first, config, description)
    model.eval()
    return first


def _restored(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    run: RunDir,
    loop: LoopConfig,
    start_from: Path | None,
) -> tuple[int, SpikeGuard]:
    """The step to go on at, with weights and moments from the newest checkpoint of the run; without
    one 0, with those of ``start_from`` if that is given. And the losses seen until then."""
    checkpoint = latest_checkpoint(run.path)
    if checkpoint is not None:
        first = load_checkpoint(checkpoint, model=model, optimizer=optimizer)
        return first, SpikeGuard(loop.spike, stored_extra(checkpoint) or ((), 0))
    if start_from is not None:
        load_checkpoint(start_from, model=model, optimizer=optimizer)
    return 0, SpikeGuard(loop.spike)


@dataclass(kw_only=True)
class _Training:
    """One call of :func:`fit` under way; its arguments, and what the log wants to know."""

    model: nn.Module
    forward: Any
    optimizer: torch.optim.Optimizer
    guard: SpikeGuard
    run: RunDir
    loop: LoopConfig
    optim: OptimConfig
    after_step: Callable[[int], None]
    report: Callable[[Any, int], dict[str, float]] | None
    split: Callable[[Any, int], list[Any]] | None
    describe: Callable[[Any], str]
    device: str
    pace: Pace
    clock: float = 0.0
    waited: float = 0.0
    logged: int = -1

    def go(self, stream: Iterator[Any], first: int, config: Any, description: str) -> None:
        """Train on the batches of steps ``first``, …, and close them. Raises as :func:`fit`."""
        loop = self.loop
        saver = Saver(
            self.run.path,
            model=self.model,
            optimizer=self.optimizer,
            config=config,
            keep=loop.keep,
            background=loop.background,
            sharded=parallel.is_sharded(self.forward),
        )
        self.clock, self.logged = time.perf_counter(), first - 1
        bar = parallel.bar(range(first, loop.steps), description, self.pace)
        with closed(stream), stop_signal() as stopping, saver:
            for step in bar:
                start = time.perf_counter()
                batch = next(stream)
                waited = time.perf_counter() - start
                self.waited += waited
                bar.waited(waited)
                loss, stop = self._step(batch, step, stopping)
                last = step + 1 == loop.steps
                if self.report is not None and (last or step % loop.report_every == 0):
                    _report(self.forward, self.model, self.run, self.report, batch, step)
                if last or stop or (step + 1) % loop.save_every == 0:
                    saver.save(step + 1, self.guard.state() if loop.spike else None)
                bar.note(f"loss {loss:.4f}")
                if stop and not last:
                    saver.finish()
                    said = f"stopped by a signal after step {step}; saved. Go on with --resume"
                    raise Stopped(said)

    def _step(self, batch: Any, step: int, stopping: Callable[[], bool]) -> tuple[float, bool]:
        """Take one step and log it; its loss, and whether some process was asked to stop."""
        loop, optimizer = self.loop, self.optimizer
        lr = set_schedule(optimizer, self.optim, step, loop.steps)
        optimizer.zero_grad(set_to_none=True)
        parts = [batch] if self.split is None else self.split(batch, loop.accumulate)
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=loop.precision == "bf16"):
            own = _backward(self.forward, parts, step)
        norm = clip(optimizer, self.optim.clip)
        values, stop = parallel.agree(own, stopping(), self.device)
        check_finite({**values, "gradient norm": norm}, own, step, batch, self.describe)
        spike = self.guard.is_spike(values["train/loss"])
        if not spike:
            optimizer.step()
            self.after_step(step)
        if spike or step + 1 == loop.steps or step % loop.log_every == 0:
            self._log(step, {**values, "train/lr": lr, "train/grad_norm": norm})
        return values["train/loss"], stop

    def _log(self, step: int, values: dict[str, float]) -> None:
        """Log a step's values, and the rates since the last ones."""
        now = time.perf_counter()
        steps, seconds = step - self.logged, now - self.clock
        rates = self.pace.scalars(steps=steps, seconds=seconds, waited=self.waited)
        if self.loop.spike:
            rates["train/spikes"] = self.guard.spikes
        self.run.log(step, **values, **rates)
        self.clock, self.waited, self.logged = now, 0.0, step


def _report(
    forward: nn.Module,
    model: nn.Module,
    run: RunDir,
    report: Callable[[Batch, int], dict[str, float]],
    batch: Batch,
    step: int,
) -> None:
    """Log diagnostics on process 0; the parts of a sharded model have to be called by all."""
    if parallel.rank() > 0 and not parallel.is_sharded(forward):
        return
    model.eval()
    with torch.no_grad(), parallel.callable_parts(forward):
        run.log(step, **report(batch, step))
    model.train()


def _backward(forward: nn.Module, parts: list[Any], step: int) -> dict[str, float]:
    """Gradients of the mean loss over ``parts`` of a batch; the mean of each term."""
    means: dict[str, float] = defaultdict(float)
    for number, part in enumerate(parts, start=1):
        with parallel.without_exchange(forward, held=number < len(parts)):
            terms = forward(part, step)
            with torch.autocast(terms["loss"].device.type, enabled=False):
                (terms["loss"] / len(parts)).backward()
        for name, value in terms.items():
            means[f"train/{name}"] += float(value.detach()) / len(parts)
    return dict(means)
