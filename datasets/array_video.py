"""Videos as uncompressed arrays: the training videos of ``tubelet voe generate``, read as they are.

A set of that command is a source of videos like any other, and stands for its training part alone:
the probes hold impossible videos, which nothing may be trained on. Files are uint8 ``[T, H, W, 3]``
(.npy); the rate is the set's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DatasetError, VideoDecodeError
from .timeline import VideoInfo
from .video_reader import VideoReader

CODEC = "npy"
"""The codec in the :class:`VideoInfo` of an array."""
_FORMAT, _TRAIN, _SUFFIX = "tubelet-voe", "train", ".npy"


def is_array(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of an array."""
    return os.fspath(path).endswith(_SUFFIX)


class ArrayReader(VideoReader):
    """Frames of an array; to the bit where they are not scaled."""

    backend = CODEC

    def _decode(self, wanted: np.ndarray, size: int | None) -> Iterator[Any]:
        import av

        frames = open_array(self.path)
        for number in wanted.tolist():
            yield av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[number]), format="rgb24")


def training_arrays(source: Path) -> list[str] | None:
    """Paths of the training videos of the set ``source``, or of the set whose training part it is;
    None for any other folder.

    Raises:
        DatasetError: the set's probes, or a set without training videos.
    """
    for root, part in ((source, _TRAIN), (source.parent, source.name)):
        if _facts(root) is None or part not in (_TRAIN, "probe"):
            continue
        if part != _TRAIN:
            raise DatasetError(
                f"{source}: probes, half of them impossible, are for scoring; train on "
                f"{root / _TRAIN}"
            )
        found = sorted((root / _TRAIN / "videos").glob(f"*{_SUFFIX}"))
        if not found:
            raise DatasetError(f"{root} has no training videos: generate it with --train")
        return [str(path.absolute()) for path in found]
    return None


def scan_array(path: str | os.PathLike[str]) -> VideoInfo:
    """What a reader needs to know about an array.

    Raises :class:`VideoDecodeError` for another array than uint8 ``[T, H, W, 3]``, a truncated file
    or one outside a set, whose rate nothing tells.
    """
    frames = open_array(path)
    facts = _facts(Path(path).parent.parent.parent) or {}
    rate = facts.get("fps", 0)
    if not isinstance(rate, int | float) or not rate > 0:
        raise VideoDecodeError(path, "an array whose rate is unknown: no dataset.json", CODEC)
    numbers = np.arange(len(frames), dtype=np.int64)
    return VideoInfo(
        pts=numbers,
        keyframes=numbers,
        time_base=1 / Fraction(rate),
        height=frames.shape[1],
        width=frames.shape[2],
        stream=0,
        codec=CODEC,
    )


def open_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The frames, mapped into memory; raises as :func:`scan_array`."""
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = f"truncated or damaged: {error}" if os.path.exists(path) else "no such file"
        raise VideoDecodeError(path, reason, CODEC) from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        found = f"{frames.dtype} {list(frames.shape)}"
        raise VideoDecodeError(path, f"{found}, where uint8 [T, H, W, 3] is wanted", CODEC)
    return frames


def _facts(root: Path) -> dict[str, Any] | None:
    """``dataset.json`` of a set; None without one, or of another maker."""
    try:
        facts = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("format") == _FORMAT else None
