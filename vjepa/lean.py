"""Less memory or less time per block, without the model knowing: see :func:`thrift`."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from .blocks import Block


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
