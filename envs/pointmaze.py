"""PointMaze: a ball must roll through a U-shaped corridor to where a goal image shows it.

After D4RL's and gymnasium-robotics' PointMaze_UMaze: unit cells, a force on two slide joints, and
success within .45 cells. Differences: a larger ball (it must show at 64 pixels), no goal marker in
the picture, starts and goals anywhere in the corridor.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .base import GoalEnv, State

RADIUS = 0.15
"""Of the ball, in cells."""
TOLERANCE = 0.45
"""Success: the centres within this many cells."""
FREE_CELLS = np.array([(-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])
"""Centres of the free cells along the corridor, from one end to the other: int [7, 2]."""


class PointMaze(GoalEnv):
    """``tubelet/PointMaze-v0``. State: x and y in cells. Proprioception ``[4]``: position (cells)
    and velocity (cells/s). Actions ``[2]``: force along x and y; full force rolls at most .25 cells
    per step. Starts and goals: uniform over the corridor, at rest."""

    asset = "pointmaze.xml"
    frame_skip = 5
    proprio_dim = 4
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def sample_state(self, rng: np.random.Generator) -> State:
        """A position uniform over where the ball fits without touching a wall, at rest."""
        fit = RADIUS + 0.01  # farther from the walls than the contact margin
        while True:  # 7 of 10 points are free
            position = rng.uniform(fit - 1.5, 1.5 - fit, 2)
            if position[0] >= 0.5 + fit or abs(position[1]) >= 0.5 + fit:
                return self.state_at(position)

    def proprio(self, state: State) -> np.ndarray:
        """float32 [4]: x, y, and their velocities."""
        return np.concatenate([self.position(state), self.velocity(state)]).astype(np.float32)

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``distance``: cells between the centres, as the crow flies."""
        gap = self.position(state) - self.position(goal_state)
        return {"distance": float(np.linalg.norm(gap))}

    def reached(self, distance: dict[str, float]) -> bool:
        """Within .45 cells (walls are a cell thick, so never through one)."""
        return distance["distance"] <= TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [2]: x and y."""
        return self.position(state).astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """Place along and across the corridor (:func:`unroll`): here the way round the middle wall
        is a straight line, while in x and y the two ends of the corridor are close."""
        return unroll(position)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Proportional-derivative control along the corridor to random places, a new one when the
        last is reached, with noise of a random strength per episode."""
        noise = rng.uniform(0.0, 0.3)
        target = self.position(self.sample_state(rng))

        def act(t: int) -> np.ndarray:
            nonlocal target
            state = self.get_state()
            position = self.position(state)
            if np.linalg.norm(target - position) < 0.2:
                target = self.position(self.sample_state(rng))
            here, there = _cell(position), _cell(target)
            waypoint = target if here == there else FREE_CELLS[here + np.sign(there - here)]
            command = 3.0 * (waypoint - position) - 0.4 * self.velocity(state)
            return np.clip(command + noise * rng.standard_normal(2), -1.0, 1.0)

        return act


def unroll(position: np.ndarray) -> np.ndarray:
    """Corridor coordinates of places ``[..., 2]``: how far along, how far from the inner wall.

    Straight parts keep their lengths; the two bends are quarter turns about the inner corners
    ``(.5, ±.5)``, measured along the middle of the corridor (radius .5).
    """
    x, y = np.moveaxis(np.asarray(position, np.float64), -1, 0)
    side = np.where(y >= 0, 1.0, -1.0)  # the U is symmetric about y = 0: along is odd, across even
    dx, dy = x - 0.5, np.abs(y) - 0.5
    arm, column = dx <= 0, dy <= 0
    bend = np.arctan2(np.maximum(dy, 0), np.maximum(dx, 0))
    along = np.where(arm, 0.5 + np.pi / 4 - dx, np.where(column, np.abs(y), 0.5 + 0.5 * bend))
    across = np.where(arm, dy, np.where(column, dx, np.hypot(dx, dy)))
    return np.stack([side * along, across], axis=-1)


def _cell(position: np.ndarray) -> int:
    """The number of the free cell nearest to ``position``."""
    return int(np.argmin(np.linalg.norm(FREE_CELLS - position, axis=1)))
