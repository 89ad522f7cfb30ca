"""Video files, looked at one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import Literal

from ..core.errors import ConfigError, VideoDecodeError
from . import storage
from .array_video import is_array, scan_array
from .decode import open_video
from .entries import BadVideo, CorpusIndex, VideoEntry
from .indexing import IndexOptions, index_files
from .sources import find_files
from .timeline import scan

Verify = Literal["header", "decode-ends", "full"]
VERIFY: tuple[Verify, ...] = ("header", "decode-ends", "full")
EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".gif"),
)


def index_videos(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    options: IndexOptions,
    verify: Verify = "decode-ends",
) -> CorpusIndex:
    """An index of the videos of one source; see :func:`.corpus.index_corpus`."""
    if verify not in VERIFY:
        raise ConfigError(f"verify={verify!r} is not one of {', '.join(VERIFY)}")
    found = find_files(source, "video", EXTENSIONS)
    inspect = partial(_inspect, verify=verify)
    depth = VERIFY.index(verify)
    return index_files(CorpusIndex, found, inspect, options, kind="videos", depth=depth)


def _inspect(path: str, verify: Verify) -> VideoEntry | BadVideo:
    _, size, mtime_ns = storage.stamp(path)
    try:
        info = scan_array(path) if is_array(path) else scan(path)
        if verify != "header":
            numbers = range(info.num_frames) if verify == "full" else [info.num_frames - 1]
            with open_video(path, "pyav", info=info) as video:
                video.check(numbers)
    except VideoDecodeError as error:
        return BadVideo(path, error.reason, size, mtime_ns)
    return VideoEntry(path=path, info=info, bytes=size, mtime_ns=mtime_ns)
