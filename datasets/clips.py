"""Batches of clips from a corpus: endless, and a function of (config, step, rank) alone.

>>> batches = clip_batches(index, ClipConfig(frames=16, fps=12.5), batch_size=8)  # doctest: +SKIP
>>> next(batches).video.shape                                                     # doctest: +SKIP
torch.Size([8, 16, 64, 64, 3])

The number of workers changes nothing, any step can be made again without those before it, and
neither a damaged file nor a decoder that hangs or crashes stops the run; see :mod:`.clip_source`
and :mod:`.workers`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from ..core.errors import ConfigError, DatasetError
from .clip_config import ClipConfig, clip_frames, num_starts
from .clip_source import MAX_DRAWS, ClipSource, RawBatch
from .decode import resolve_backend
from .entries import CorpusIndex
from .indexing import check_bad_share
from .storage import shown
from .workers import WorkerPool

__all__ = ["ClipBatch", "ClipBatches", "ClipConfig", "clip_batches", "clip_frames", "num_starts"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipBatch:
    """One batch.

    Attributes:
        video: uint8 [B, T, H, W, 3], RGB. video_ids: int64 [B], positions in the index.
        timestamps: float64 [B, T], the frames' times in seconds on their file's clock.
        step: the step it belongs to.
    """

    video: torch.Tensor
    video_ids: torch.Tensor
    timestamps: torch.Tensor
    step: int


def clip_batches(
    index: CorpusIndex,
    config: ClipConfig,
    batch_size: int,
    *,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    cache: str | os.PathLike[str] | bool = False,
) -> ClipBatches:
    """Endless batches from step ``start_step`` on.

    Args:
        batch_size: clips per batch and rank. Ranks get different clips; together they see the
            clips that one rank would see with ``batch_size * world_size``. All ranks' batches of a
            step have the same shape.
        workers: processes that decode ahead; 0 decodes in this one. Same batches either way, but
            only a worker can be stopped when a decoder hangs or crashes.
        cache: decode the whole corpus once into a memory map of uint8 frames and cut clips from
            that: for corpora that fit on the disk many times faster, with the same bytes. A path
            names the map's folder; True puts it beside the index's own ``cache_path``.

    Raises :class:`DatasetError` if no video is long enough for a clip, and while iterating if more
    than ``config.max_bad_share`` of the videos fail to decode, a sample fails 10 draws in a row or
    10 workers in a row are lost.
    """
    if batch_size < 1 or workers < 0 or start_step < 0 or not 0 <= rank < world_size:
        raise ConfigError(
            f"clip_batches: batch_size={batch_size} must be at least 1, workers={workers} and "
            f"start_step={start_step} at least 0, and rank={rank} below world_size={world_size}"
        )
    resolve_backend(config.backend)
    frames = None
    if cache:
        frames = index.decode_to_cache(_cache_folder(index, cache), config.size, config.backend)
    source = ClipSource(index, config, batch_size, rank, world_size, frames)
    return ClipBatches(source, start_step, workers, index.source)


class ClipBatches(Iterator[ClipBatch]):
    """The iterator that :func:`clip_batches` returns.

    Attributes:
        bad: path -> reason of each video that failed to decode so far.
        excluded: path -> reason of each video that is too short for a clip.
    """

    def __init__(self, source: ClipSource, start_step: int, workers: int, name: str):
        self.bad: dict[str, str] = {}
        self.excluded = source.excluded
        self._name = name
        self._source = source
        self._steps = count(start_step)
        self._pool = WorkerPool(source, start_step, workers) if workers else None

    def __next__(self) -> ClipBatch:
        step = next(self._steps)
        raw, bad = next(self._pool) if self._pool is not None else self._make(step)
        if not bad.keys() <= self.bad.keys():
            self.bad |= bad
            limit = self._source.config.max_bad_share
            check_bad_share(self._name, self.bad.items(), self._source.num_videos, limit)
        if raw is None:
            raise DatasetError(
                f"{self._name}: {MAX_DRAWS} draws in a row met videos that cannot be decoded: "
                + "; ".join(f"{path}: {reason}" for path, reason in bad.items())
            )
        return ClipBatch(
            video=torch.from_numpy(raw.video),
            video_ids=torch.from_numpy(raw.ids),
            timestamps=torch.from_numpy(raw.times),
            step=step,
        )

    @property
    def lost(self) -> Counter[str]:
        """How many workers hung (``"hung"``) and died (``"died"``), and were replaced."""
        return Counter() if self._pool is None else self._pool.lost

    def report(self) -> str:
        """Counts, then one line per video left out or failed, with the reason."""
        head = f"{len(self.excluded)} videos too short, {len(self.bad)} failed to decode"
        if self.lost:
            head += f", {self.lost['hung']} workers hung and {self.lost['died']} died"
        both = [*sorted(self.excluded.items()), *sorted(self.bad.items())]
        return shown("\n".join([head, *(f"  {path}: {reason}" for path, reason in both)]))

    def worker_pids(self) -> list[int]:
        """The ids of the workers' processes."""
        return [] if self._pool is None else self._pool.pids()

    def close(self) -> None:
        """Stop the workers. They also stop when this object or the process ends."""
        if self._pool is not None:
            self._pool.close()

    def _make(self, step: int) -> tuple[RawBatch | None, dict[str, str]]:
        raw = RawBatch.empty(self._source.shape(step))
        complete, bad = self._source.make(step, raw)
        return (raw if complete else None), bad


def _cache_folder(index: CorpusIndex, cache: str | os.PathLike[str] | bool) -> Path:
    if not isinstance(cache, bool):
        return Path(cache)
    if index.cache_path is None:
        raise ConfigError(
            "cache=True puts the frames beside the index, which was not kept in a file: "
            "give cache a path, or index_corpus a cache_path"
        )
    return Path(f"{index.cache_path}.frames")
