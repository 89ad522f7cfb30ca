"""Batch normalisation over the batch of all processes, so that W of them equal one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .objectives.distributed import (
    mean_over_samples,
    samples_over_ranks,
    sum_over_ranks,
    world_size,
)


class BatchNormOverProcesses(nn.BatchNorm1d):
    """As ``nn.BatchNorm1d`` on ``[N, C]``, with the N samples of every process.

    torch's SyncBatchNorm does the same on GPUs only.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``input [N, C]`` normalised; in its dtype, with float32 statistics."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.float()
            count = samples_over_ranks(x)
            mean = mean_over_samples(x, count)
            centred = x - mean
            squares = sum_over_ranks(centred.square().sum(dim=0))
            self._remember(mean.detach(), squares.detach() / max(count - 1, 1))
            out = centred * torch.rsqrt(squares / count + self.eps)
            if self.affine:
                out = torch.addcmul(self.bias, out, self.weight)
        return out.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as ``nn.BatchNorm1d`` does (unbiased variance)."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def over_processes(model: nn.Module) -> None:
    """Turn every ``nn.BatchNorm1d`` of ``model`` into :class:`BatchNormOverProcesses`, in place;
    parameters and names stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = BatchNormOverProcesses
