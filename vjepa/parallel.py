"""Data parallelism over the processes that ``torchrun`` started; one process needs nothing of it.

    torchrun --nproc-per-node 2 -m tubelet.cli.main pretrain --videos … --out runs/a

Every process holds the whole model and takes an equal part of each step's batch; gradients are
averaged (DistributedDataParallel). What is drawn for a sample depends on its number in the run, not
on the process that holds it, so that any number of processes trains the same model, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import ConfigError, TubeletError
from ..core.progress import progress
from ..core.run import RunDir
from .objectives.distributed import world_size as world_size

_PATIENCE = timedelta(minutes=30)  # indexing a corpus is what others wait for longest


class Part(NamedTuple):
    """Which of several equal parts of a step's batch."""

    index: int = 0
    of: int = 1

    def rows(self, count: int) -> slice:
        """Its ``count`` rows of the whole batch."""
        return slice(self.index * count, (self.index + 1) * count)


WHOLE = Part()


def rank() -> int:
    """Number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def local_batch(batch_size: int) -> int:
    """Samples per step of this process. Raises ConfigError if processes do not divide them."""
    if batch_size % world_size():
        raise ConfigError(
            f"batch_size = {batch_size} is of all processes together, and {world_size()} of them "
            "do not divide it: choose a multiple"
        )
    return batch_size // world_size()


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """While open, the processes that torchrun started know each other; gives this one's device.

    Args:
        device: cpu (gloo), or cuda (nccl), of which each process takes the one of its local number.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or dist.is_initialized():
        yield device
        return
    cuda = torch.device(device).type == "cuda"
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


@contextmanager
def first_before_others() -> Iterator[None]:
    """Process 0 runs the body first (and writes the cache), then the others (and read it)."""
    if world_size() > 1 and rank() > 0:
        dist.barrier()
    yield
    if world_size() > 1 and rank() == 0:
        dist.barrier()


def wait_for_all() -> None:
    """Return when every process is here."""
    if world_size() > 1:
        dist.barrier()


def open_run(create: Callable[[], RunDir], path: str | os.PathLike[str]) -> RunDir:
    """The run folder, written by process 0 alone; what it refuses, all refuse.

    Raises:
        TubeletError: what ``create`` raised on process 0.
    """
    if world_size() == 1:
        return create()
    run, refused = None, [None]
    if rank() == 0:
        try:
            run = create()
        except TubeletError as error:
            refused = [error]
    dist.broadcast_object_list(refused, src=0)
    if refused[0] is not None:
        raise refused[0]
    return run or Follower(Path(path))


class Follower(RunDir):
    """A run folder as seen by processes other than 0: readable, nothing is logged."""

    def __init__(self, path: Path):
        self.path = path

    def log(self, step: int, **scalars: Any) -> None:
        """Nothing: process 0 logs."""

    def truncate_after(self, step: int) -> None:
        """Nothing: process 0 does."""

    def close(self) -> None:
        """Nothing is open."""


class Losses(nn.Module):
    """A model and how its losses are computed, as one module, so that DDP can wrap it."""

    def __init__(self, model: nn.Module, losses: Callable[[Any, int], dict[str, Tensor]]):
        super().__init__()
        self.model, self._losses = model, losses

    def forward(self, batch: Any, step: int) -> dict[str, Tensor]:
        """The terms; only ``loss`` keeps its gradient."""
        terms = self._losses(batch, step)
        return {k: v if k == "loss" else v.detach() for k, v in terms.items()}


def distribute(
    model: nn.Module, losses: Callable[[Any, int], dict[str, Tensor]]
) -> Losses | DistributedDataParallel:
    """``losses`` whose backward pass averages gradients over all processes."""
    alone = Losses(model, losses)
    if world_size() == 1:
        return alone
    return DistributedDataParallel(alone, find_unused_parameters=True, broadcast_buffers=False)


def without_exchange(forward: nn.Module, held: bool) -> AbstractContextManager[None]:
    """While open, and if ``held``, backward passes add up gradients without averaging them."""
    if held and isinstance(forward, DistributedDataParallel):
        return forward.no_sync()
    return nullcontext()


def agree(values: Mapping[str, float], stop: bool, device: str) -> tuple[dict[str, float], bool]:
    """The mean of each value over all processes, and whether any of them wants to stop."""
    if world_size() == 1:
        return dict(values), stop
    together = torch.tensor([*values.values(), float(stop)], dtype=torch.float64, device=device)
    dist.all_reduce(together)
    *sums, wanted = together.tolist()
    means = {k: total / world_size() for k, total in zip(values, sums, strict=True)}
    return means, wanted > 0


class _Quiet(progress):
    """No bar."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)


def bar(items: Iterable[Any], description: str) -> progress:
    """A progress bar on process 0."""
    return (progress if rank() == 0 else _Quiet)(items, description)
