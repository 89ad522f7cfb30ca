"""Generated images and videos whose every factor is known: what a frozen probe is asked to read.

>>> data = generate("runs/factors", FactorConfig(kind="videos"))               # doctest: +SKIP
>>> data.names[:3], data.values.shape, data.clips("test").shape                # doctest: +SKIP
(('ball_x', 'ball_y', 'ball_size'), (2000, 25), (1000, 8, 64, 64, 3))

The scenes are those of :mod:`.factor_scenes`.

    train/000000.png …   the scenes to pretrain on      (.mp4 for videos)
    test/000000.png …    the scenes to probe
    factors.npz          values float32 [N, F], and names, groups, files
    factors.json         the config that made them
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from ..core.errors import ConfigError, DatasetError
from ..core.io import atomic_path, atomic_write_json
from ..core.progress import progress
from ..core.rng import numpy_generator
from ..datasets.decode import open_video
from ..datasets.image_file import read_image
from ..datasets.video_writer import write_video
from .factor_scenes import Painter, draw_scene, factor_names

Split = Literal["train", "test"]
FPS = 10
"""Of the videos."""


@dataclass(frozen=True, kw_only=True)
class FactorConfig:
    """What :func:`generate` makes."""

    kind: Literal["images", "videos"] = "images"
    """Images of still scenes, or H.264 videos of moving ones."""
    train: int = 1000
    """Scenes to pretrain on."""
    test: int = 1000
    """Scenes to probe, seen by no encoder before."""
    size: int = 64
    """Height and width in pixels."""
    frames: int = 8
    """Frames of a video."""
    suffix: Literal["png", "jpg"] = "png"
    """Of images; JPEG is written at quality 90."""
    seed: int = 0
    """Names the scenes: scene i of a split does not depend on how many there are."""

    def __post_init__(self) -> None:
        for key in ("train", "test", "size", "frames"):
            if getattr(self, key) < 1:
                raise ConfigError(f"factors: {key}={getattr(self, key)} must be at least 1")
        if self.kind == "videos" and self.size % 2:
            raise ConfigError(f"factors: size={self.size}: H.264 needs an even size")

    @property
    def length(self) -> int:
        """Frames of a clip: 1 for images."""
        return self.frames if self.kind == "videos" else 1


@dataclass(frozen=True, kw_only=True)
class FactorData:
    """Generated files and their factors.

    Attributes:
        folder, config: where they are and what made them. names, groups: of each factor.
        values: float32 [N, F]. files: N paths below the folder, ``train/…`` before ``test/…``.
    """

    folder: Path
    config: FactorConfig
    names: tuple[str, ...]
    groups: tuple[str, ...]
    values: np.ndarray
    files: tuple[str, ...]

    def group(self, group: str, split: Split = "test") -> tuple[np.ndarray, tuple[str, ...]]:
        """Values float32 [M, F'] of one group of factors, and their names."""
        columns = [i for i, g in enumerate(self.groups) if g == group]
        rows = [i for i, file in enumerate(self.files) if file.startswith(f"{split}/")]
        return self.values[np.ix_(rows, columns)], tuple(self.names[i] for i in columns)

    def clips(self, split: Split = "test") -> np.ndarray:
        """Decoded frames of one split, uint8 [M, T, size, size, 3]; T is 1 for images."""
        paths = [self.folder / file for file in self.files if file.startswith(f"{split}/")]
        size, frames = self.config.size, self.config.length
        clips = np.empty((len(paths), frames, size, size, 3), np.uint8)
        for clip, path in zip(clips, paths, strict=True):
            if self.config.kind == "images":
                clip[0] = read_image(path)
                continue
            with open_video(path) as video:
                clip[:] = video.get_frames(range(frames))
        return clips


def generate(folder: str | os.PathLike[str], config: FactorConfig) -> FactorData:
    """The data of ``config`` in ``folder``; made unless it is there already, complete.

    Raises:
        DatasetError: the folder holds the data of another config. RenderError: no OpenGL.
    """
    folder = Path(folder)
    if (folder / "factors.json").exists():
        data = open_factors(folder)
        if data.config != config:
            raise DatasetError(
                f"{folder} holds the data of {data.config}, not of {config}; name another folder"
            )
        return data
    names, groups = factor_names(config.kind)
    counts: dict[Split, int] = {"train": config.train, "test": config.test}
    jobs = [(split, i) for split, count in counts.items() for i in range(count)]
    files, values = [], np.empty((len(jobs), len(names)), np.float32)
    suffix = "mp4" if config.kind == "videos" else config.suffix
    with Painter(config.size) as painter:
        for row, (split, i) in enumerate(progress(jobs, f"draw {config.kind}")):
            scene = draw_scene(numpy_generator(config.seed, "factors", split, i), config.length)
            files.append(f"{split}/{i:06d}.{suffix}")
            values[row] = [scene[name] for name in names]
            _write(folder / files[-1], painter.film(scene, config.length))
    with atomic_path(folder / "factors.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, values=values, names=names, groups=groups, files=files)
    atomic_write_json(folder / "factors.json", asdict(config))  # last: says that all is there
    return open_factors(folder)


def open_factors(folder: str | os.PathLike[str]) -> FactorData:
    """What :func:`generate` wrote. Raises DatasetError if it is missing or damaged."""
    folder = Path(folder)
    try:
        config = FactorConfig(**json.loads((folder / "factors.json").read_text(encoding="utf-8")))
        with np.load(folder / "factors.npz", allow_pickle=False) as stored:
            texts = {k: tuple(map(str, stored[k])) for k in ("names", "groups", "files")}
            values = stored["values"]
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder}: no generated factors, or damaged ({error}); delete it and make it again"
        ) from error
    return FactorData(folder=folder, config=config, values=values, **texts)


def _write(path: Path, film: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        write_video(path, film, fps=FPS)
        return
    from PIL import Image

    quality: dict[str, Any] = {"compress_level": 1} if path.suffix == ".png" else {"quality": 90}
    Image.fromarray(film[0]).save(path, **quality)
