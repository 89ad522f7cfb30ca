"""Where the frames of a video come from: an array, an .npy file, numbered images, a video file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import DatasetError
from ..decode import open_video
from ..image_file import check_image, read_image
from ..timeline import VideoInfo, scan
from .record import Frames as Frames


@dataclass(frozen=True)
class ArrayFrames:
    """Frames in memory, uint8 ``[F, H, W, 3]``."""

    array: np.ndarray

    def __post_init__(self) -> None:
        _check_array(self.array, "frames in memory")

    @property
    def count(self) -> int:
        return len(self.array)

    @property
    def size(self) -> tuple[int, int]:
        return self.array.shape[1], self.array.shape[2]

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return self.array[np.asarray(numbers, np.int64)]


@dataclass(frozen=True)
class NpyFrames:
    """An uncompressed .npy file, uint8 ``[F, H, W, 3]``; opened for each read, never kept open."""

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> NpyFrames:
        """Look at the file. Raises DatasetError."""
        return cls(path, _open_npy(path).shape)

    @property
    def count(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[1], self.shape[2]

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return np.asarray(_open_npy(self.path)[np.asarray(numbers, np.int64)])


@dataclass(frozen=True)
class ImageFrames:
    """One image file per frame: ``pattern % (number + 1)`` in ``folder``."""

    folder: Path
    pattern: str
    count: int
    size: tuple[int, int]

    @classmethod
    def of(cls, folder: Path, pattern: str) -> ImageFrames:
        """Look at the folder: its images must be numbered 1, 2, … without a gap.

        Raises:
            DatasetError: none, a gap, or an unreadable first one.
        """
        suffix = Path(pattern).suffix
        there = {path.name for path in folder.glob(f"*{suffix}")}
        count = 0
        while pattern % (count + 1) in there:
            count += 1
        if not count or count != len(there):
            raise DatasetError(
                f"{folder}: {len(there)} images, {count} of them numbered from "
                f"{pattern % 1} on without a gap"
            )
        height, width, _ = check_image(folder / (pattern % 1), decode=False)
        return cls(folder, pattern, count, (height, width))

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return _images([self.folder / (self.pattern % (n + 1)) for n in numbers], self.size)


@dataclass(frozen=True)
class ListedFrames:
    """Every PNG of a folder, in the order of their names."""

    paths: tuple[Path, ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, folder: Path) -> ListedFrames:
        """Look at the folder. Raises DatasetError without images, or for a damaged first one."""
        paths = tuple(sorted(folder.glob("*.png")))
        if not paths:
            raise DatasetError(f"{folder} has no PNG images")
        height, width, _ = check_image(paths[0], decode=False)
        return cls(paths, (height, width))

    @property
    def count(self) -> int:
        return len(self.paths)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return _images([self.paths[n] for n in numbers], self.size)


@dataclass(frozen=True)
class VideoFrames:
    """A video file."""

    path: Path
    info: VideoInfo

    @classmethod
    def of(cls, path: Path) -> VideoFrames:
        """Look at the file's packets. Raises VideoDecodeError, a DatasetError."""
        return cls(path, scan(path))

    @property
    def count(self) -> int:
        return self.info.num_frames

    @property
    def size(self) -> tuple[int, int]:
        return self.info.height, self.info.width

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        with open_video(self.path, "pyav", info=self.info) as video:
            return video.get_frames(list(numbers))


def _images(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    frames = [read_image(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.shape[:2] != size:
            raise DatasetError(f"{path} is {frame.shape[:2]}, the first frame {size}")
    return np.stack(frames)


def _open_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; write the set again") from error
    _check_array(array, str(path))
    return array


def _check_array(array: np.ndarray, where: str) -> None:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not len(array):
        raise DatasetError(f"{where}: want uint8 [F, H, W, 3], got {array.dtype} {array.shape}")
