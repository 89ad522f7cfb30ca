"""Films of pairs with token surprise laid over the frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ...core.errors import TubeletError
from ...datasets.video_writer import write_video
from .store import VoeRun

SIDE = 192
FPS = 8


def overlay(run: VoeRun, file: Path) -> tuple[bytes, str]:
    """An mp4 of a kept pair, possible left, impossible right, and its caption.

    Red is surprise, on one scale for both videos: each token's loss is the mean over the windows
    that predict its frame.

    Raises:
        TubeletError: a damaged file.
    """
    try:
        with np.load(file, allow_pickle=False) as kept:
            frames, tokens = kept["frames"], kept["tokens"].astype(np.float32)
            names, step = [str(n) for n in kept["names"]], int(kept["step"])
    except (OSError, KeyError, ValueError) as error:
        raise TubeletError(f"{file} cannot be read: {error}") from error
    facts = run.videos[run.index[names[1]]]
    maps = np.stack([heat(run, t, step, facts.first, frames.shape[1]) for t in tokens])
    high = np.nanquantile(maps, 0.995) if not np.isnan(maps).all() else 1.0
    low = np.nanquantile(maps, 0.5) if not np.isnan(maps).all() else 0.0
    strength = np.nan_to_num((maps - low) / max(high - low, 1e-9)).clip(0, 1)
    shown = []
    for t in range(frames.shape[1]):
        pair = [_blend(frames[v, t], strength[v, t]) for v in (0, 1)]
        picture = np.concatenate([pair[0], np.full((SIDE, 8, 3), 255, np.uint8), pair[1]], axis=1)
        if facts.t_observable is not None and t >= facts.t_observable:
            picture[-6:, SIDE + 8 :] = (200, 40, 40)
        shown.append(picture)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.mp4"
        write_video(path, shown, fps=FPS, crf=23)
        content = path.read_bytes()
    where = f"{facts.principle} {facts.condition}".strip()
    return content, f"{where}: possible left, impossible right; red bar from the event on"


def heat(run: VoeRun, tokens: np.ndarray, step: int, first: int, frames: int) -> np.ndarray:
    """Token surprise per frame ``[frames, h, w]`` of windows ``[windows, steps, h, w]``; NaN where
    nothing was predicted."""
    total = np.zeros((frames, *tokens.shape[2:]))
    count = np.zeros(frames)
    skip, stride = run.config.skip, run.config.stride
    for w, steps in enumerate(tokens):
        for s, value in enumerate(steps):
            if np.isnan(value).any():
                continue
            start = first + (w * stride + s * step) * skip
            total[start : start + step * skip] += value
            count[start : start + step * skip] += 1
    return np.where(count[:, None, None] > 0, total / np.maximum(count, 1)[:, None, None], np.nan)


def _blend(frame: np.ndarray, strength: np.ndarray) -> np.ndarray:
    picture = _to_side(frame).astype(np.float32)
    weight = 0.7 * _to_side(strength)[..., None]
    return (picture * (1 - weight) + weight * np.array([255, 30, 30])).astype(np.uint8)


def _to_side(image: np.ndarray) -> np.ndarray:
    """The nearest pixels of ``image [h, w, …]`` on SIDE × SIDE."""
    rows = np.arange(SIDE) * image.shape[0] // SIDE
    columns = np.arange(SIDE) * image.shape[1] // SIDE
    return image[rows][:, columns]
