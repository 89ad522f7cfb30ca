"""What a run knows of its corpus: which videos, which were bad, and how bright their pixels are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DatasetError, VideoDecodeError
from ..core.io import atomic_write_json, atomic_write_text
from ..core.rng import numpy_generator
from ..datasets.corpus import CorpusIndex
from ..datasets.decode import open_video
from .encoder import EncoderConfig
from .motion import PyramidConfig

STATS_FRAMES = 128
Stats = tuple[tuple[float, float, float], tuple[float, float, float]]


def pixel_stats(index: CorpusIndex, *, frames: int = STATS_FRAMES, seed: int = 0) -> Stats:
    """Mean and deviation per channel of the corpus's pixels in [0, 1], rounded to 4 places.

    Measured on ``frames`` frames drawn from all frames of all videos (or images); the same corpus
    and seed give the same numbers. A deviation is at least 0.05, so that a nearly constant
    channel is not blown up. Frames that cannot be decoded are left out.

    Raises:
        DatasetError: none of them can be decoded.
    """
    rng = numpy_generator(seed, "pixel-stats")
    ends = np.cumsum([entry.num_frames for entry in index.entries])
    rows = np.sort(rng.choice(ends[-1], min(frames, int(ends[-1])), replace=False))
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for row in rows:
        number = int(np.searchsorted(ends, row, side="right"))
        entry = index[number]
        try:
            with open_video(entry.path, info=entry.info) as video:
                frame = video.get_frames([int(row - ends[number] + entry.num_frames)])
        except VideoDecodeError:
            continue
        pixels = frame.reshape(-1, 3) / 255.0
        sums, squares = sums + pixels.sum(0), squares + (pixels**2).sum(0)
        count += len(pixels)
    if count == 0:
        raise DatasetError(f"{index.source}: none of {len(rows)} sampled frames can be decoded")
    mean = sums / count
    std = np.sqrt((squares / count - mean**2).clip(0)).clip(0.05)
    return _triple(mean), _triple(std)


def write_corpus(run: Path, index: CorpusIndex, encoder: EncoderConfig | PyramidConfig) -> None:
    """Write ``corpus.txt`` (for people) and ``corpus.json`` (the same, with a digest and the
    encoder's pixel statistics) into a run folder.

    Raises:
        DatasetError: the run was started on another corpus.
    """
    names = [[entry.path, entry.bytes, entry.num_frames] for entry in index.entries]
    facts: dict[str, Any] = {
        "source": index.source,
        "videos": len(index),
        "frames": sum(entry.num_frames for entry in index.entries),
        "sha256": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "bad": {bad.path: bad.reason for bad in index.quarantine},
        "ignored": list(index.ignored),
        "duplicates": {copy.path: copy.of for copy in index.duplicates},
        "pixel_mean": list(encoder.pixel_mean),
        "pixel_std": list(encoder.pixel_std),
    }
    path = run / "corpus.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["sha256"] != facts["sha256"]:
            raise DatasetError(
                f"cannot resume {run}: {index.source} held {before['videos']} usable videos with "
                f"{before['frames']} frames, now {facts['videos']} with {facts['frames']}; "
                "restore its files or start a new run"
            )
    atomic_write_json(path, facts)
    atomic_write_text(run / "corpus.txt", index.report() + "\n")


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue
