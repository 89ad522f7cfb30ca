"""Pictures of a training run's clips: what its masks hide, and its features in colour."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DatasetError, VideoDecodeError
from ..datasets.clips import clip_frames, num_starts
from ..datasets.decode import open_video
from ..datasets.image_file import read_image
from ..datasets.video_writer import write_video
from ..vjepa.masked import draw
from ..vjepa.positions import Grid
from ..vjepa.pretrain import PretrainConfig, PretrainedEncoder
from ..vjepa.pretrain_recipe import PretrainRunConfig
from .frozen.pictures import pca_frames

TRIED = 20
"""Files tried to find one that can be read."""
SHOWN = 8
"""Moments of a clip in a strip, at most."""
SIDE = 128
"""Frames are enlarged to about so many pixels, by whole factors."""
FILM_FPS = 6
_TINT = np.array([59, 139, 208], np.float32)
_GAP = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A clip of the corpus: uint8 ``[T, H, W, 3]``, and the file it is from."""

    video: Tensor
    path: str


def example_clip(run: Path, config: PretrainRunConfig) -> Example:
    """A clip from the middle of the first file of a run's corpus that is there and long enough.

    Raises:
        DatasetError: the run keeps no index of its corpus, or none of its first files gives a clip.
    """
    clips, reason = config.clips, "it lists no file"
    paths = _indexed(run)
    for path in paths[:TRIED]:
        try:
            if config.images:
                return Example(
                    video=torch.from_numpy(read_image(path, clips.size)[None]), path=path
                )
            with open_video(path, clips.backend) as video:
                starts = num_starts(video.timestamps, clips)
                if starts:
                    numbers = clip_frames(video.timestamps, starts // 2, clips)
                    frames = torch.from_numpy(video.get_frames(numbers, clips.size))
                    return Example(video=frames, path=path)
                reason = f"{path}: too short for a clip"
        except VideoDecodeError as error:
            reason = str(error)
    raise DatasetError(f"no clip in the first {min(len(paths), TRIED)} files ({reason})")


def _indexed(run: Path) -> list[str]:
    """Paths of the usable files that the run's own index of its corpus names."""
    files = sorted(path for path in run.glob(".corpus.jsonl*") if path.is_file())
    if not files:
        raise DatasetError(f"{run} keeps no index of its corpus")
    paths = []
    try:
        for line in (line for file in files for line in file.read_text("utf-8").splitlines()):
            entry = json.loads(line)
            if "path" in entry and "reason" not in entry:
                paths.append(str(entry["path"]))
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{files[0]}: not readable ({error}); delete it") from error
    return paths


def mask_strip(video: Tensor, config: PretrainConfig) -> tuple[bytes, list[str]]:
    """A PNG of the clip and of what each kind of mask hides of it, and the kinds' names.

    Args:
        video: uint8 ``[T, H, W, 3]``. config: whose masks are drawn, as for its first sample.
    """
    grid = config.encoder.grid(*video.shape[:3])
    kinds = draw(config.masks, grid, 1, seed=config.seed, first_sample=0)
    names = ["short-range masks", "long-range masks"]
    if config.masks.style == "image":
        names = ["the target blocks"]
    rows = [video.numpy()]
    for selection in kinds:
        hidden = torch.cat([ids[0] for ids in selection.targets])
        rows.append(masked_frames(video, grid, selection.context[0], hidden))
    return strip(rows, grid), names[: len(kinds)]


def masked_frames(video: Tensor, grid: Grid, context: Tensor, target: Tensor) -> np.ndarray:
    """uint8 ``[T, H, W, 3]``: tokens of ``context`` as they are, those of ``target`` tinted, and
    the rest grey.

    Args:
        video: uint8 ``[T, H, W, 3]``. context, target: token ids int64, of ``grid``.
    """
    role = torch.zeros(grid.size, dtype=torch.int64)  # 0: neither, 1: seen, 2: to be predicted
    role[target] = 2
    role[context] = 1
    blocks = role.reshape(grid.t, grid.h, grid.w).numpy()
    for axis, size in enumerate(video.shape[:3]):
        blocks = blocks.repeat(size // blocks.shape[axis], axis=axis)
    pixels = video.numpy().astype(np.float32)
    grey = 0.25 * pixels.mean(-1, keepdims=True) + 0.75 * 128
    kinds = np.stack([np.broadcast_to(grey, pixels.shape), pixels, 0.3 * pixels + 0.7 * _TINT])
    shown = np.take_along_axis(kinds, blocks[None, ..., None], axis=0)[0]
    return np.rint(shown).astype(np.uint8)


def feature_pictures(encoder: PretrainedEncoder, video: Tensor) -> tuple[bytes, bytes | None]:
    """A PNG strip and a film (mp4; None of an image) of a clip and its features in colour.

    Raises ConfigError where a clip has too few tokens; see :func:`.frozen.pictures.pca_frames`.
    """
    colours = pca_frames(encoder, video)
    rows = [video.numpy(), colours]
    picture = strip(rows, encoder.grid(video[None]))
    if len(video) == 1:
        return picture, None
    both = np.concatenate([_enlarged(row) for row in rows], axis=2)
    even = both[:, : both.shape[1] // 2 * 2, : both.shape[2] // 2 * 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, even, fps=FILM_FPS)
        return picture, path.read_bytes()


def strip(rows: list[np.ndarray], grid: Grid) -> bytes:
    """A PNG with a row for each of ``rows`` (uint8 ``[T, H, W, 3]``), a column for a moment.

    At most :data:`SHOWN` moments, evenly spread; the first frame of each token's.
    """
    from PIL import Image

    length = rows[0].shape[0] // grid.t
    moments = np.unique(np.linspace(0, grid.t - 1, min(grid.t, SHOWN)).round().astype(int)) * length
    lines = []
    for row in rows:
        frames = _enlarged(row[moments])
        frames = np.pad(frames, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
        lines.append(np.concatenate(list(frames), axis=1))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(buffer, format="PNG")
    return buffer.getvalue()


def _enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames ``[T, H, W, 3]`` enlarged by a whole factor to about :data:`SIDE` pixels."""
    factor = max(1, SIDE // frames.shape[1])
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)
