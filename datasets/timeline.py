"""When each frame of a video file is shown, from one pass over its packets without decoding them.

The container's own frame count and average rate are hints that may be absent (webm), rounded
(variable rate) or false (a truncated file still says 300 frames), so the presentation time stamps
of the packets are read instead. The pass also finds files that end before their header says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, VideoDecodeError
from .storage import as_part, is_remote, open_binary

#: Only local files: a playlist that poses as a video must not make FFmpeg open other addresses.
OPEN_OPTIONS = {"protocol_whitelist": "file,subfile"}
STILL = -1
"""The stream number of an image file, which is a video of one frame."""
_NOT_VIDEO = {
    "tty": "a text file, not a video",
    "image2": "a still image, not a video",
    "concat": "a playlist, not a video",
    "hls": "a playlist, not a video",
    "dash": "a playlist, not a video",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """What a reader needs to know about one video stream.

    Attributes:
        pts: int64 [F], presentation times in ticks of ``time_base``, strictly increasing.
        keyframes: int64 [K], frame numbers where decoding can start, increasing.
        time_base: seconds per tick.
        height, width: pixels as shown, that is after the rotation in the file's metadata.
        stream: the stream's number in the container.
        rotation: degrees to turn a decoded frame counterclockwise, a multiple of 90.
        bits: bits per colour component.
        open_gop: True if frames shown before a keyframe follow it in the file, so that they need
            frames from before it.
        codec: FFmpeg's name of the compression (``h264``), or the format of an image.
    """

    pts: np.ndarray
    keyframes: np.ndarray
    time_base: Fraction
    height: int
    width: int
    stream: int
    rotation: int = 0
    bits: int = 8
    open_gop: bool = False
    codec: str = ""

    @property
    def is_image(self) -> bool:
        """Whether this is an image file."""
        return self.stream == STILL

    @property
    def num_frames(self) -> int:
        return len(self.pts)

    @property
    def timestamps(self) -> np.ndarray:
        """float64 [F]: when each frame is shown, seconds on the container's clock."""
        return self.pts * float(self.time_base)

    @property
    def constant_rate(self) -> bool:
        """True when all frames are equally far apart in ticks."""
        return bool((np.diff(self.pts, 2) == 0).all())

    @property
    def fps(self) -> float:
        """Average frames per second between the first and the last frame; 0 for one frame."""
        ticks = int(self.pts[-1] - self.pts[0])
        return float((len(self.pts) - 1) / (ticks * self.time_base)) if ticks else 0.0

    def to_json(self) -> dict[str, Any]:
        """A small JSON object; evenly spaced numbers are stored as start, step and count."""
        return {
            "pts": _pack(self.pts),
            "keyframes": _pack(self.keyframes),
            "time_base": [self.time_base.numerator, self.time_base.denominator],
            "height": self.height,
            "width": self.width,
            "stream": self.stream,
            "rotation": self.rotation,
            "bits": self.bits,
            "open_gop": self.open_gop,
            "codec": self.codec,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> VideoInfo:
        """The inverse of :meth:`to_json`."""
        return cls(
            pts=_unpack(value["pts"]),
            keyframes=_unpack(value["keyframes"]),
            time_base=Fraction(*value["time_base"]),
            height=value["height"],
            width=value["width"],
            stream=value["stream"],
            rotation=value["rotation"],
            bits=value["bits"],
            open_gop=value["open_gop"],
            codec=value["codec"],
        )


def open_container(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """Open a video with PyAV: ``(container, its best video stream)``, decoding in one thread.

    ``path`` is an address (:mod:`.storage`). The caller closes the container: one left open leaks
    descriptors, and with decoder threads a later fork hangs. Raises :class:`VideoDecodeError` for
    anything that is not a video file.
    """
    import av.error

    try:
        container = av.open(readable(os.fspath(path)), options=OPEN_OPTIONS)
    except FileNotFoundError as error:
        raise VideoDecodeError(path, "no such file", "pyav") from error
    except ConfigError as error:  # a protocol without its library
        raise VideoDecodeError(path, str(error), "pyav") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoDecodeError(path, f"not a readable video: {said(error)}", "pyav") from error
    try:
        name = container.format.name
        if name in _NOT_VIDEO or name.endswith("_pipe"):
            raise VideoDecodeError(path, _NOT_VIDEO.get(name, _NOT_VIDEO["image2"]), "pyav")
        stream = container.streams.best("video")
        if stream is None:
            kinds = ", ".join(sorted({s.type for s in container.streams}))
            reason = f"only {kinds}" if kinds else "no streams; its index may be cut off"
            raise VideoDecodeError(path, f"no video stream ({reason})", "pyav")
        stream.codec_context.thread_count = 1
        return container, stream
    except BaseException:
        container.close()
        raise


def readable(address: str) -> Any:
    """What FFmpeg opens: its own name for a local file or a part of one, a Python file for others.

    Raises :class:`VideoDecodeError` for an empty file or a folder.
    """
    part = as_part(address)
    if is_remote(address):
        file = open_binary(address)
        if not file.seek(0, os.SEEK_END):
            file.close()
            raise VideoDecodeError(address, "the file is empty (0 bytes)", "pyav")
        file.seek(0)
        return file
    path = part.file if part else address
    if os.path.getsize(path) == 0 or (part and part.bytes == 0):
        raise VideoDecodeError(address, "the file is empty (0 bytes)", "pyav")
    if os.path.isdir(path):
        raise VideoDecodeError(address, "a folder, not a video file", "pyav")
    local = f"file:{Path(path).absolute()}"
    if part is None:
        return local
    return f"subfile,,start,{part.offset},end,{part.offset + part.bytes},,:{local}"


def scan(path: str | os.PathLike[str]) -> VideoInfo:
    """Read the packets of ``path`` and decode its first frame.

    Raises :class:`VideoDecodeError` if there is no decodable video, if the file ends before its
    header says (also when only the last packet is cut), or if its frames carry no time stamps.
    """
    import av.error

    container, stream = open_container(path)
    with container:
        pts, keys, ends, first, open_gop = [], [], {}, None, False
        try:
            for packet in container.demux():
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
                flushes = packet.size == 0 and first is not None
                if packet.stream_index != stream.index or flushes:
                    continue  # a file of one frame gives it only when flushed
                if packet.is_corrupt:
                    of = f" of {stream.frames}" if stream.frames else ""
                    reason = f"truncated or damaged in frame {len(pts)}{of}"
                    raise VideoDecodeError(path, reason, "pyav")
                if first is None:
                    first = next(iter(packet.decode()), None)
                if packet.size and not packet.is_discard:
                    if packet.pts is None:
                        raise VideoDecodeError(path, _NO_TIMES, "pyav")
                    pts.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
                    open_gop = open_gop or bool(keys and packet.pts < keys[-1])
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = f"broken after {len(pts)} frames: {said(error)}"
            raise VideoDecodeError(path, reason, "pyav") from error
        if not pts or first is None:
            raise VideoDecodeError(path, "no frame can be decoded", "pyav")
        times = np.unique(np.asarray(pts, dtype=np.int64))
        _check_whole(path, container, stream, len(pts), ends)
        rotation = round(first.rotation / 90) * 90
        turned = rotation % 180 == 90
        return VideoInfo(
            pts=times,
            keyframes=np.searchsorted(times, np.unique(np.asarray(keys, dtype=np.int64))),
            time_base=Fraction(stream.time_base),
            height=first.width if turned else first.height,
            width=first.height if turned else first.width,
            stream=stream.index,
            rotation=rotation,
            bits=max(component.bits for component in first.format.components),
            open_gop=open_gop,
            codec=stream.codec_context.codec.canonical_name,
        )


_NO_TIMES = "frames without time stamps; rewrite it, for example: ffmpeg -i IN -c:v libx264 OUT.mp4"


def _check_whole(
    path: Any, container: Any, stream: Any, count: int, ends: dict[int, float]
) -> None:
    """Raise :class:`VideoDecodeError` if the file stops before its header says.

    A frame count above the packets' is no proof: an edit list hides frames legitimately. So the
    count decides only together with the stream's duration; without a count (Matroska, webm) the
    container's duration does, which covers all streams, so all streams' ends are compared with it.
    """
    if stream.frames > count and stream.duration:
        start = float((stream.start_time or 0) * stream.time_base)
        duration = float(stream.duration * stream.time_base)
        if ends[stream.index] < start + duration * (1 - 1.0 / stream.frames):
            reason = f"truncated: {count} of {stream.frames} frames are in the file"
            raise VideoDecodeError(path, reason, "pyav")
    if not stream.frames and container.duration:
        matroska = "matroska" in container.format.name  # whose duration is the time of the end
        start = 0 if matroska else max(0, container.start_time or 0) / 1e6
        promise, end = start + container.duration / 1e6, max(ends.values())
        if end < promise - max(0.5, 2 * container.duration / 1e6 / count):
            reason = f"truncated: ends at {end:.2f} s of {promise:.2f} s"
            raise VideoDecodeError(path, reason, "pyav")


def said(error: BaseException) -> str:
    """FFmpeg's words without errno and the path, which the reader of a report has already."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _pack(ticks: np.ndarray) -> dict[str, int] | list[int]:
    if len(ticks) > 2 and (np.diff(ticks, 2) == 0).all():
        step = int(ticks[1] - ticks[0])
        return {"start": int(ticks[0]), "step": step, "count": len(ticks)}
    return ticks.tolist()


def _unpack(value: dict[str, int] | Sequence[int]) -> np.ndarray:
    if isinstance(value, dict):
        return value["start"] + value["step"] * np.arange(value["count"], dtype=np.int64)
    return np.asarray(value, dtype=np.int64)
