"""Factors of variation: colours, light, camera, sizes, masses and distractors of any environment.

A draw is numbers in [0, 1], the same for every environment; applying it changes a private copy of
the environment's model and leaves states, goals and the task as they are. "train" draws come from
the middle of every range, "test" draws from its ends, so that the two never meet.
"""

from __future__ import annotations

import colorsys
import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .base import GoalEnv
from .rendering import MjModel, load_mujoco

MOST_COLOURS, DISTRACTORS = 12, 4
SIZES = {
    "colour": 2 * MOST_COLOURS,
    "light": 3,
    "camera": 4,
    "size": 1,
    "mass": 1,
    "distractors": 1 + 5 * DISTRACTORS,
}
"""How many numbers each kind of factor takes."""
KINDS = tuple(SIZES)
HELD_OUT = 0.15
"""The outer share of every range, at either end, that only "test" draws from."""


@dataclass(frozen=True, kw_only=True)
class FactorConfig:
    """Which factors vary from episode to episode."""

    kinds: tuple[str, ...] = ()
    """Any of colour, light, camera, size, mass, distractors."""
    split: str = "train"
    """train: the middle of every range; test: its ends, which train never shows."""

    def __post_init__(self) -> None:
        if wrong := [kind for kind in self.kinds if kind not in SIZES]:
            raise ConfigError(f"kinds = {wrong}: choose from {', '.join(KINDS)}")
        if self.split not in ("train", "test"):
            raise ConfigError(f"split = {self.split!r}: choose train or test")


@dataclass(frozen=True)
class Factors:
    """One draw.

    Attributes:
        values: kind to float64 ``[SIZES[kind]]``, each in [0, 1]; kinds that are not in it keep
            what the scene says. .5 is the middle of every range.
    """

    values: dict[str, np.ndarray]

    def apply(self, env: GoalEnv) -> None:
        """Change how ``env`` looks and how heavy and large its objects are; its state stays.

        Every call starts from the scene as it is written, so draws do not add up. What it does,
        from the lower to the upper end of each range:

        - colour: every colour's hue turns by -180 to 180 degrees, its brightness times .6 to 1.4;
        - light: from all directions up to 40 degrees off the vertical, brightness .6 to 1.25;
        - camera: moves by up to 2.5 % of its distance along each axis, opening angle 1 to 1.12
          times as wide;
        - size: geoms that move are .85 to 1.15 as large (links of arms: as thick);
        - mass: of everything that moves, .67 to 1.5 times;
        - distractors: 1 to 4 flat coloured discs and squares on the floor, which touch nothing.
        """
        if env.scene is None:
            env.scene = _with_distractors(env)
        model = copy.copy(env.scene)
        for kind, change in _CHANGES.items():
            if kind in self.values:
                change(model, self.values[kind])
        env.use_model(model)


def draw_factors(rng: np.random.Generator, config: FactorConfig) -> Factors:
    """One draw of the kinds and the split of ``config``."""
    values = {}
    for kind in config.kinds:
        middle = rng.uniform(HELD_OUT, 1 - HELD_OUT, SIZES[kind])
        end = rng.uniform(-HELD_OUT, HELD_OUT, SIZES[kind]) % 1.0
        values[kind] = middle if config.split == "train" else end
    return Factors(values)


def _between(low: float, high: float, share: Any) -> Any:
    return low + (high - low) * share


def _colour(model: MjModel, values: np.ndarray) -> None:
    """Equal colours stay equal."""
    colours = np.unique(model.geom_rgba.round(4), axis=0)
    old = model.geom_rgba.round(4)
    for number, rgba in enumerate(colours):
        turn, brightness = values[2 * (number % MOST_COLOURS) :][:2]
        hue, saturation, value = colorsys.rgb_to_hsv(*(float(c) for c in rgba[:3]))
        hue = (hue + _between(-0.5, 0.5, turn)) % 1.0
        value = min(1.0, value * _between(0.6, 1.4, brightness))
        rgb = colorsys.hsv_to_rgb(hue, max(saturation, 0.15), value)
        model.geom_rgba[(old == rgba).all(1), :3] = rgb


def _light(model: MjModel, values: np.ndarray) -> None:
    azimuth, tilt = 2 * np.pi * values[0], np.deg2rad(40.0) * abs(2 * values[1] - 1)
    direction = [np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)]
    model.light_dir[:] = direction
    brightness = _between(0.6, 1.25, values[2])
    model.light_diffuse[:] *= brightness
    model.light_ambient[:] *= brightness


