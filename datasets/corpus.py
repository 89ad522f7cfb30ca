"""An index of video files: which can be used, with exact frame times, and which cannot, and why.

>>> index = index_corpus("videos/", cache_path="videos.index.jsonl")        # doctest: +SKIP
>>> len(index), index[0].num_frames, index[0].fps                           # doctest: +SKIP
(570, 100, 25.0)
>>> print(index.report())                                                   # doctest: +SKIP
570 videos usable, 30 of 600 bad (5.0 %), 2 files with other extensions ignored
  videos/0007.mp4: truncated or damaged in frame 41 of 100
  ...
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from ..core.errors import ConfigError, DatasetError, VideoDecodeError
from ..core.io import atomic_write_text
from .corpus_cache import CorpusCache, build_cache
from .decode import Backend, open_video
from .parallel import parallel_map
from .timeline import VideoInfo, scan

Verify = Literal["header", "decode-ends", "full"]
VERIFY: tuple[Verify, ...] = ("header", "decode-ends", "full")
EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".gif"),
)
_FORMAT = "tubelet-video-index"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoEntry:
    """One usable video file.

    Attributes:
        path: the file, absolute. info: its frames' times and size. bytes, mtime_ns: the file's
        length and modification time when it was read, by which changes are noticed.
    """

    path: str
    info: VideoInfo
    bytes: int
    mtime_ns: int

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
        return stamp | {"info": self.info.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> VideoEntry:
        """The inverse of :meth:`to_json`."""
        info = VideoInfo.from_json(value["info"])
        return cls(path=value["path"], info=info, bytes=value["bytes"], mtime_ns=value["mtime_ns"])


class BadVideo(NamedTuple):
    """A file that cannot be used: its path, the reason, and size and time when it was tried."""

    path: str
    reason: str
    bytes: int = -1
    mtime_ns: int = -1


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """The usable videos of a corpus in order of their paths, and the others with reasons.

    Attributes:
        source: what was indexed. entries: the usable videos. quarantine: the bad ones.
        ignored: files of a folder that were not tried because of their extension.
        cache_path: where the index is kept, if anywhere.
    """

    source: str
    entries: tuple[VideoEntry, ...]
    quarantine: tuple[BadVideo, ...] = ()
    ignored: tuple[str, ...] = ()
    cache_path: str | None = None

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
        """Counts, then one line per bad file with its reason, then the ignored files."""
        total = len(self.entries) + len(self.quarantine)
        share = 100 * len(self.quarantine) / max(1, total)
        head = f"{len(self)} videos usable, {len(self.quarantine)} of {total} bad ({share:.1f} %)"
        if self.ignored:
            head += f", {len(self.ignored)} files with other extensions ignored"
        lines = [f"  {bad.path}: {bad.reason}" for bad in self.quarantine]
        lines += [f"  {path}: ignored" for path in self.ignored[:20]]
        if len(self.ignored) > 20:
            lines.append(f"  … and {len(self.ignored) - 20} more ignored")
        return "\n".join([head, *lines])


Index = TypeVar("Index", bound=CorpusIndex)


def index_corpus(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    cache_path: str | os.PathLike[str] | None = None,
    max_bad_share: float = 0.5,
    verify: Verify = "decode-ends",
    progress: bool = True,
    processes: int | None = None,
) -> CorpusIndex:
    """Index the videos of ``source``, leaving out and listing those that cannot be used.

    Args:
        source: a folder (all files below it with a video extension; others are counted as
            ignored, hidden ones skipped), a list file, or an iterable of paths. The files of a
            list are all tried, whatever their extension. A ``.txt`` list has a path per line; a
            ``.csv`` may also be ``path label`` or ``path,label`` per line, with or without a
            header. Relative paths start at the list's folder.
        cache_path: keep the index in this file (JSON lines, written atomically); what it says is
            reused for files whose size and modification time are unchanged.
        max_bad_share: the largest tolerated share of bad files, in [0, 1].
        verify: how far each file is tried. All read every packet and decode the first frame, which
            finds empty, truncated and foreign files; ``decode-ends`` decodes the last frame too;
            ``full`` decodes all frames, and so finds damage in the middle.
        progress: show a progress bar. processes: see :func:`.parallel.parallel_map`.

    Raises :class:`DatasetError` if there is no video, none is usable, or more than
    ``max_bad_share`` are bad; it names counts and the first reasons.
    """
    if verify not in VERIFY:
        raise ConfigError(f"verify={verify!r} is not one of {', '.join(VERIFY)}")
    return index_files(
        CorpusIndex,
        find_files(source),
        partial(_inspect, verify=verify),
        kind="videos",
        cache_path=cache_path,
        max_bad_share=max_bad_share,
        verify=verify,
        progress=progress,
        processes=processes,
    )


def index_files(
    cls: type[Index],
    found: tuple[list[str], list[str], str],
    inspect: Callable[[str], VideoEntry | BadVideo],
    *,
    kind: str,
    cache_path: str | os.PathLike[str] | None,
    max_bad_share: float,
    verify: Verify,
    progress: bool,
    processes: int | None,
) -> Index:
    """An index of class ``cls`` of what :func:`find_files` found, by ``inspect`` of each path that
    the cache does not know unchanged; see :func:`index_corpus` for the rest.

    Raises :class:`DatasetError` as it does, and ConfigError for an impossible share.
    """
    if not 0 <= max_bad_share <= 1:
        raise ConfigError(f"max_bad_share={max_bad_share} is not a share between 0 and 1")
    paths, ignored, name = found
    known = _load_known(cache_path, verify)
    results = [known.get(_stamp(path)) for path in paths]
    missing = [path for path, result in zip(paths, results, strict=True) if result is None]
    label = f"index {kind}" if progress and missing else ""
    fresh = parallel_map(inspect, missing, processes=processes, description=label)
    results = [result if result is not None else next(fresh) for result in results]
    index = cls(
        source=name,
        entries=tuple(result for result in results if isinstance(result, VideoEntry)),
        quarantine=tuple(result for result in results if isinstance(result, BadVideo)),
        ignored=tuple(ignored),
        cache_path=None if cache_path is None else str(cache_path),
    )
    if cache_path is not None:
        _save(index, cache_path, verify)
    check_bad_share(name, index.quarantine, len(paths), max_bad_share, kind)
    return index


def check_bad_share(
    name: str, bad: Iterable[Any], total: int, limit: float, kind: str = "videos"
) -> None:
    """Raise :class:`DatasetError` if no file is left, or more than ``limit`` of them are bad.

    ``bad`` holds tuples that begin with path and reason; ``kind`` says what the files are.
    """
    bad = list(bad)
    if len(bad) < total and len(bad) <= limit * total:
        return
    kinds = Counter(reason for _, reason, *_ in bad).most_common(3)
    first = "".join(f"\n  {path}: {reason}" for path, reason, *_ in bad[:5])
    rule = "none is usable" if len(bad) == total else f"more than max_bad_share = {limit:g} allows"
    raise DatasetError(
        f"{name}: {len(bad)} of {total} {kind} are bad, {rule}. Most frequent: "
        + "; ".join(f"{reason} ({count}×)" for reason, count in kinds)
        + f". First ones:{first}"
    )


def find_files(
    source: Any, kind: str = "video", extensions: tuple[str, ...] = EXTENSIONS
) -> tuple[list[str], list[str], str]:
    """Sorted absolute paths to try, ignored files, and a name for the source.

    Args:
        source: a folder, a list file or an iterable of paths, as for :func:`index_corpus`.
        kind: what the files are, for messages. extensions: of files in a folder that count.

    Raises :class:`DatasetError` if there is no such source, or no file in it.
    """
    if not isinstance(source, str | os.PathLike):
        paths = sorted({str(Path(path).absolute()) for path in source})
        if not paths:
            raise DatasetError(f"the list of {kind}s is empty: give at least one path")
        return paths, [], f"a list of {len(paths)} paths"
    root = Path(source).absolute()
    if not root.exists():
        raise DatasetError(f"{root}: no such folder or list file; check the path")
    if root.is_file():
        if root.suffix.lower() not in (".txt", ".csv"):
            wanted = f"folder of {kind}s, nor a list of paths (.txt or .csv)"
            raise DatasetError(f"{root}: neither a {wanted}; put its path into a list")
        return _read_list(root), [], str(root)
    paths, ignored = [], []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                known = Path(name).suffix.lower() in extensions
                (paths if known else ignored).append(os.path.join(folder, name))
    if not paths:
        seen = f" ({len(ignored)} other files, such as {min(ignored)})" if ignored else ""
        raise DatasetError(
            f"{root}: no {kind} files in this folder{seen}; "
            f"looked for the extensions {' '.join(extensions)}"
        )
    return sorted(paths), sorted(ignored), str(root)


def _read_list(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if path.suffix.lower() == ".csv":
        lines = [_first_column(line) for line in lines]
        if lines and lines[0].lower() in ("path", "file", "filename", "video"):
            del lines[0]
    if not lines:
        raise DatasetError(f"{path}: the list names no videos; write one path per line")
    return sorted({os.path.abspath(path.parent / line) for line in lines})


def _first_column(line: str) -> str:
    """The path in ``path label`` (label a whole number), ``path::label`` or ``path,label,…``."""
    if "::" in line:
        return line.split("::")[0].strip()
    head, _, label = line.rpartition(" ")
    if head and label.lstrip("-").isdigit():
        return head.strip()
    return next(csv.reader([line]))[0].strip()


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return path, -1, -1
    return path, stat.st_size, stat.st_mtime_ns


def _inspect(path: str, verify: Verify) -> VideoEntry | BadVideo:
    _, size, mtime_ns = _stamp(path)
    try:
        info = scan(path)
        if verify != "header":
            numbers = range(info.num_frames) if verify == "full" else [info.num_frames - 1]
            with open_video(path, "pyav", info=info) as video:
                video.check(numbers)
    except VideoDecodeError as error:
        return BadVideo(path, error.reason, size, mtime_ns)
    return VideoEntry(path=path, info=info, bytes=size, mtime_ns=mtime_ns)


def _save(index: CorpusIndex, path: str | os.PathLike[str], verify: Verify) -> None:
    head = {"format": _FORMAT, "version": _VERSION, "verify": verify, "source": index.source}
    lines = [head, *(entry.to_json() for entry in index.entries)]
    lines += [bad._asdict() for bad in index.quarantine]
    atomic_write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def _load_known(path: str | os.PathLike[str] | None, verify: Verify) -> dict[tuple, Any]:
    """What an earlier index says, by path, size and time; nothing if it looked less closely."""
    if path is None or not Path(path).exists():
        return {}
    try:
        head, *lines = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
        if head["format"] != _FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        if head["version"] != _VERSION or VERIFY.index(head["verify"]) < VERIFY.index(verify):
            return {}
        known = {}
        for line in lines:
            item = BadVideo(**line) if "reason" in line else VideoEntry.from_json(line)
            known[item.path, item.bytes, item.mtime_ns] = item
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: not a video index ({error}); delete it, or give another cache_path"
        ) from error
    return {stamp: item for stamp, item in known.items() if stamp[1] >= 0}
