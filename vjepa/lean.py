"""Less memory or less time without the model knowing: :func:`thrift`, :func:`keep_freed_memory`."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from .blocks import Block

_THRESHOLDS = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}


def thrift(
    model: nn.Module, *, checkpoint_blocks: bool = False, compile_mlps: bool = False
) -> None:
    """Change how the transformer blocks of ``model`` run, in place; names and values stay.

    Args:
        checkpoint_blocks: recompute each trained block's activations in the backward pass instead
            of keeping them (activation checkpointing): the same numbers, memory of one block at a
            time, about a third more work.
        compile_mlps: run each block's MLP through ``torch.compile``. The attention stays as it is:
            in training it turns queries and keys in place as complex numbers, and backwards too.
    """
    for block in (m for m in model.modules() if isinstance(m, Block)):
        if checkpoint_blocks and any(p.requires_grad for p in block.parameters()):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if compile_mlps:
            block.mlp.compile(dynamic=True)


def keep_freed_memory() -> bool:
    """Have glibc keep large buffers that this process frees, for the next step to use again.

    By default every buffer above 32 MB goes back to the system when freed, and each of its pages
    is cleared and mapped anew in the next step. Up to 2 GB now stay with the process. Who has set
    ``MALLOC_MMAP_THRESHOLD_`` or ``MALLOC_TRIM_THRESHOLD_`` in the environment keeps those.

    Returns:
        whether there was such an allocator (Linux, glibc), free to set, and it took both settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or _THRESHOLDS & set(os.environ):
        return False
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1  # names and signs of malloc.h
    return bool(mallopt(trim_threshold, most) and mallopt(mmap_threshold, most))
