"""Stick figures that move: generated skeletons of several classes of motion.

The first axis points to the figure's right, the second ahead, the third up; heights are metres.
A pose is a set of angles over time; bones keep their lengths, and the lower foot is on the ground
but for jumps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.errors import ConfigError
from ..core.rng import numpy_generator
from .labelled import LabelledSet

JOINTS = (
    "pelvis",
    "chest",
    "neck",
    "head",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left hip",
    "left knee",
    "left ankle",
    "right hip",
    "right knee",
    "right ankle",
)
"""Names by number."""
BONES = (
    (0, 1),
    (1, 2),
    (2, 3),
    (2, 4),
    (4, 5),
    (5, 6),
    (2, 7),
    (7, 8),
    (8, 9),
    (0, 10),
    (10, 11),
    (11, 12),
    (0, 13),
    (13, 14),
    (14, 15),
)
"""Pairs of joints whose distance never changes."""

Angles = dict[str, np.ndarray]
"""Radians (or metres) over time ``[T]`` by name; what is missing is 0. ``arm``, ``elbow``, ``hip``
and ``knee`` bend forwards (knees backwards), ``spread`` and ``straddle`` to the side, each with
``left`` or ``right`` before it; ``lean``, ``rise`` and ``ahead`` are of the whole body."""


@dataclass(frozen=True, kw_only=True)
class StickFigureConfig:
    """Generated sequences and how much they vary."""

    count: int = 2000
    """Sequences; classes take turns."""
    frames: int = 32
    """Frames of a sequence."""
    fps: float = 12.0
    """Frames per second."""
    heading: float = 60.0
    """Largest turn of the figure about the vertical, in degrees either way."""
    bones: tuple[float, float] = (0.85, 1.15)
    """Range of each bone's length over its usual one."""
    amplitude: tuple[float, float] = (0.7, 1.3)
    """Range of the size of the motion over its usual one."""
    tempo: tuple[float, float] = (0.7, 1.3)
    """Range of its speed, likewise."""
    sway: float = 0.08
    """Size of slow random movements of all limbs, in radians."""
    noise: float = 0.01
    """Standard deviation added to each coordinate, in metres."""
    seed: int = 0
    """Each sequence is a function of this and its number."""

    def __post_init__(self) -> None:
        for name in ("count", "frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not self.fps > 0:
            raise ConfigError(f"fps = {self.fps}: must be positive")
        for name in ("bones", "amplitude", "tempo"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} = {(low, high)}: needs 0 < low <= high")
        for name in ("heading", "sway", "noise"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 or more")


def generate_skeletons(config: StickFigureConfig) -> LabelledSet:
    """Sequences float32 ``[count, T, 16, 3]``; the pelvis of the first frame is at the origin."""
    names = tuple(MOTIONS)
    made = np.stack([_sequence(config, number) for number in range(config.count)])
    return LabelledSet(
        samples=made,
        labels=np.arange(config.count) % len(names),
        classes=names,
        names=tuple(f"sequence {number}" for number in range(config.count)),
    )


def _walk(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    return _stride(phase, 0.5 * size, elbow=0.3, knee=0.5, lean=0.05, speed=1.2 * time)


def _run(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    return _stride(phase, 0.8 * size, elbow=1.5, knee=1.2, lean=0.2, speed=2.5 * time)


def _stride(
    phase: np.ndarray, swing: float, *, elbow: float, knee: float, lean: float, speed: np.ndarray
) -> Angles:
    s, still = np.sin(phase), np.ones_like(phase)
    return {
        "left hip": swing * s,
        "right hip": -swing * s,
        "left arm": -0.8 * swing * s,
        "right arm": 0.8 * swing * s,
        "left knee": knee * np.clip(np.cos(phase), 0, None),
        "right knee": knee * np.clip(-np.cos(phase), 0, None),
        "left elbow": elbow * still,
        "right elbow": elbow * still,
        "lean": lean * still,
        "ahead": speed,
    }


def _jump(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    s = np.sin(phase)
    crouch, arms = np.clip(-s, 0, None) * size, (0.5 + s) * size
    return {"left arm": arms, "right arm": arms, "rise": 0.35 * size * np.clip(s, 0, None)} | {
        f"{side} {joint}": angle * crouch
        for side in ("left", "right")
        for joint, angle in (("hip", 0.6), ("knee", 1.2))
    }


def _squat(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    depth = 0.5 * (1 - np.cos(phase)) * size
    parts = (("hip", 1.3), ("knee", 2.0), ("arm", 1.3))
    both = {f"{side} {joint}": a * depth for side in ("left", "right") for joint, a in parts}
    return both | {"lean": 0.4 * depth}


def _wave(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    still = np.ones_like(phase)
    return {"right spread": 2.4 * still + 0.35 * size * np.sin(phase), "right elbow": 0.3 * still}


def _jack(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    open_ = 0.5 * (1 - np.cos(phase)) * size
    both = {f"{side} spread": 0.2 + 2.2 * open_ for side in ("left", "right")}
    both |= {f"{side} straddle": 0.4 * open_ for side in ("left", "right")}
    return both | {"rise": 0.08 * size * np.abs(np.sin(phase))}


def _kick(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    up = np.clip(np.sin(phase), 0, None) ** 2 * size
    back = np.clip(-np.sin(phase), 0, None) * size
    return {
        "right hip": 1.3 * up - 0.3 * back,
        "right knee": 0.8 * back,
        "left arm": 0.6 * up,
        "lean": -0.2 * up,
    }


def _bow(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    return {"lean": 0.5 * (1 - np.cos(phase)) * size}


def _punch(phase: np.ndarray, size: float, time: np.ndarray) -> Angles:
    left, right = (np.clip(sign * np.sin(phase), 0, None) * size for sign in (1, -1))
    return {
        "left arm": 0.3 + 1.2 * left,
        "right arm": 0.3 + 1.2 * right,
        "left elbow": 2.0 - 1.8 * np.clip(left, 0, 1),
        "right elbow": 2.0 - 1.8 * np.clip(right, 0, 1),
    }


Motion = Callable[[np.ndarray, float, np.ndarray], Angles]
"""``motion(phase [T], size, time [T])``: ``size`` about 1, ``time`` in seconds at its own tempo."""

MOTIONS: dict[str, tuple[Motion, float]] = {
    "walk": (_walk, 1.0),
    "run": (_run, 1.6),
    "jump": (_jump, 0.9),
    "squat": (_squat, 0.6),
    "wave": (_wave, 1.4),
    "jumping jack": (_jack, 1.0),
    "kick": (_kick, 0.7),
    "bow": (_bow, 0.5),
    "punch": (_punch, 1.1),
}
"""Name -> motion and its usual cycles per second; the order is that of the labels."""

USUAL_LENGTHS = (0.25, 0.25, 0.2, 0.2, 0.3, 0.25, 0.2, 0.3, 0.25, 0.1, 0.45, 0.42, 0.1, 0.45, 0.42)
"""Usual length in metres of each of :data:`BONES`."""


def pose(angles: Angles, lengths: np.ndarray) -> np.ndarray:
    """Joints float64 ``[T, 16, 3]`` of a pose over time, the feet on the ground.

    Args:
        angles: at least one. lengths: metres ``[15]``, of each of :data:`BONES`.
    """
    frames = len(next(iter(angles.values())))
    a = {name: angles.get(name, np.zeros(frames)) for name in _ANGLES}
    x = np.zeros((frames, len(JOINTS), 3))
    up = _direction(np.pi - a["lean"], 0 * a["lean"], 0.0)
    across = np.zeros((frames, 3))
    across[:, 0] = 1.0
    directions: list[np.ndarray] = [up, up, up]
    for side, sign in (("left", -1.0), ("right", 1.0)):
        arm, spread = a[f"{side} arm"], a[f"{side} spread"]
        directions += [sign * across, _direction(arm, spread, sign)]
        directions += [_direction(arm + a[f"{side} elbow"], spread, sign)]
    for side, sign in (("left", -1.0), ("right", 1.0)):
        hip, straddle = a[f"{side} hip"], a[f"{side} straddle"]
        directions += [sign * across, _direction(hip, straddle, sign)]
        directions += [_direction(hip - a[f"{side} knee"], straddle, sign)]
    for (parent, child), length, direction in zip(BONES, lengths, directions, strict=True):
        x[:, child] = x[:, parent] + length * direction
    ground = x[:, (12, 15), 2].min(axis=1)
    x[:, :, 2] += (a["rise"] - ground)[:, None]
    x[:, :, 1] += a["ahead"][:, None]
    return x


_SIDES = ("arm", "elbow", "spread", "hip", "knee", "straddle")
_ANGLES = (
    *(f"{side} {joint}" for side in ("left", "right") for joint in _SIDES),
    "lean",
    "rise",
    "ahead",
)


def _direction(pitch: np.ndarray, spread: np.ndarray, side: float) -> np.ndarray:
    """Unit vectors ``[T, 3]``: down, swung ahead by ``pitch`` and then out to the side."""
    c = np.cos(spread)
    return np.stack([side * np.sin(spread), np.sin(pitch) * c, -np.cos(pitch) * c], axis=-1)


def _sequence(config: StickFigureConfig, number: int) -> np.ndarray:
    draw = numpy_generator(config.seed, "stick-figures", number)
    motion, cycles = list(MOTIONS.values())[number % len(MOTIONS)]
    time = np.arange(config.frames) / config.fps * draw.uniform(*config.tempo)
    phase = 2 * np.pi * (cycles * time + draw.uniform())
    angles = motion(phase, draw.uniform(*config.amplitude), time)
    if draw.uniform() < 0.5:  # left-handed
        swap = {"left": "right", "right": "left"}
        angles = {
            " ".join(swap.get(word, word) for word in name.split()): value
            for name, value in angles.items()
        }
    for name in _ANGLES[:-2]:
        wobble = np.sin(2 * np.pi * (draw.uniform(0.1, 0.5) * time + draw.uniform()))
        angles[name] = angles.get(name, 0.0) + config.sway * draw.standard_normal() * wobble
    lengths = np.array(USUAL_LENGTHS) * draw.uniform(*config.bones, len(BONES))
    x = pose(angles, lengths)
    heading = np.deg2rad(draw.uniform(-config.heading, config.heading))
    c, s = np.cos(heading), np.sin(heading)
    x = x @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    x = x - x[:1, :1] + draw.normal(scale=config.noise, size=x.shape)
    return x.astype(np.float32)
