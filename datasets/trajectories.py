"""Trajectories on disk: episodes of frames, proprioception, simulator states and actions.

The layout is LeRobot v3 (:mod:`.lerobot`). ``T`` frames have ``T`` action rows: action ``t`` is
applied between frames ``t`` and ``t + 1``, and the last row is zeros.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DatasetError
from . import lerobot
from .decode import open_video
from .timeline import VideoInfo, scan
from .trajectory_writer import TrajectoryWriter as TrajectoryWriter

if TYPE_CHECKING:
    from .frame_cache import FrameCache


class TrajectorySet:
    """A finished trajectory set, open for reading. Make one with :meth:`open`.

    Reads any LeRobot v3 set with a camera: proprioception is ``observation.state``; ``state`` (the
    simulator's) is absent from sets that have none. Holds no open files and pickles as its path, so
    it can be handed to worker processes however they are started.
    """

    def __init__(self, root: Path, info: dict[str, Any], episodes: dict[str, np.ndarray]):
        self.root, self.info = root, info
        self.fps: int = info["fps"]
        self._episodes = episodes
        self.camera = next(n for n, f in info["features"].items() if f["dtype"] == "video")
        """Name of the video feature (the first one, if there are several)."""
        self._arrays: dict[str, np.ndarray] | None = None
        self._videos: dict[Path, VideoInfo] = {}

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> TrajectorySet:
        """Open the set in folder ``root``.

        Raises:
            DatasetError: not a finished LeRobot v3 set, or damaged metadata.
        """
        root = Path(root)
        info = lerobot.read_info(root)
        table = lerobot.read_columns(sorted((root / "meta/episodes").rglob("*.parquet")), None)
        if table is None or len(table) != info["total_episodes"]:
            total = info["total_episodes"]
            raise DatasetError(f"{root}/meta/episodes does not list the set's {total} episodes")
        numeric = [name for name in table.column_names if not name.startswith(("stats/", "tasks"))]
        order = np.argsort(table["episode_index"].to_numpy())
        return cls(root, info, {name: table[name].to_numpy()[order] for name in numeric})

    def __reduce__(self) -> tuple[Any, ...]:
        return TrajectorySet.open, (self.root,)

    @property
    def num_episodes(self) -> int:
        return len(self._episodes["length"])

    @property
    def metadata(self) -> dict[str, Any]:
        """What the writer was told about how the set is made; empty for sets of other makers."""
        path = self.root / lerobot.MAKER_PATH
        return json.loads(path.read_text(encoding="utf-8"))["metadata"] if path.exists() else {}

    @property
    def lengths(self) -> np.ndarray:
        """int64 ``[E]``: frames in each episode."""
        return self._episodes["length"]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the stored frames."""
        height, width, _ = self.info["features"][self.camera]["shape"]
        return height, width

    def length(self, episode: int) -> int:
        """Frames in an episode.

        Raises:
            IndexError: there is no such episode.
        """
        if not 0 <= episode < self.num_episodes:
            raise IndexError(f"episode {episode} of {self.num_episodes} in {self.root}")
        return int(self._episodes["length"][episode])

    def slice(self, episode: int, start: int, stop: int, step: int = 1) -> dict[str, np.ndarray]:
        """Frames and rows ``start:stop:step`` of an episode; cost does not grow with its length.

        Returns ``pixels`` uint8 ``[T, H, W, 3]``, ``proprio`` float32 ``[T, P]``, ``action``
        float32 ``[T, A]`` and, where the set has it, ``state`` float64 ``[T, S]``.

        Raises:
            IndexError: outside the episode. VideoDecodeError: a damaged video file.
        """
        length = self.length(episode)
        if not (0 <= start < stop <= length and step >= 1):
            raise IndexError(f"slice {start}:{stop}:{step} of an episode of {length} frames")
        first, numbers = self.offsets[episode], np.arange(start, stop, step)
        rows = {name: array[first + numbers] for name, array in self._columns().items()}
        path, shift = self.locate(episode)
        with open_video(path, info=self.scanned(path)) as video:
            return {"pixels": video.get_frames(shift + numbers), **rows}

    @property
    def offsets(self) -> np.ndarray:
        """int64 ``[E + 1]``: episode ``e`` owns rows ``offsets[e]:offsets[e + 1]``."""
        return np.concatenate([[0], np.cumsum(self._episodes["length"])])

    def arrays(self) -> dict[str, np.ndarray]:
        """All rows of all episodes: ``proprio``, ``action``, ``state`` (where there is one), each
        ``[total, n]``, and ``offsets`` ``[E + 1]``. Read once and shared: do not change them."""
        return {**self._columns(), "offsets": self.offsets}

    def cache(self, size: int | None = None) -> FrameCache:
        """All frames as a uint8 memory map (see :class:`.frame_cache.FrameCache`), built on first
        use, rebuilt when a video file has changed. ``size`` scales the frames' short side."""
        from .frame_cache import FrameCache

        return FrameCache.open(self, size)

    def video_path(self, episode: int) -> Path:
        """The mp4 file that holds an episode (and, in sets of other makers, maybe others)."""
        self.length(episode)
        key = f"videos/{self.camera}"
        names = ("chunk_index", "file_index")
        where = {name: int(self._episodes[f"{key}/{name}"][episode]) for name in names}
        return self.root / self.info["video_path"].format(video_key=self.camera, **where)

    def locate(self, episode: int) -> tuple[Path, int]:
        """An episode's video file and the number of its first frame in it.

        Raises:
            IndexError: there is no such episode. VideoDecodeError, DatasetError: the file is
                damaged or lacks the episode's frames.
        """
        path = self.video_path(episode)
        start = self._episodes[f"videos/{self.camera}/from_timestamp"][episode]
        times = self.scanned(path).timestamps
        first = int(np.searchsorted(times - times[0], start - 0.5 / self.fps))
        if first + self.length(episode) > len(times):
            raise DatasetError(
                f"{path} has {len(times)} frames; episode {episode} needs "
                f"{first} to {first + self.length(episode)}"
            )
        return path, first

    def scanned(self, path: Path) -> VideoInfo:
        """A video file's time line, read once."""
        if path not in self._videos:
            self._videos[path] = scan(path)
        return self._videos[path]

    def _columns(self) -> dict[str, np.ndarray]:
        if self._arrays is None:
            names = {k: v for k, v in lerobot.VECTORS.items() if v in self.info["features"]}
            table = lerobot.read_columns(
                sorted((self.root / "data").rglob("*.parquet")), ["index", *names.values()]
            )
            if table is None or len(table) != self.offsets[-1]:
                raise DatasetError(f"{self.root}/data does not hold {self.offsets[-1]} rows")
            order = np.argsort(table["index"].to_numpy(), kind="stable")
            self._arrays = {k: lerobot.to_numpy(table[v])[order] for k, v in names.items()}
        return self._arrays
