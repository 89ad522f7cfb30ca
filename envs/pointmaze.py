"""PointMaze: a ball must roll through a maze to where a goal image shows it.

After D4RL's and gymnasium-robotics' PointMaze: unit cells, a force on two slide joints, and success
within .45 cells. Differences: a larger ball (it must show at 64 pixels), no goal marker in the
picture, starts and goals anywhere in the corridors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.rng import numpy_generator
from .base import GoalEnv, State
from .geodesic import Geodesic
from .maze_layouts import (
    EDGES,
    MEDIUM,
    SIDE,
    UPRIGHT,
    Cells,
    block_cells,
    check_split,
    lattice_links,
    random_layout,
    slab_cells,
)

RADIUS = 0.15
"""Of the ball, in cells."""
TOLERANCE = 0.45
"""Success: the centres within this many cells."""
FREE_CELLS = np.array([(-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])
"""Centres of the U-maze's free cells, from one end to the other: int [7, 2]."""
FIT = RADIUS + 0.01
"""Starts and goals are this far from the walls: more than the contact margin."""


class PointMaze(GoalEnv):
    """``tubelet/PointMaze-v0``, the U-maze. State: x and y in cells. Proprioception ``[4]``:
    position (cells) and velocity (cells/s). Actions ``[2]``: force along x and y; full force rolls
    at most .25 cells per step. Starts and goals: uniform over the corridors, at rest."""

    asset = "pointmaze.xml"
    frame_skip = 5
    proprio_dim = 4
    budget = 100
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    half_width = 1.5
    """The corridors lie within this many cells of the middle."""

    @property
    def cells(self) -> Cells:
        """The maze's cells in the layout of the state last sampled or set."""
        return _u_cells()

    def fits(self, position: np.ndarray) -> bool:
        """Whether the ball touches no wall at ``position`` ``[2]``."""
        x, y = np.abs(position)
        return max(x, y) <= 1.5 - FIT and (position[0] >= 0.5 + FIT or y >= 0.5 + FIT)

    def sample_state(self, rng: np.random.Generator) -> State:
        """A position uniform over where the ball fits without touching a wall, at rest."""
        while True:  # more than a third of all points are free
            position = rng.uniform(FIT - self.half_width, self.half_width - FIT, 2)
            if self.fits(position):
                return self.state_at(position)

    def proprio(self, state: State) -> np.ndarray:
        """float32 [4]: x, y, and their velocities."""
        return np.concatenate([self.position(state), self.velocity(state)]).astype(np.float32)

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``distance``: cells between the centres, as the crow flies."""
        gap = self.position(state) - self.position(goal_state)
        return {"distance": float(np.linalg.norm(gap))}

    def reached(self, distance: dict[str, float]) -> bool:
        """Within .45 cells (two balls on either side of a wall are never that near)."""
        return distance["distance"] <= TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [2]: x and y."""
        return self.position(state).astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """Place along and across the corridor (:func:`unroll`): here the way round the middle wall
        is a straight line, while in x and y the two ends of the corridor are close."""
        return unroll(position)

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Proportional-derivative control from cell to cell along the shortest way."""
        target, cells = self.position(self.goal_state), self.cells
        return lambda t: np.clip(self._command(cells, target), -1.0, 1.0)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """The expert's control to random places, a new one when the last is reached, with noise of
        a random strength per episode."""
        noise = rng.uniform(0.0, 0.3)
        cells, target = self.cells, self._place(rng)

        def act(t: int) -> np.ndarray:
            nonlocal target
            if np.linalg.norm(target - self.position(self.get_state())) < 0.2:
                target = self._place(rng)
            return np.clip(self._command(cells, target) + noise * rng.standard_normal(2), -1.0, 1.0)

        return act

    def _place(self, rng: np.random.Generator) -> np.ndarray:
        """Some place in the present layout."""
        return self.position(PointMaze.sample_state(self, rng))

    def _command(self, cells: Cells, target: np.ndarray) -> np.ndarray:
        state = self.get_state()
        position = self.position(state)
        return 3.0 * (cells.waypoint(position, target) - position) - 0.4 * self.velocity(state)


class PointMazeMedium(PointMaze):
    """``tubelet/PointMazeMedium-v0``: D4RL's medium maze, 26 cells of 6 x 6. The ball is drawn
    larger (radius .25) than it is. Otherwise like :class:`PointMaze`."""

    asset = "pointmaze_medium.xml"
    budget = 180
    half_width = 3.0

    @property
    def cells(self) -> Cells:
        """The maze's cells."""
        return _medium()[0]

    def fits(self, position: np.ndarray) -> bool:
        """Whether the ball touches no wall at ``position`` ``[2]``."""
        walls = _medium()[2]
        gap = np.maximum(np.abs(position - walls) - 0.5, 0.0)
        return bool(np.linalg.norm(gap, axis=1).min() >= FIT)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """:class:`.geodesic.Geodesic` coordinates of the place."""
        return _medium()[1](position)


