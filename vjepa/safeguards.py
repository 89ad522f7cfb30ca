"""What keeps a run safe: bounded gradients, finite numbers, an end on request, streams closed."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..core.errors import TubeletError
from . import parallel


def clip(optimizer: torch.optim.Optimizer, limit: float) -> float:
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


def check_finite(
    values: dict[str, float],
    own: dict[str, float],
    step: int,
    batch: Any,
    describe: Callable[[Any], str],
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
def stop_signal() -> Iterator[Callable[[], bool]]:
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


@contextmanager
def closed(stream: Any) -> Iterator[None]:
    """Close ``stream`` (its workers, its files) at the end, however that comes about."""
    try:
        yield
    finally:
        if hasattr(stream, "close"):
            stream.close()
