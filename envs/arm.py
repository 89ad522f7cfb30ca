"""Arm: what the tabletop tasks share. A five-joint arm with a gripper, moved by its hand.

Actions are those of DROID and V-JEPA 2-AC without rotation: the hand's displacement along x, y, z
and the change of the gripper's opening. Tasks and thresholds follow Metaworld's reach, reach-wall,
push and pick-place. Differences: an arm of our own made of capsules, a hand that always points
down, a smaller table, 20 control steps per second, and goals that are states at rest.

The controller is a part of the scene: velocity servos in Cartesian space on the wrist (no inverse
kinematics, and nothing to remember), springs that keep the hand upright, and an integrated target
for the gripper, which MuJoCo keeps in its state. x points away from the robot, y to its left, z up;
the origin lies on the table, in the middle of the workspace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import GoalEnv, State

LINK = 0.36
"""Length of the upper arm and of the forearm, metres."""
HAND = 0.16
"""From the wrist down to the tip, the middle between the finger pads."""
BASE_X, SHOULDER_Z = -0.4, 0.3
"""Where the shoulder is."""
LOW, HIGH = np.array([-0.19, -0.21, 0.03]), np.array([0.19, 0.21, 0.29])
"""The workspace of the tip; fences stand 1 cm further out (below: 2 mm)."""
STEP = 0.02
"""Metres that the hand moves in one step at full command, along each axis."""
OPEN = 0.045
"""Widest opening: metres from either finger pad to the middle."""
HALF = 0.025
"""Half the edge of the cube that is pushed and carried."""
UNIT = 0.12
"""Metres per unit of the planning coordinates: a tolerance of 5 cm is about .4."""
_SPEED = np.array([0.4, 0.4, 0.4, -0.18])
"""Metres per second at full command; a positive gripper action closes."""
_ARM = slice(0, 5)
_FINGER, _OBJECT = 5, slice(7, 10)


class Arm(GoalEnv):
    """What the arm tasks share. Actions ``[4]``: the hand's way along x, y and z over 2 cm, and the
    gripper (1 closes it by 9 mm per finger, -1 opens it, 0 keeps it as it is, squeezing included).
    Proprioception ``[5]``: the tip's x, y, z, the opening (all in metres) and the opening that the
    gripper's servo aims at (less than the opening: it squeezes).

    Args:
        camera: "front", "side" or "top". options: those of :class:`GoalEnv`.
    """

    frame_skip = 5
    proprio_dim = 5
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, *, camera: str = "front", **options: Any):
        super().__init__(camera=camera, **options)
        self._grip = 1 + self.model.nq + self.model.nv  # where a state holds the gripper's target

    def control(self, action: np.ndarray) -> np.ndarray:
        """Velocities (m/s) of the wrist along x, y, z and of the finger, for actions ``[..., 4]``
        clipped to [-1, 1]."""
        return np.clip(action, -1.0, 1.0) * _SPEED

    def state_at(self, position: np.ndarray, velocity: np.ndarray | None = None) -> State:
        """The state with these joint positions. The gripper's target is its opening, or closed if
        the fingers touch the cube from both sides: what is held stays held."""
        state = super().state_at(position, velocity)
        held = self.model.nq > 7 and holds(self.position(state))
        state[self._grip] = 0.0 if held else self.position(state)[_FINGER]
        return state

    def proprio(self, state: State) -> np.ndarray:
        """float32 [5]: the tip's x, y, z, the opening, and the opening aimed at (metres)."""
        position = self.position(state)
        values = [*tip(position), position[_FINGER], self.aim(state)]
        return np.array(values, np.float32)

    def pose(self, hand: np.ndarray, opening: float, place: np.ndarray | None = None) -> np.ndarray:
        """Joint positions ``[nq]``: the tip at ``hand`` ``[3]``, the fingers ``opening`` metres
        from the middle, the cube at ``place`` ``[3]`` (in tasks that have one)."""
        joints = [arm_joints(hand), np.full(2, opening)]
        if place is not None:
            joints += [place, np.array([1.0, 0.0, 0.0, 0.0])]
        return np.concatenate(joints)

    def settled(self, position: np.ndarray) -> State:
        """The state at rest into which these joint positions settle within two seconds."""
        data = self._scratch
        self._mj.mj_resetData(self.model, data)
        self._mj.mj_setState(self.model, data, self.state_at(position), self._spec)
        self._mj.mj_step(self.model, data, 200)
        return self.state_at(data.qpos.copy())

    def aim(self, state: State) -> float:
        """The opening (metres) that the gripper's servo aims at in a state."""
        return float(state[self._grip])

    def hand(self) -> np.ndarray:
        """Where the tip is in this environment's episode: float64 [3]."""
        return tip(self.position(self.get_state()))

    def towards(self, target: np.ndarray, grip: float) -> np.ndarray:
        """The action that takes the tip straight to ``target`` ``[3]``, slower near it."""
        gap = 0.8 * (target - self.hand()) / STEP
        return np.append(gap / max(1.0, float(np.abs(gap).max())), grip)


