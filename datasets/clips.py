"""Batches of clips from a corpus: endless, and a function of (config, step, rank) alone.

>>> batches = clip_batches(index, ClipConfig(frames=16, fps=12.5), batch_size=8)  # doctest: +SKIP
>>> next(batches).video.shape                                                     # doctest: +SKIP
torch.Size([8, 16, 64, 64, 3])

Each sample of each step has its own random stream, named by its number in the whole run. So the
number of workers changes nothing, any step can be made again without those before it, and a sample
whose file turns out to be damaged is drawn anew without disturbing the others.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from ..core.errors import ConfigError, DatasetError, VideoDecodeError
from ..core.rng import numpy_generator
from .corpus import CorpusIndex, VideoEntry, check_bad_share
from .corpus_cache import CorpusCache
from .decode import Backend, open_video, resolve_backend

MAX_DRAWS = 10


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How clips are cut out of videos.

    Attributes:
        frames: frames per clip.
        frame_step: take every n-th frame (1 if neither this nor ``fps`` is given).
        fps: take the frames nearest to this rate by their true times, instead of ``frame_step``.
        size: side of the square clips in pixels (short side scaled, centre cut out).
        sampling: ``starts`` makes every clip of the corpus equally likely, so that longer videos
            are seen more often; ``videos`` makes every video equally likely.
        backend: video library, see :func:`.decode.open_video`.
        seed: names the random streams.
        max_bad_share: stop when more than this share of the videos turned out to be damaged.
    """

    frames: int = 16
    frame_step: int | None = None
    fps: float | None = None
    size: int = 64
    sampling: Literal["starts", "videos"] = "starts"
    backend: Backend = "auto"
    seed: int = 0
    max_bad_share: float = 0.5

    def __post_init__(self) -> None:
        wrong = []
        for key in ("frames", "size", "frame_step"):
            value = getattr(self, key)
            if value is not None and value < 1:
                wrong.append(f"{key}={value} must be at least 1")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            wrong.append(f"fps={self.fps} must be above 0")
        if self.fps is not None and self.frame_step is not None:
            wrong.append(f"frame_step={self.frame_step} and fps={self.fps}: give only one")
        for key, allowed in (
            ("sampling", ("starts", "videos")),
            ("backend", get_args(Backend)),
        ):
            if getattr(self, key) not in allowed:
                wrong.append(f"{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}")
        if not 0 <= self.max_bad_share <= 1:
            wrong.append(f"max_bad_share={self.max_bad_share} is not a share between 0 and 1")
        if wrong:
            raise ConfigError("clips: " + "; ".join(wrong))


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
            clips that one rank would see with ``batch_size * world_size``.
        workers: processes that decode ahead; 0 decodes in this one. Same batches either way.
        cache: decode the whole corpus once into a memory map of uint8 frames and cut clips from
            that: for corpora that fit on the disk many times faster, with the same bytes. A path
            names the map's folder; True puts it beside the index's own ``cache_path``.

    Raises :class:`DatasetError` if no video is long enough for a clip, and while iterating if more
    than ``config.max_bad_share`` of the videos fail to decode or a sample fails 10 draws in a row.
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
    source = _ClipSource(index, config, batch_size, rank, world_size, frames)
    return ClipBatches(source, start_step, workers, index.source)


class ClipBatches(Iterator[ClipBatch]):
    """The iterator that :func:`clip_batches` returns.

    Attributes:
        bad: path -> reason of each video that failed to decode so far.
        excluded: path -> reason of each video that is too short for a clip.
    """

    def __init__(self, source: _ClipSource, start_step: int, workers: int, name: str):
        self.bad: dict[str, str] = {}
        self.excluded = source.excluded
        self._name = name
        self._source = source
        self._steps: Iterator[Any] = map(source.__getitem__, count(start_step))
        if workers:
            self._steps = iter(
                torch.utils.data.DataLoader(
                    source,
                    batch_size=None,
                    sampler=_Steps(start_step),
                    num_workers=workers,
                    generator=torch.Generator(),  # leave the global one alone
                )
            )

    def __next__(self) -> ClipBatch:
        batch, bad = next(self._steps)
        if not bad.keys() <= self.bad.keys():
            self.bad |= bad
            limit = self._source.config.max_bad_share
            check_bad_share(self._name, self.bad.items(), self._source.num_videos, limit)
        if batch is None:
            raise DatasetError(
                f"{self._name}: {MAX_DRAWS} draws in a row met videos that cannot be decoded: "
                + "; ".join(f"{path}: {reason}" for path, reason in bad.items())
            )
        return batch

    def report(self) -> str:
        """Counts, then one line per video left out or failed, with the reason."""
        lines = [f"{len(self.excluded)} videos too short, {len(self.bad)} failed to decode"]
        both = [*sorted(self.excluded.items()), *sorted(self.bad.items())]
        return "\n".join([*lines, *(f"  {path}: {reason}" for path, reason in both)])


def clip_frames(timestamps: np.ndarray, start: int, config: ClipConfig) -> np.ndarray:
    """int64 [T]: the frame numbers of the clip that begins at frame ``start``.

    With ``fps``, the frames nearest to ``timestamps[start] + i / fps`` (the earlier one when two
    are equally near). Frame numbers always increase: a video slower than ``fps`` gives all its
    frames, none twice. The last number may lie beyond the video; see :func:`num_starts`.
    """
    steps = np.arange(config.frames)
    if config.fps is None:
        return start + steps * (config.frame_step or 1)
    between = (timestamps[:-1] + timestamps[1:]) / 2 + 1e-6
    nearest = np.searchsorted(between, timestamps[start] + steps / config.fps)
    return np.maximum.accumulate(nearest - steps) + steps


