"""What generated MuJoCo scenes have in common: a config, a light, a simulation and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...datasets.synthetic.generated import Classes, Factors, Row, make_corpus
from ...datasets.video_writer import write_video
from ..rendering import Renderer, load_mujoco

COLOURS = {
    "red": "0.85 0.2 0.15 1",
    "yellow": "0.9 0.8 0.15 1",
    "green": "0.2 0.7 0.25 1",
    "blue": "0.2 0.35 0.85 1",
    "magenta": "0.75 0.25 0.7 1",
}
"""Name -> rgba of the things that a scene is about."""
HEAD = """
  <visual><quality shadowsize="0" offsamples="0"/><headlight active="0"/></visual>
  <statistic center="0 0 0" extent="1"/>
"""
LIGHT = """
    <light directional="true" pos="0 0 3" dir="0.3 0.4 -1" castshadow="false"
           ambient="0.4 0.4 0.4" diffuse="0.6 0.6 0.6" specular="0 0 0"/>
"""
STEP = 0.002
"""Seconds per step of the simulation."""


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """How many generated videos, and how large."""

    count: int = 1000
    """Videos."""
    size: int = 64
    """Height and width in pixels; even."""
    frames: int = 32
    """Frames per video."""
    fps: int = 16
    """Frames per second."""
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
        if self.size % 2:
            wrong.append(f"size={self.size} must be even")
        if not 0 <= self.crf <= 51:
            wrong.append(f"crf={self.crf} must lie between 0 and 51")
        if wrong:
            raise ConfigError("scenes: " + "; ".join(wrong))


class Simulation:
    """One scene under way.

    Attributes:
        model, data: MuJoCo's. touched: pairs of bodies' names that have touched so far.
    """

    def __init__(self, xml: str):
        self._mj: Any = load_mujoco()
        self.model: Any = self._mj.MjModel.from_xml_string(xml)
        self.data: Any = self._mj.MjData(self.model)
        self.touched: set[frozenset[str]] = set()
        self._mj.mj_forward(self.model, self.data)

    def frames(self, config: SceneConfig, act: Callable[[float], None]) -> Iterator[float]:
        """Yield the time of each frame in seconds, at that time; ``act(time)`` before each step."""
        for frame in range(config.frames):
            while self.data.time < frame / config.fps - STEP / 2:
                act(self.data.time)
                self._mj.mj_step(self.model, self.data)
                self._note_contacts()
            yield float(self.data.time)

    def place(self, body: str) -> np.ndarray:
        """float64 [3]: where the body's frame is now, metres."""
        self._mj.mj_kinematics(self.model, self.data)
        return self.data.body(body).xpos.copy()

    def pictures(self, config: SceneConfig, times: Iterator[float]) -> Iterator[np.ndarray]:
        """uint8 [size, size, 3] of the camera ``view`` at each of the times."""
        with Renderer(self.model, config.size, camera="view") as renderer:
            for _ in times:  # mj_forward would change what follows
                self._mj.mj_kinematics(self.model, self.data)
                self._mj.mj_camlight(self.model, self.data)
                yield renderer.render(self.model, self.data)

    def _note_contacts(self) -> None:
        bodies = self.model.geom_bodyid
        for pair in self.data.contact.geom:
            names = frozenset(self.model.body(int(bodies[geom])).name for geom in pair)
            if "world" not in names and len(names) == 2:
                self.touched.add(names)


def make_scenes(
    folder: str | Path,
    kind: str,
    make_one: Callable[..., Row],
    config: SceneConfig,
    classes: Classes,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Factors:
    """Write what is not there yet; see :func:`..datasets.synthetic.generated.make_corpus`.

    Args:
        make_one: ``make_one(number, path, config=config)``.
    """
    return make_corpus(
        folder,
        kind,
        partial(make_one, config=config),
        count=config.count,
        settings={key: value for key, value in asdict(config).items() if key != "count"},
        classes=classes,
        processes=processes,
        fresh=True,  # they draw
        progress=progress,
    )


def simulate(
    simulation: Simulation, path: Path, config: SceneConfig, act: Callable[[float], None]
) -> None:
    """Run the scene to its end, and film it to ``path`` unless that is there."""
    times = simulation.frames(config, act)
    if path.exists():  # written atomically: what is there is whole
        for _ in times:
            pass
        return
    pictures = simulation.pictures(config, times)
    write_video(path, pictures, fps=config.fps, crf=config.crf, gop=config.gop)
