"""Image files as clips of one frame: indexed, quarantined and drawn as videos are.

>>> index = index_images("photos/")                                          # doctest: +SKIP
>>> batches = image_batches(index, ImageConfig(size=64), batch_size=32)      # doctest: +SKIP
>>> next(batches).video.shape                                                # doctest: +SKIP
torch.Size([32, 1, 64, 64, 3])

An index of images is a :class:`.corpus.CorpusIndex` whose videos have one frame, and its batches
are those of :mod:`.clips`, so that whatever trains on videos trains on images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal

import numpy as np

from ..core.errors import ConfigError, VideoDecodeError
from .augment import AugmentConfig
from .clip_source import ClipSource
from .clips import ClipBatches, ClipConfig
from .entries import BadVideo, CorpusIndex, VideoEntry
from .image_file import check_image
from .indexing import IndexOptions, index_files
from .sources import find_files
from .storage import stamp
from .timeline import STILL, VideoInfo

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
Verify = Literal["header", "full"]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How images are drawn and scaled."""

    size: int = 64
    """Side of the square images in pixels (short side scaled, centre cut out)."""
    seed: int = 0
    """Names the random streams."""
    max_bad_share: float = 0.5
    """Stop when more than this share of the images turned out to be damaged."""

    def __post_init__(self) -> None:
        self.as_clips()

    def as_clips(self) -> ClipConfig:
        """The same as clips of one frame. Raises ConfigError for impossible values."""
        return ClipConfig(
            frames=1, size=self.size, seed=self.seed, max_bad_share=self.max_bad_share
        )


def image_crop(size: int | None = None) -> AugmentConfig:
    """I-JEPA's augmentation: a random resized crop of area .3 to 1, no flip, no colours (arXiv
    2301.08243, appendix A). For :func:`.augment.augment`, on the batch."""
    return AugmentConfig(scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), flip=0.0, size=size)


class ImageIndex(CorpusIndex):
    """The usable images of a corpus in order of their paths, and the others with reasons.

    Every entry is a :class:`.entries.VideoEntry` of one frame, at time 0.
    """

    def report(self) -> str:
        """Counts, then one line per bad file with its reason, then the ignored files."""
        return super().report().replace("videos usable", "images usable", 1)


class ImageBatches(ClipBatches):
    """The iterator that :func:`image_batches` returns; see :class:`.clips.ClipBatches`."""

    def report(self) -> str:
        """A count, then one line per image that failed to decode, with the reason."""
        lines = [f"  {path}: {reason}" for path, reason in sorted(self.bad.items())]
        return "\n".join([f"{len(self.bad)} images failed to decode", *lines])


def index_images(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    cache_path: str | os.PathLike[str] | None = None,
    max_bad_share: float = 0.5,
    verify: Verify = "full",
    deduplicate: bool = False,
    progress: bool = True,
    processes: int | None = None,
) -> ImageIndex:
    """Index the images of ``source``, leaving out and listing those that cannot be used.

    Args:
        source: a folder (all files below it with an image extension; others are counted as
            ignored, hidden ones skipped), a list file, shards or an iterable of paths, as for
            :func:`.corpus.index_corpus`.
        cache_path: keep the index in this file; what it says is reused for files whose size and
            modification time are unchanged.
        max_bad_share: the largest tolerated share of bad files, in [0, 1].
        verify: ``header`` reads kind and size only; ``full`` decodes every image, and so finds
            truncated and damaged ones.
        deduplicate: leave out files with the same bytes as one before them.
        progress: show a progress bar. processes: see :func:`.parallel.parallel_map`.

    Raises :class:`DatasetError` if there is no image, none is usable, or more than
    ``max_bad_share`` are bad; it names counts and the first reasons.
    """
    if verify not in ("header", "full"):
        raise ConfigError(f"verify={verify!r} is not one of header, full")
    options = IndexOptions(
        cache_path=cache_path,
        max_bad_share=max_bad_share,
        deduplicate=deduplicate,
        progress=progress,
        processes=processes,
    )
    found = find_files(source, "image", IMAGE_EXTENSIONS)
    inspect = partial(_inspect, verify=verify)
    depth = int(verify == "full")
    return index_files(ImageIndex, found, inspect, options, kind="images", depth=depth)


def image_batches(
    index: ImageIndex,
    config: ImageConfig,
    batch_size: int,
    *,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> ImageBatches:
    """Endless batches of images as clips of one frame, from step ``start_step`` on.

    A function of (config, step, rank) alone, like :func:`.clips.clip_batches`: every image is
    equally likely in every place. ``video`` is uint8 ``[B, 1, size, size, 3]``.

    Args:
        batch_size: images per batch and rank. workers: processes that decode ahead.
        cache: folder of a memory map of all images, made where it is absent; same bytes.

    Raises :class:`DatasetError` while iterating if more than ``config.max_bad_share`` of the
    images fail to decode or a sample fails 10 draws in a row.
    """
    if batch_size < 1 or workers < 0 or start_step < 0 or not 0 <= rank < world_size:
        raise ConfigError(
            f"image_batches: batch_size={batch_size} must be at least 1, workers={workers} and "
            f"start_step={start_step} at least 0, and rank={rank} below world_size={world_size}"
        )
    frames = None if cache is None else index.decode_to_cache(cache, config.size)
    source = ClipSource(index, config.as_clips(), batch_size, rank, world_size, frames)
    return ImageBatches(source, start_step, workers, index.source)


def _inspect(path: str, verify: Verify) -> VideoEntry | BadVideo:
    _, length, mtime_ns = stamp(path)
    try:
        height, width, kind = check_image(path, decode=verify == "full")
    except VideoDecodeError as error:
        return BadVideo(path, error.reason, length, mtime_ns)
    first = np.zeros(1, np.int64)
    info = VideoInfo(
        pts=first,
        keyframes=first,
        time_base=Fraction(1),
        height=height,
        width=width,
        stream=STILL,
        codec=kind,
    )
    return VideoEntry(path=path, info=info, bytes=length, mtime_ns=mtime_ns)
