"""An index of a corpus of videos: which can be used, with exact frame times, which cannot, and why.

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
from collections.abc import Iterable

from .entries import BadVideo, CorpusIndex, CorpusPart, VideoEntry
from .indexing import IndexOptions, check_bad_share
from .mixture import index_mixture, is_mixture
from .videos import EXTENSIONS, VERIFY, Verify, index_videos

__all__ = [
    "EXTENSIONS",
    "VERIFY",
    "BadVideo",
    "CorpusIndex",
    "CorpusPart",
    "Verify",
    "VideoEntry",
    "check_bad_share",
    "index_corpus",
]


def index_corpus(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    cache_path: str | os.PathLike[str] | None = None,
    max_bad_share: float = 0.5,
    verify: Verify = "decode-ends",
    deduplicate: bool = False,
    progress: bool = True,
    processes: int | None = None,
) -> CorpusIndex:
    """Index the videos of ``source``, leaving out and listing those that cannot be used.

    Args:
        source: a folder (all files below it with a video extension, and the members of ``.tar``
            shards; others are counted as ignored, hidden ones skipped), a list file, an iterable
            of paths, a ``.tar`` shard (``{000..127}`` stands for many), an index file (``.jsonl``)
            or packed folder that tubelet wrote, a set of ``tubelet voe generate`` (its training
            videos), a mixture (``.toml``, see :mod:`.mixture`), or any of these at an address of
            fsspec's. The files of a list are all tried, whatever their
            extension. A ``.txt`` list has a path per line; a ``.csv`` may also be ``path label``
            or ``path,label`` per line, with or without a header. Relative paths start at the
            list's folder.
        cache_path: keep the index in this file (JSON lines, written atomically); what it says is
            reused for files whose size and modification time are unchanged.
        max_bad_share: the largest tolerated share of bad files, in [0, 1].
        verify: how far each file is tried. All read every packet and decode the first frame, which
            finds empty, truncated and foreign files; ``decode-ends`` decodes the last frame too;
            ``full`` decodes all frames, and so finds damage in the middle.
        deduplicate: leave out files with the same bytes as one before them.
        progress: show a progress bar. processes: see :func:`.parallel.parallel_map`.

    Raises :class:`DatasetError` if there is no video, none is usable, or more than
    ``max_bad_share`` are bad; it names counts and the first reasons.
    """
    options = IndexOptions(
        cache_path=cache_path,
        max_bad_share=max_bad_share,
        deduplicate=deduplicate,
        progress=progress,
        processes=processes,
    )
    if isinstance(source, str | os.PathLike) and is_mixture(source):
        return index_mixture(source, options, verify)
    return index_videos(source, options, verify)
