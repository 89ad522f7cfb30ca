"""TwoRooms: a dot must go through a door to where a goal image shows it in the other room.

After PLDM's Two-Rooms (Sobal et al. 2025): one unit is one pixel of its 65 x 65 picture, the border
is 5 wide, the wall 3, the door 8, a step moves at most 2.45, and success is within 4.5.
Differences: a physical ball instead of a drawn Gaussian, so it slides along walls instead of
stopping, and keeps its radius (2) away from them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .base import GoalEnv, State
from .geodesic import Geodesic
from .maze_layouts import check_split

RADIUS = 2.0
"""Of the dot."""
TOLERANCE = 4.5
"""Success: the centres within this many pixels."""
STEP = 2.45
"""Farthest way of one step, in any direction."""
ROOM = 27.5
"""Half the width of both rooms together."""
WALL, DOOR = 1.5, 4.0
"""Half the wall's thickness and half the door's width."""
PUBLISHED = (0.0, 22.5)
"""Where the wall (x) and the door (y) are in PLDM: 32 and 10 of 65 pixels from the top left."""
FIT = RADIUS + 0.05
SPEED = 24.5


class TwoRooms(GoalEnv):
    """``tubelet/TwoRooms-v0``. State: x and y in pixels of the original, the middle at 0.
    Proprioception ``[2]``: the same over 27.5. Actions ``[2]``: the step over 2.45, brought into
    the unit disc. Starts: uniform over both rooms; goals: uniform over the room in which the start
    is not."""

    asset = "tworooms.xml"
    frame_skip = 10
    proprio_dim = 2
    budget = 70
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._left = True  # the room of the state last sampled or set

    @property
    def opening(self) -> tuple[float, float]:
        """Where the wall (x) and the door's middle (y) are, in the state last sampled or set."""
        return _opening(self._layout[0])

    def control(self, action: np.ndarray) -> np.ndarray:
        """Velocities in pixels per second: 24.5 times the actions ``[..., 2]``, each clipped to
        [-1, 1], then to length 1."""
        action = np.clip(action, -1.0, 1.0)
        return SPEED * action / np.maximum(1.0, np.linalg.norm(action, axis=-1, keepdims=True))

    def sample_state(self, rng: np.random.Generator) -> State:
        """A place uniform over both rooms, clear of the walls, at rest."""
        wall = self.opening[0]
        while True:
            place = rng.uniform(FIT - ROOM, ROOM - FIT, 2)
            if abs(place[0] - wall) >= WALL + FIT:
                self._left = bool(place[0] < wall)
                return self.state_at(place)

    def sample_goal(self, rng: np.random.Generator) -> State:
        """A place in the room in which the state last sampled or set is not, at rest."""
        wall, edge = self.opening[0], WALL + FIT
        low, high = (wall + edge, ROOM - FIT) if self._left else (FIT - ROOM, wall - edge)
        return self.state_at(
            np.array([rng.uniform(low, high), rng.uniform(FIT - ROOM, ROOM - FIT)])
        )

    def proprio(self, state: State) -> np.ndarray:
        """float32 [2]: x and y, in [-1, 1]."""
        return (self.position(state) / ROOM).astype(np.float32)

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``distance``: pixels between the centres, as the crow flies."""
        gap = self.position(state) - self.position(goal_state)
        return {"distance": float(np.linalg.norm(gap))}

    def reached(self, distance: dict[str, float]) -> bool:
        """Within 4.5 pixels (through the wall the centres are 7 apart at least)."""
        return distance["distance"] <= TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [4]: x, y, and where the wall (x) and the door (y) are, all over 27.5."""
        opening = _opening(self.layout_of(state)[0])
        return (np.concatenate([self.position(state), opening]) / ROOM).astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """:class:`.geodesic.Geodesic` coordinates in the layout of the state last sampled or
        set."""
        return _coordinates(*self.opening)(position)

    def plan_features_in(self, state: State, position: np.ndarray) -> np.ndarray:
        """:meth:`plan_features` of positions ``[..., 2]`` in the layout that ``state`` holds."""
        return _coordinates(*_opening(self.layout_of(state)[0]))(position)

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Straight to the goal, through the middle of the door if it is in the other room."""
        target = self.position(self.goal_state)
        return lambda t: self._towards(target)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """The expert's way to random places, a new one when the last is reached, at a speed drawn
        per episode and with noise of a random strength."""
        noise, speed = rng.uniform(0.0, 0.5), rng.uniform(0.3, 1.0)
        target = self._place(rng)

        def act(t: int) -> np.ndarray:
            nonlocal target
            if np.linalg.norm(target - self.position(self.get_state())) < 2.0:
                target = self._place(rng)
            command = speed * self._towards(target) + noise * rng.standard_normal(2)
            return np.clip(command, -1.0, 1.0)

        return act

    def _place(self, rng: np.random.Generator) -> np.ndarray:
        """Some place in the present layout, in either room."""
        return self.position(TwoRooms.sample_state(self, rng))

    def _towards(self, target: np.ndarray) -> np.ndarray:
        """The action that heads for ``target``, by way of the door where the wall is between."""
        here, (wall, door) = self.position(self.get_state()), self.opening
        if (here[0] < wall) == (target[0] < wall):
            gap = target - here
        else:
            through = abs(here[1] - door) < DOOR - RADIUS - 0.2  # in line with the opening
            side = np.sign(wall - here[0]) or 1.0
            ahead = wall + side * (WALL + RADIUS) if through else wall - side * (WALL + FIT)
            gap = np.array([ahead, door]) - here
            if through:
                gap[0] += side  # never stop in the door
        return gap / STEP / max(1.0, float(np.linalg.norm(gap / STEP)))

    def remember(self, state: State) -> None:
        super().remember(state)
        self._left = bool(self.position(state)[0] < self.opening[0])


class TwoRoomsRandom(TwoRooms):
    """``tubelet/TwoRoomsRandom-v0``: the wall and the door are elsewhere with every sampled start,
    up to 12 pixels from the middle and up to 22.5. Both are a part of the state. Otherwise like
    :class:`TwoRooms`.

    Args:
        split: every place belongs to one of 5 x 9 tiles. "test" is every fifth tile of each row and
            column, "train" the others.
        options: those of :class:`GoalEnv`.
    """

    def __init__(self, *, split: str = "train", **options: Any):
        super().__init__(**options)
        self.split = check_split(split)

    def sample_state(self, rng: np.random.Generator) -> State:
        """New places of wall and door, and a place of the dot uniform over both rooms."""
        while True:
            wall, door = rng.uniform((-12.0, -22.5), (12.0, 22.5))
            if opening_split(wall, door) == self.split:
                break
        place, turn = self._layout[0].copy(), self._layout[1]
        reach = DOOR + 30.0  # half the length of the walls
        place[:, :2] = [(wall, door + reach), (wall, door - reach)]
        self._layout = place, turn
        return super().sample_state(rng)


def opening_split(wall: float, door: float) -> str:
    """The split to which a wall at x and a door at y belong."""
    column, row = int((wall + 12.0) / 4.8), int((door + 22.5) / 5.0)
    return "test" if (2 * column + row) % 5 == 0 else "train"


def _opening(place: np.ndarray) -> tuple[float, float]:
    """Where wall and door are, from the walls' places ``[2, 3]``."""
    return float(place[0, 0]), float(place[:, 1].mean())


@functools.lru_cache(maxsize=256)
def _coordinates(wall: float, door: float) -> Geodesic:
    count, spacing = 22, 2 * ROOM / 22
    steps = (np.arange(count) + 0.5) * spacing - ROOM
    x, y = np.meshgrid(steps, steps, indexing="ij")
    free = (np.abs(x - wall) > WALL + RADIUS / 2) | (np.abs(y - door) < DOOR)
    return Geodesic(
        free,
        free[:-1] & free[1:],
        free[:, :-1] & free[:, 1:],
        origin=float(steps[0]),
        spacing=spacing,
        unit=TOLERANCE,
    )
