"""Steps in time: attention that is causal over them, with a cache, and states that follow.

All tokens of a step see each other and every earlier step, so the keys and values of past steps
never change and rollouts keep them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from .blocks import Block
from .positions import Rotation

Cache = list[tuple[Tensor, Tensor]]
"""Per block the keys and values ``[B, M, h, d]`` of the M tokens of past steps."""

Advance = Callable[[Tensor, Tensor], Tensor]
"""``(state [B, P], action [B, A]) -> [B, P]``: the state that follows, known without a model."""


class AdaBlock(Block):
    """A block whose norms and residual gates are modulated by a condition (AdaLN-zero)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__(width, heads, mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)


def block_causal_mask(past: int, steps: int, tokens: int, device: torch.device) -> Tensor:
    """Bool ``[steps * tokens, (past + steps) * tokens]``, True where attention is allowed.

    A token sees all tokens of its own step and of every earlier one.
    """
    q = torch.arange(past, past + steps, device=device).repeat_interleave(tokens)
    k = torch.arange(past + steps, device=device).repeat_interleave(tokens)
    return q[:, None] >= k[None, :]


def repeated(cache: Cache | None, times: int) -> Cache | None:
    """The cache of a batch whose samples are repeated, each ``times`` in a row."""
    if cache is None:
        return None
    return [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in cache]


def cached_block(
    block: nn.Module,
    x: Tensor,
    rotation: Rotation,
    mask: Tensor | None,
    old: tuple[Tensor, Tensor] | None,
    condition: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One block over the tokens of new steps, with cached keys and values prepended.

    Args:
        block: a :class:`~tubelet.vjepa.blocks.Block` or :class:`AdaBlock`.
        x: ``[B, T * n, D]``, n tokens per step. rotation: theirs. mask: of
            :func:`block_causal_mask`, or None for a single step.
        old: keys and values ``[B, M, h, d]`` of earlier steps, or None.
        condition: ``[B, T, D]``, which modulates an :class:`AdaBlock`.

    Returns:
        ``[B, T * n, D]``, and the keys and values of all steps so far.
    """
    assert isinstance(block, Block)
    ada = isinstance(block, AdaBlock)
    if ada:
        assert condition is not None
        per_step = x.shape[1] // condition.shape[1]
        m = block.modulation(F.silu(condition)).repeat_interleave(per_step, dim=1)
        shift1, scale1, gate1, shift2, scale2, gate2 = m.chunk(6, dim=-1)
        y = block.norm1(x) * (1 + scale1) + shift1
    else:
        y = block.norm1(x)
    q, k, v = block.attn.project(y, rotation)
    if old is not None:
        k, v = torch.cat([old[0], k], dim=1), torch.cat([old[1], v], dim=1)
    y = block.attn.attend(q, k, v, mask)
    x = x + (gate1 * y if ada else y)
    y = block.norm2(x)
    y = block.mlp(y * (1 + scale2) + shift2 if ada else y)
    return x + (gate2 * y if ada else y), (k, v)


def unroll_state(state: Tensor, actions: Tensor, advance: Advance | None, steps: int) -> Tensor:
    """States ``[B, steps, P]`` from those of the first K steps and the actions after each.

    Args:
        state: ``[B, K, P]``. actions: ``[B, L, A]``, L >= steps - 1.
        advance: the state that follows; needed if K < steps (unless P is 0).

    Raises:
        ConfigError: more states than steps, or too few without ``advance``.
    """
    known = state.shape[1]
    advance = advance if state.shape[2] else stay
    if known > steps or not known or (known < steps and advance is None):
        raise ConfigError(
            f"{known} states for {steps} steps: give one for each, or at least one and the "
            "function `advance` that makes the next from a state and an action"
        )
    states = list(state.unbind(1))
    for t in range(known, steps):
        assert advance is not None
        states.append(advance(states[-1], actions[:, t - 1]))
    return torch.stack(states, dim=1)


def stay(state: Tensor, _: Tensor) -> Tensor:
    return state
