"""``tubelet voe render``: draw stored scenes again, at any size, as a picture or an animation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...core.io import atomic_path
from .layout import read_lines, read_set, read_truth


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """Draw the videos of one group side by side, from their stored states.

    A .gif shows them moving, a .png as rows of frames. The group is the first one that fits.
    """

    data: str = "runs/voe"
    """Folder of the set."""
    out: str = "runs/voe.gif"
    """File to write: .gif or .png."""
    part: str = "probe"
    """probe or train."""
    group: str = ""
    """A group's name; default: the first of the principle and condition."""
    principle: str = ""
    """A principle; default: any."""
    condition: str = ""
    """visible or occluded; default: any."""
    size: int = 0
    """Pixels; default: as stored."""

    def __post_init__(self) -> None:
        if Path(self.out).suffix not in (".gif", ".png"):
            raise ConfigError(f"out = {self.out!r}: must end in .gif or .png")
        if self.size < 0:
            raise ConfigError(f"size = {self.size}: must be at least 0")


def render(config: RenderConfig) -> str:
    """Write the picture; returns a line that says what it shows.

    Raises:
        DatasetError: no finished set, or nothing in it fits.
    """
    told = read_set(config.data)
    folder = Path(config.data) / config.part
    records = _choose(config, read_lines(folder / "labels.jsonl"))
    videos = draw_again(folder, records, config.size or told["size"])
    shown = [videos[record["video"]] for record in records]
    with atomic_path(config.out) as path:
        if path.suffix == ".gif":
            _write_gif(path, np.concatenate(shown, axis=2), told["fps"])
        else:
            _write_sheet(path, shown)
    first, recipes = records[0], ", ".join(r["recipe"] for r in records)
    return f"{config.out}: {first['principle']}/{first['condition']} {first['group']} ({recipes})"


def draw_again(folder: Path, records: list[dict[str, Any]], size: int) -> dict[str, np.ndarray]:
    """The videos of one group from their stored states: uint8 [T, size, size, 3] by name."""
    from .draw import Painter

    xml = (folder / "scenes" / f"{records[0]['group']}.xml").read_text(encoding="utf-8")
    painter = Painter(xml, [thing["name"] for thing in records[0]["things"]], size)
    tracks = [read_truth(folder, record["video"])[0] for record in records]
    names = [record["video"] for record in records]
    return dict(zip(names, painter.frames(tracks), strict=True))


def _choose(config: RenderConfig, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = {"group": config.group, "principle": config.principle, "condition": config.condition}
    fits = [r for r in records if all(not v or r[key] == v for key, v in wanted.items())]
    if not fits:
        asked = ", ".join(f"{k} {v!r}" for k, v in wanted.items() if v) or "anything"
        raise DatasetError(f"{config.data}/{config.part} holds no group of {asked}")
    group = [r for r in records if r["group"] == fits[0]["group"]]
    return sorted(group, key=lambda record: record["recipe"])


def _write_gif(path: Path, frames: np.ndarray, fps: int) -> None:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)


def _write_sheet(path: Path, videos: list[np.ndarray]) -> None:
    """One row per video, ten frames spread over its length."""
    from PIL import Image

    times = np.linspace(0, len(videos[0]) - 1, 10).round().astype(int)
    rows = [np.concatenate([video[t] for t in times], axis=1) for video in videos]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)
