"""Exact frames from a video file, through PyAV or decord behind one interface.

>>> with open_video("clip.mp4") as video:                                   # doctest: +SKIP
...     video.num_frames, video.timestamps[:2], video.get_frames([7, 3]).shape
(100, array([0.  , 0.04]), (2, 240, 320, 3))

Both backends return the same RGB bytes at full size. Times, frame count and size come from one pass
over the packets (:mod:`.timeline`) for both; the backend only turns frame numbers into pixels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from ..core.errors import ConfigError, VideoDecodeError
from .image_file import read_image
from .storage import as_part, is_remote, open_binary
from .timeline import VideoInfo, open_container, said, scan

Backend = Literal["auto", "pyav", "decord"]
BACKENDS: tuple[str, ...] = ("pyav", "decord")
_log = logging.getLogger(__name__)


def open_video(
    path: str | os.PathLike[str], backend: Backend = "auto", *, info: VideoInfo | None = None
) -> VideoReader:
    """Open a video file; close the reader, or use it as a context manager.

    Args:
        path: a local file, or another address (:mod:`.storage`).
        backend: ``auto`` is PyAV, which is always there and reads most. A backend that is named
            and cannot be imported is an error; nothing falls through to another one.
        info: what :func:`.timeline.scan` said about this file earlier; saves reading it again.

    Raises :class:`VideoDecodeError` (missing, empty, truncated, damaged, no video stream, …) and
    :class:`ConfigError` (unknown backend, or one that cannot be imported).
    """
    reader = {"pyav": PyAVReader, "decord": DecordReader}[resolve_backend(backend)]
    info = info if info is not None else scan(path)
    return ImageReader(path, info) if info.is_image else reader(path, info)


@cache
def resolve_backend(backend: str) -> str:
    """The backend that ``backend`` stands for, after importing it; says so once at INFO.

    Raises :class:`ConfigError` for an unknown name or a backend that cannot be imported.
    """
    name = "pyav" if backend == "auto" else backend
    if name not in BACKENDS:
        raise ConfigError(f"unknown video backend {backend!r}: use auto, {' or '.join(BACKENDS)}")
    try:
        module = __import__("av" if name == "pyav" else name)
    except (ImportError, OSError, RuntimeError) as error:  # a wheel for another platform: OSError
        raise ConfigError(
            f"the video backend {name!r} cannot be imported ({error}): "
            f"pip install {'av' if name == 'pyav' else name}, or choose another backend"
        ) from error
    if name == "decord":  # FFmpeg's remarks on single frames; errors are raised all the same
        module.logging.set_level(module.logging.FATAL)
    _log.info("video backend: %s %s (asked for: %s)", name, module.__version__, backend)
    return name


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


class PyAVReader(VideoReader):
    """Decodes with PyAV: seeks to the keyframe at or before a frame, and reads on from there."""

    backend = "pyav"

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo):
        super().__init__(path, info)
        self._container: Any = None
        self._stream: Any = None
        self._frames: Iterator[Any] | None = None  # running decoder
        self._position = -1  # number of the frame it gave last

    def close(self) -> None:
        self._frames = None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _decode(self, wanted: np.ndarray, size: int | None) -> Iterator[Any]:
        import av.error

        for index in wanted.tolist():
            try:
                yield self._frame(index)
            except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
                self._frames = None
                raise self._error(f"frame {index} cannot be decoded: {said(error)}") from error
            except VideoDecodeError:
                self._frames = None
                raise

    def _frame(self, index: int) -> Any:
        keys = self.info.keyframes
        before = int(np.searchsorted(keys, index, side="right")) - 1
        keyframe = int(keys[before]) if before >= 0 else 0
        if self._frames is not None and self._position < index and keyframe <= self._position + 1:
            frame = self._advance(index, 0)
            if frame is not None:
                return frame
        # A container may seek too late (times are those of decoding order): then one keyframe
        # earlier, then from the start of a freshly opened file.
        for start in (keyframe, int(keys[before - 1]) if before > 0 else None, None):
            self._restart(start)
            frame = self._advance(index, keyframe)
            if frame is not None:
                return frame
        raise self._error(f"frame {index} of {self.num_frames} is missing")

    def _restart(self, keyframe: int | None) -> None:
        """Let decoding start at ``keyframe``, or from the start of a freshly opened file (None)."""
        import av.error

        fresh = self._container is None or keyframe is None
        if fresh:
            self._reopen()
        if keyframe is not None and not (fresh and keyframe == 0):
            try:
                self._stream.container.seek(int(self.info.pts[keyframe]), stream=self._stream)
            except av.error.FFmpegError:  # a container that cannot seek is read from its start
                self._reopen()
        self._frames = self._stream.container.decode(self._stream)
        self._position = -1

    def _reopen(self) -> None:
        self.close()
        self._container, _ = open_container(self.path)
        self._stream = self._container.streams[self.info.stream]
        self._stream.codec_context.thread_count = 1

    def _advance(self, index: int, trusted_from: int) -> Any:
        """Decode up to frame ``index`` and return it, or None where the file has no such frame.

        Frames before ``trusted_from`` may refer to frames before the seek, and are not checked.
        """
        target, trusted = int(self.info.pts[index]), int(self.info.pts[trusted_from])
        assert self._frames is not None
        for frame in self._frames:
            if frame.pts is None or frame.pts < trusted:
                continue
            if frame.is_corrupt:
                raise self._error(f"damaged at {float(frame.pts * self.info.time_base):.3f} s")
            if frame.pts >= target:
                self._position = index
                return frame if frame.pts == target else None
        return None


_DECORD_LEAST = 64


class DecordReader(VideoReader):
    """Decodes with decord, where decord is exact; where it is not, reading is an error.

    decord scales while it decodes, bicubic where PyAV is bilinear: pixels of scaled frames differ
    by a few levels. To less than 64 pixels it cannot, so that its frames are scaled afterwards.
    """

    backend = "decord"

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo):
        super().__init__(path, info)
        if info.bits > 8:
            raise self._error(f"decord converts {info.bits}-bit colour wrongly; use backend='pyav'")
        if info.rotation:
            raise self._error("decord garbles frames that are turned; use backend='pyav'")
        self._closed = False
        self._size: int | None = None
        self._reader: Any = None  # opened when the size of the frames is known

    def _open(self, size: int | None) -> Any:
        import decord

        height, width = scaled(*self.size, size) if size and size >= _DECORD_LEAST else (-1, -1)
        whole = as_part(self.path) is None and not is_remote(self.path)
        try:
            source: Any = os.path.abspath(self.path) if whole else open_binary(self.path)
            reader = decord.VideoReader(
                source, ctx=decord.cpu(0), num_threads=1, width=width, height=height
            )
            count = len(reader)
        except (decord.DECORDError, RuntimeError, OSError) as error:
            raise self._error(f"decord cannot open it: {_first_line(error)}") from error
        if count != self.info.num_frames:
            raise self._error(f"decord finds {count} of {self.info.num_frames} frames")
        return reader

    def close(self) -> None:
        self._reader, self._closed = None, True

    def _decode(self, wanted: np.ndarray, size: int | None) -> Iterator[Any]:
        import av
        import decord

        if not len(wanted):
            return
        if self._closed:
            raise ValueError(f"the reader of {self.path} is closed")
        if self._reader is None or self._size != size:
            self._reader, self._size = self._open(size), size
        try:
            for frame in self._open_gop(wanted) if self.info.open_gop else self._batch(wanted):
                yield av.VideoFrame.from_ndarray(frame, format="rgb24")
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise self._error(f"frames cannot be decoded: {_first_line(error)}") from error

    def _batch(self, wanted: np.ndarray) -> np.ndarray:
        return self._reader.get_batch(wanted.tolist()).asnumpy()

    def _open_gop(self, wanted: np.ndarray, chunk: int = 32) -> Iterator[np.ndarray]:
        """Read from the start: decord's seek into an open group of pictures is off by frames."""
        self._reader.seek(0)
        last = int(wanted[-1])
        for start in range(0, last + 1, chunk):
            numbers = np.arange(start, min(start + chunk, last + 1))
            yield from self._batch(numbers)[np.isin(numbers, wanted)]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _is_range(numbers: np.ndarray) -> bool:
    return bool((numbers == np.arange(len(numbers))).all())
