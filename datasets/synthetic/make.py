"""A corpus of moving shapes, with a table of their factors beside it; see :mod:`.generated`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from ...core.errors import ConfigError
from ..video_writer import write_video
from .generated import Factors, Row, load_factors, make_corpus
from .moving_shapes import CLASSES, Look, draw_scene, hidden_share, paint
from .nuisances import Nuisances, disturbed, nuisance_row

__all__ = [
    "Factors",
    "Look",
    "MovingShapesConfig",
    "Nuisances",
    "load_factors",
    "make_moving_shapes",
]


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
    look: Look = field(default_factory=Look)
    """Size and pace of the shapes, texture of the ground."""
    nuisances: Nuisances = field(default_factory=Nuisances)
    """A colour of the ground and a patch of noise; none by default."""
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


def make_moving_shapes(
    folder: str | Path,
    config: MovingShapesConfig,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Factors:
    """Write what is not there yet, and return the table of all of it.

    Beside the class numbers of its factors a row has ``velocity_y``, ``velocity_x``, ``camera_y``,
    ``camera_x`` (pixels per frame, y downwards), ``hidden`` (share of the shapes' area behind
    bars), and what :func:`.nuisances.nuisance_row` says.

    Args:
        processes: see :func:`..parallel.parallel_map`.

    Raises:
        DatasetError: the folder holds videos of other settings.
    """
    return make_corpus(
        folder,
        "moving-shapes",
        partial(_make_one, config=config),
        count=config.count,
        settings={
            key: value
            for key, value in asdict(config).items()
            if key != "count" and (key != "nuisances" or config.nuisances.on)
        },
        classes=CLASSES,
        processes=processes,
        progress=progress,
    )


def _make_one(number: int, path: Path, *, config: MovingShapesConfig) -> Row:
    """Write video ``number`` unless it is there, and return its row of the table."""
    scene = draw_scene(
        config.seed,
        number,
        height=config.size,
        width=config.width or config.size,
        hold=config.hold,
        look=config.look,
    )
    if not path.exists():  # written atomically: what is there is whole
        whose = {"seed": config.seed, "number": number}
        painted = ((paint(scene, time), time) for time in range(config.frames))
        frames = (
            disturbed(frame, scene, config.nuisances, **whose, time=time)
            if config.nuisances.on
            else frame
            for frame, time in painted
        )
        write_video(path, frames, fps=config.fps, crf=config.crf, gop=config.gop)
    motion = {
        f"{what}_{axis}": float(value)
        for what, pair in (("velocity", scene.velocity), ("camera", scene.camera))
        for axis, value in zip("yx", pair, strict=True)
    }
    hidden = hidden_share(scene, config.frames)
    extra = nuisance_row(config.nuisances, seed=config.seed, number=number, frames=config.frames)
    return {**scene.labels, **motion, "hidden": hidden, **extra}
