"""``tubelet data convert``: robot logs as trajectory sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn robot logs (robomimic, D4RL or Minari HDF5, DROID folders) into a trajectory set for
    `tubelet train`. A killed run goes on when started again."""

    source: Positional[Path]
    """HDF5 file or folder."""
    out: Positional[Path]
    """Folder of the set (LeRobot v3)."""
    kind: Literal["auto", "robomimic", "d4rl", "minari", "droid"] = "auto"
    """Format; auto finds it out from what is in the log."""
    camera: str = ""
    """Which images (DROID: left, right or wrist); needed where there are several."""
    proprio: tuple[str, ...] = ()
    """Vectors that are joined as proprioception; all by default."""
    fps: int = 0
    """Frames per second, where the log does not say; 0 takes the log's own."""
    size: int = 64
    """Height and width of the frames in pixels; even."""
    task: str = ""
    """What the robot does, in words."""

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise ConfigError(f"size = {self.size}: frames of video have an even size")
        if self.fps < 0:
            raise ConfigError(f"fps = {self.fps}: must be above 0, or 0 for the log's own")


def convert(what: Convert) -> int:
    """Convert, and say what came of it."""
    from ..datasets.robot_logs import convert_log, open_log
    from ..datasets.robot_logs.convert import detect

    kind = detect(what.source) if what.kind == "auto" else what.kind
    given = {"camera": what.camera, "proprio": what.proprio, "fps": what.fps}
    log = open_log(what.source, kind, **{name: value for name, value in given.items() if value})
    chosen = ", ".join(f"{key} {value}" for key, value in log.facts.items() if key != "format")
    print(f"{kind}: {log.num_episodes} episodes at {log.fps} frames/s ({chosen})")
    found = convert_log(log, what.out, image_size=what.size, task=what.task)
    widths = {name: found.arrays()[name].shape[1] for name in ("proprio", "action")}
    print(
        f"{found.num_episodes} episodes written; proprioception has width {widths['proprio']}, "
        f"actions have width {widths['action']}"
    )
    print(f"set: {what.out}")
    return 0