def _camera(model: MjModel, values: np.ndarray) -> None:
    away = np.linalg.norm(model.cam_pos - model.stat.center, axis=1, keepdims=True)
    model.cam_pos[:] += _between(-0.025, 0.025, values[:3]) * away
    model.cam_fovy[:] *= _between(1.0, 1.12, values[3])


def _size(model: MjModel, values: np.ndarray) -> None:
    """Bodies that stand alone scale as a whole; parts of a chain only in thickness, since their
    joints must stay where they are."""
    scale = _between(0.85, 1.15, values[0])
    mj = load_mujoco()
    round_types = [int(mj.mjtGeom.mjGEOM_CAPSULE), int(mj.mjtGeom.mjGEOM_CYLINDER)]
    parents = set(model.body_parentid[1:].tolist())
    for geom in np.flatnonzero(_moves(model)[model.geom_bodyid]).tolist():
        body = int(model.geom_bodyid[geom])
        if body not in parents and model.body_parentid[body] == 0:
            model.geom_size[geom] *= scale
            model.geom_pos[geom] *= scale
            model.geom_rbound[geom] *= scale
        elif int(model.geom_type[geom]) in round_types:
            model.geom_size[geom, 0] *= scale
            model.geom_rbound[geom] *= max(scale, 1.0)


def _mass(model: MjModel, values: np.ndarray) -> None:
    moves = _moves(model)
    factor = np.exp(_between(-np.log(1.5), np.log(1.5), values[0]))
    model.body_mass[moves] *= factor
    model.body_inertia[moves] *= factor
    mj = load_mujoco()
    mj.mj_setConst(model, mj.MjData(model))


def _distractors(model: MjModel, values: np.ndarray) -> None:
    mj = load_mujoco()
    shapes = [int(mj.mjtGeom.mjGEOM_CYLINDER), int(mj.mjtGeom.mjGEOM_BOX)]
    extent, floor = model.stat.extent, _floor_height(model)
    for number in range(1 + min(DISTRACTORS - 1, int(values[0] * DISTRACTORS))):
        x, y, size, hue, shape = values[1 + 5 * number :][:5]
        geom = mj.mj_name2id(model, int(mj.mjtObj.mjOBJ_GEOM), f"distractor{number}")
        half, thin = _between(0.03, 0.07, size) * extent, 0.001 * extent
        model.geom_type[geom] = shapes[int(shape * 2) % 2]
        model.geom_size[geom] = (half, thin if shape * 2 < 1 else half, thin)
        centre = model.stat.center[:2] + _between(-0.36, 0.36, np.array([x, y])) * extent
        model.geom_pos[geom] = (*centre, floor + 2 * thin)
        model.geom_rgba[geom] = (*colorsys.hsv_to_rgb(float(hue), 0.7, 0.8), 1.0)
        model.geom_rbound[geom] = 2 * half


_CHANGES = {
    "colour": _colour,
    "light": _light,
    "camera": _camera,
    "size": _size,
    "mass": _mass,
    "distractors": _distractors,
}


def _with_distractors(env: GoalEnv) -> MjModel:
    """The environment's scene with invisible geoms on the floor, to be shown by draws; one per
    scene and process, so that all its environments share a renderer."""
    plain = env.load_scene()
    if id(plain) not in _scenes:
        mj, spec = load_mujoco(), env.spec_of_scene()
        for number in range(DISTRACTORS):
            spec.worldbody.add_geom(
                name=f"distractor{number}",
                type=mj.mjtGeom.mjGEOM_CYLINDER,
                size=[0.01, 0.01, 0.01],
                pos=[0.01, 0, 0],  # at 0 the compiler would tie it to the world's frame
                rgba=[0, 0, 0, 0],
                contype=0,
                conaffinity=0,
            )
        _scenes[id(plain)] = (plain, spec.compile())  # holds the scene, so its id stays its own
    return _scenes[id(plain)][1]


_scenes: dict[int, tuple[MjModel, MjModel]] = {}


def _moves(model: MjModel) -> np.ndarray:
    """bool ``[nbody]``: bodies with a joint at or above them."""
    return (model.body_weldid != 0) & (model.body_mocapid[model.body_rootid] < 0)


def _floor_height(model: MjModel) -> float:
    plane = int(load_mujoco().mjtGeom.mjGEOM_PLANE)
    seen = (model.geom_type == plane) & (model.geom_group < 3)
    heights = model.geom_pos[seen, 2]
    return float(heights.max()) if len(heights) else float(model.stat.center[2])
