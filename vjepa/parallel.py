"""Data parallelism over the processes that ``torchrun`` started; one process needs nothing of it.

    torchrun --nproc-per-node 2 -m tubelet.cli.main pretrain --videos … --out runs/a

Every process takes an equal part of each step's batch, and gradients are averaged. It holds the
whole model (DistributedDataParallel), or its part of every tensor, gathered block by block when it
is needed (FSDP2's ``fully_shard``). What is drawn for a sample depends on its number in the run,
not on the process that holds it, so that any number of processes trains the same model, up to
rounding. The model knows nothing of all this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import ConfigError, TubeletError
from ..core.pace import Pace
from ..core.progress import progress
from ..core.run import RunDir
from .batch_norm import over_processes
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
T = TypeVar("T")


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
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def in_turn(make: Callable[[], T]) -> T:
    """``make()`` on process 0 (where it writes a cache, say), then on the others (which read it).

    Raises:
        TubeletError: what ``make`` raised on process 0, on all.
    """
    made = lead(make)
    return make() if rank() > 0 else made  # pyright: ignore[reportReturnType]


def lead(make: Callable[[], T]) -> T | None:
    """``make()`` on process 0 while the others wait; None there.

    Raises:
        TubeletError: what ``make`` raised on process 0, on all.
    """
    made, refused = None, None
    if rank() == 0:
        try:
            made = make()
        except TubeletError as error:
            if world_size() == 1:
                raise
            refused = error
    raise_together(refused)
    return made


def raise_together(error: TubeletError | None) -> None:
    """Return when every process is here; if any of them brings an error, all raise it."""
    if world_size() == 1:
        if error is not None:
            raise error
        return
    for found in gather(error):
        if found is not None:
            raise found


def gather(value: T) -> list[T]:
    """Every process's ``value`` (picklable, small), by its number."""
    found: list[Any] = [None] * world_size()
    if world_size() == 1:
        return [value]
    dist.all_gather_object(found, value)
    return found


def open_run(create: Callable[[], RunDir], path: str | os.PathLike[str]) -> RunDir:
    """The run folder, written by process 0 alone; what it refuses, all refuse.

    Raises:
        TubeletError: what ``create`` raised on process 0.
    """
    return lead(create) or Follower(Path(path))


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
        self.model, self._losses, self.sharded = model, losses, False

    def forward(self, batch: Any, step: int) -> dict[str, Tensor]:
        """The terms; only ``loss`` keeps its gradient."""
        terms = self._losses(batch, step)
        return {k: v if k == "loss" else v.detach() for k, v in terms.items()}


def distribute(
    model: nn.Module, losses: Callable[[Any, int], dict[str, Tensor]], *, shard: bool = False
) -> Losses | DistributedDataParallel:
    """``losses`` whose backward pass averages gradients over all processes.

    Args:
        shard: split every parameter of ``model`` over the processes, in place (they become
            DTensors): make the optimiser after this. False copies the model to each.

    Raises:
        ConfigError: torchrun started several processes that were not brought together.
    """
    alone = Losses(model, losses)
    if world_size() == 1:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes, and this trains in one: "
                "start it without torchrun (`tubelet pretrain` and `tubelet train` are what spread)"
            )
        return alone
    over_processes(model)
    if not shard:
        return DistributedDataParallel(alone, find_unused_parameters=True, broadcast_buffers=False)
    from .sharding import shard_

    shard_(alone)
    alone.sharded = True
    return alone


def is_sharded(forward: nn.Module) -> bool:
    """Whether :func:`distribute` split the model."""
    return isinstance(forward, Losses) and forward.sharded


@contextmanager
def without_exchange(forward: nn.Module, held: bool) -> Iterator[None]:
    """While open, and if ``held``, backward passes add up gradients without averaging them."""
    if isinstance(forward, DistributedDataParallel) and held:
        with forward.no_sync():
            yield
        return
    if is_sharded(forward):
        from .sharding import exchange

        exchange(forward, not held)
    yield


@contextmanager
def callable_parts(forward: nn.Module) -> Iterator[None]:
    """While open, parts of the model may be called by themselves; if it is sharded, by all
    processes alike."""
    if not is_sharded(forward):
        yield
        return
    from .sharding import gathered

    with gathered(forward):
        yield


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


def bar(items: Iterable[Any], description: str, pace: Pace | None = None) -> progress:
    """A progress bar on process 0."""
    return (progress if rank() == 0 else _Quiet)(items, description, pace=pace)
