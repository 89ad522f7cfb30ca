"""Training windows: H + 1 observations, a block of actions apart, and the actions between them.

    observation at step t0, t0 + block, ..., t0 + H * block    -> observations [B, H + 1, ...]
    the block's actions after each but the last                -> actions      [B, H, block * a]

What an observation is (frames, or cached latents of a frozen encoder) is the caller's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DatasetError
from ..core.rng import numpy_generator

Observe = Callable[[np.ndarray, np.ndarray], Tensor]
"""``observe(episode [B], step [B, K])`` -> tensor ``[B, K, ...]`` of those observations."""


@dataclass(frozen=True)
class WindowBatch:
    """Observations ``[B, H + 1, ...]``, actions float32 ``[B, H, block * a]`` (environment step
    major), where they are from: ``episode`` int64 ``[B]``, ``step`` int64 ``[B, H + 1]``, and
    proprioception float32 ``[B, H + 1, P]`` if asked for."""

    observations: Tensor
    actions: Tensor
    episode: np.ndarray
    step: np.ndarray
    proprio: Tensor | None = None


class FramePairs:
    """Observes ``count`` frames ``gap`` steps apart, the last at the step itself.

    Frames before the episode's first are that first frame: nothing moved before the reset.

    Args:
        frames: uint8 ``[total, H, W, 3]`` (a memory map will do). offsets: int64 ``[E + 1]``.
    """

    def __init__(self, frames: np.ndarray, offsets: np.ndarray, *, count: int, gap: int):
        self.frames, self.offsets = frames, offsets
        self.back = gap * np.arange(count - 1, -1, -1)

    def __call__(self, episode: np.ndarray, step: np.ndarray) -> Tensor:
        """Frames uint8 ``[B, K, count, H, W, 3]``."""
        local = np.maximum(step[..., None] - self.back, 0)
        return torch.from_numpy(self.frames[self.offsets[episode][:, None, None] + local])


def window_batches(
    observe: Observe,
    actions: np.ndarray,
    offsets: np.ndarray,
    *,
    episodes: Sequence[int],
    horizon: int,
    block: int,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    stride: int = 1,
    name: str = "windows",
    proprio: np.ndarray | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[WindowBatch]:
    """Endless batches of windows; batch s is a function of ``(seed, name, s, rank)`` alone.

    Args:
        observe: see above. actions: float32 ``[total, a]``. offsets: int64 ``[E + 1]``.
        episodes: those to draw from. horizon: H. block: environment steps per model step.
        batch_size: windows per batch and rank. Ranks get different windows; together they see those
            that one rank would see with ``batch_size * world_size``.
        stride: windows start at multiples of it. proprio: float32 ``[total, P]``, or None.

    Raises:
        DatasetError: no episode is as long as a window.
    """
    lengths = np.diff(offsets)
    numbers = np.asarray(episodes, dtype=np.int64)
    last = lengths[numbers] - 1 - horizon * block  # latest start
    long_enough = numbers[last >= 0]
    if len(long_enough) == 0:
        raise DatasetError(
            f"no episode has the {horizon * block + 1} frames of a window (horizon {horizon} x "
            f"block {block}); the longest has {int(lengths[numbers].max(initial=0))}"
        )
    starts = (lengths - 1 - horizon * block) // stride + 1
    share = starts[long_enough] / starts[long_enough].sum()
    within = np.arange(block)
    s = first_step
    while True:
        rng = numpy_generator(seed, name, s)
        episode = rng.choice(long_enough, batch_size * world_size, p=share)
        start = rng.integers(0, starts[episode]) * stride
        own = slice(rank * batch_size, (rank + 1) * batch_size)
        episode, start = episode[own], start[own]
        step = start[:, None] + block * np.arange(horizon + 1)
        rows = offsets[episode][:, None, None] + step[:, :-1, None] + within
        acts = np.ascontiguousarray(actions[rows].reshape(batch_size, horizon, -1))
        felt = None if proprio is None else proprio[offsets[episode][:, None] + step]
        yield WindowBatch(
            observe(episode, step),
            torch.from_numpy(acts.astype(np.float32)),
            episode,
            step,
            None if felt is None else torch.from_numpy(felt.astype(np.float32)),
        )
        s += 1