def play(
    env: Arm,
    rng: np.random.Generator,
    draw: Callable[[], tuple[np.ndarray, float]],
) -> Callable[[int], np.ndarray]:
    """Goes from one drawn sub-goal to the next, 5 to 20 steps each, with noise of a random
    strength per episode.

    Args:
        draw: a place of the tip ``[3]`` and a gripper action.
    """
    noise = rng.uniform(0.0, 0.3)
    (target, grip), until = draw(), int(rng.integers(5, 21))

    def act(t: int) -> np.ndarray:
        nonlocal target, grip, until
        if t >= until:
            (target, grip), until = draw(), t + int(rng.integers(5, 21))
        action = env.towards(target, grip) + noise * rng.standard_normal(4)
        return np.clip(action, -1.0, 1.0)

    return act


def tip(position: np.ndarray) -> np.ndarray:
    """The tip in metres ``[..., 3]``, from joint positions ``[..., nq]``."""
    pan, lift, elbow, pitch = (position[..., k] for k in range(4))
    forearm = lift + elbow
    tilt = forearm + pitch  # of the hand against the vertical: almost 0
    reach = LINK * (np.cos(lift) + np.cos(forearm)) + HAND * np.sin(tilt)
    height = SHOULDER_Z + LINK * (np.sin(lift) + np.sin(forearm)) - HAND * np.cos(tilt)
    return np.stack([BASE_X + reach * np.cos(pan), reach * np.sin(pan), height], axis=-1)


def arm_joints(hand: np.ndarray) -> np.ndarray:
    """Pan, lift, elbow, pitch and yaw ``[5]`` (rad) that hold the hand upright, its tip at ``hand``
    ``[3]``, the elbow up."""
    x, y, z = hand[0] - BASE_X, hand[1], hand[2] + HAND - SHOULDER_Z
    pan, reach = np.arctan2(y, x), np.hypot(x, y)
    bend = np.arccos(np.hypot(reach, z) / (2 * LINK))
    lift = np.arctan2(z, reach) + bend
    return np.array([pan, lift, -2 * bend, 2 * bend - lift, -pan])


def object_place(position: np.ndarray) -> np.ndarray:
    """The cube's middle in metres ``[..., 3]``, from joint positions ``[..., nq]``."""
    return np.asarray(position)[..., _OBJECT]


def opening(position: np.ndarray) -> np.ndarray:
    """Metres ``[...]`` from a finger pad to the middle, from joint positions ``[..., nq]``."""
    return np.asarray(position)[..., _FINGER]


def holds(position: np.ndarray) -> bool:
    """Whether the cube is between the finger pads and both touch it, at ``position`` ``[nq]``."""
    gap = np.abs(object_place(position) - tip(position))
    near = gap[0] < 0.02 and gap[1] < 0.01 and gap[2] < 0.04
    yaw = 2 * np.arctan2(position[13], position[10])
    width = HALF * (abs(np.cos(yaw)) + abs(np.sin(yaw)))  # along y, half of it
    return bool(near and opening(position) < width + 1.5e-3)
