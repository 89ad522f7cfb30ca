"""Write a corpus of generated videos, with a table of their factors beside them.

    videos/000000.mp4 …   H.264, one per scene
    factors.parquet       a row per video: path, class numbers, velocities, share hidden
    dataset.json          what was asked for, and the names of the classes

Video i is a function of the settings and of i alone. So several processes write the same files as
one, a run that was killed goes on where it stopped, and a larger ``count`` adds to what is there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...core.io import atomic_path, atomic_write_json
from ..parallel import parallel_map
from ..video_writer import write_video
from .moving_shapes import CLASSES, draw_scene, hidden_share, paint

_FORMAT = "tubelet-moving-shapes"


@dataclass(frozen=True, kw_only=True)
class MovingShapesConfig:
    """What :func:`make_moving_shapes` writes."""

    count: int = 1000
    """Videos."""
    size: int = 64
    """Height in pixels, and width unless that is given; even."""
    width: int | None = None
    """Width in pixels, even."""
    frames: int = 32
    """Frames per video."""
    fps: int = 16
    """Frames per second."""
    hold: tuple[str, ...] = ()
    """Factors that do not vary: direction, speed, shape, colour, count, occlusion, camera."""
    gop: int = 10
    """A keyframe every so many frames."""
    crf: int = 18
    """Compression: 0 (lossless) to 51."""
    seed: int = 0
    """Names the stream of scenes."""

    def __post_init__(self) -> None:
        wrong = [
            f"{key}={getattr(self, key)} must be at least {least}"
            for key, least in {"count": 1, "size": 16, "frames": 1, "fps": 1, "gop": 1}.items()
            if getattr(self, key) < least
        ]
        width = self.size if self.width is None else self.width
        if self.size % 2 or width % 2 or 2 * width <= self.size:
            wrong.append(
                f"{self.size}x{width} pixels: both must be even, and the width above half the size"
            )
        if not 0 <= self.crf <= 51:
            wrong.append(f"crf={self.crf} must lie between 0 and 51")
        if unknown := sorted(set(self.hold) - set(CLASSES)):
            wrong.append(f"hold={', '.join(unknown)}: the factors are {', '.join(CLASSES)}")
        if wrong:
            raise ConfigError("moving-shapes: " + "; ".join(wrong))


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """The table beside a generated corpus.

    Attributes:
        paths: the videos, in order. columns: name -> ``[V]``; int64 class numbers of the factors
        in ``classes``, and float64 ``velocity_y``, ``velocity_x``, ``camera_y``, ``camera_x``
        (pixels per frame, y downwards) and ``hidden`` (share of the shapes' area behind bars).
        classes: factor -> names of its classes.
    """

    paths: tuple[str, ...]
    columns: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]


def make_moving_shapes(
    folder: str | Path,
    config: MovingShapesConfig,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Factors:
    """Write what is not there yet, and return the table of all of it.

    Args:
        processes: see :func:`..parallel.parallel_map`.

    Raises:
        DatasetError: the folder holds videos of other settings.
    """
    folder = Path(folder)
    _claim(folder, config)
    work = partial(_make_one, folder=str(folder), config=config)
    label = "draw videos" if progress else ""
    numbers = range(config.count)
    rows = list(parallel_map(work, numbers, processes=processes, description=label))
    _write_table(folder / "factors.parquet", rows)
    return load_factors(folder)


def load_factors(folder: str | Path) -> Factors:
    """The table of the corpus in ``folder``.

    Raises:
        DatasetError: there is none, or it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    folder = Path(folder)
    try:
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        table = pyarrow.parquet.read_table(folder / "factors.parquet")
        classes = {name: tuple(values) for name, values in about["classes"].items()}
    except (OSError, ValueError, KeyError, AttributeError, pyarrow.ArrowException) as error:
        raise DatasetError(
            f"{folder}: no readable table of factors ({error}); run tubelet data make again"
        ) from error
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "path"}
    paths = tuple(str(folder.absolute() / path) for path in table["path"].to_pylist())
    return Factors(paths=paths, columns=columns, classes=classes)


def _claim(folder: Path, config: MovingShapesConfig) -> None:
    """Say in ``dataset.json`` what the folder holds; refuse one that holds something else."""
    path = folder / "dataset.json"
    settings = json.loads(json.dumps({k: v for k, v in asdict(config).items() if k != "count"}))
    about = {"format": _FORMAT, "settings": settings, "classes": CLASSES}
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            found = there["settings"] if there["format"] == _FORMAT else {}
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path}: not readable ({error!r}); use another folder") from error
        differ = [
            f"{key} is {found.get(key)!r} there and {value!r} here"
            for key, value in settings.items()
            if found.get(key) != value
        ]
        if differ:
            raise DatasetError(f"{folder} holds other videos: {'; '.join(differ)}. Use another one")
    elif folder.exists() and any(folder.iterdir()):
        raise DatasetError(f"{folder} is not empty and holds no generated videos: use another one")
    atomic_write_json(path, about)


def _make_one(number: int, *, folder: str, config: MovingShapesConfig) -> dict[str, Any]:
    """Write video ``number`` unless it is there, and return its row of the table."""
    scene = draw_scene(
        config.seed,
        number,
        height=config.size,
        width=config.width or config.size,
        hold=config.hold,
    )
    name = f"videos/{number:06d}.mp4"
    path = Path(folder) / name
    if not path.exists():  # written atomically: what is there is whole
        frames = (paint(scene, time) for time in range(config.frames))
        write_video(path, frames, fps=config.fps, crf=config.crf, gop=config.gop)
    motion = {
        f"{what}_{axis}": float(value)
        for what, pair in (("velocity", scene.velocity), ("camera", scene.camera))
        for axis, value in zip("yx", pair, strict=True)
    }
    hidden = hidden_share(scene, config.frames)
    return {"path": name, **scene.labels, **motion, "hidden": hidden}


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
