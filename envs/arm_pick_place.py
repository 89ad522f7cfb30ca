"""ArmPickPlace: a cube must be put on a shelf, where a goal image shows it.

After Metaworld's pick-place: the cube within 7 cm of its goal. Differences: the goals stand on a
shelf 8 cm high instead of hanging in the air, so that they are states at rest that no push can
reach.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arm import (
    HALF,
    HIGH,
    LOW,
    OPEN,
    UNIT,
    Arm,
    holds,
    object_place,
    opening,
    play,
    tip,
)
from .arm_push import object_distance
from .base import State

TOLERANCE = 0.07
"""Success: the cube within this many metres of its goal."""
SHELF = 0.08
"""Height of the shelf, whose near edge is at x = .09."""
LIFTED = SHELF + 0.06
"""Height of the tip at which what it holds clears the shelf."""
EDGE, OVER_EDGE = 0.07, SHELF + HALF + 0.01
"""Cubes with their middle below this height bump into the shelf where x is that of the edge."""
GRASP, RISE = np.array([0.0, 0.0, 0.005]), np.array([0.0, 0.0, 0.05])
"""From the cube's middle to the tip that grasps it; and the way up of one lift command."""
SQUEEZE = 0.015
"""The gripper aims at an opening this much smaller before anything is lifted: 7 N per finger."""


class ArmPickPlace(Arm):
    """``tubelet/ArmPickPlace-v0``. Starts: the cube on the table, the open hand in the air.
    Goals: the cube on the shelf, the open hand around it, all at rest."""

    asset = "arm_pick_place.xml"
    budget = 80

    def sample_state(self, rng: np.random.Generator) -> State:
        """The cube on the table, the hand in the air, open, at rest."""
        place = np.append(rng.uniform((-0.12, -0.12), (0.0, 0.12)), HALF)
        hand = rng.uniform((-0.15, -0.15, 0.12), (0.05, 0.15, 0.25))
        return self.settled(self.pose(hand, OPEN, place))

    def sample_goal(self, rng: np.random.Generator) -> State:
        """The cube on the shelf, the open hand around it, at rest."""
        place = np.append(rng.uniform((0.12, -0.12), (0.17, 0.12)), SHELF + HALF)
        return self.settled(self.pose(place + GRASP, OPEN, place))

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``object``: metres between the cube and its goal; ``hand``: between the tips."""
        return object_distance(self.position(state), self.position(goal_state))

    def reached(self, distance: dict[str, float]) -> bool:
        """The cube within 7 cm of its goal, wherever the hand is."""
        return distance["object"] <= TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [7]: the tip's and the cube's x, y and z over 20 cm, the opening over 4.5."""
        position = self.position(state)
        values = [*(tip(position) / 0.2), *(object_place(position) / 0.2), opening(position) / OPEN]
        return np.array(values, np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """The cube, and from it to the tip, ``[..., 6]`` in 12 cm. The second part draws the hand
        around the cube, where closing and lifting begin to pay."""
        place = object_place(position)
        return np.concatenate([place / UNIT, 0.5 * (tip(position) - place) / UNIT], axis=-1)

    def shaped_cost(self, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The cube's way to its goal (before the shelf's edge it leads up first), the hand's way to
        the cube, and fingers that close around it but not before. All three saturate."""
        place, target = object_place(position), object_place(goal)
        low = np.maximum(0.0, OVER_EDGE - place[..., 2]) * (place[..., 0] < EDGE)
        across = np.linalg.norm((place - target)[..., 1:], axis=-1)
        way = np.hypot(np.abs(place[..., 0] - target[..., 0]) + low, across)
        reach = np.linalg.norm(tip(position) - place - GRASP, axis=-1)
        around = 1 / (1 + (reach / 0.02) ** 4)
        closed = np.clip((OPEN - opening(position)) / (OPEN - HALF), 0.0, 1.0)
        grasp = around * (1 - closed) + (1 - around) * (1 + 0.3 * closed)
        return way / (way + 0.1) + 0.3 * reach / (reach + 0.1) + 0.3 * grasp

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Over the cube, down, close, lift, over the goal, down, open."""
        goal = object_place(self.position(self.goal_state))
        return lambda t: self.carry(goal)

    def carry(self, goal: np.ndarray) -> np.ndarray:
        """The action that goes on with bringing the cube to ``goal`` ``[3]``."""
        state = self.get_state()
        position = self.position(state)
        hand, place = tip(position), object_place(position)
        if np.linalg.norm(place - goal) < 0.015:
            return np.array([0.0, 0.0, 0.0, -1.0])
        if holds(position):
            if opening(position) - self.aim(state) < SQUEEZE:
                return np.array([0.0, 0.0, 0.0, 1.0])
            if np.linalg.norm((goal - place)[:2]) < 0.01:
                return self.towards(hand + goal - place, 1.0)
            if place[2] < goal[2] + 0.02:
                return self.towards(hand + RISE, 1.0)
            return self.towards(np.append((hand + goal - place)[:2], max(hand[2], LIFTED)), 1.0)
        over = np.linalg.norm((place - hand)[:2])
        if over > 0.01:
            above = place[2] + 0.08
            low = hand[2] < above - 0.02
            return self.towards(np.append(hand[:2] if low else place[:2], above), -1.0)
        grasp = place + GRASP
        if hand[2] > grasp[2] + 0.008 or opening(position) < HALF - 0.002:
            return self.towards(grasp, -1.0)
        return self.towards(grasp, 1.0)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """To random places, half of them at the cube, opening and closing the gripper."""
        return play(self, rng, lambda: _sub_goal(self, rng))


def _sub_goal(env: Arm, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Anywhere, or at the cube; the gripper opens or closes."""
    grip = rng.choice([-1.0, 1.0])
    if rng.random() < 0.5:
        return rng.uniform(LOW, HIGH), grip
    place = object_place(env.position(env.get_state()))
    return np.clip(place + rng.normal(0.0, 0.01, 3), LOW, HIGH), grip
