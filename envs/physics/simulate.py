"""Legal physics: the poses of things that slide, roll, fall and collide, from MuJoCo.

Things that only translate ("slides") keep upright: on a floor without friction a box, a cone and
a ball follow the same path. Things with ``rolls`` also turn. Friction is the ground's: of the floor
and of what is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..rendering import load_mujoco
from .assets import Rejected, Thing, geoms, meshes

STEPS_PER_FRAME = 40
"""Physics steps between two frames."""
DIGITS = 3
"""Decimals to which poses are rounded, so that a thing at rest has the same pose every frame: half
a millimetre is a hundredth of a pixel."""
PENETRATION = 0.03
"""Metres by which two things may sink into each other while they collide."""
SETTLE = 0.25
"""Seconds of physics before the first frame, in which things come to rest under gravity."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A thing that the physics moves.

    Attributes:
        thing: what. position: of its centre before frame 0 (m). velocity: at frame 0 (m/s).
        yaw: radians. rolls: may turn. mass: kg. settles: rests on something before frame 0.
    """

    thing: Thing
    position: tuple[float, float, float]
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    rolls: bool = False
    mass: float = 1.0
    settles: bool = True


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A thing that does not move, or moves as ``path`` says whatever pushes against it.

    Attributes:
        thing: what. position: of its centre (m). damped: nothing bounces off it. friction: of it.
        path: seconds -> x of its centre (m), for containers that are pulled along.
    """

    thing: Thing
    position: tuple[float, float, float]
    damped: bool = False
    friction: float = 0.0
    path: Callable[[float], float] | None = None


@dataclass(frozen=True)
class Motion:
    """What happened: ``poses`` float64 [T, 7] by name, the deepest ``penetration`` (m)."""

    poses: dict[str, np.ndarray]
    penetration: float


def simulate(
    bodies: list[Body],
    fixed: list[Fixed],
    *,
    frames: int,
    fps: int,
    bounce: float = 0.95,
    grip: float = 0.0,
) -> Motion:
    """Run the scene and keep a pose per frame.

    Args:
        bodies, fixed: what there is, on a floor at z = 0. bounce: speed kept in a collision.
        grip: friction of the floor.

    Raises:
        Rejected: something sinks in deeper than ``PENETRATION``, or is not a number.
    """
    mj = load_mujoco()
    step = 1.0 / (fps * STEPS_PER_FRAME)
    model = mj.MjModel.from_xml_string(_xml(bodies, fixed, step, bounce, grip))
    data = mj.MjData(model)
    for body in bodies:
        data.joint(f"{body.thing.name}").qpos[:] = _start(body)
    movers = [item for item in fixed if item.path]
    _settle(mj, model, data, bodies, movers, round(SETTLE / step))
    deepest, poses = 0.0, {body.thing.name: np.empty((frames, 7)) for body in bodies}
    poses |= {item.thing.name: np.empty((frames, 7)) for item in fixed}
    for t in range(frames):
        mj.mj_kinematics(model, data)
        for name, pose in poses.items():
            body = data.body(name)
            pose[t] = *body.xpos, *body.xquat
        for tick in range(STEPS_PER_FRAME):
            _set_movers(data, movers, (t + tick / STEPS_PER_FRAME) / fps)
            mj.mj_step(model, data)
            if data.ncon:
                deepest = max(deepest, -float(data.contact.dist.min()))
    if not np.isfinite(data.qpos).all():
        raise Rejected("the simulation diverged")
    if deepest > PENETRATION:
        raise Rejected(f"things sink into each other by more than {PENETRATION} m")
    return Motion({name: np.round(p, DIGITS) + 0.0 for name, p in poses.items()}, deepest)


def _start(body: Body) -> list[float]:
    return [*body.position, np.cos(body.yaw / 2), 0.0, 0.0, np.sin(body.yaw / 2)]


