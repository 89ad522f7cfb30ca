"""Makes the clips of any step of a run, alone: what a loader's workers do.

Each sample of each step has its own random stream, named by its number in the whole run. So any
step can be made again without those before it, by any process, and a sample whose file turns out
to be damaged is drawn anew without disturbing the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ..core.errors import DatasetError, VideoDecodeError
from ..core.rng import numpy_generator
from .clip_config import ClipConfig, clip_frames, length, num_starts
from .corpus_cache import CorpusCache
from .decode import open_video
from .entries import CorpusIndex, CorpusPart, VideoEntry

MAX_DRAWS = 10
NONE: Mapping[int, str] = {}


class RawBatch(NamedTuple):
    """The arrays of one step.

    Attributes:
        video: uint8 [B, T, H, W, 3]. ids: int64 [B], positions in the index. times: float64
        [B, T], seconds.
    """

    video: np.ndarray
    ids: np.ndarray
    times: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> RawBatch:
        """Room for a video of this shape."""
        times = np.empty(shape[:2], np.float64)
        return cls(np.empty(shape, np.uint8), np.empty(shape[0], np.int64), times)

    def copied(self) -> RawBatch:
        """The same in memory of its own."""
        return RawBatch(*(array.copy() for array in self))


class ClipSource:
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
        self.batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._frames = frames
        kinds = config.kinds()
        self._kinds = [kind for kind, _ in kinds]
        self._shares = np.cumsum([share for _, share in kinds])
        self._images = np.array([entry.info.is_image for entry in index.entries])
        parts = index.parts or (CorpusPart(index.source, 1.0, 0, len(index)),)
        self._parts = [_Part(part, bool(self._images[part.first])) for part in parts]
        self._starts = [_starts(index, kind) for kind in self._kinds]
        for kind, starts in zip(self._kinds, self._starts, strict=True):
            for part in parts:
                if not starts[part.first : part.stop].any():
                    raise _none_long_enough(index, part, kind)
        weights = [s if config.sampling == "starts" else (s > 0) for s in self._starts]
        self._cumulative = [np.cumsum([0, *w], dtype=np.int64) for w in weights]
        usable = np.any(self._starts, axis=0)
        self.excluded = {
            entry.path: _too_short(entry, self._kinds)
            for entry, fits in zip(index.entries, usable, strict=True)
            if not fits
        }
        # Entries as one block of JSON: Python objects would be copied into every worker as their
        # reference counts change.
        lines = [json.dumps(entry.to_json()).encode() for entry in index.entries]
        self._lines = np.frombuffer(b"".join(lines), dtype=np.uint8)
        self._offsets = np.cumsum([0, *map(len, lines)])

    def shapes(self) -> list[tuple[int, ...]]:
        """Every shape that a batch's video may have."""
        single = [1] if self.config.stills == "single" else []
        size = self.config.size
        lengths = [kind.frames for kind in self._kinds] + single
        return [(self.batch_size, frames, size, size, 3) for frames in lengths]

    def shape(self, step: int) -> tuple[int, ...]:
        """The shape of the batch of ``step``; the same on every rank."""
        kind, stills = self._kind(step)
        frames = 1 if stills else self._kinds[kind].frames
        return (self.batch_size, frames, self.config.size, self.config.size, 3)

    def make(
        self,
        step: int,
        raw: RawBatch,
        *,
        banned: Mapping[int, str] = NONE,
        begin: Callable[[int], None] = lambda number: None,
    ) -> tuple[bool, dict[str, str]]:
        """Fill ``raw`` with the batch of ``step``.

        Args:
            banned: videos that count as damaged, and why. begin: told each video's position in
                the index before it is decoded.

        Returns:
            whether it is complete (false where a sample failed all its draws), and path -> reason
            of the files that failed.
        """
        kind, stills = self._kind(step)
        bad: dict[str, str] = {}
        first = (step * self._world_size + self._rank) * self.batch_size
        for row in range(self.batch_size):
            for draw in range(MAX_DRAWS):
                number, start = self._draw(first + row, draw, kind, stills)
                begin(number)
                entry = self.entry(number)
                try:
                    if number in banned:
                        raise VideoDecodeError(entry.path, banned[number], self.config.backend)
                    raw.times[row] = self._read(number, entry, start, kind, raw.video[row])
                except VideoDecodeError as error:
                    bad[entry.path] = error.reason
                    continue
                raw.ids[row] = number
                break
            else:
                return False, bad
        return True, bad

    def entry(self, number: int) -> VideoEntry:
        """The video at position ``number`` of the index."""
        line = self._lines[self._offsets[number] : self._offsets[number + 1]]
        return VideoEntry.from_json(json.loads(line.tobytes()))

    def _kind(self, step: int) -> tuple[int, bool]:
        """Which of the kinds of clips a step has, and whether its clips are single images."""
        kind = 0
        if len(self._kinds) > 1:
            place = numpy_generator(self.config.seed, "bucket", step).uniform(0, self._shares[-1])
            kind = int(np.searchsorted(self._shares, place, side="right"))
        if self.config.stills == "repeat" or not self._images.any():
            return kind, False
        weights = [part.weight for part in self._parts]
        share = sum(part.weight for part in self._parts if part.images) / sum(weights)
        return kind, bool(numpy_generator(self.config.seed, "still", step).uniform() < share)

    def _draw(self, sample: int, draw: int, kind: int = 0, stills: bool = False) -> tuple[int, int]:
        """The video and first frame of a sample's ``draw``-th try."""
        part = self._part(sample, stills)
        cumulative = self._cumulative[kind]
        generator = numpy_generator(self.config.seed, "clip", sample, draw)
        low, high = cumulative[part.first], cumulative[part.stop]
        place = low + generator.integers(high - low)
        number = int(np.searchsorted(cumulative, place, side="right")) - 1
        return number, int(generator.integers(self._starts[kind][number]))

    def _part(self, sample: int, stills: bool) -> CorpusPart:
        """The corpus of a mixture that a sample comes from, whichever draw."""
        parts = self._parts
        if self.config.stills == "single":
            parts = [part for part in parts if part.images == stills]
        if len(parts) == 1:
            return parts[0].part
        ends = np.cumsum([part.weight for part in parts])
        place = numpy_generator(self.config.seed, "mixture", sample).uniform(0, ends[-1])
        return parts[int(np.searchsorted(ends, place, side="right"))].part

    def _read(
        self, number: int, entry: VideoEntry, start: int, kind: int, out: np.ndarray
    ) -> np.ndarray:
        """Write the clip's frames to ``out`` [T, H, W, 3]; their times [T]."""
        if self._images[number]:
            numbers = np.zeros(len(out), np.int64)
        else:
            numbers = clip_frames(entry.timestamps, start, self._kinds[kind])
        if self._frames is not None:
            out[:] = self._frames.read(number, numbers)
        else:
            self._decode(entry, numbers, out)
        return entry.timestamps[numbers]

    def _decode(self, entry: VideoEntry, numbers: np.ndarray, out: np.ndarray) -> None:
        with open_video(entry.path, self.config.backend, info=entry.info) as video:
            video.get_frames(numbers, self.config.size, out)


