"""Drawing masks: keyed random numbers, unions of blocks, picking and counting, all per batch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..core.errors import ConfigError
from ..core.rng import stream_seed
from .positions import Grid


def check_request(grid: Grid, batch: int, first_sample: int) -> None:
    """Raise :class:`ConfigError` for an empty grid or batch and for a negative sample number."""
    if min(grid) < 1:
        raise ConfigError(f"masks on a grid of {grid}: every side needs at least a token")
    if batch < 1 or first_sample < 0:
        raise ConfigError(
            f"masks of {batch} samples from number {first_sample} on: needs at least one sample "
            "and a number of at least 0"
        )


def uniforms(seed: int, *names: str | int, first: int, rows: int, draws: int) -> np.ndarray:
    """Numbers in [0, 1), float64 ``[rows, draws]``; row i is a function of (seed, names, first + i,
    draws) alone.

    Philox counts instead of remembering: a sample's numbers stand at a fixed place of the stream,
    so a whole batch is one call.
    """
    counts = -(-draws // 4)  # a count yields four numbers
    bits = np.random.Philox(key=stream_seed(seed, *names), counter=first * counts)
    raw = bits.random_raw(rows * counts * 4).reshape(rows, counts * 4)
    return (raw[:, :draws] >> 11) * 2.0**-53


def block_starts(
    u: np.ndarray, size: tuple[int, int, int], grid: Grid, *, wrap: bool = False
) -> np.ndarray:
    """First ``(t, h, w)`` of blocks placed by ``u`` in [0, 1), both ``[..., 3]``; int64.

    Every place where a block of ``size`` lies inside the grid is equally likely; with ``wrap``
    every place at all.
    """
    room = grid if wrap else [n - length + 1 for n, length in zip(grid, size, strict=True)]
    return (u * np.array(room)).astype(np.int64)


def unions(
    starts: np.ndarray, size: tuple[int, int, int], grid: Grid, *, wrap: bool = False
) -> np.ndarray:
    """Unions of the n blocks that begin at ``starts`` ``[..., n, 3]``, bool ``[..., T * H * W]``.

    With ``wrap``, blocks that leave the grid come in on the other side.
    """
    inside = []
    for axis, (length, extent) in enumerate(zip(size, grid, strict=True)):
        offset = np.arange(extent) - starts[..., axis, None]
        if wrap:
            offset %= extent
        inside.append((offset >= 0) & (offset < length))
    time, rows, cols = inside
    planes = (time[..., :, None] & rows[..., None, :]).reshape(*rows.shape[:-1], -1)
    covers = planes.swapaxes(-1, -2).astype(np.float32) @ cols.astype(np.float32)
    return (covers > 0).reshape(*starts.shape[:-2], grid.size)


def pick_alike(count: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Which placement each sample keeps, int64 ``[B]``, of those counted in ``count`` ``[B, P]``.

    The possible one nearest to the batch's mean count (of every sample's first possible one).
    """
    first = np.take_along_axis(count, possible.argmax(axis=1)[:, None], axis=1)
    miss = np.abs(count - first.mean())
    return np.where(possible, miss, np.inf).argmin(axis=1)


def top(score: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Bool ``[B, n]``: the ``count`` (one, or one per row) entries of highest ``score`` per row."""
    n = score.shape[1]
    wanted = np.arange(n) >= n - np.broadcast_to(count, len(score))[:, None]
    chosen = np.empty(score.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(score, axis=1), wanted, axis=1)
    return chosen


def first(mask: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` marked places of each row of ``mask``, bool ``[B, n]``."""
    return mask & (mask.cumsum(axis=1) <= count)


def nearness(masked: np.ndarray, grid: Grid, *, wrap: bool) -> np.ndarray:
    """How masked the surroundings are, float64 ``[B, T * H * W]`` in [0, 1].

    A weighted mean of ``masked`` over the grid, weights halving with each step away: the masked
    place nearest to a border has the lowest value, the free one nearest to it the highest. The sums
    are of powers of two and so exact: the same on every machine.
    """
    values = masked.reshape(-1, *grid).astype(np.float64)
    return (_spread(values, wrap) / _spread_ones(grid, wrap)).reshape(masked.shape)


def ids(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Sorted token ids int64 ``[B, k]`` of the k places marked in each row of ``mask``: bool,
    ``[B, T * H * W]`` or, the same at all time steps, ``[B, H * W]``."""
    batch, n = mask.shape
    places = (np.flatnonzero(mask) % n).reshape(batch, 1, -1)
    return (np.arange(0, grid.size, n)[:, None] + places).reshape(batch, -1)


def _spread(values: np.ndarray, wrap: bool) -> np.ndarray:
    for axis in range(1, values.ndim):
        if (length := values.shape[axis]) > 1:
            weighted = np.moveaxis(values, axis, -1) @ _weights(length, wrap)
            values = np.moveaxis(weighted, -1, axis)
    return values


@lru_cache(maxsize=32)
def _weights(length: int, wrap: bool) -> np.ndarray:
    gap = np.abs(np.arange(length)[:, None] - np.arange(length))
    return 0.5 ** (np.minimum(gap, length - gap) if wrap else gap)


@lru_cache(maxsize=32)
def _spread_ones(grid: Grid, wrap: bool) -> np.ndarray:
    return _spread(np.ones((1, *grid)), wrap)
