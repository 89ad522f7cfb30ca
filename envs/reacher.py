"""Reacher: a planar two-link arm must take the whole pose of a goal image.

After dm_control's reacher (Tassa et al. 2018): links of 12 cm, an unlimited shoulder, a wrist of
±160°, gear .05, joint damping .01, no contacts. Differences: thicker links (they must show at 64
pixels), no target in the picture, 25 control steps per second, and success asks for the pose, not
only for the fingertip.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .base import GoalEnv, State

LINK = 0.12
"""Length of either link, metres."""
WRIST_LIMIT = np.deg2rad(160.0)
TIP_TOLERANCE = 0.05
"""Success: the fingertip within this many metres of the goal's…"""
POSE_TOLERANCE = 0.35
"""…and the joints within this many radians, root mean square over the two."""


class Reacher(GoalEnv):
    """``tubelet/Reacher-v0``. State: shoulder and wrist angle. Proprioception ``[5]``: cosine and
    sine of the shoulder, the wrist (rad), both velocities (rad/s). Actions ``[2]``: joint torques.
    Full torque turns a joint by at most .2 rad per step. Starts and goals: both joints uniform over
    their whole range, at rest."""

    asset = "reacher.xml"
    frame_skip = 4
    proprio_dim = 5

    def sample_state(self, rng: np.random.Generator) -> State:
        """Both joints uniform over their full range, at rest."""
        limit = np.array([np.pi, WRIST_LIMIT])
        return self.state_at(rng.uniform(-limit, limit))

    def proprio(self, state: State) -> np.ndarray:
        """float32 [5]: cos and sin of the shoulder, wrist (rad), velocities (rad/s)."""
        (shoulder, wrist), velocity = self.position(state), self.velocity(state)
        values = [np.cos(shoulder), np.sin(shoulder), wrist, *velocity]
        return np.array(values, np.float32)

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``tip``: metres between the fingertips. ``joint_rms``: radians, root mean square over
        the joints, the shoulder's difference wrapped to ±pi."""
        position, goal = self.position(state), self.position(goal_state)
        turn = position - goal
        turn[0] = (turn[0] + np.pi) % (2 * np.pi) - np.pi
        gap = arm_points(position)[1] - arm_points(goal)[1]
        return {
            "tip": float(np.linalg.norm(gap)),
            "joint_rms": float(np.sqrt(np.mean(turn**2))),
        }

    def reached(self, distance: dict[str, float]) -> bool:
        """Fingertip within 5 cm and pose within .35 rad RMS."""
        return distance["tip"] <= TIP_TOLERANCE and distance["joint_rms"] <= POSE_TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [4]: cosine and sine of both links' absolute angles."""
        upper, forearm = np.cumsum(self.position(state))
        values = [np.cos(upper), np.sin(upper), np.cos(forearm), np.sin(forearm)]
        return np.array(values, np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """Elbow, fingertip, and the wrist's angle in radians: ``[..., 5]``, the points in link
        lengths. The angle itself, since the way from one end of its range to the other is long."""
        elbow, tip = arm_points(position)
        return np.concatenate([elbow / LINK, tip / LINK, position[..., 1:]], axis=-1)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Proportional-derivative control to random poses, the short way round, a new one every 10
        to 30 steps, with noise of a random strength per episode."""
        limit = np.array([np.pi, WRIST_LIMIT])
        noise = rng.uniform(0.0, 0.3)
        target, until = np.zeros(2), 0

        def act(t: int) -> np.ndarray:
            nonlocal target, until
            if t >= until:
                target, until = rng.uniform(-limit, limit), t + int(rng.integers(10, 31))
            return np.clip(self._command(target) + noise * rng.standard_normal(2), -1.0, 1.0)

        return act

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Proportional-derivative control to the goal's pose, the short way round."""
        target = self.position(self.goal_state)
        return lambda t: np.clip(self._command(target), -1.0, 1.0)

    def _command(self, target: np.ndarray) -> np.ndarray:
        """Torques towards joint angles ``[2]``, not yet clipped."""
        error = target - self.position(self.get_state())
        error[0] = (error[0] + np.pi) % (2 * np.pi) - np.pi
        return 3.0 * error - 0.3 * self.velocity(self.get_state())


def arm_points(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elbow and fingertip in metres, each ``[..., 2]``, for joint angles ``[..., 2]``."""
    shoulder = position[..., :1]
    forearm = shoulder + position[..., 1:]
    elbow = LINK * np.concatenate([np.cos(shoulder), np.sin(shoulder)], axis=-1)
    return elbow, elbow + LINK * np.concatenate([np.cos(forearm), np.sin(forearm)], axis=-1)