class _Part(NamedTuple):
    part: CorpusPart
    images: bool

    @property
    def weight(self) -> float:
        return self.part.weight


def _starts(index: CorpusIndex, config: ClipConfig) -> np.ndarray:
    """int64 [V]: how many clips begin in each video; one in an image."""
    return np.array(
        [1 if e.info.is_image else num_starts(e.timestamps, config) for e in index.entries],
        dtype=np.int64,
    )


def _too_short(entry: VideoEntry, kinds: list[ClipConfig]) -> str:
    seconds = entry.timestamps[-1] - entry.timestamps[0]
    wanted = " and for ".join(map(length, kinds))
    return f"{entry.num_frames} frames in {seconds:.2f} s are too short for {wanted}"


def _none_long_enough(index: CorpusIndex, part: CorpusPart, config: ClipConfig) -> DatasetError:
    entries = index.entries[part.first : part.stop]
    longest = max(entries, key=lambda entry: entry.num_frames)
    lengths = Counter(entry.num_frames for entry in entries).most_common(1)[0]
    return DatasetError(
        f"{part.name}: none of {len(entries)} videos is long enough for {length(config)}; the "
        f"longest is {longest.path} with {longest.num_frames} frames at {longest.fps:.4g} frames/s "
        f"(most have {lengths[0]}). Ask for fewer frames, or a smaller step"
    )
