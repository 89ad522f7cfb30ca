"""All frames of a trajectory set as one uint8 memory map: 300 times faster than decoding video.

The cache is derived: it lies in ``<set>/cache/`` with a manifest of the video files (size, time
of change, name) it was made from, and is made again when that no longer fits.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DatasetError
from ..core.io import atomic_path, atomic_write_json, reserve
from ..core.progress import progress
from .decode import open_video

if TYPE_CHECKING:
    from .trajectories import TrajectorySet


class FrameCache:
    """Frames of all episodes, one after the other. Pickles as a path: workers map it themselves.

    Attributes:
        frames: uint8 ``[total, H, W, 3]``, a read-only memory map.
        offsets: int64 ``[E + 1]``: episode ``e`` owns frames ``offsets[e]:offsets[e + 1]``.
    """

    def __init__(self, path: Path, offsets: np.ndarray):
        self.path, self.offsets = path, offsets
        self.frames: np.ndarray = np.load(path, mmap_mode="r")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.offsets)

    def __len__(self) -> int:
        return len(self.frames)

    def episode(self, episode: int) -> np.ndarray:
        """The frames of one episode: uint8 ``[T, H, W, 3]``, a view."""
        return self.frames[self.offsets[episode] : self.offsets[episode + 1]]

    @classmethod
    def open(
        cls, trajectories: TrajectorySet, size: int | None = None, workers: int | None = None
    ) -> FrameCache:
        """Open the cache of ``trajectories``, making it first where it is absent or outdated.

        Args:
            size: height and width of the frames; None keeps the stored size. workers: decoding
                processes (default: one per core).

        Raises:
            VideoDecodeError: a damaged video file. DatasetError: the disk is full or read-only.
        """
        height, width = (size, size) if size else trajectories.image_size
        path = trajectories.root / "cache" / f"frames-{height}x{width}.npy"
        manifest = path.with_suffix(".json")
        sources = _sources(trajectories)
        wanted = {"sources": sources, "offsets": trajectories.offsets.tolist()}
        if not (path.exists() and manifest.exists() and _read(manifest) == wanted):
            manifest.unlink(missing_ok=True)
            try:
                _build(path, trajectories, size, (height, width), workers)
                atomic_write_json(manifest, wanted)
            except OSError as error:
                raise DatasetError(
                    f"cannot write the frame cache {path}: {error.strerror or error}; free some "
                    "space or fix the folder's permissions"
                ) from error
        return cls(path, trajectories.offsets)


def _sources(trajectories: TrajectorySet) -> dict[str, list[int]]:
    """Size and time of change (ns) of every video file."""
    paths = {trajectories.video_path(episode) for episode in range(trajectories.num_episodes)}
    facts = {}
    for path in sorted(paths):
        try:
            stat = path.stat()
        except OSError as error:
            raise DatasetError(f"{path} of the set is missing: {error.strerror}") from error
        facts[str(path.relative_to(trajectories.root))] = [stat.st_size, stat.st_mtime_ns]
    return facts


def _read(manifest: Path) -> Any:
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:  # torn: the same as none
        return None


def _build(
    path: Path,
    trajectories: TrajectorySet,
    size: int | None,
    shape: tuple[int, int],
    workers: int | None,
) -> None:
    total, episodes = int(trajectories.offsets[-1]), range(trajectories.num_episodes)
    workers = min(workers or os.cpu_count() or 1, max(1, total // 2000))  # a start costs a second
    with atomic_path(path) as temporary:
        np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(total, *shape, 3))
        reserve(temporary)
        if workers == 1:
            for episode in progress(episodes, "decode frames"):
                _decode_into(temporary, trajectories, size, episode)
            return
        context = multiprocessing.get_context("spawn")
        job = functools.partial(_decode_into, temporary, trajectories, size)
        ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)  # the parent answers it, and ends these
        with context.Pool(workers, initializer=signal.signal, initargs=ignore_ctrl_c) as pool:
            done = pool.imap_unordered(job, episodes, chunksize=max(1, len(episodes) // 50))
            for _ in progress(done, "decode frames", total=len(episodes)):
                pass


def _decode_into(path: Path, trajectories: TrajectorySet, size: int | None, episode: int) -> None:
    start, stop = trajectories.offsets[episode : episode + 2]
    file, first = trajectories.locate(episode)
    target = np.load(path, mmap_mode="r+")
    with open_video(file, info=trajectories.scanned(file)) as video:
        target[start:stop] = video.get_frames(np.arange(first, first + stop - start), size)
