"""How far a track is from what physics allows, judged from the true states alone.

What an observer who sees every pose expects of solid things (objects, supports, containers):

- **presence**: nothing appears or vanishes;
- **continuity**: in a frame nothing goes further than its speed before or after, and gravity,
  allow;
- **solidity**: nothing sinks deeper into another than colliding things do;
- **forces**: the acceleration of an object is gravity's, plus pushes along the normals of what it
  touches, plus friction. So what is not supported falls, and nothing turns, stops, starts or
  bounces without a contact.

Contacts are measured on the geometry of the scene (MuJoCo's distances between geoms). Labels, cuts
and events are not looked at. Screens and curtains hide, and touch nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..rendering import load_mujoco
from .draw import AWAY
from .simulate import PENETRATION

G = 9.81
SLACK = 0.02
"""Metres within which things count as touching, beside what they move in a frame."""
JITTER = 0.008
"""Metres per frame² of acceleration that rounded poses may show."""
FRICTION = 0.7
"""Of anything on what supports it; the generator's is below."""
WORST = 5.0
"""The most that one frame of one thing counts for one law."""
REACH = 0.6
"""Metres beyond which distances are not measured."""


def violations(
    xml: str, things: Sequence[tuple[str, str]], pose: np.ndarray, present: np.ndarray, fps: float
) -> np.ndarray:
    """How impossible each frame is, given those around it: float64 ``[T]``, 0 for legal physics.

    Args:
        xml: MJCF of the scene, things as mocap bodies. things: (name, kind) in the track's order.
        pose: float64 [T, N, 7]. present: bool [T, N]. fps: frames per second.
    """
    solid = [n for n, (_, kind) in enumerate(things) if kind != "occluder"]
    total = np.zeros(len(pose))
    total[1:] += (present[1:, solid] != present[:-1, solid]).sum(1)
    scene = _Scene(xml, [name for name, _ in things])
    for n in solid:
        if things[n][1] != "object":
            continue
        there = present[:, n]
        others = scene.surfaces([k for k in solid if k != n])
        gaps = scene.gaps(pose, present, n, others)
        for t in np.flatnonzero(there):
            deep = -gaps[t].min() - 1.2 * PENETRATION
            total[t] += min(WORST, max(0.0, deep / PENETRATION))
        total += _jumps(pose[:, n, :3], there, fps)
        total += _forces(scene, pose, present, n, others, gaps, fps)
    return total


def _jumps(place: np.ndarray, there: np.ndarray, fps: float) -> np.ndarray:
    """Ways that are longer than speed allows, in units of 5 cm."""
    out, fall = np.zeros(len(place)), G / fps**2
    way = np.linalg.norm(np.diff(place, axis=0), axis=1)
    for t in range(1, len(place)):
        if not there[t - 1 : t + 1].all():
            continue
        around = [way[s] for s in (t - 2, t) if 0 <= s < len(way)]
        out[t] = min(WORST, max(0.0, way[t - 1] - max(around) - fall - 0.01) / 0.05)
    return out


def _forces(
    scene: _Scene,
    pose: np.ndarray,
    present: np.ndarray,
    n: int,
    others: Sequence[Surface],
    gaps: np.ndarray,
    fps: float,
) -> np.ndarray:
    """Accelerations that nothing explains, in units of gravity's; counted in the later frame."""
    from scipy.optimize import nnls

    out, fall = np.zeros(len(pose)), G / fps**2
    place = pose[:, :, :3]
    for t in range(1, len(pose) - 1):
        if not present[t - 1 : t + 2, n].all():
            continue
        pushed = place[t + 1, n] - 2 * place[t, n] + place[t - 1, n]
        pushed[2] += fall  # what is left is not gravity's
        if np.linalg.norm(pushed) <= JITTER:
            continue
        steps = np.diff(place[t - 1 : t + 2], axis=0)
        normals = []
        for column, other in enumerate(others):
            relative = steps[:, n] - (steps[:, other.thing] if other.thing >= 0 else 0.0)
            near = t - 1 + int(np.argmin(gaps[t - 1 : t + 2, column]))
            if gaps[near, column] <= SLACK + np.linalg.norm(relative, axis=1).max():
                normals.append(scene.normal(pose, present, near, n, other))
        left, push = float(np.linalg.norm(pushed)), 0.0
        if normals:
            shares, left = nnls(np.stack(normals, axis=1), pushed)
            push = float(shares.sum())
        excess = left - JITTER - FRICTION * push
        out[t + 1] += min(WORST, max(0.0, excess / fall))
    return out


class Surface(NamedTuple):
    """One of the shapes that a thing is made of; a container's walls push apart from its floor."""

    thing: int
    """Number of the thing; -1: the ground."""
    geom: int
    """Number of the geom in the scene."""


class _Scene:
    """Distances between the things of a scene at their poses."""

    def __init__(self, xml: str, names: Sequence[str]):
        mj = self._mj = load_mujoco()
        self._model = mj.MjModel.from_xml_string(xml)
        self._data = mj.MjData(self._model)
        bodies = [self._model.body(name).id for name in names]
        self._mocap = self._model.body_mocapid[bodies]
        self._geoms = [np.flatnonzero(self._model.geom_bodyid == body).tolist() for body in bodies]
        floor = np.flatnonzero(self._model.geom_type == int(mj.mjtGeom.mjGEOM_PLANE))
        self._geoms.append(floor.tolist())  # number -1

    def surfaces(self, things: Sequence[int]) -> list[Surface]:
        """Every shape of these things, and the ground."""
        return [Surface(k, geom) for k in (*things, -1) for geom in self._geoms[k]]

    def gaps(
        self, pose: np.ndarray, present: np.ndarray, n: int, others: Sequence[Surface]
    ) -> np.ndarray:
        """Signed distances of thing ``n`` from ``others``, float64 ``[T, others]``; at most
        ``REACH``."""
        out = np.full((len(pose), len(others)), REACH)
        for t in np.flatnonzero(present[:, n]):
            self._set(pose[t], present[t])
            for column, other in enumerate(others):
                if other.thing < 0 or present[t, other.thing]:
                    out[t, column] = self._gap(n, other)
        return out

    def normal(
        self, pose: np.ndarray, present: np.ndarray, t: int, n: int, other: Surface
    ) -> np.ndarray:
        """Which way ``other`` pushes thing ``n``: the gradient of their distance."""
        slope, small = np.zeros(3), 5e-3
        for axis in range(3):
            for sign in (1, -1):
                moved = pose[t].copy()
                moved[n, axis] += sign * small
                self._set(moved, present[t])
                slope[axis] += sign * self._gap(n, other)
        length = np.linalg.norm(slope)
        return slope / length if length else slope

    def _gap(self, n: int, other: Surface) -> float:
        model, data = self._model, self._data
        return min(
            self._mj.mj_geomDistance(model, data, other.geom, geom, REACH, None)
            for geom in self._geoms[n]
        )

    def _set(self, pose: np.ndarray, present: np.ndarray) -> None:
        poses = np.where(present[:, None], pose, AWAY)
        self._data.mocap_pos[self._mocap] = poses[:, :3]
        self._data.mocap_quat[self._mocap] = poses[:, 3:]
        self._mj.mj_kinematics(self._model, self._data)
