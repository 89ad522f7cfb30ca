"""Balls and boxes that fall, slide and roll down ramps into each other, seen from the side.

Things move in the plane of the picture (x to the right, z up) and can turn in it, so that what
happens is in full view. Which factors a scene has is drawn independently; whether things collided
is read off the simulation.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ...core.rng import numpy_generator
from ...datasets.synthetic.generated import Factors, Row
from .scenes import COLOURS, HEAD, LIGHT, STEP, SceneConfig, Simulation, make_scenes, simulate

CLASSES: dict[str, tuple[str, ...]] = {
    "shape": ("ball", "box"),
    "colour": tuple(COLOURS),
    "count": ("1", "2", "3"),
    "ramp": ("none", "falls left", "falls right"),
    "start": ("at rest", "thrown left", "thrown right"),
    "gravity": ("low", "normal"),
    "collision": ("no", "yes"),
}
"""Each factor's classes; all are drawn, but for collision, which is what happened."""
_GRAVITY = (3.0, 9.81)
_SPEED = 1.2  # of a throw, metres per second
_RADIUS = 0.12


def make_physics(
    folder: str | Path,
    config: SceneConfig,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Factors:
    """Write the corpus; see :func:`.scenes.make_scenes`. Beside the class numbers a row has
    ``fall`` (metres that the first thing came down) and ``way`` (metres to the right).

    Raises:
        RenderError: this machine cannot draw. DatasetError: the folder holds other videos.
    """
    return make_scenes(
        folder, "physics", _make_one, config, CLASSES, processes=processes, progress=progress
    )


def draw(seed: int, number: int) -> tuple[dict[str, int], str, np.ndarray]:
    """Scene ``number``: its drawn class numbers, its MJCF, and each thing's speed to the right."""
    rng = numpy_generator(seed, "physics", number)
    labels = {
        name: int(rng.integers(len(names)))
        for name, names in CLASSES.items()
        if name != "collision"
    }
    count = labels["count"] + 1
    things = [
        _thing(i, labels, x, z)
        for i, (x, z) in enumerate(
            zip(
                rng.permutation([-0.5, 0.0, 0.5])[:count] + rng.uniform(-0.06, 0.06, count),
                rng.uniform(0.75, 1.35, count),
                strict=True,
            )
        )
    ]
    push = (0.0, -_SPEED, _SPEED)[labels["start"]]
    speeds = push * rng.uniform(0.7, 1.3, count)
    xml = f"""
<mujoco>
  <option timestep="{STEP}" gravity="0 0 -{_GRAVITY[labels["gravity"]]}"/>{HEAD}
  <default><geom condim="3" friction="0.6" solref="0.004 0.4"/></default>
  <worldbody>{LIGHT}
    <camera name="view" pos="0 -3.1 0.78" xyaxes="1 0 0 0 0 1" fovy="36"/>
    <geom type="plane" size="4 4 0.1" rgba="0.75 0.75 0.72 1"/>
    <geom type="box" size="4 0.02 3" pos="0 1.5 0" rgba="0.88 0.9 0.93 1"
          contype="0" conaffinity="0"/>
    <geom type="box" size="0.03 0.3 1.5" pos="-0.98 0 1.5" rgba="0.45 0.45 0.5 1"/>
    <geom type="box" size="0.03 0.3 1.5" pos="0.98 0 1.5" rgba="0.45 0.45 0.5 1"/>
    {_ramp(labels["ramp"], rng)}{"".join(things)}
  </worldbody>
</mujoco>"""
    return labels, xml, speeds


def _make_one(number: int, path: Path, *, config: SceneConfig) -> Row:
    labels, xml, speeds = draw(config.seed, number)
    scene = Simulation(xml)
    for i, speed in enumerate(speeds):
        scene.data.joint(f"x{i}").qvel[:] = speed
    before = scene.place("thing0")
    simulate(scene, path, config, lambda time: None)
    moved = scene.place("thing0") - before
    collided = any(all(name.startswith("thing") for name in pair) for pair in scene.touched)
    return {
        **labels,
        "collision": int(collided),
        "fall": float(-moved[2]),
        "way": float(moved[0]),
    }


def _thing(number: int, labels: dict[str, int], x: float, z: float) -> str:
    colour = list(COLOURS.values())[(labels["colour"] + number) % len(COLOURS)]
    side = _RADIUS * math.sqrt(math.pi) / 2  # a box with the ball's area in the picture
    shape = (
        f'type="sphere" size="{_RADIUS}"' if labels["shape"] == 0
        else f'type="box" size="{side:.4f} {side:.4f} {side:.4f}"'
    )  # fmt: skip
    return f"""
    <body name="thing{number}" pos="{x:.4f} 0 {z:.4f}">
      <joint name="x{number}" type="slide" axis="1 0 0"/>
      <joint type="slide" axis="0 0 1"/>
      <joint type="hinge" axis="0 1 0"/>
      <geom {shape} density="400" rgba="{colour}"/>
    </body>"""


def _ramp(kind: int, rng: np.random.Generator) -> str:
    angle = rng.uniform(18, 32)  # drawn in every scene, so that the rest does not depend on it
    if kind == 0:
        return ""
    lean = angle if kind == 2 else -angle
    return (
        f'<geom type="box" size="0.6 0.3 0.02" pos="0 0 0.38" euler="0 {lean:.2f} 0" '
        'rgba="0.55 0.45 0.35 1"/>'
    )
