"""PushT: a disc must push a T to the place and angle that a goal image shows, and go to its own.

After gym-pusht (Chi et al. 2023) and its use for planning in DINO-WM: a table of 512 pixels, one
millimetre each, 10 steps per second, success when disc and T together are within 20 pixels and the
T within 20 degrees. Differences: actions are the disc's velocity (the original's target offset
comes to the same speed), the T's place is its centre of mass, and no goal is drawn into the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .base import GoalEnv, State
from .push_expert import DISC, PushExpert, clearance

POSITION_TOLERANCE = 20.0
"""Success: disc and T within this many millimetres, root of the sum of squares of both…"""
ANGLE_TOLERANCE = np.pi / 9
"""…and the T within this angle, radians."""
SPREAD = np.array([0.2, 0.2, 0.15, 0.15, np.pi])
"""Starts and goals: disc and T within these distances of the middle (m), any angle (rad)."""
SETTLE_STEPS = 20


class PushT(GoalEnv):
    """``tubelet/PushT-v0``. State: disc x, y and T x, y (metres), and the T's angle (rad).
    Proprioception ``[4]``: the disc's place over .256 m and velocity over .4 m/s. Actions ``[2]``:
    the disc's velocity over .4 m/s. Starts and goals: both anywhere, apart from each other, after
    .2 s without action."""

    asset = "pusht.xml"
    frame_skip = 10
    proprio_dim = 4
    budget = 150
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def sample_state(self, rng: np.random.Generator) -> State:
        """Disc and T anywhere on the table, not touching, at rest."""
        while True:
            position = rng.uniform(-SPREAD, SPREAD)
            if clearance(position[:2], position[2:]) > DISC + 0.005:
                return self._settled(position)

    def proprio(self, state: State) -> np.ndarray:
        """float32 [4]: the disc's x, y (1 at the walls) and velocity (1 at full speed)."""
        place, velocity = self.position(state)[:2], self.velocity(state)[:2]
        return np.concatenate([place / 0.256, velocity / 0.4]).astype(np.float32)

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``position``: millimetres, disc and T together. ``angle``: radians. ``block``:
        millimetres, the T alone."""
        gap = self.position(state) - self.position(goal_state)
        turn = (gap[4] + np.pi) % (2 * np.pi) - np.pi
        return {
            "position": 1e3 * float(np.linalg.norm(gap[:4])),
            "angle": float(abs(turn)),
            "block": 1e3 * float(np.linalg.norm(gap[2:4])),
        }

    def reached(self, distance: dict[str, float]) -> bool:
        """Disc and T together within 20 mm, the T within 20 degrees."""
        near = distance["position"] <= POSITION_TOLERANCE
        return near and distance["angle"] <= ANGLE_TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [6]: disc x, y, T x, y over .256 m, cosine and sine of the T's angle."""
        position = self.position(state)
        turn = [np.cos(position[4]), np.sin(position[4])]
        return np.concatenate([position[:4] / 0.256, turn]).astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """The T in units of 5 cm, the disc in units of 20 (it must leave its place to push), cosine
        and sine of the T's angle: ``[..., 6]``."""
        turn = position[..., 4:]
        places = position[..., :4] / (0.2, 0.2, 0.05, 0.05)
        return np.concatenate([places, np.cos(turn), np.sin(turn)], axis=-1)

    def shaped_cost(self, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """First the T, then the disc. The T's error e (1 at the tolerance) saturates far away.
        Until the T is in place, it pays a little for the disc to be near it; when it is, for the
        disc to be near its own goal. Both grow less dear as e falls, so that no move of the T away
        from its goal ever pays."""
        gap = position - goal
        turn = (gap[..., 4] + np.pi) % (2 * np.pi) - np.pi
        place = np.linalg.norm(gap[..., 2:4], axis=-1)
        error = np.hypot(1e3 * place / POSITION_TOLERANCE, turn / ANGLE_TOLERANCE)
        done = 1 / (1 + (error / 0.6) ** 4)  # 1/2 at .6 of the tolerance
        apart = np.linalg.norm(position[..., :2] - position[..., 2:4], axis=-1)
        away, left = np.maximum(apart - 0.06, 0.0), np.linalg.norm(gap[..., :2], axis=-1)
        approach = 0.15 * (1 - done) * away / (away + 0.1)
        return error / (error + 5.0) + approach + 0.3 * (1 - done * (1 - left / (left + 0.1)))

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Push after push to the goal (:class:`.push_expert.PushExpert`), then the disc's place."""
        expert = PushExpert(self.position(self.goal_state))
        return lambda t: expert.act(self.position(self.get_state()))

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Play: pushes towards random poses of the T and pushes at random places, each with
        probability one half, with noise of a random strength per episode."""
        noise = rng.uniform(0.0, 0.4)
        expert = PushExpert(self.position(self.sample_state(rng)), play=rng)

        def act(t: int) -> np.ndarray:
            if t % 60 == 59 or expert.done:
                expert.retarget(self.position(self.sample_state(rng)))
            action = expert.act(self.position(self.get_state()))
            return np.clip(action + noise * rng.standard_normal(2), -1.0, 1.0)

        return act

    def _settled(self, position: np.ndarray) -> State:
        """The state at ``position`` after .2 s without action, at rest."""
        self.state_at(position)  # leaves it in the scratch data
        self._mj.mj_step(self.model, self._scratch, SETTLE_STEPS)
        return self.state_at(self._scratch.qpos.copy())
