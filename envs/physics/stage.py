"""The stage: floor, sky, lights and camera of a scene, and its MJCF for drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .assets import Rgb, Thing, geoms, meshes, muted_rgb
from .track import Track, still

LOOK_AT = np.array([0.0, 0.2, 0.75])
"""The point in the middle of the picture, in metres."""
CAMERA = "eye"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything in a scene that is not a thing."""

    floor: tuple[Rgb, Rgb]
    texture: str
    """checker, gradient, flat or noise."""
    sky: tuple[Rgb, Rgb]
    lights: tuple[tuple[float, float, float, float], ...]
    """Each: direction x, y, z and brightness."""
    azimuth: float
    """Degrees, 0 looks along y. elevation: degrees above the floor."""
    elevation: float
    distance: float
    """Metres from LOOK_AT. fovy: degrees."""
    fovy: float
    drift: float = 0.0
    """Degrees by which a moving camera turns about LOOK_AT during the video."""

    def camera(self, frames: int) -> np.ndarray:
        """The camera's pose per frame: float64 [T, 7]."""
        turn = np.linspace(-0.5, 0.5, frames) * self.drift
        return np.stack([_look(self.azimuth + t, self.elevation, self.distance) for t in turn])

    @property
    def half_width(self) -> float:
        """Half the width of what the camera sees at LOOK_AT, in metres."""
        return self.distance * math.tan(math.radians(self.fovy / 2))


def sample_stage(
    rng: np.random.Generator,
    *,
    elevation: tuple[float, float] = (8.0, 16.0),
    moving: bool = False,
) -> Stage:
    """A random floor, sky, one or two lights, and a camera whose elevation is in the range."""
    floor = muted_rgb(rng)
    shift = float(rng.uniform(0.75, 0.92))
    lights = []
    for _ in range(int(rng.integers(1, 3))):
        turn = rng.uniform(0, 2 * math.pi)
        tilt = (round(0.6 * math.cos(turn), 3), round(0.6 * math.sin(turn), 3), -1.0)
        lights.append((*tilt, round(float(rng.uniform(0.35, 0.6)), 3)))
    sign = 1.0 if rng.uniform() < 0.5 else -1.0
    return Stage(
        floor=(floor, (floor[0] * shift, floor[1] * shift, floor[2] * shift)),
        texture=str(rng.choice(["checker", "gradient", "flat", "noise"])),
        sky=(muted_rgb(rng), muted_rgb(rng)),
        lights=tuple(lights),
        azimuth=float(rng.uniform(-6, 6)),
        elevation=float(rng.uniform(*elevation)),
        distance=float(rng.uniform(5.8, 6.6)),
        fovy=float(rng.uniform(38, 42)),
        drift=sign * float(rng.uniform(3, 6)) if moving else 0.0,
    )


def drawing_xml(stage: Stage, things: tuple[Thing, ...], *, shadows: bool = False) -> str:
    """The MJCF whose pictures are the videos: every thing and the camera are mocap bodies.

    ``shadows`` switches on shadow maps, which break exactness: for tests of the checks.
    """
    edge = "0.5 0.5 0.5" if stage.texture != "noise" else "0.8 0.8 0.8"
    builtin, mark = _TEXTURES[stage.texture]
    lights = "".join(
        f'<light directional="true" pos="0 0 5" dir="{x} {y} {z}" diffuse="{b} {b} {b}" '
        f'ambient="0.2 0.2 0.2" specular="0 0 0" castshadow="{str(shadows).lower()}"/>'
        for x, y, z, b in stage.lights
    )
    bodies = "".join(
        f'<body name="{thing.name}" mocap="true">{geoms(thing)}</body>' for thing in things
    )
    return f"""<mujoco model="voe">
  <visual>
    <quality shadowsize="{512 if shadows else 0}" offsamples="0" numslices="24" numstacks="12"/>
    <headlight active="0"/>
    <map znear="0.02" zfar="40"/>
  </visual>
  <statistic center="0 0 0" extent="5"/>
  <default><geom contype="0" conaffinity="0"/></default>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" width="64" height="64"
             rgb1="{_text(stage.sky[0])}" rgb2="{_text(stage.sky[1])}"/>
    <texture name="floor" type="2d" builtin="{builtin}" width="128" height="128" {mark}
             rgb1="{_text(stage.floor[0])}" rgb2="{_text(stage.floor[1])}" markrgb="{edge}"/>
    <material name="floor" texture="floor" texrepeat="24 24" texuniform="false"
              specular="0" shininess="0" reflectance="0"/>
    {"".join(meshes(thing) for thing in things)}
  </asset>
  <worldbody>
    {lights}
    <geom name="floor" type="plane" size="24 24 1" material="floor"/>
    <body name="{CAMERA}" mocap="true"><camera name="{CAMERA}" fovy="{stage.fovy:.4f}"/></body>
    {bodies}
  </worldbody>
</mujoco>
"""


def track(stage: Stage, poses: list[np.ndarray | None], frames: int) -> Track:
    """A track of things at ``poses`` (float64 [T, 7] each, None: never there)."""
    pose = np.stack([still(frames, (0, 0, 0)) if p is None else p for p in poses], axis=1)
    here = np.array([p is not None for p in poses])
    return Track(pose, np.tile(here, (frames, 1)), stage.camera(frames), np.ones(frames))


_TEXTURES = {
    "checker": ("checker", ""),
    "gradient": ("gradient", ""),
    "flat": ("flat", ""),
    "noise": ("flat", 'mark="random" random="0.05"'),
}


def _look(azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """The pose of a camera at the given direction (degrees) and distance that sees LOOK_AT."""
    a, e = math.radians(azimuth), math.radians(elevation)
    back = np.array([math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)])
    right = np.array([math.cos(a), math.sin(a), 0.0])
    rotation = np.stack([right, np.cross(back, right), back], axis=1)
    return np.concatenate([LOOK_AT + distance * back, _quaternion(rotation)])


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """(w, x, y, z) of a rotation matrix, w >= 0."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return np.array([w, x, y, z]) * (1.0 if w >= 0 else -1.0)


def _text(rgb: Rgb) -> str:
    return " ".join(f"{v:.4f}" for v in rgb)
