"""The same function over many files, in this process or several, with results in order."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..core.errors import DatasetError


def parallel_map(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    processes: int | None = None,
    description: str = "",
    fresh: bool = False,
) -> Iterator[Any]:
    """Yield ``function(item)`` for each item, in order; a progress bar if ``description`` is set.

    Args:
        function: a picklable function. What it raises is raised here.
        processes: None takes one per core for 64 items or more, else one; 1 stays in this process.
        fresh: start new interpreters instead of forking this one, whose OpenGL would be shared.

    Raises :class:`DatasetError` if a process dies (a crash inside a video library, or memory).
    """
    if processes is None:
        processes = min(os.cpu_count() or 1, len(items) // 32)
    results = _run(function, items, processes, fresh)
    if description:
        from ..core.progress import progress

        return iter(progress(results, description, total=len(items)))
    return results


def _run(
    function: Callable[[Any], Any], items: Sequence[Any], processes: int, fresh: bool
) -> Iterator[Any]:
    if processes <= 1:
        yield from map(function, items)
        return
    try:
        context = multiprocessing.get_context("spawn") if fresh else None
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            yield from pool.map(function, items, chunksize=max(1, min(16, len(items) // processes)))
    except BrokenProcessPool as error:
        raise DatasetError(
            "a process that reads videos was killed (by a crash in the video library, or for "
            "memory): run again with processes=1 to see at which file"
        ) from error
