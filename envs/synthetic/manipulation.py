"""A gripper above a table that pushes, or carries, one of several blocks: seen from above.

A script moves the gripper: to the side of the chosen block, then along a straight line. A push
moves the block by contact; a carry closes the two fingers around it first; a miss passes beside it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ...core.rng import numpy_generator
from ...datasets.synthetic.generated import Factors, Row
from .scenes import COLOURS, HEAD, LIGHT, STEP, SceneConfig, Simulation, make_scenes, simulate

CLASSES: dict[str, tuple[str, ...]] = {
    "action": ("push", "carry", "miss"),
    "direction": ("0", "45", "90", "135", "180", "225", "270", "315"),  # degrees, 90 is up
    "speed": ("slow", "fast"),
    "shape": ("box", "disc"),
    "colour": tuple(COLOURS),
    "count": ("1", "2", "3"),
    "touched": ("no", "yes"),
}
"""Each factor's classes; shape and colour are the chosen block's. All are drawn, but for touched,
which is what happened between gripper and block."""
_HALF = 0.06  # half a block, metres
_FINGER = 0.02
_REACH = 0.2  # from the block's middle to where the gripper sets out
_SPEEDS = (0.25, 0.4)  # metres per second, on the way with the block
_APPROACH, _CLOSE = 0.5, 0.25  # seconds until it is there, and to close the fingers


def make_manipulation(
    folder: str | Path,
    config: SceneConfig,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Factors:
    """Write the corpus; see :func:`.scenes.make_scenes`. Beside the class numbers a row has
    ``block_x`` and ``block_y``: how far the chosen block moved, metres to the right and up.

    Raises:
        RenderError: this machine cannot draw. DatasetError: the folder holds other videos.
    """
    return make_scenes(
        folder, "manipulation", _make_one, config, CLASSES, processes=processes, progress=progress
    )


def draw(seed: int, number: int) -> tuple[dict[str, int], str, np.ndarray]:
    """Scene ``number``: its drawn class numbers, its MJCF, and where the chosen block lies [2]."""
    rng = numpy_generator(seed, "manipulation", number)
    labels = {
        name: int(rng.integers(len(names))) for name, names in CLASSES.items() if name != "touched"
    }
    angle = _angle(labels)
    line = np.array([math.cos(angle), math.sin(angle)])
    block = -0.18 * line + rng.uniform(-0.04, 0.04, 2)
    blocks = [_block(0, labels["shape"], labels["colour"], block)]
    side = np.array([-line[1], line[0]])
    for i in range(labels["count"]):  # others lie beside the way
        place = block + (0.36 if i == 0 else -0.36) * side + rng.uniform(-0.03, 0.03, 2)
        colour = (labels["colour"] + 1 + int(rng.integers(4))) % len(COLOURS)
        blocks.append(_block(i + 1, int(rng.integers(2)), colour, place))
    fingers = "".join(
        f'<body name="finger{i}"><joint name="grip{i}" type="slide" axis="0 {sign} 0" damping="2"/>'
        f'<geom type="box" size="0.05 {_FINGER} 0.04" mass="0.2" rgba="0.2 0.2 0.22 1"/></body>'
        for i, sign in enumerate((1, -1))
    )
    xml = f"""
<mujoco>
  <option timestep="{STEP}" gravity="0 0 0"/>{HEAD}
  <default><geom condim="3" friction="1"/><position kp="400" kv="40"/></default>
  <worldbody>{LIGHT}
    <camera name="view" pos="0 0 1.6" fovy="45"/>
    <geom type="plane" size="2 2 0.1" pos="0 0 -0.06" rgba="0.8 0.76 0.68 1"
          contype="0" conaffinity="0"/>
    <body name="gripper" euler="0 0 {math.degrees(angle):.3f}">
      <joint name="along" type="slide" axis="1 0 0"/>
      <joint name="across" type="slide" axis="0 1 0"/>
      <geom type="box" size="0.015 0.14 0.03" pos="-0.06 0 0.05" mass="1"
            rgba="0.35 0.35 0.4 1" contype="0" conaffinity="0"/>
      {fingers}
    </body>{"".join(blocks[: labels["count"] + 1])}
  </worldbody>
  <actuator>
    <position name="along" joint="along"/><position name="across" joint="across"/>
    <position name="grip0" joint="grip0" kp="60" kv="4"/>
    <position name="grip1" joint="grip1" kp="60" kv="4"/>
  </actuator>
</mujoco>"""
    return labels, xml, block


def _make_one(number: int, path: Path, *, config: SceneConfig) -> Row:
    labels, xml, block = draw(config.seed, number)
    scene = Simulation(xml)
    before = scene.place("block0")
    angle, action = _angle(labels), CLASSES["action"][labels["action"]]
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    along, across = turn @ block  # the block in the gripper's axes
    wide = _HALF + 3 * _FINGER
    opening = {"push": _FINGER, "carry": wide, "miss": _FINGER}[action]
    if action == "miss":
        across += _HALF + 4 * _FINGER
    start = along - _REACH - 0.08
    for name, value in (("along", start), ("across", across), *_grips(opening)):
        scene.data.joint(name).qpos[:] = value
        scene.data.actuator(name).ctrl[:] = value

    def act(time: float) -> None:
        reach = along if action == "carry" else start + 0.08
        at = start + (reach - start) * min(1.0, time / _APPROACH)
        moving = max(0.0, time - _APPROACH - _CLOSE)
        scene.data.actuator("along").ctrl[:] = at + _SPEEDS[labels["speed"]] * moving
        if action == "carry" and time > _APPROACH:
            for name, value in _grips(_HALF):
                scene.data.actuator(name).ctrl[:] = value

    simulate(scene, path, config, act)
    moved = scene.place("block0") - before
    touched = any(
        "block0" in pair and any(name.startswith("finger") for name in pair)
        for pair in scene.touched
    )
    return {
        **labels,
        "touched": int(touched),
        "block_x": float(moved[0]),
        "block_y": float(moved[1]),
    }


def _angle(labels: dict[str, int]) -> float:
    return math.radians(float(CLASSES["direction"][labels["direction"]]))


def _grips(opening: float) -> list[tuple[str, float]]:
    return [("grip0", opening), ("grip1", opening)]


def _block(number: int, shape: int, colour: int, place: np.ndarray) -> str:
    form = (
        f'type="box" size="{_HALF} {_HALF} {_HALF}"' if shape == 0
        else f'type="cylinder" size="{_HALF} {_HALF}"'
    )  # fmt: skip
    x, y = place
    return f"""
    <body name="block{number}" pos="{x:.4f} {y:.4f} 0">
      <joint type="slide" axis="1 0 0" damping="4" frictionloss="0.3"/>
      <joint type="slide" axis="0 1 0" damping="4" frictionloss="0.3"/>
      <joint type="hinge" axis="0 0 1" damping="0.01" frictionloss="0.002"/>
      <geom {form} mass="0.2" rgba="{list(COLOURS.values())[colour]}"/>
    </body>"""
