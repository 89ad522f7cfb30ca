"""Files of a set: videos, truth and labels of a group, written whole or not at all.

The layout is described in :mod:`tubelet.envs.physics`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError
from ...core.io import atomic_path, atomic_write_text
from .track import Track

FORMAT, VERSION = "tubelet-voe", 1
TIME_STAMP = 946684800
"""Of every video file: 1 January 2000, so that none tells when it was made."""


def write_video(folder: Path, name: str, frames: np.ndarray) -> None:
    """``videos/<name>.npy`` in the part's ``folder``: uint8 [T, H, W, 3], uncompressed."""
    path = folder / "videos" / f"{name}.npy"
    with atomic_path(path) as temporary:
        np.save(temporary, np.ascontiguousarray(frames))
    os.utime(path, (TIME_STAMP, TIME_STAMP))


def write_truth(folder: Path, name: str, track: Track, visible: np.ndarray) -> None:
    """``truth/<name>.npz``: the track and the pixels in which each thing shows, int32 [T, N]."""
    with atomic_path(folder / "truth" / f"{name}.npz") as temporary:
        np.savez_compressed(
            temporary,
            pose=track.pose,
            present=track.present,
            visible=visible,
            camera=track.camera,
            light=track.light,
        )


def read_truth(folder: Path, name: str) -> tuple[Track, np.ndarray]:
    """The track of a video, and the pixels in which each thing shows, int32 [T, N]."""
    with np.load(folder / "truth" / f"{name}.npz", allow_pickle=False) as file:
        track = Track(file["pose"], file["present"], file["camera"], file["light"])
        return track, file["visible"]


def read_video(folder: Path, name: str) -> np.ndarray:
    """uint8 [T, H, W, 3], mapped from the file."""
    return np.load(folder / "videos" / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """One JSON object per line."""
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    atomic_write_text(path, text)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What :func:`write_lines` wrote.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): generate the set again") from error


def read_set(root: str | os.PathLike[str]) -> dict[str, Any]:
    """``dataset.json``.

    Raises:
        DatasetError: the folder holds no finished set, or one of another version.
    """
    path = Path(root) / "dataset.json"
    if not path.is_file():
        unfinished = (path.parent / "unfinished.json").is_file()
        what = "an unfinished set: run its generate command again" if unfinished else "no set"
        raise DatasetError(f"{root} holds {what} (there is no dataset.json)")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error})") from error
    if found.get("format") != FORMAT or found.get("version") != VERSION:
        raise DatasetError(
            f"{path} is format {found.get('format')!r} version {found.get('version')!r}; "
            f"this reads {FORMAT!r} version {VERSION}"
        )
    return found


def clean_up(folder: Path) -> None:
    """Remove the parts of a finished set, and the folder they were in."""
    parts = folder / "parts"
    for path in parts.glob("*.json"):
        path.unlink()
    if parts.is_dir():
        parts.rmdir()