def num_starts(timestamps: np.ndarray, config: ClipConfig) -> int:
    """How many frames of a video with these times can begin a clip (0: the video is too short)."""
    last = len(timestamps)
    if config.fps is None:
        return max(0, last - (config.frames - 1) * (config.frame_step or 1))
    end = timestamps[-1] - (config.frames - 1) / config.fps + 1e-6
    starts = min(last - config.frames + 1, int(np.searchsorted(timestamps, end, side="right")))
    while starts > 0 and clip_frames(timestamps, starts - 1, config)[-1] >= last:
        starts -= 1
    return max(0, starts)


class _Steps(torch.utils.data.Sampler[int]):
    """The step numbers from ``start`` on, for ever."""

    def __init__(self, start: int):
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return iter(count(self._start))


class _ClipSource(torch.utils.data.Dataset):
    """Makes the batch of any step. Held by the workers: NumPy arrays only, files opened lazily."""

    def __init__(
        self,
        index: CorpusIndex,
        config: ClipConfig,
        batch_size: int,
        rank: int,
        world_size: int,
        frames: CorpusCache | None,
    ):
        self.config = config
        self.num_videos = len(index)
        self.excluded: dict[str, str] = {}
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._frames = frames
        self._starts = np.zeros(len(index), dtype=np.int64)
        for number, entry in enumerate(index.entries):
            self._starts[number] = num_starts(entry.timestamps, config)
            if not self._starts[number]:
                self.excluded[entry.path] = _too_short(entry, config)
        if not self._starts.any():
            raise _none_long_enough(index, config)
        weights = self._starts if config.sampling == "starts" else self._starts > 0
        self._cumulative = np.cumsum(weights, dtype=np.int64)
        # Entries as one block of JSON: Python objects would be copied into every worker as their
        # reference counts change.
        lines = [json.dumps(entry.to_json()).encode() for entry in index.entries]
        self._lines = np.frombuffer(b"".join(lines), dtype=np.uint8)
        self._offsets = np.cumsum([0, *map(len, lines)])

    def __getitem__(self, step: int) -> tuple[ClipBatch | None, dict[str, str]]:
        """The batch of ``step`` (None if a sample failed all its draws), and what failed."""
        config, size = self.config, self._batch_size
        video = np.empty((size, config.frames, config.size, config.size, 3), dtype=np.uint8)
        ids = np.empty(size, dtype=np.int64)
        times = np.empty((size, config.frames), dtype=np.float64)
        bad: dict[str, str] = {}
        first = (step * self._world_size + self._rank) * size
        for row in range(size):
            for draw in range(MAX_DRAWS):
                number, start = self._draw(first + row, draw)
                entry = self._entry(number)
                numbers = clip_frames(entry.timestamps, start, config)
                try:
                    video[row] = self._read(number, entry, numbers)
                except VideoDecodeError as error:
                    bad[entry.path] = error.reason
                    continue
                ids[row], times[row] = number, entry.timestamps[numbers]
                break
            else:
                return None, bad
        batch = ClipBatch(
            video=torch.from_numpy(video),
            video_ids=torch.from_numpy(ids),
            timestamps=torch.from_numpy(times),
            step=step,
        )
        return batch, bad

    def _draw(self, sample: int, draw: int) -> tuple[int, int]:
        """The video and first frame of a sample's ``draw``-th try."""
        generator = numpy_generator(self.config.seed, "clip", sample, draw)
        place = generator.integers(self._cumulative[-1])
        number = int(np.searchsorted(self._cumulative, place, side="right"))
        return number, int(generator.integers(self._starts[number]))

    def _entry(self, number: int) -> VideoEntry:
        line = self._lines[self._offsets[number] : self._offsets[number + 1]]
        return VideoEntry.from_json(json.loads(line.tobytes()))

    def _read(self, number: int, entry: VideoEntry, numbers: np.ndarray) -> np.ndarray:
        if self._frames is not None:
            return self._frames.read(number, numbers)
        with open_video(entry.path, self.config.backend, info=entry.info) as video:
            return video.get_frames(numbers, self.config.size)


def _too_short(entry: VideoEntry, config: ClipConfig) -> str:
    length = entry.timestamps[-1] - entry.timestamps[0]
    return f"{entry.num_frames} frames in {length:.2f} s are too short for {_length(config)}"


def _length(config: ClipConfig) -> str:
    rate = f"{config.fps:g} frames/s" if config.fps else f"a step of {config.frame_step or 1}"
    return f"{config.frames} frames at {rate}"


def _none_long_enough(index: CorpusIndex, config: ClipConfig) -> DatasetError:
    longest = max(index.entries, key=lambda entry: entry.num_frames)
    lengths = Counter(entry.num_frames for entry in index.entries).most_common(1)[0]
    return DatasetError(
        f"{index.source}: none of {len(index)} videos is long enough for {_length(config)}; the "
        f"longest is {longest.path} with {longest.num_frames} frames at {longest.fps:.4g} frames/s "
        f"(most have {lengths[0]}). Ask for fewer frames, or a smaller step"
    )


def _cache_folder(index: CorpusIndex, cache: str | os.PathLike[str] | bool) -> Path:
    if not isinstance(cache, bool):
        return Path(cache)
    if index.cache_path is None:
        raise ConfigError(
            "cache=True puts the frames beside the index, which was not kept in a file: "
            "give cache a path, or index_corpus a cache_path"
        )
    return Path(f"{index.cache_path}.frames")
