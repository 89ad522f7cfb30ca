"""An index in a file: JSON lines, written atomically; a source in its own right.

The first line says what this is; then a line per usable video, per bad file and per duplicate.
Paths are absolute, or relative to the index's own folder, so that a packed corpus can be moved.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..core.errors import DatasetError
from ..core.io import atomic_write_text
from .entries import BadVideo, CorpusIndex, VideoEntry
from .sources import read_index

Stamp = tuple[str, int, int]
_FORMAT = "tubelet-video-index"
_VERSION = 2


def save_index(
    index: CorpusIndex, path: str | os.PathLike[str], depth: int, *, relative: bool = False
) -> None:
    """Write ``index`` to ``path``, atomically.

    Args:
        depth: how closely its files were looked at. relative: write paths relative to the folder.
    """
    folder = Path(path).absolute().parent if relative else None
    head = {"format": _FORMAT, "version": _VERSION, "verify": depth, "source": index.source}
    lines = [head, *(entry.to_json() for entry in index.entries)]
    lines += [bad._asdict() for bad in index.quarantine]
    lines += [duplicate._asdict() for duplicate in index.duplicates]
    if folder is not None:
        for line in lines[1:]:
            line["path"] = os.path.relpath(line["path"], folder)
    atomic_write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def load_known(path: str | os.PathLike[str] | None, depth: int) -> dict[Stamp, Any]:
    """What the index at ``path`` says, by address, size and time of change; nothing if there is
    none, or it looked less closely.

    Raises :class:`DatasetError` if the file is something else.
    """
    if path is None or not Path(path).exists():
        return {}
    head, lines = read_index(Path(path))
    if head.get("version") != _VERSION or head["verify"] < depth:
        return {}
    try:
        items = [
            BadVideo(**line) if "reason" in line else VideoEntry.from_json(line)
            for line in lines
            if "of" not in line
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"{path}: a damaged video index ({error!r}); delete it") from error
    return {(item.path, item.bytes, item.mtime_ns): item for item in items if item.bytes >= 0}
