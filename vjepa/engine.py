"""The training loop: plain PyTorch, a pure function of (config, step), resumable at any step.

Nothing that steers training lives in hidden state: data, masks and noise of step s come from named
streams keyed by s, schedules are functions of s, and a checkpoint holds the weights and Adam's
moments. A run killed at any moment and resumed therefore ends with the same bits.
"""

from __future__ import annotations

import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, Stopped, TubeletError
from ..core.pace import Pace
from ..core.run import RunDir
from . import parallel
from .checkpoint import latest_checkpoint, load_checkpoint, stored_extra
from .lean import thrift
from .optim import OptimConfig, make_optimizer, set_schedule
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
    """Run each block's MLP through torch.compile (the rest of a block cannot be traced)."""
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
        batches: ``batches(first_step)`` iterates over the batches of first_step, first_step + 1, …
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
    forward = parallel.distribute(model, losses, shard=loop.shard)
    optimizer = make_optimizer(model, optim)
    kind = torch.device(device).type
    first, guard = 0, SpikeGuard(loop.spike)
    checkpoint = latest_checkpoint(run.path)
    if checkpoint is not None:
        first = load_checkpoint(checkpoint, model=model, optimizer=optimizer)
        guard = SpikeGuard(loop.spike, stored_extra(checkpoint) or ((), 0))
    elif start_from is not None:
        load_checkpoint(start_from, model=model, optimizer=optimizer)
    run.truncate_after(first - 1)  # everything, if it was killed before its first checkpoint
    if first >= loop.steps:
        model.eval()
        return first
    saver = Saver(
        run.path,
        model=model,
        optimizer=optimizer,
        config=config,
        keep=loop.keep,
        background=loop.background,
        sharded=parallel.is_sharded(forward),
    )
    model.train()
    stream = iter(batches(first))
    clock, waited, logged = time.perf_counter(), 0.0, first - 1
    pace = pace or Pace()
    bar = parallel.bar(range(first, loop.steps), description, pace)
    with _stop_signal() as stopping, saver:
        for step in bar:
            start = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - start
            bar.waited(time.perf_counter() - start)
            lr = set_schedule(optimizer, optim, step, loop.steps)
            optimizer.zero_grad(set_to_none=True)
            parts = [batch] if split is None else split(batch, loop.accumulate)
            with torch.autocast(kind, torch.bfloat16, enabled=loop.precision == "bf16"):
                own = _backward(forward, parts, step)
            norm = _clip(optimizer, optim.clip)
            values, stop = parallel.agree(own, stopping(), device)
            _check_finite({**values, "gradient norm": norm}, own, step, batch, describe)
            spike = guard.is_spike(values["train/loss"])
            if not spike:
                optimizer.step()
                after_step(step)
            last = step + 1 == loop.steps
            if last or spike or step % loop.log_every == 0:
                now = time.perf_counter()
                rates = pace.scalars(steps=step - logged, seconds=now - clock, waited=waited)
                if loop.spike:
                    rates["train/spikes"] = guard.spikes
                run.log(step, **values, **{"train/lr": lr, "train/grad_norm": norm}, **rates)
                clock, waited, logged = now, 0.0, step
            if report is not None and (last or step % loop.report_every == 0):
                _report(forward, model, run, report, batch, step)
            if last or stop or (step + 1) % loop.save_every == 0:
                saver.save(step + 1, guard.state() if loop.spike else None)
            bar.note(f"loss {values['train/loss']:.4f}")
            if stop and not last:
                saver.finish()
                raise Stopped(f"stopped by a signal after step {step}; saved. Go on with --resume")
    model.eval()
    return first


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


def _clip(optimizer: torch.optim.Optimizer, limit: float) -> float:
    """Scale gradients down to the norm ``limit`` (0: leave them); returns the norm they had.

    Of the parameters that follow the schedule: critics, which do not, are no part of the model.
    """
    groups = [g for g in optimizer.param_groups if g.get("scheduled", True)]
    parameters = [p for group in groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if hasattr(norm, "full_tensor"):  # of gradients that are split over processes
        norm = norm.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
    if limit > 0:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return float(norm)


def _check_finite(
    values: dict[str, float],
    own: dict[str, float],
    step: int,
    batch: Batch,
    describe: Callable[[Batch], str],
) -> None:
    """Raise on every process unless ``values``, of which all hold the same, are finite.

    ``own`` are this process's: where they tell whose batch it was, only that one is named.
    """
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if not bad:
        return
    found = parallel.gather((all(map(math.isfinite, own.values())), describe(batch)))
    blamed = [name for fine, name in found if not fine] or [name for _, name in found]
    named = ", ".join(filter(None, blamed))
    raise TubeletError(
        f"step {step}: {', '.join(f'{k} = {v}' for k, v in bad.items())}. "
        + (f"The batch: {named}. " if named else "")
        + "The last checkpoint is from before it; resume with a lower learning rate or "
        "gradient clipping"
    )


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """While open, SIGTERM and SIGUSR1 ask for a save and a stop at the next step."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    numbers = [getattr(signal, n) for n in ("SIGTERM", "SIGUSR1") if hasattr(signal, n)]
    try:
        previous = {number: signal.signal(number, ask) for number in numbers}
    except ValueError:  # not the main thread: the process's owner handles signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
