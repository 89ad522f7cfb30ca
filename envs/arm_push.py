"""ArmPush: a cube must be pushed over the table to where a goal image shows it.

After Metaworld's push: the cube within 5 cm of its goal, starts near the robot and goals 10 to 30
cm further away. Differences: a goal shows the hand where a push ends, right behind the cube.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arm import HALF, HIGH, LOW, UNIT, Arm, object_place, play, tip
from .base import State

TOLERANCE = 0.05
"""Success: the cube within this many metres of its goal."""
BEHIND = HALF + 0.012
"""From the cube's middle to the tip when the closed fingers touch it."""
PUSH_Z, TRAVEL_Z = 0.03, 0.1
"""Heights of the tip for pushing and for going over the cube."""


class ArmPush(Arm):
    """``tubelet/ArmPush-v0``. Starts: the cube near the robot, the hand anywhere above, closed.
    Goals: the cube farther away, the hand behind it (on the robot's side), all at rest."""

    asset = "arm_push.xml"
    budget = 80

    def sample_state(self, rng: np.random.Generator) -> State:
        """The cube in the near part of the table, the hand in the air, at rest."""
        place = np.append(rng.uniform((-0.1, -0.1), (-0.02, 0.1)), HALF)
        hand = rng.uniform((LOW[0], -0.15, 0.1), (0.1, 0.15, 0.25))
        return self.settled(self.pose(hand, 0.0, place))

    def sample_goal(self, rng: np.random.Generator) -> State:
        """The cube in the far part of the table, the hand 3 mm behind it, at rest."""
        place = np.append(rng.uniform((0.06, -0.12), (0.16, 0.12)), HALF)
        hand = np.array([place[0] - BEHIND - 0.003, place[1], PUSH_Z])
        return self.settled(self.pose(hand, 0.0, place))

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``object``: metres between the cube and its goal; ``hand``: between the tips."""
        return object_distance(self.position(state), self.position(goal_state))

    def reached(self, distance: dict[str, float]) -> bool:
        """The cube within 5 cm of its goal, wherever the hand is."""
        return distance["object"] <= TOLERANCE

    def features(self, state: State) -> np.ndarray:
        """float32 [6]: the tip's and the cube's x, y and z over 20 cm."""
        position = self.position(state)
        return (np.concatenate([tip(position), object_place(position)]) / 0.2).astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """The cube, and from it to the tip, ``[..., 6]`` in 12 cm. The second part draws the hand
        to where a push can begin, whatever is yet to be gained by pushing."""
        place = object_place(position)
        return np.concatenate([place / UNIT, 0.5 * (tip(position) - place) / UNIT], axis=-1)

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Over the cube, down behind it, and push it along the line to its goal."""
        goal = object_place(self.position(self.goal_state))
        return lambda t: self.push(goal)

    def push(self, goal: np.ndarray) -> np.ndarray:
        """The action that goes on with a push of the cube to ``goal`` ``[3]``."""
        hand, place = self.hand(), object_place(self.position(self.get_state()))
        gap = (goal - place)[:2]
        left = float(np.linalg.norm(gap))
        if left < 0.01:
            return np.zeros(4)
        along = gap / left
        across = np.array([-along[1], along[0]])
        offset = (place - hand)[:2]
        behind = place[:2] - (BEHIND + 0.015) * along
        aligned = abs(offset @ across) < 0.012 and offset @ along > HALF
        if not aligned and hand[2] < TRAVEL_Z - 0.02:
            away = hand[:2] - 0.02 * offset / max(0.02, float(np.linalg.norm(offset)))
            return self.towards(np.append(away, TRAVEL_Z), 0.0)
        near = np.linalg.norm(behind - hand[:2]) < 0.02
        if not aligned or (not near and hand[2] > TRAVEL_Z - 0.02):
            return self.towards(np.append(behind, TRAVEL_Z), 0.0)
        if hand[2] > PUSH_Z + 0.01:
            return self.towards(np.append(behind, PUSH_Z), 0.0)
        target = (
            hand[:2] + (offset @ along - BEHIND + left) * along + 1.2 * (offset @ across) * across
        )
        action = self.towards(np.append(target, PUSH_Z), 0.0)
        return action * min(1.0, 0.3 + left / 0.1)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """To random places, half of them around the cube, low enough to run into it."""
        return play(self, rng, lambda: _sub_goal(self, rng))


def _sub_goal(env: Arm, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Anywhere, or across the cube, at its height."""
    if rng.random() < 0.4:
        return rng.uniform(LOW, HIGH), 0.0
    place = object_place(env.position(env.get_state()))
    target = place + rng.uniform((-0.1, -0.1, 0.0), (0.1, 0.1, 0.03))
    return np.clip(target, LOW, HIGH), 0.0


def object_distance(position: np.ndarray, goal: np.ndarray) -> dict[str, float]:
    """``object`` and ``hand``: metres between those of two joint positions ``[nq]``."""
    return {
        "object": float(np.linalg.norm(object_place(position) - object_place(goal))),
        "hand": float(np.linalg.norm(tip(position) - tip(goal))),
    }
