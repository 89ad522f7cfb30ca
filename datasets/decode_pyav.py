"""PyAV: the backend that is always there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.errors import VideoDecodeError
from .timeline import VideoInfo, open_container, said
from .video_reader import VideoReader


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