def _settle(mj, model, data, bodies: list[Body], movers: list[Fixed], steps: int) -> None:
    """Let things come to rest, those that do not settle held in place; then set them in motion."""
    for _ in range(steps):
        _set_movers(data, movers, 0.0)
        for item in movers:
            data.joint(f"{item.thing.name}-pull").qvel[:] = 0.0
        mj.mj_step(model, data)
        for body in bodies:
            joint = data.joint(body.thing.name)
            if body.settles:  # nothing drifts sideways or turns while it sinks in by micrometres
                joint.qpos[[0, 1, 3, 4, 5, 6]] = np.array(_start(body))[[0, 1, 3, 4, 5, 6]]
                joint.qvel[[0, 1, 3, 4, 5]] = 0.0
            else:
                joint.qpos[:], joint.qvel[:] = _start(body), 0.0
    for body in bodies:
        data.joint(body.thing.name).qvel[:] = [*body.velocity, 0, 0, 0]
    _set_movers(data, movers, 0.0)
    data.time = 0.0


def _set_movers(data, movers: list[Fixed], time: float) -> None:
    """Pulled things are where their path says, at its speed: so contacts feel the motion."""
    for item in movers:
        assert item.path is not None
        joint, now = data.joint(f"{item.thing.name}-pull"), item.path(time)
        joint.qpos[:] = now - item.position[0]
        joint.qvel[:] = (item.path(time + 1e-4) - item.path(time - 1e-4)) / 2e-4


_PULL = (
    '<inertial pos="0 0 0" mass="1e6" diaginertia="1e6 1e6 1e6"/>'
    '<joint name="{}-pull" type="slide" axis="1 0 0"/>'
)


def _xml(bodies: list[Body], fixed: list[Fixed], step: float, bounce: float, grip: float) -> str:
    # Contacts as springs of 280 rad/s: a damping ratio z keeps exp(-pi z / sqrt(1 - z^2)).
    stiff = 80000.0
    ratio = -np.log(bounce) / np.hypot(np.pi, np.log(bounce))
    elastic = f"{-stiff:.6g} {-2 * ratio * np.sqrt(stiff):.6g}"
    parts = []
    for item in fixed:
        place = " ".join(f"{v:.8f}" for v in item.position)
        contact = 'priority="2" solref="0.006 1"' if item.damped else f'solref="{elastic}"'
        if item.friction:
            contact += f' condim="3" friction="{item.friction:.6f} 0 0"'
        pull = _PULL.format(item.thing.name) if item.path else ""
        inner = geoms(item.thing).replace("<geom ", f"<geom {contact} ")
        parts.append(f'<body name="{item.thing.name}" pos="{place}">{pull}{inner}</body>')
    for body in bodies:
        turn = "" if body.rolls else "1e9 1e9 1e9"
        inertia = f'<inertial pos="0 0 0" mass="{body.mass}" diaginertia="{turn}"/>' if turn else ""
        contact = f'solref="{elastic}" mass="{body.mass}"'
        inner = geoms(body.thing).replace("<geom ", f"<geom {contact} ")
        joint = f'<freejoint name="{body.thing.name}"/>'
        parts.append(f'<body name="{body.thing.name}">{inertia}{joint}{inner}</body>')
    mesh = "".join(meshes(x.thing) for x in (*bodies, *fixed))
    # MuJoCo 3's own collider of convex shapes throws an upright cylinder off a board now and then.
    old = load_mujoco().__version__.startswith("3.")
    collider = '<flag nativeccd="disable"/>' if old else ""
    return f"""<mujoco>
  <option timestep="{step:.10f}" integrator="Euler" cone="elliptic">{collider}</option>
  <default><geom friction="0 0 0" condim="1"/></default>
  <asset>{mesh}</asset>
  <worldbody>
    <geom name="floor" type="plane" size="50 50 1" priority="1" solref="0.006 1"
          condim="{3 if grip else 1}" friction="{grip:.6f} 0 0"/>
    {"".join(parts)}
  </worldbody>
</mujoco>"""
