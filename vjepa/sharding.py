"""Models split over processes (FSDP2), and their checkpoints (torch.distributed.checkpoint).

Every parameter is a DTensor: each process holds its rows, and so do gradients and moments. A
checkpoint is written by all, each its own part, and put together by process 0: what lies on the
disk is the same as for a model that was never split, so that every loader reads it and any number
of processes goes on with it.

Imported only where it is needed: torch's part of this takes as long to import as torch itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException as CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from .blocks import Block


def shard_(forward: nn.Module) -> None:
    """Split the parameters of ``forward`` over all processes, in place: blocks one by one, and what
    is in none of them together, gathered while ``forward`` runs."""
    kind = next(forward.parameters()).device.type
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    for block in [m for m in forward.modules() if isinstance(m, Block)]:
        fully_shard(block, mesh=mesh)
    fully_shard(forward, mesh=mesh)


def exchange(forward: nn.Module, on: bool) -> None:
    """Whether backward passes average gradients over processes, or add them up where they are."""
    assert isinstance(forward, FSDPModule)
    forward.set_requires_gradient_sync(on)


@contextmanager
def gathered(forward: nn.Module) -> Iterator[None]:
    """While open, what is in no block is whole; blocks gather themselves when they are called."""
    assert isinstance(forward, FSDPModule)
    forward.unshard()
    try:
        yield
    finally:
        forward.reshard()


def like(full: Tensor, own: Tensor) -> Tensor:
    """This process's part of ``full``, cut as ``own`` is; no process asks another."""
    if not isinstance(own, DTensor):
        return full
    full = full.to(own.device_mesh.device_type)
    return distribute_tensor(full, own.device_mesh, own.placements, src_data_rank=None)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy on the CPU of what this process holds of ``tensors``."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {name: _copy(value, mesh) for name, value in tensors.items()}


def _copy(tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor.detach().to("cpu", copy=True)
    return DTensor.from_local(
        tensor.to_local().detach().to("cpu", copy=True),
        mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def write_parts(folder: Path, tensors: Mapping[str, Tensor], group: dist.ProcessGroup) -> None:
    """Write what this process holds of ``tensors`` below ``folder``, which all processes share.

    Raises:
        CheckpointException: some process could not; all raise.
    """
    split = {name: value for name, value in tensors.items() if isinstance(value, DTensor)}
    if split:
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        save(split, storage_writer=writer, process_group=group)


def join_parts(
    folder: Path, tensors: Mapping[str, Tensor], alone: dist.ProcessGroup
) -> dict[str, Tensor]:
    """The whole ``tensors`` (on the CPU) from what :func:`write_parts` wrote of them.

    ``alone`` is a group of this process alone: it asks no other.
    """
    whole = {
        name: torch.empty(value.shape, dtype=value.dtype) if isinstance(value, DTensor) else value
        for name, value in tensors.items()
    }
    split = {name: whole[name] for name, value in tensors.items() if isinstance(value, DTensor)}
    if split:
        reader = HuggingFaceStorageReader(str(folder))
        load(split, storage_reader=reader, process_group=alone)
    shutil.rmtree(folder, ignore_errors=True)
    return whole
