"""What all video backends share: frames by number, checked, scaled, cut and turned.

A backend is a :class:`VideoReader` whose ``_decode`` turns frame numbers into pictures; times,
frame count and size come from :mod:`.timeline` for all of them. :mod:`.decode` opens them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..core.errors import VideoDecodeError
from .image_file import read_image
from .timeline import VideoInfo


class VideoReader:
    """Frames of one video file by number. Made by :func:`open_video`.

    Attributes:
        path: the file. backend: which library decodes. info: times, size, keyframes.
    """

    backend = ""

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo):
        from av.video.reformatter import VideoReformatter

        self.path = str(path)
        self.info = info
        self._reformatter = VideoReformatter()  # one for all frames: a new one per frame is slow

    @property
    def num_frames(self) -> int:
        return self.info.num_frames

    @property
    def timestamps(self) -> np.ndarray:
        """float64 [F]: when each frame is shown, seconds on the container's clock."""
        return self.info.timestamps

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels as shown, after the rotation in the file's metadata."""
        return self.info.height, self.info.width

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self.info.fps

    def get_frames(
        self,
        indices: Sequence[int] | np.ndarray,
        size: int | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The frames ``indices``, in the order asked for; repeats are decoded once.

        Args:
            indices: frame numbers in [0, num_frames).
            size: None for the full size; else the short side is scaled to ``size`` pixels
                (bilinear, the aspect ratio kept) and the centre ``size`` × ``size`` is cut out, so
                that a square video is scaled exactly. Done while decoding.
            out: where to write the frames; a new array by default.

        Returns: uint8 RGB [T, H, W, 3].

        Raises :class:`VideoDecodeError` if a frame cannot be decoded and :class:`IndexError` for a
        number outside the video.
        """
        wanted, inverse = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if len(wanted) and not (wanted[0] >= 0 and wanted[-1] < self.num_frames):
            outside = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise IndexError(f"frame {outside} of {self.path}, which has {self.num_frames} frames")
        height, width = (size, size) if size else self.size
        if out is None:
            out = np.empty((len(inverse), height, width, 3), dtype=np.uint8)
        in_order = len(inverse) == len(wanted) and _is_range(inverse)
        frames = out if in_order else np.empty((len(wanted), *out.shape[1:]), dtype=np.uint8)
        for slot, frame in enumerate(self._decode(wanted, size)):
            frames[slot] = self._pixels(frame, size)
        if not in_order:
            out[:] = frames[inverse]
        return out

    def shrunk(self, size: int) -> Iterator[np.ndarray]:
        """All frames in order, whole, the short side scaled down to ``size`` pixels (never up).

        Yields: uint8 RGB [H, W, 3], height and width even. Raises as :meth:`get_frames`.
        """
        scale = min(1.0, size / min(self.size))
        height, width = (max(2, 2 * round(side * scale / 2)) for side in self.size)
        turned = self.info.rotation % 180 == 90
        stored = (width, height) if turned else (height, width)
        for frame in self._decode(np.arange(self.num_frames), None):
            yield np.rot90(self._rgb(frame, *stored), self.info.rotation // 90)

    def check(self, indices: Sequence[int] | np.ndarray) -> None:
        """Decode the frames ``indices`` without keeping them; raises as :meth:`get_frames`."""
        for _ in self._decode(np.unique(np.asarray(indices, dtype=np.int64)), None):
            pass

    def close(self) -> None:
        """Release the file. Closing twice is harmless."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self, wanted: np.ndarray, size: int | None) -> Iterator[Any]:
        """Yield an ``av.VideoFrame`` for each of the increasing frame numbers ``wanted``, as stored
        or scaled already for ``size``."""
        raise NotImplementedError

    def _pixels(self, frame: Any, size: int | None) -> np.ndarray:
        height, width = frame.height, frame.width
        if size:
            height, width = scaled(height, width, size)
        rgb = self._rgb(frame, height, width)
        if size:
            top, left = (height - size) // 2, (width - size) // 2
            rgb = rgb[top : top + size, left : left + size]
        rgb = np.rot90(rgb, self.info.rotation // 90)
        if not size and rgb.shape[:2] != self.size:
            raise self._error(f"the frame size changes from {self.size} to {rgb.shape[:2]}")
        return rgb

    def _rgb(self, frame: Any, height: int, width: int) -> np.ndarray:
        return self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation="BILINEAR", threads=1
        ).to_ndarray()

    def _error(self, reason: str) -> VideoDecodeError:
        return VideoDecodeError(self.path, reason, self.backend)


def scaled(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after scaling the short side to ``size``, the aspect ratio kept."""
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


class ImageReader(VideoReader):
    """An image file, as a video of one frame at time 0."""

    backend = "pillow"

    def get_frames(
        self,
        indices: Sequence[int] | np.ndarray,
        size: int | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The image as often as frame 0 is asked for; see :meth:`VideoReader.get_frames`."""
        if any(index != 0 for index in indices):
            raise IndexError(f"frame {max(indices)} of {self.path}, which is an image")
        image = read_image(self.path, size)
        if out is None:
            out = np.empty((len(indices), *image.shape), dtype=np.uint8)
        out[:] = image
        return out

    def check(self, indices: Sequence[int] | np.ndarray) -> None:
        self.get_frames(indices)


def first_line(error: BaseException) -> str:
    """A library's words without its stack."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_range(numbers: np.ndarray) -> bool:
    return bool((numbers == np.arange(len(numbers))).all())
