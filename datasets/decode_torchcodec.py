"""torchcodec: a backend that uses the FFmpeg libraries of the system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.errors import VideoDecodeError
from .timeline import VideoInfo, readable
from .video_reader import VideoReader, first_line

_CHUNK = 32  # frames decoded at a time, which bounds the memory that full-size frames take


class TorchCodecReader(VideoReader):
    """Decodes with torchcodec, and checks that the frames it gives are those asked for.

    torchcodec says when each frame that it gives is shown. In some formats (MPEG-4 in AVI, MPEG
    transport streams) its seeks end at other frames; the times then differ from the file's, and
    reading is an error. Scaled frames are scaled from RGB, where PyAV scales while it converts
    colours: they differ by a few levels.
    """

    backend = "torchcodec"

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo):
        super().__init__(path, info)
        self._closed = False
        self._decoder: Any = None

    def _open(self) -> Any:
        from torchcodec.decoders import (  # pyright: ignore[reportMissingImports]
            VideoDecoder,
        )

        try:
            decoder = VideoDecoder(
                readable(self.path),
                stream_index=self.info.stream,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device="cpu",
                seek_mode="exact",
            )
        except VideoDecodeError as error:
            raise self._error(error.reason) from error
        except (RuntimeError, ValueError, OSError) as error:
            raise self._error(f"torchcodec cannot open it: {_said(error)}") from error
        if len(decoder) != self.info.num_frames:
            raise self._error(f"torchcodec finds {len(decoder)} of {self.num_frames} frames")
        if self.info.rotation and getattr(decoder.metadata, "rotation", None) is None:
            raise self._error("this torchcodec does not turn frames; use backend='pyav'")
        return decoder

    def close(self) -> None:
        self._decoder, self._closed = None, True

    def _decode(self, wanted: np.ndarray, size: int | None) -> Iterator[Any]:
        import av

        if self._closed:
            raise ValueError(f"the reader of {self.path} is closed")
        if self._decoder is None and len(wanted):
            self._decoder = self._open()
        for start in range(0, len(wanted), _CHUNK):
            for frame in self._batch(wanted[start : start + _CHUNK]):
                stored = np.rot90(frame, -self.info.rotation // 90)  # it has turned them already
                yield av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")

    def _batch(self, numbers: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3]."""
        try:
            found = self._decoder.get_frames_at(numbers.tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._error(f"frames cannot be decoded: {_said(error)}") from error
        off = np.abs(found.pts_seconds.numpy() - self.timestamps[numbers])
        if (off > float(self.info.time_base) / 2 + 1e-6).any():
            at = int(off.argmax())
            raise self._error(
                f"torchcodec gives the frame at {float(found.pts_seconds[at]):.3f} s for frame "
                f"{numbers[at]}, which is shown at {self.timestamps[numbers[at]]:.3f} s; "
                "use backend='pyav'"
            )
        return found.data.numpy()


def _said(error: BaseException) -> str:
    """torchcodec's words without the place in its own source."""
    return re.sub(r"^\w+, \S+:\d+, ", "", first_line(error))
