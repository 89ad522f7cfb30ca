"""What an index of a corpus holds: usable videos with exact frame times, and the others, and why.

>>> index = index_corpus("videos/", cache_path="videos.index.jsonl")        # doctest: +SKIP
>>> len(index), index[0].num_frames, index[0].fps                           # doctest: +SKIP
(570, 100, 25.0)
>>> print(index.report())                                                   # doctest: +SKIP
570 videos usable, 30 of 600 bad (5.0 %), 2 files with other extensions ignored
  videos/0007.mp4: truncated or damaged in frame 41 of 100
  ...
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import storage
from .corpus_cache import CorpusCache, build_cache
from .decode import Backend
from .sources import Duplicate
from .timeline import VideoInfo


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoEntry:
    """One usable video file.

    Attributes:
        path: its address (:mod:`.storage`), absolute. info: its frames' times and size. bytes,
        mtime_ns: the file's length and modification time when it was read, by which changes are
        noticed. digest: of its bytes, where duplicates were looked for; else "".
    """

    path: str
    info: VideoInfo
    bytes: int
    mtime_ns: int
    digest: str = ""

    @property
    def num_frames(self) -> int:
        return self.info.num_frames

    @property
    def timestamps(self) -> np.ndarray:
        """float64 [F]: when each frame is shown, seconds on the container's clock."""
        return self.info.timestamps

    @property
    def height(self) -> int:
        return self.info.height

    @property
    def width(self) -> int:
        return self.info.width

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self.info.fps

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        stamp = {"path": self.path, "bytes": self.bytes, "mtime_ns": self.mtime_ns}
        return stamp | {"digest": self.digest, "info": self.info.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> VideoEntry:
        """The inverse of :meth:`to_json`."""
        rest = {key: item for key, item in value.items() if key != "info"}
        return cls(info=VideoInfo.from_json(value["info"]), **rest)


class BadVideo(NamedTuple):
    """A file that cannot be used: its path, the reason, and size and time when it was tried."""

    path: str
    reason: str
    bytes: int = -1
    mtime_ns: int = -1


class CorpusPart(NamedTuple):
    """One corpus of a mixture: entries ``first`` to ``stop - 1``, and the share of samples drawn
    from them, relative to the other parts' weights."""

    name: str
    weight: float
    first: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """The usable videos of a corpus in order of their paths, and the others with reasons.

    Attributes:
        source: what was indexed. entries: the usable videos. quarantine: the bad ones.
        ignored: files of a folder that were not tried because of their extension.
        duplicates: files left out because another one has the same bytes, or the same path.
        cache_path: where the index is kept, if anywhere.
        parts: the corpora that a mixture is made of; empty for a single corpus.
    """

    source: str
    entries: tuple[VideoEntry, ...]
    quarantine: tuple[BadVideo, ...] = ()
    ignored: tuple[str, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    cache_path: str | None = None
    parts: tuple[CorpusPart, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, number: int) -> VideoEntry:
        return self.entries[number]

    def decode_to_cache(
        self,
        folder: str | os.PathLike[str],
        size: int,
        backend: Backend = "auto",
        *,
        processes: int | None = None,
        progress: bool = True,
    ) -> CorpusCache:
        """All frames in a memory map; see :func:`.corpus_cache.build_cache`."""
        return build_cache(
            self.entries, folder, size, backend, processes=processes, progress=progress
        )

    def report(self) -> str:
        """Counts, then a line per bad file with its reason, per duplicate, per ignored file."""
        total = len(self.entries) + len(self.quarantine)
        share = 100 * len(self.quarantine) / max(1, total)
        head = f"{len(self)} videos usable, {len(self.quarantine)} of {total} bad ({share:.1f} %)"
        if self.duplicates:
            head += f", {len(self.duplicates)} duplicates left out"
        if self.ignored:
            head += f", {len(self.ignored)} files with other extensions ignored"
        lines = [f"  {bad.path}: {bad.reason}" for bad in self.quarantine]
        lines += [
            f"  {path}: listed more than once" if path == of else f"  {path}: the same as {of}"
            for path, of in self.duplicates
        ]
        lines += [f"  {path}: ignored" for path in self.ignored[:20]]
        if len(self.ignored) > 20:
            lines.append(f"  … and {len(self.ignored) - 20} more ignored")
        return storage.shown("\n".join([head, *lines]))
