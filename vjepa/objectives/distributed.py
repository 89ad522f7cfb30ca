"""Sums over data-parallel ranks that autograd sees, so that W ranks equal one process.

Convention: every rank computes the same statistic of the whole batch, and the optimiser's gradient
is the mean over ranks (as DistributedDataParallel does). The backward of a sum over ranks is then
itself a sum over ranks. Summing in place instead, unseen by autograd, gives 1/W of the gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(x: Tensor) -> Tensor:
    """``x`` (any shape, the same on all ranks) summed over ranks; ``x`` itself on one rank."""
    return _SumOverRanks.apply(x) if world_size() > 1 else x  # pyright: ignore[reportReturnType]


def samples_over_ranks(x: Tensor) -> int:
    """The number of samples of all ranks: the sum of ``x.shape[-2]``. Ranks may differ."""
    if world_size() == 1:
        return x.shape[-2]
    count = torch.tensor(x.shape[-2], device=x.device)
    dist.all_reduce(count)
    return int(count)


def mean_over_samples(x: Tensor, count: int) -> Tensor:
    """Mean over the sample axis -2 of ``x [..., N, D]``, over all ranks' ``count`` samples."""
    if world_size() == 1:
        return x.mean(dim=-2)
    return sum_over_ranks(x.sum(dim=-2)) / count
