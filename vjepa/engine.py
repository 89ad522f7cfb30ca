"""The training loop: plain PyTorch, a pure function of (config, step), resumable at any step.

Nothing that steers training lives in hidden state: data, masks and noise of step s come from named
streams keyed by s, schedules are functions of s, and a checkpoint holds the weights and Adam's
moments. A run killed at any moment and resumed therefore ends with the same bits.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, TubeletError
from ..core.progress import progress
from ..core.run import RunDir
from .checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from .lean import thrift
from .optim import OptimConfig, make_optimizer, set_schedule

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
    checkpoint_blocks: bool = False
    """Recompute activations in the backward pass (same numbers, less memory, a third more work)."""
    compile: bool = False
    """Run each block's MLP through torch.compile (the rest of a block cannot be traced)."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "report_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"loop.{name} = {getattr(self, name)}: must be at least 1")
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f'loop.precision = "{self.precision}": must be "fp32" or "bf16"')


def fit(
    model: nn.Module,
    run: RunDir,
    config: Any,
    *,
    loop: LoopConfig,
    optim: OptimConfig,
    batches: Callable[[int], Iterable[Batch]],
    losses: Callable[[Batch, int], dict[str, Tensor]],
    after_step: Callable[[int], None] = lambda step: None,
    report: Callable[[Batch, int], dict[str, float]] | None = None,
    device: str = "cpu",
    description: str = "train",
) -> int:
    """Train ``model`` in place for ``loop.steps`` steps, from the run's newest checkpoint if any.

    Args:
        model: holds everything that is trained or saved (targets too).
        run: an open run folder. config: what the run was made from; stored in checkpoints.
        batches: ``batches(first_step)`` iterates over the batches of first_step, first_step + 1, …
        losses: ``losses(batch, step)``: a dict of scalar terms with the key ``loss``, their total.
        after_step: called after the optimiser's step (EMA updates).
        report: diagnostics, called without gradients every ``loop.report_every`` steps.
        device: where autocast applies. description: shown beside the progress bar.

    Returns:
        the step at which training started: 0, or that of the checkpoint resumed from.

    Raises:
        TubeletError: a loss term or the gradient is NaN or Inf; names the step and the term. The
            last checkpoint is from before it. Also when SIGTERM asked to stop (after saving).
    """
    thrift(model, checkpoint_blocks=loop.checkpoint_blocks, compile_mlps=loop.compile)
    optimizer = make_optimizer(model, optim)
    kind = torch.device(device).type
    first = 0
    checkpoint = latest_checkpoint(run.path)
    if checkpoint is not None:
        first = load_checkpoint(checkpoint, model=model, optimizer=optimizer)
    run.truncate_after(first - 1)  # everything, if it was killed before its first checkpoint
    if first >= loop.steps:
        model.eval()
        return first
    model.train()
    stream = iter(batches(first))
    clock, waited = time.perf_counter(), 0.0
    bar = progress(range(first, loop.steps), description)
    with _stop_signal() as stopping:
        for step in bar:
            start = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - start
            lr = set_schedule(optimizer, optim, step, loop.steps)
            with torch.autocast(kind, torch.bfloat16, enabled=loop.precision == "bf16"):
                terms = losses(batch, step)
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            norm = _clip(model, optim.clip)
            values = {f"train/{name}": float(value.detach()) for name, value in terms.items()}
            _check_finite({**values, "gradient norm": norm}, step)
            optimizer.step()
            after_step(step)
            last = step + 1 == loop.steps
            if last or step % loop.log_every == 0:
                now = time.perf_counter()
                rates = {"train/wait_share": waited / max(now - clock, 1e-9)}
                run.log(step, **values, **{"train/lr": lr, "train/grad_norm": norm}, **rates)
                clock, waited = now, 0.0
            if report is not None and (last or step % loop.report_every == 0):
                model.eval()
                with torch.no_grad():
                    run.log(step, **report(batch, step))
                model.train()
            stop = stopping()
            if last or stop or (step + 1) % loop.save_every == 0:
                save_checkpoint(run.path, step + 1, model=model, config=config, optimizer=optimizer)
            bar.note(f"loss {values['train/loss']:.4f}")
            if stop and not last:
                raise TubeletError(
                    f"stopped by a signal after step {step}; saved. Go on with --resume"
                )
    model.eval()
    return first


def _clip(model: nn.Module, limit: float) -> float:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if limit > 0:
        nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    return float(norm)


def _check_finite(values: dict[str, float], step: int) -> None:
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        raise TubeletError(
            f"step {step}: {', '.join(f'{k} = {v}' for k, v in bad.items())}. The last checkpoint "
            "is from before it; resume with a lower learning rate or gradient clipping"
        )


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """While open, SIGTERM asks for a save and a stop at the next step instead of killing."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    try:
        previous = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not the main thread: the process's owner handles signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, previous)
