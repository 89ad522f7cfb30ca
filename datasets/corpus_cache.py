"""All frames of a small corpus, decoded and scaled once, in one memory map of uint8.

Decoding bounds short training runs on few cores. The map gives the same bytes as decoding clip by
clip, and costs ``size * size * 3`` bytes of disk per frame.

    frames.u8        uint8 [total frames, size, size, 3]
    manifest.json    size, and per video: path, length and time of its file, frames, failure
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DatasetError, VideoDecodeError
from ..core.io import atomic_path, atomic_write_json
from .decode import Backend, open_video, resolve_backend
from .parallel import parallel_map

_CHUNK = 64  # frames decoded at a time, which bounds the memory that full-size frames take


class CorpusCache:
    """The frames of a corpus as a memory map; made by ``CorpusIndex.decode_to_cache``.

    Attributes:
        frames: uint8 [total, size, size, 3], memory-mapped. offsets: int64 [V + 1], the rows of
        video v are ``frames[offsets[v]:offsets[v + 1]]``. failed: reason per video, "" if fine.
    """

    def __init__(self, folder: Path):
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        videos = manifest["videos"]
        self._folder = folder
        self._backend = manifest["backend"]
        self._paths = np.array([video["path"].encode() for video in videos])
        self.failed = np.array([video["failed"].encode() for video in videos])
        self.offsets = np.cumsum([0, *(video["frames"] for video in videos)])
        shape = (int(self.offsets[-1]), manifest["size"], manifest["size"], 3)
        self.frames = np.memmap(folder / "frames.u8", dtype=np.uint8, mode="r", shape=shape)

    def __reduce__(self):  # a spawned worker maps the file again instead of receiving its bytes
        return type(self), (self._folder,)

    def read(self, video: int, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 [T, size, size, 3]: frames ``numbers`` of video ``video``.

        Raises :class:`VideoDecodeError` for a video that failed when the cache was made.
        """
        if self.failed[video]:
            path, reason = self._paths[video].decode(), self.failed[video].decode()
            raise VideoDecodeError(path, reason, self._backend)
        return self.frames[self.offsets[video] + np.asarray(numbers)]


def build_cache(
    entries: Sequence[Any],
    folder: str | os.PathLike[str],
    size: int,
    backend: Backend = "auto",
    *,
    processes: int | None = None,
    progress: bool = True,
) -> CorpusCache:
    """Open the cache of the :class:`.corpus.VideoEntry` list ``entries`` in ``folder``.

    It is made first if it is absent or belongs to other files, another size or another backend.
    A video that fails to decode is kept in the manifest with its reason and fails when read.

    Raises :class:`DatasetError` if the disk has too little room.
    """
    folder = Path(folder)
    wanted = {
        "size": size,
        "backend": resolve_backend(backend),
        "videos": [
            {"path": e.path, "bytes": e.bytes, "mtime_ns": e.mtime_ns, "frames": e.num_frames}
            for e in entries
        ],
    }
    if not _is_current(folder, wanted):
        failed = _decode_all(entries, folder, size, backend, processes, progress)
        videos = [v | {"failed": f} for v, f in zip(wanted["videos"], failed, strict=True)]
        atomic_write_json(folder / "manifest.json", wanted | {"videos": videos})
    return CorpusCache(folder)


def _is_current(folder: Path, wanted: dict[str, Any]) -> bool:
    """True if the cache in ``folder`` holds just the frames of ``wanted``, all of them."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        length = (folder / "frames.u8").stat().st_size
        videos = [{k: v for k, v in x.items() if k != "failed"} for x in manifest["videos"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return False
    rows = sum(video["frames"] for video in wanted["videos"])
    return manifest | {"videos": videos} == wanted and length == rows * wanted["size"] ** 2 * 3


def _decode_all(
    entries: Sequence[Any],
    folder: Path,
    size: int,
    backend: Backend,
    processes: int | None,
    progress: bool,
) -> list[str]:
    offsets = np.cumsum([0, *(entry.num_frames for entry in entries)])
    needed = int(offsets[-1]) * size * size * 3
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # the old frames go now
    (folder / "frames.u8").unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(
            f"{folder}: the decoded frames need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            "free: use a smaller size, another folder, or no cache"
        )
    with atomic_path(folder / "frames.u8") as temporary:
        with open(temporary, "r+b") as file:
            file.truncate(needed)
        work = partial(_decode_one, file=str(temporary), size=size, backend=backend)
        items = list(zip(entries, offsets[:-1].tolist(), strict=True))
        label = "decode videos" if progress else ""
        return list(parallel_map(work, items, processes=processes, description=label))


def _decode_one(item: tuple[Any, int], *, file: str, size: int, backend: Backend) -> str:
    """Write the frames of one video to their rows; the reason if that fails, else ""."""
    entry, offset = item
    if not entry.num_frames:
        return ""
    try:
        with (
            open_video(entry.path, backend, info=entry.info) as video,
            open(file, "r+b") as rows,
        ):
            rows.seek(offset * size * size * 3)
            for start in range(0, entry.num_frames, _CHUNK):
                numbers = range(start, min(start + _CHUNK, entry.num_frames))
                rows.write(video.get_frames(numbers, size).tobytes())
    except VideoDecodeError as error:
        return error.reason
    return ""
