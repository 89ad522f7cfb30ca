"""decord: a backend for x86-64 Linux that reads fewer formats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from .storage import as_part, is_remote, open_binary
from .timeline import VideoInfo
from .video_reader import VideoReader, first_line, scaled

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
            if self._is_transport_stream():
                raise self._error(
                    "decord seeks to other frames of MPEG streams; use backend='pyav'"
                )
            source: Any = os.path.abspath(self.path) if whole else open_binary(self.path)
            reader = decord.VideoReader(
                source, ctx=decord.cpu(0), num_threads=1, width=width, height=height
            )
            count = len(reader)
        except (decord.DECORDError, RuntimeError, OSError) as error:
            raise self._error(f"decord cannot open it: {first_line(error)}") from error
        if count != self.info.num_frames:
            raise self._error(f"decord finds {count} of {self.info.num_frames} frames")
        return reader

    def _is_transport_stream(self) -> bool:
        """Whether packets of 188 bytes (or, with times before them, 192) begin with their mark."""
        with open_binary(self.path) as file:
            head = file.read(389)
        return len(head) == 389 and any(
            all(head[first + n * step] == 0x47 for n in range(3))
            for first, step in ((0, 188), (4, 192))
        )

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
            raise self._error(f"frames cannot be decoded: {first_line(error)}") from error

    def _batch(self, wanted: np.ndarray) -> np.ndarray:
        return self._reader.get_batch(wanted.tolist()).asnumpy()

    def _open_gop(self, wanted: np.ndarray, chunk: int = 32) -> Iterator[np.ndarray]:
        """Read from the start: decord's seek into an open group of pictures is off by frames."""
        self._reader.seek(0)
        last = int(wanted[-1])
        for start in range(0, last + 1, chunk):
            numbers = np.arange(start, min(start + chunk, last + 1))
            yield from self._batch(numbers)[np.isin(numbers, wanted)]
