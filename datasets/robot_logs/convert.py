"""Find out a robot log's format, and write it as a trajectory set."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...core.progress import progress
from ..trajectories import TrajectorySet, TrajectoryWriter
from .d4rl import D4RLLog
from .droid import DroidLog
from .hdf5 import open_h5
from .log import LogEpisode, RobotLog
from .minari import MinariLog
from .robomimic import RobomimicLog

FORMATS: dict[str, Callable[..., RobotLog]] = {
    "robomimic": RobomimicLog,
    "d4rl": D4RLLog,
    "minari": MinariLog,
    "droid": DroidLog,
}


def open_log(path: str | os.PathLike[str], kind: str | None = None, **options: Any) -> RobotLog:
    """Open a robot log.

    Args:
        path: an HDF5 file or a folder. kind: a key of ``FORMATS``; found out if None.
        options: those of the format's class: ``camera``, ``fps``, and of HDF5 ``proprio``.

    Raises:
        ConfigError: an unknown kind, or an option that its logs do not have. DatasetError: no known
            format, or a damaged log.
    """
    kind = detect(Path(path)) if kind is None else kind
    if kind not in FORMATS:
        raise ConfigError(f"kind = {kind!r}: choose one of {', '.join(FORMATS)}")
    known = set(inspect.signature(FORMATS[kind]).parameters) - {"path"}
    if unknown := sorted(options.keys() - known):
        raise ConfigError(
            f"{', '.join(unknown)}: no option of {kind} logs, which have {', '.join(sorted(known))}"
        )
    return FORMATS[kind](path, **options)


def detect(path: Path) -> str:
    """The format of a log, from what is in it: a key of ``FORMATS``.

    Raises:
        DatasetError: nothing there, or none of the formats.
    """
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    if path.is_dir():
        if (path / "data/main_data.hdf5").exists() or (path / "main_data.hdf5").exists():
            return "minari"
        if next(path.rglob("trajectory.h5"), None) is not None:
            return "droid"
        if (path / "meta/info.json").exists():
            raise DatasetError(
                f"{path} is a LeRobot set, which needs no conversion: name it as --data, or open "
                "it with TrajectorySet.open"
            )
    else:
        with open_h5(path) as file:
            keys = set(file)
        if "data" in keys:
            return "robomimic"
        if any(key.startswith("episode_") for key in keys):
            return "minari"
        if {"observations", "actions"} <= keys:
            return "d4rl"
    raise DatasetError(f"{path} is none of {', '.join(FORMATS)}")


def convert_log(
    log: RobotLog, out: str | os.PathLike[str], *, image_size: int = 64, task: str = ""
) -> TrajectorySet:
    """Write a log as a LeRobot v3 set with square frames, and open it.

    Frames are cropped to their middle square and resized. The set's ``proprio`` and ``action`` are
    the log's; its ``state`` is the simulator's where the log has one (robomimic), else the robot's
    in float64. The same call again goes on where an interrupted one stopped.

    Args:
        out: folder of the set. image_size: height and width, even. task: LeRobot's task text.

    Raises:
        DatasetError: a damaged or inconsistent episode, or a folder that holds something else.
    """
    first = log.episode(0)
    widths = _widths(first)
    writer = TrajectoryWriter.create(
        out,
        fps=log.fps,
        image_size=image_size,
        proprio_dim=widths["proprio"],
        state_dim=widths["state"],
        action_dim=widths["action"],
        metadata=log.facts,
        task=task,
    )
    missing = sorted(set(range(log.num_episodes)) - writer.finished())
    for number in progress(missing, "convert episodes"):
        episode = log.episode(number)
        if _widths(episode) != widths:
            raise DatasetError(
                f"{episode.name} has widths {_widths(episode)}, the first episode {widths}"
            )
        writer.add_episode(
            number,
            pixels=square(episode.pixels, image_size),
            proprio=episode.proprio,
            state=episode.state,
            action=episode.action,
        )
    writer.finalize()
    return TrajectorySet.open(out)


def square(frames: np.ndarray, size: int) -> np.ndarray:
    """The middle squares of frames uint8 ``[T, H, W, 3]``, resized to ``[T, size, size, 3]``."""
    from PIL import Image

    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cropped = frames[:, top : top + side, left : left + side]
    if side == size:
        return cropped
    method = Image.Resampling.BILINEAR  # Pillow's averages when it shrinks
    return np.stack([np.asarray(Image.fromarray(f).resize((size, size), method)) for f in cropped])


def _widths(episode: LogEpisode) -> dict[str, int]:
    return {name: getattr(episode, name).shape[1] for name in ("proprio", "state", "action")}
