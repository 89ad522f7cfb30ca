"""From files to an index: each is looked at once, and what is known already is taken over."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, TypeVar

from ..core.errors import ConfigError, DatasetError
from . import storage
from .entries import BadVideo, CorpusIndex, VideoEntry
from .index_file import Stamp, load_known, save_index
from .parallel import parallel_map
from .sources import Duplicate, Found

Index = TypeVar("Index", bound=CorpusIndex)


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """How to index; see :func:`.corpus.index_corpus` for each.

    Raises ConfigError for an impossible share.
    """

    cache_path: str | os.PathLike[str] | None = None
    max_bad_share: float = 0.5
    deduplicate: bool = False
    progress: bool = True
    processes: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"max_bad_share={self.max_bad_share} is not a share between 0 and 1")


def index_files(
    cls: type[Index],
    found: Found,
    inspect: Callable[[str], VideoEntry | BadVideo],
    options: IndexOptions,
    *,
    kind: str,
    depth: int,
) -> Index:
    """An index of class ``cls`` of what :func:`.sources.find_files` found.

    Args:
        inspect: looks at one path; called for those that the cache does not know unchanged.
        kind: what the files are, for messages. depth: how closely ``inspect`` looks: what an index
            file says counts only if it looked as closely.

    Raises :class:`DatasetError` as :func:`.corpus.index_corpus` does.
    """
    known: dict[Stamp, VideoEntry | BadVideo] = {}
    for path in (options.cache_path, found.index):
        known |= load_known(path, depth)
    results = [
        _still_known(known.get(storage.stamp(path)), options.deduplicate) for path in found.paths
    ]
    missing = [path for path, item in zip(found.paths, results, strict=True) if item is None]
    label = f"index {kind}" if options.progress and missing else ""
    look = partial(_look, inspect=inspect, digest=options.deduplicate)
    fresh = parallel_map(look, missing, processes=options.processes, description=label)
    results = [item if item is not None else next(fresh) for item in results]
    entries = [item for item in results if isinstance(item, VideoEntry)]
    bad = [item for item in results if isinstance(item, BadVideo)]
    bad += [BadVideo(path, reason) for path, reason in found.bad.items()]
    kept, duplicates = _unique(entries) if options.deduplicate else (entries, [])
    index = cls(
        source=found.name,
        entries=tuple(kept),
        quarantine=tuple(sorted(bad)),
        ignored=tuple(found.ignored),
        duplicates=(*found.duplicates, *duplicates),
        cache_path=None if options.cache_path is None else str(options.cache_path),
    )
    if options.cache_path is not None:
        save_index(index, options.cache_path, depth)
    total = len(kept) + len(bad)
    check_bad_share(found.name, index.quarantine, total, options.max_bad_share, kind)
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


def _unique(entries: list[VideoEntry]) -> tuple[list[VideoEntry], list[Duplicate]]:
    first: dict[str, VideoEntry] = {}
    duplicates = []
    for entry in entries:
        if first.setdefault(entry.digest, entry) is not entry:
            duplicates.append(Duplicate(entry.path, first[entry.digest].path))
    return list(first.values()), duplicates


def _still_known(item: VideoEntry | BadVideo | None, digest: bool) -> VideoEntry | BadVideo | None:
    return None if isinstance(item, VideoEntry) and digest and not item.digest else item


def _look(
    path: str, inspect: Callable[[str], VideoEntry | BadVideo], digest: bool
) -> VideoEntry | BadVideo:
    item = inspect(path)
    if not digest or isinstance(item, BadVideo):
        return item
    try:
        with storage.open_binary(path) as file:
            return replace(item, digest=_digest(file))
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return BadVideo(path, reason, item.bytes, item.mtime_ns)


def _digest(file: BinaryIO, chunk: int = 1 << 20) -> str:
    digest = hashlib.blake2b(digest_size=16)
    while data := file.read(chunk):
        digest.update(data)
    return digest.hexdigest()
