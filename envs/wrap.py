"""Environments of others as goal-image environments: any Gymnasium environment in one call.

env = wrap(gymnasium.make("HalfCheetah-v5"))          # every MujocoEnv: exact states, fast frames
env = wrap(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), tolerance=0.3)
"""

from __future__ import annotations

from typing import Any

import gymnasium

from ..core.errors import ConfigError
from .wrap_mujoco import MARKERS, MujocoGoalEnv
from .wrap_played import GetState, PlayedGoalEnv, SetState

__all__ = [
    "MARKERS",
    "GetState",
    "MujocoGoalEnv",
    "PlayedGoalEnv",
    "SetState",
    "from_gymnasium",
    "wrap",
]


def wrap(env: gymnasium.Env[Any, Any], *, image_size: int = 64, **options: Any) -> Any:
    """``env`` as a goal-image environment.

    Returns:
        :class:`MujocoGoalEnv` for a Gymnasium ``MujocoEnv`` (which takes ``options`` of its own),
        :class:`PlayedGoalEnv` for any other.

    Raises:
        ConfigError: its actions are not a bounded box, or it draws no frames.
    """
    space = env.action_space
    if (
        not isinstance(space, gymnasium.spaces.Box)
        or not space.is_bounded()
        or len(space.shape) != 1
    ):
        raise ConfigError(f"actions {space}: only vectors within bounds can be planned")
    inner: Any = env.unwrapped
    simulated = hasattr(inner, "do_simulation") and hasattr(inner, "fullpath")
    kind = MujocoGoalEnv if simulated else PlayedGoalEnv
    return kind(env, image_size=image_size, **options)


def from_gymnasium(env_id: str, **options: Any) -> Any:
    """The Gymnasium environment ``env_id``, wrapped. ``options`` are those of :func:`wrap`.

    Raises:
        ConfigError: Gymnasium has no such environment, or a library that it needs is missing.
    """
    try:
        return wrap(gymnasium.make(env_id, render_mode="rgb_array"), **options)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(
            f"Gymnasium cannot make {env_id!r}: {error}. Its MuJoCo environments need "
            "pip install 'tubelet[gymnasium-mujoco]'"
        ) from error
