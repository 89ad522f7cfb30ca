"""MuJoCo goal-reaching environments, rendering, policies, data collection and the oracle dynamics.

Importing this package registers ``ENVIRONMENTS`` with Gymnasium by name only: neither MuJoCo nor
OpenGL is loaded before an environment is made.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from .base import GoalEnv

ENVIRONMENTS = {
    "tubelet/Reacher-v0": "reacher:Reacher",
    "tubelet/PointMaze-v0": "pointmaze:PointMaze",
    "tubelet/PointMazeMedium-v0": "pointmaze:PointMazeMedium",
    "tubelet/PointMazeRandom-v0": "pointmaze:PointMazeRandom",
    "tubelet/TwoRooms-v0": "tworooms:TwoRooms",
    "tubelet/TwoRoomsRandom-v0": "tworooms:TwoRoomsRandom",
    "tubelet/PushT-v0": "pusht:PushT",
    "tubelet/ArmReach-v0": "arm_reach:ArmReach",
    "tubelet/ArmReachWall-v0": "arm_reach:ArmReachWall",
    "tubelet/ArmPush-v0": "arm_push:ArmPush",
    "tubelet/ArmPickPlace-v0": "arm_pick_place:ArmPickPlace",
}

FOREIGN = "gymnasium/"
"""Ids that begin so name environments of Gymnasium's."""

for _id, _entry in ENVIRONMENTS.items():
    gymnasium.register(id=_id, entry_point=f"{__name__}.{_entry}", max_episode_steps=200)


def make(env_id: str, **options: Any) -> GoalEnv:
    """The environment itself, without Gymnasium's wrappers and without a step limit.

    Args:
        env_id: a key of ``ENVIRONMENTS``, or ``gymnasium/`` and the id of a MuJoCo environment of
            Gymnasium's, as ``gymnasium/HalfCheetah-v5`` (:mod:`.wrap`).
        options: ``image_size``, ``camera``, ``render_obs`` and the environment's own.

    Raises:
        ConfigError: no environment has this id.
    """
    if env_id.startswith(FOREIGN):
        wrap = importlib.import_module(".wrap", __name__)
        return wrap.from_gymnasium(env_id.removeprefix(FOREIGN), **options)
    if env_id not in ENVIRONMENTS:
        near = difflib.get_close_matches(env_id, ENVIRONMENTS, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"unknown environment {env_id!r}.{hint} Available: {', '.join(ENVIRONMENTS)}"
        )
    module, name = ENVIRONMENTS[env_id].split(":")
    return getattr(importlib.import_module(f".{module}", __name__), name)(**options)
