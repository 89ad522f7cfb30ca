"""Exact frames from a video file, through PyAV, decord or torchcodec behind one interface.

>>> with open_video("clip.mp4") as video:                                   # doctest: +SKIP
...     video.num_frames, video.timestamps[:2], video.get_frames([7, 3]).shape
(100, array([0.  , 0.04]), (2, 240, 320, 3))

All backends return the same RGB bytes at full size. Times, frame count and size come from one pass
over the packets (:mod:`.timeline`) for all; the backend only turns frame numbers into pixels
(:mod:`.video_reader`).
"""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache
from typing import Literal

from ..core.errors import ConfigError
from .array_video import CODEC, ArrayReader
from .decode_decord import DecordReader
from .decode_pyav import PyAVReader
from .decode_torchcodec import TorchCodecReader
from .timeline import VideoInfo, scan
from .video_reader import ImageReader, VideoReader, first_line

__all__ = ["BACKENDS", "Backend", "PyAVReader", "VideoReader", "open_video", "resolve_backend"]

Backend = Literal["auto", "pyav", "decord", "torchcodec"]
BACKENDS: tuple[str, ...] = ("pyav", "decord", "torchcodec")
_READERS = {"pyav": PyAVReader, "decord": DecordReader, "torchcodec": TorchCodecReader}
_MODULES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec.decoders"}
_INSTALL = {
    "pyav": "pip install av",
    "decord": "pip install decord",
    "torchcodec": "install FFmpeg's shared libraries with the system's package manager, and a "
    'torchcodec that fits this torch (without CUDA: pip install "torchcodec>=0.11.1,<0.14")',
}
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
    reader = _READERS[resolve_backend(backend)]
    info = info if info is not None else scan(path)
    if info.codec == CODEC:
        return ArrayReader(path, info)
    return ImageReader(path, info) if info.is_image else reader(path, info)


@cache
def resolve_backend(backend: str) -> str:
    """The backend that ``backend`` stands for, after importing it; says so once at INFO.

    Raises :class:`ConfigError` for an unknown name or a backend that cannot be imported.
    """
    name = "pyav" if backend == "auto" else backend
    if name not in BACKENDS:
        raise ConfigError(f"unknown video backend {backend!r}: use auto, {' or '.join(BACKENDS)}")
    package = _MODULES[name].partition(".")[0]
    try:
        importlib.import_module(_MODULES[name])
        module = importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # for another platform, torch or FFmpeg
        raise ConfigError(
            f"the video backend {name!r} cannot be imported ({first_line(error)}): "
            f"{_INSTALL[name]}, or choose another backend"
        ) from error
    if name == "decord":  # FFmpeg's remarks on single frames; errors are raised all the same
        module.logging.set_level(module.logging.FATAL)
    _log.info("video backend: %s %s (asked for: %s)", name, module.__version__, backend)
    return name
