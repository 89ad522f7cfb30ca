"""Jointed bodies that MuJoCo moves: skeletons whose motion obeys physics, of several classes.

A body of capsules with the joints of the stick figures falls, collapses, hangs, is thrown or, held
by a harness, is moved by its own springs. Sequences are written in the layout of NTU RGB+D, so that
whatever reads that reads these: the performer is a build (lengths of the bones), and a split by
performers holds builds out. Axes: right, ahead, up; metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.rng import numpy_generator
from ...datasets.labelled import LabelledSet
from ...datasets.parallel import parallel_map
from ...datasets.skeletons import write_skeleton
from ...datasets.stick_figures import BONES, JOINTS, USUAL_LENGTHS
from ...datasets.synthetic.generated import claim_folder
from ..rendering import load_mujoco
from .body_model import HINGES, body_xml

PERFORMERS = 40
"""Builds, numbered from 1, as NTU RGB+D has performers."""
FOOT = 0.05
"""Height of an ankle above the ground that it stands on, metres."""
DAMPING = 0.03
"""Seconds: what springs have of damping, over their stiffness."""

Angles = dict[str, float]
"""Radians by hinge; what is missing is 0."""


@dataclass(frozen=True, kw_only=True)
class BodiesConfig:
    """Simulated sequences and how much they vary."""

    count: int = 2000
    """Sequences; classes take turns, then performers."""
    frames: int = 32
    """Frames of a sequence."""
    fps: float = 12.0
    """Frames per second."""
    heading: float = 60.0
    """Largest turn of the body about the vertical, in degrees either way."""
    bones: tuple[float, float] = (0.85, 1.15)
    """Range of each bone's length over its usual one, drawn for each performer."""
    noise: float = 0.01
    """Standard deviation added to each coordinate, in metres."""
    seed: int = 0
    """Each sequence is a function of this and its number."""

    def __post_init__(self) -> None:
        low, high = self.bones
        checks = {
            f"count = {self.count}: must be at least 1": self.count >= 1,
            f"frames = {self.frames}: must be at least 1": self.frames >= 1,
            f"fps = {self.fps}: must be above 0 and at most 250": 0 < self.fps <= 250,
            f"heading = {self.heading}: must be 0 or more": self.heading >= 0,
            f"bones = {self.bones}: needs 0.5 <= low <= high <= 2": 0.5 <= low <= high <= 2,
            f"noise = {self.noise}: must be 0 or more": self.noise >= 0,
        }
        if wrong := [message for message, fine in checks.items() if not fine]:
            raise ConfigError("bodies: " + "; ".join(wrong))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How a body starts and what holds it.

    Attributes:
        pose: angles at the start. height: of the pelvis over that of standing, metres.
        velocity, spin: of the whole body (m/s, rad/s; right, ahead, up). stiffness: of the springs
            that pull every hinge to its pose (N m / rad). held: parts held in the air.
        drive: angles that the springs pull to at a time (s), in place of those of the pose.
    """

    pose: Angles
    height: float = 0.0
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stiffness: float = 0.0
    held: tuple[str, ...] = ()
    drive: Callable[[float], Angles] | None = None


def make_bodies(
    folder: str | Path,
    config: BodiesConfig,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> list[Path]:
    """Write the sequences that are not there yet as ``.skeleton`` files; returns all paths.

    Args:
        processes: see :func:`...datasets.parallel.parallel_map`.

    Raises:
        DatasetError: the folder holds something else, or sequences of other settings.
    """
    folder = Path(folder)
    settings = {key: value for key, value in asdict(config).items() if key != "count"}
    claim_folder(folder, "bodies", settings, {"motion": tuple(SCENES)})
    label = "simulate" if progress else ""
    make = partial(_write_one, folder=folder, config=config)
    numbers = range(config.count)
    return list(parallel_map(make, numbers, processes=processes, description=label))


def simulate_bodies(config: BodiesConfig) -> LabelledSet:
    """All sequences in memory, float32 ``[count, T, 16, 3]``; the pelvis of the first frame is at
    the origin, as in files that are read."""
    names, made = zip(*(simulate_body(config, n) for n in range(config.count)), strict=True)
    samples = np.stack(made)
    return LabelledSet(
        samples=samples - samples[:, :1, :1],
        labels=np.array([list(SCENES).index(name) for name in names]),
        classes=tuple(SCENES),
        names=tuple(f"sequence {number}" for number in range(config.count)),
    )


def simulate_body(config: BodiesConfig, number: int) -> tuple[str, np.ndarray]:
    """The class of sequence ``number`` and its joints, float32 ``[T, 16, 3]`` in the order of
    :data:`~tubelet.datasets.stick_figures.JOINTS`, turned and noisy."""
    name = list(SCENES)[number % len(SCENES)]
    draw = numpy_generator(config.seed, "bodies", number)
    builder = numpy_generator(config.seed, "builds", _performer(number))
    lengths = np.array(USUAL_LENGTHS) * builder.uniform(*config.bones, len(BONES))
    x = simulate(SCENES[name](draw), lengths, config.frames, config.fps)
    angle = np.deg2rad(draw.uniform(-config.heading, config.heading))
    c, s = np.cos(angle), np.sin(angle)
    x = x @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    return name, (x + draw.normal(scale=config.noise, size=x.shape)).astype(np.float32)


def simulate(scene: Scene, lengths: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """Joints float64 ``[T, 16, 3]`` of a body with bones ``lengths`` ``[15]`` (metres)."""
    mujoco: Any = load_mujoco()
    model = mujoco.MjModel.from_xml_string(body_xml(lengths))
    data = mujoco.MjData(model)
    hinges = {name: int(model.joint(name).qposadr[0]) for name in HINGES}
    for name, angle in scene.pose.items():
        data.qpos[hinges[name]] = angle
    mujoco.mj_kinematics(model, data)
    data.qpos[2] += FOOT - min(data.site(f"{s} ankle").xpos[2] for s in ("left", "right"))
    data.qpos[2] += scene.height
    data.qvel[:3] = scene.velocity
    data.qvel[3:6] = scene.spin
    model.jnt_stiffness[1:] = scene.stiffness
    model.dof_damping[6:] = 1.0 + DAMPING * scene.stiffness
    model.qpos_spring[:] = data.qpos
    mujoco.mj_forward(model, data)
    for part in scene.held:
        place = model.site(f"hold {part}")
        place.pos = data.site(part).xpos
        mujoco.mju_mat2Quat(place.quat, data.site(part).xmat)
        data.eq_active[model.equality(f"hold {part}").id] = 1

    made = np.empty((frames, len(JOINTS), 3))
    for frame in range(frames):
        while data.time < frame / fps - model.opt.timestep / 2:
            if scene.drive is not None:
                for name, angle in scene.drive(data.time).items():
                    model.qpos_spring[hinges[name]] = angle
            mujoco.mj_step(model, data)
        mujoco.mj_kinematics(model, data)
        made[frame] = [data.site(joint).xpos for joint in JOINTS]
    return made


def _performer(number: int) -> int:
    return (number // len(SCENES)) % PERFORMERS + 1


def _write_one(number: int, *, folder: Path, config: BodiesConfig) -> Path:
    action, performer = number % len(SCENES) + 1, _performer(number)
    repetition = number // (len(SCENES) * PERFORMERS) + 1
    name = f"S001C001P{performer:03d}R{repetition:03d}A{action:03d}.skeleton"
    path = folder / name
    if not path.exists():  # written atomically: what is there is whole
        write_skeleton(path, simulate_body(config, number)[1])
    return path


def _side(draw: np.random.Generator) -> float:
    return float(draw.choice((-1.0, 1.0)))


def _standing(draw: np.random.Generator, spread: float = 0.15) -> Angles:
    """A pose near upright."""
    pose = {name: spread * abs(draw.standard_normal()) for name in HINGES if "knee" in name}
    arms = {f"{side} spread": abs(draw.normal(0.2, 0.2)) for side in ("left", "right")}
    return pose | arms | {"lean": draw.normal(0.0, 0.05)}


def _toppled(draw: np.random.Generator, ahead: float, right: float) -> Scene:
    """Tips over about the feet, as stiff as a board or nearly."""
    rate = draw.uniform(1.0, 2.0)
    return Scene(
        pose=_standing(draw),
        velocity=(0.9 * rate * right, 0.9 * rate * ahead, 0.0),
        spin=(-rate * ahead, rate * right, 0.0),
        stiffness=draw.uniform(80.0, 200.0),
    )


def _collapses(draw: np.random.Generator) -> Scene:
    """All strength leaves it where it stands."""
    knees = {f"{side} knee": draw.uniform(0.2, 0.6) for side in ("left", "right")}
    hips = {f"{side} hip": draw.uniform(0.1, 0.3) for side in ("left", "right")}
    return Scene(pose=_standing(draw) | knees | hips)


def _hangs(draw: np.random.Generator, *hands: str) -> Scene:
    """Swings by its hands, which hold on to something above."""
    pose = {f"{side} arm": 3.0 for side in ("left", "right") if f"{side} wrist" in hands}
    swing = draw.uniform(0.8, 2.5, 2) * (_side(draw), _side(draw))
    return Scene(
        pose=_standing(draw) | pose,
        height=0.5,
        velocity=(0.4 * swing[0], swing[1], 0.0),
        stiffness=draw.uniform(0.0, 4.0),
        held=hands,
    )


def _thrown(draw: np.random.Generator) -> Scene:
    """Flies, turns and lands, limp."""
    return Scene(
        pose=_standing(draw, 0.6),
        height=draw.uniform(0.2, 0.6),
        velocity=(draw.normal(0, 0.5), draw.uniform(0.5, 1.5), draw.uniform(2.5, 4.0)),
        spin=(_side(draw) * draw.uniform(3.0, 7.0), draw.normal(0, 1.0), draw.normal(0, 1.0)),
    )


def _driven(draw: np.random.Generator, joints: Callable[[float, float], Angles]) -> Scene:
    """Held by the pelvis, moved by springs whose rest turns with a phase, at a size."""
    size, cycles, begin = draw.uniform(0.7, 1.3), draw.uniform(0.7, 1.3), draw.uniform()
    return Scene(
        pose=_standing(draw),
        height=0.3,
        stiffness=draw.uniform(150.0, 300.0),
        held=("pelvis",),
        drive=lambda time: joints(2 * np.pi * (cycles * time + begin), size),
    )


def _marching(phase: float, size: float) -> Angles:
    s = float(np.sin(phase))
    up = {"left": max(s, 0.0), "right": max(-s, 0.0)}
    legs = {f"{side} hip": 1.2 * size * u for side, u in up.items()}
    return legs | {f"{side} knee": 1.4 * size * u for side, u in up.items()}


def _flapping(phase: float, size: float) -> Angles:
    up = 0.5 * (1 - float(np.cos(phase)))
    return {f"{side} spread": 0.2 + 1.9 * size * up for side in ("left", "right")}


SCENES: dict[str, Callable[[np.random.Generator], Scene]] = {
    "fall ahead": partial(_toppled, ahead=1.0, right=0.0),
    "fall back": partial(_toppled, ahead=-1.0, right=0.0),
    "fall aside": lambda draw: _toppled(draw, 0.0, _side(draw)),
    "collapse": _collapses,
    "hang": lambda draw: _hangs(draw, "left wrist", "right wrist"),
    "hang by a hand": lambda draw: _hangs(draw, f"{('left', 'right')[draw.integers(2)]} wrist"),
    "thrown": _thrown,
    "march": partial(_driven, joints=_marching),
    "flap": partial(_driven, joints=_flapping),
}
"""Class -> how a sequence of it starts; the order is that of the labels."""
