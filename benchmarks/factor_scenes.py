"""Scenes with known factors: a ball and a second shape on a chequered floor, drawn by MuJoCo.

The factors come in three groups: ``semantic`` (where and what the shapes are), ``motion`` (how they
move; videos only) and ``nuisance`` (camera, light, floor). All are drawn independently, uniform
over their ranges, as far as the shapes stay on the floor and out of each other's way (which alone
correlates their places, by about -.4); hues, which are angles, are given as cosine and sine.
"""

from __future__ import annotations

import colorsys

import numpy as np

from ..envs.rendering import Renderer, load_mujoco

GROUPS = ("semantic", "motion", "nuisance")
SHAPES = {"box": (1, 1, 1), "cylinder": (1, 1, 1), "ellipsoid": (1.2, 1.2, 0.6)}
"""The second shape: extent along x, y and z over its size (of a cylinder: radius, half height)."""
REACH = 1.0
"""Shapes stay within this distance of the floor's centre along x and y."""
TOP_SPEED = 0.15
"""Units per frame: a clip of 8 frames crosses half the floor at most."""
_GAP = 0.73  # between the centres of the two shapes, so that they never touch


def factor_names(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and groups of the factors of ``"images"`` or ``"videos"``, in their order."""
    shape = ("x", "y", "size", "hue_cos", "hue_sin")
    semantic = [f"{thing}_{what}" for thing in ("ball", "block") for what in shape]
    semantic += [f"block_is_{name}" for name in list(SHAPES)[:-1]]
    motion = [f"{thing}_{what}" for thing in ("ball", "block") for what in ("vx", "vy", "speed")]
    nuisance = ["camera", "light_x", "light_y", "light_level"]
    nuisance += ["floor_hue_cos", "floor_hue_sin", "floor_squares"]
    chosen = {"semantic": semantic, "motion": motion if kind == "videos" else []}
    chosen |= {"nuisance": nuisance}
    names = tuple(name for group in chosen.values() for name in group)
    return names, tuple(group for group, members in chosen.items() for _ in members)


def draw_scene(rng: np.random.Generator, frames: int) -> dict[str, float]:
    """The factors of one scene. Places are those in the middle of its ``frames``; with one frame
    nothing moves. ``camera`` is an angle in radians, ``floor_squares`` their number per unit."""
    scene: dict[str, float] = {}
    while True:
        places = rng.uniform(-REACH, REACH, (2, 2))
        speed = rng.uniform(0, TOP_SPEED, 2) if frames > 1 else np.zeros(2)
        way = rng.uniform(0, 2 * np.pi, 2)
        velocity = speed[:, None] * np.stack([np.cos(way), np.sin(way)], axis=1)
        times = np.arange(frames)[:, None, None] - (frames - 1) / 2
        paths = places + times * velocity  # [T, 2, 2]
        apart = np.linalg.norm(paths[:, 0] - paths[:, 1], axis=-1).min()
        if np.abs(paths).max() <= REACH and apart >= _GAP:
            break
    for i, thing in enumerate(("ball", "block")):
        hue = rng.uniform(0, 2 * np.pi)
        scene |= {
            f"{thing}_x": places[i, 0],
            f"{thing}_y": places[i, 1],
            f"{thing}_size": rng.uniform(0.16, 0.3),
            f"{thing}_hue_cos": np.cos(hue),
            f"{thing}_hue_sin": np.sin(hue),
            f"{thing}_vx": velocity[i, 0],
            f"{thing}_vy": velocity[i, 1],
            f"{thing}_speed": speed[i],
        }
    shape, floor = rng.choice(list(SHAPES)), rng.uniform(0, 2 * np.pi)
    scene |= {f"block_is_{name}": float(name == shape) for name in SHAPES}
    scene |= {
        "camera": rng.uniform(-0.4, 0.4),
        "light_x": rng.uniform(-1, 1),
        "light_y": rng.uniform(-1, 1),
        "light_level": rng.uniform(0.5, 1),
        "floor_hue_cos": np.cos(floor),
        "floor_hue_sin": np.sin(floor),
        "floor_squares": rng.uniform(0.6, 2),
    }
    return {name: float(value) for name, value in scene.items()}


class Painter:
    """Draws scenes; close it, or use it as a context manager.

    Args:
        size: height and width of the frames in pixels.
    """

    def __init__(self, size: int):
        self._mj = load_mujoco()
        self._model = self._mj.MjModel.from_xml_string(_SCENE)
        self._data = self._mj.MjData(self._model)
        self._renderer = Renderer(self._model, size, camera="eye")

    def film(self, scene: dict[str, float], frames: int) -> np.ndarray:
        """uint8 ``[frames, size, size, 3]``."""
        self._dress(scene)
        times = np.arange(frames) - (frames - 1) / 2
        return np.stack([self._frame(scene, time) for time in times])

    def close(self) -> None:
        """Free the OpenGL objects."""
        self._renderer.close()

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frame(self, scene: dict[str, float], time: float) -> np.ndarray:
        for i, thing in enumerate(("ball", "block")):
            place = [scene[f"{thing}_{axis}"] + time * scene[f"{thing}_v{axis}"] for axis in "xy"]
            height = SHAPES[_shape(scene)][2] if thing == "block" else 1
            self._data.mocap_pos[i] = [*place, height * scene[f"{thing}_size"]]  # on the floor
        self._mj.mj_kinematics(self._model, self._data)
        self._mj.mj_camlight(self._model, self._data)
        return self._renderer.render(self._model, self._data)

    def _dress(self, scene: dict[str, float]) -> None:
        """Everything that stays as it is during a clip."""
        model, mj = self._model, self._mj
        for thing in ("ball", "block"):
            geom = model.geom(thing)
            extent = SHAPES[_shape(scene)] if thing == "block" else (1, 1, 1)
            geom.size[:] = scene[f"{thing}_size"] * np.array(extent)
            geom.rgba[:3] = _colour(scene, thing, saturation=0.85, value=0.9)
        kind = getattr(mj.mjtGeom, f"mjGEOM_{_shape(scene).upper()}")
        model.geom("block").type[:] = int(kind)
        floor = model.material("floor")
        floor.rgba[:3] = _colour(scene, "floor", saturation=0.35, value=1.0)
        floor.texrepeat[:] = scene["floor_squares"]
        light = model.light("sun")
        light.dir[:] = _unit(np.array([scene["light_x"], scene["light_y"], -1.2]))
        light.diffuse[:] = 0.7 * scene["light_level"]
        light.ambient[:] = 0.3 * scene["light_level"]
        angle, height = scene["camera"], 0.9  # radians around the floor, and above it
        behind = np.array([np.sin(angle) * np.cos(height), -np.cos(angle) * np.cos(height)])
        back = np.array([*behind, np.sin(height)])  # from the centre to the camera
        right = _unit(np.cross([0, 0, 1], back))
        axes = np.stack([right, np.cross(back, right), back], axis=1)
        eye = model.camera("eye")
        eye.pos[:] = 3.6 * back
        mj.mju_mat2Quat(eye.quat, axes.ravel())


_SCENE = """
<mujoco model="factors">
  <visual>
    <quality shadowsize="0" offsamples="0" numslices="24" numstacks="16" numquads="1"/>
    <headlight active="0"/>
    <map znear="0.1" zfar="20"/>
  </visual>
  <statistic center="0 0 0" extent="3"/>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.25 0.3 0.4" rgb2="0.1 0.1 0.15"
             width="64" height="384"/>
    <texture name="squares" type="2d" builtin="checker" rgb1="0.9 0.9 0.9" rgb2="0.6 0.6 0.6"
             width="64" height="64"/>
    <material name="floor" texture="squares" texuniform="true" specular="0" reflectance="0"/>
  </asset>
  <worldbody>
    <light name="sun" directional="true" pos="0 0 4" dir="0 0 -1" castshadow="false"
           specular="0 0 0"/>
    <camera name="eye" pos="0 -3 3" fovy="42"/>
    <geom name="floor" type="plane" size="6 6 0.1" material="floor"/>
    <body mocap="true"><geom name="ball" type="sphere" size="0.3 0.3 0.3"/></body>
    <body mocap="true"><geom name="block" type="box" size="0.3 0.3 0.3"/></body>
  </worldbody>
</mujoco>
"""


def _shape(scene: dict[str, float]) -> str:
    return next(name for name in SHAPES if scene[f"block_is_{name}"])


def _colour(
    scene: dict[str, float], thing: str, *, saturation: float, value: float
) -> tuple[float, float, float]:
    angle = np.arctan2(scene[f"{thing}_hue_sin"], scene[f"{thing}_hue_cos"])
    return colorsys.hsv_to_rgb(float(angle / (2 * np.pi)) % 1, saturation, value)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
