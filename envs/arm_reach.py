"""ArmReach and ArmReachWall: the hand must come to where a goal image shows it.

After Metaworld's reach and reach-wall: the tip within 5 cm of the goal's, a wall 12 cm high.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arm import HIGH, LOW, UNIT, Arm, play, tip
from .base import State

TOLERANCE = 0.05
"""Success: the tips within this many metres."""
WALL_TOP, WALL_HALF = 0.12, 0.01
"""The wall stands at x = 0 across the middle, 24 cm wide."""
OVER = 0.18
"""Height of the tip at which the fingers clear the wall."""


class ArmReach(Arm):
    """``tubelet/ArmReach-v0``. Starts and goals: the tip anywhere in the workspace, the gripper
    closed, at rest."""

    asset = "arm_reach.xml"
    budget = 40

    def sample_state(self, rng: np.random.Generator) -> State:
        """The tip uniform over the workspace, at rest."""
        return self.state_at(self.pose(rng.uniform(LOW, HIGH), 0.0))

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``hand``: metres between the tips."""
        gap = tip(self.position(state)) - tip(self.position(goal_state))
        return {"hand": float(np.linalg.norm(gap))}

    def reached(self, distance: dict[str, float]) -> bool:
        """Within 5 cm."""
        return distance["hand"] <= TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [3]: the tip's x, y and z over 20 cm."""
        return (tip(self.position(state)) / 0.2).astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """The tip, ``[..., 3]`` in 12 cm."""
        return tip(position) / UNIT

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Straight to the goal."""
        target = tip(self.position(self.goal_state))
        return lambda t: self.towards(self.waypoint(target), 0.0)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Straight to random places, opening and closing the gripper, with noise."""
        return play(self, rng, lambda: (rng.uniform(LOW, HIGH), rng.uniform(-1.0, 1.0)))

    def waypoint(self, target: np.ndarray) -> np.ndarray:
        """Where to head for on the way to ``target`` ``[3]``: the target itself."""
        return target


class ArmReachWall(ArmReach):
    """``tubelet/ArmReachWall-v0``. Starts on the robot's side of a wall, goals on the other, both
    below its top: the hand must go over it or round it. Otherwise like :class:`ArmReach`."""

    asset = "arm_reach_wall.xml"
    budget = 50

    def sample_state(self, rng: np.random.Generator) -> State:
        """The tip on the robot's side of the wall, at rest."""
        return self.state_at(self.pose(rng.uniform((-0.18, -0.1, 0.03), (-0.07, 0.1, 0.1)), 0.0))

    def sample_goal(self, rng: np.random.Generator) -> State:
        """The tip on the far side of the wall, at rest."""
        return self.state_at(self.pose(rng.uniform((0.07, -0.1, 0.03), (0.18, 0.1, 0.1)), 0.0))

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """The place along the way over the wall, y and z, ``[..., 3]`` in 12 cm. Below the height
        at which the fingers clear the wall, its two sides are as far apart as the way up and down;
        in x they are close."""
        place = tip(position)
        x, z = place[..., 0], place[..., 2]
        along = x + np.sign(x) * np.maximum(0.0, OVER - z)
        return np.stack([along, place[..., 1], z], axis=-1) / UNIT

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Up, over the wall, and down to the goal."""
        return super().expert(rng)

    def waypoint(self, target: np.ndarray) -> np.ndarray:
        """Straight up while the wall is in between and the hand too low for it, then across, then
        the target ``[3]``."""
        hand, clear = self.hand(), WALL_HALF + 0.03
        side = np.sign(target[0]) or 1.0
        if side * hand[0] > clear:
            return target
        if hand[2] < OVER - 0.02 and abs(hand[0]) > WALL_HALF:
            return np.array(
                [min(hand[0], -clear) if side > 0 else max(hand[0], clear), hand[1], OVER]
            )
        return np.array([target[0], target[1], max(target[2], OVER)])