class PointMazeRandom(PointMaze):
    """``tubelet/PointMazeRandom-v0``: 4 x 4 cells between thin walls, a new layout with every
    sampled start, exactly one way between any two cells. The layout is a part of the state.
    Otherwise like :class:`PointMaze`.

    Args:
        split: "train" draws from four fifths of the 100,352 layouts, "test" from the others.
        options: those of :class:`GoalEnv`.
    """

    asset = "pointmaze_random.xml"
    budget = 180
    half_width = SIDE / 2

    def __init__(self, *, split: str = "train", **options: Any):
        super().__init__(**options)
        self.split = check_split(split)
        self._lay(random_layout(numpy_generator(0, "maze", split), split))
        self._data.mocap_pos[:], self._data.mocap_quat[:] = self._layout
        self.goal_state = self.get_state()

    @property
    def closed(self) -> tuple[int, ...]:
        """The edges (rows of ``maze_layouts.EDGES``) on which walls stand, in the layout of the
        state last sampled or set."""
        return _closed(self._layout[0])

    @property
    def cells(self) -> Cells:
        """The maze's cells in the layout of the state last sampled or set."""
        return slab_cells(self.closed)

    def sample_state(self, rng: np.random.Generator) -> State:
        """A new layout of the split and a place in it, uniform over where the ball fits."""
        self._lay(random_layout(rng, self.split))
        return super().sample_state(rng)

    def sample_goal(self, rng: np.random.Generator) -> State:
        """A place in the layout of the state last sampled or set."""
        return super().sample_state(rng)

    def fits(self, position: np.ndarray) -> bool:
        """Whether the ball touches no wall at ``position`` ``[2]``."""
        closed = list(self.closed)
        half = np.where(UPRIGHT[closed, None], (0.1, 0.6), (0.6, 0.1))
        gap = np.maximum(np.abs(position - EDGES[closed]) - half, 0.0)
        return bool(np.linalg.norm(gap, axis=1).min() >= FIT)

    def features(self, state: State) -> np.ndarray:
        """float32 [26]: x, y, and for each of the 24 places of a wall whether there is one."""
        walls = np.zeros(len(EDGES))
        walls[list(_closed(self.layout_of(state)[0]))] = 1.0
        return np.concatenate([self.position(state), walls]).astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """:class:`.geodesic.Geodesic` coordinates in the layout of the state last sampled or
        set."""
        return _slab_coordinates(self.closed)(position)

    def plan_features_in(self, state: State, position: np.ndarray) -> np.ndarray:
        """:meth:`plan_features` of positions ``[..., 2]`` in the layout that ``state`` holds."""
        return _slab_coordinates(_closed(self.layout_of(state)[0]))(position)

    def _place(self, rng: np.random.Generator) -> np.ndarray:
        return self.position(self.sample_goal(rng))

    def _lay(self, closed: tuple[int, ...]) -> None:
        """Make ``closed`` the layout that :meth:`state_at` puts into states."""
        edges = list(closed)
        place = np.concatenate([EDGES[edges], np.zeros((len(edges), 1))], axis=1)
        quarter = np.sqrt(0.5)
        turn = np.where(UPRIGHT[edges, None], (quarter, 0, 0, quarter), (1.0, 0, 0, 0))
        self._layout = place, turn


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


@functools.cache
def _u_cells() -> Cells:
    count = np.arange(len(FREE_CELLS))
    return Cells(FREE_CELLS.astype(float), np.abs(count[:, None] - count) == 1)


@functools.cache
def _medium() -> tuple[Cells, Geodesic, np.ndarray]:
    """The medium maze's cells, coordinates, and the centres of its walls' cells."""
    cells = block_cells(MEDIUM)
    inverse = tuple(row.translate(str.maketrans(".#", "#.")) for row in MEDIUM)
    return cells, _coordinates(cells, 6), block_cells(inverse).centres


@functools.lru_cache(maxsize=256)
def _slab_coordinates(closed: tuple[int, ...]) -> Geodesic:
    return _coordinates(slab_cells(closed), SIDE)


def _coordinates(cells: Cells, side: int, per_cell: int = 4) -> Geodesic:
    spacing = 1 / per_cell
    free, right, up = lattice_links(cells, side, per_cell)
    origin = spacing / 2 - side / 2
    return Geodesic(free, right, up, origin=origin, spacing=spacing, unit=TOLERANCE)


def _closed(place: np.ndarray) -> tuple[int, ...]:
    """The edges on which mocap bodies at ``place`` ``[9, 3]`` stand, sorted."""
    gaps = np.abs(place[:, None, :2] - EDGES).sum(-1)
    return tuple(sorted(gaps.argmin(1).tolist()))
