"""Any Gymnasium environment that draws frames, with goal images from play."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from ..core.errors import ConfigError
from .base import State
from .policies import coloured_noise

GetState = Callable[[Any], np.ndarray]
SetState = Callable[[Any, np.ndarray], None]


class PlayedGoalEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Any Gymnasium environment that draws frames, with goal images from play.

    Observations, ``info`` and success are those of :class:`GoalEnv`. A state is what ``get_state``
    returns, or, without one, the observation; then states cannot be set, only reached.

    Args:
        env: with ``render_mode="rgb_array"`` and a bounded vector of actions.
        get_state, set_state: ``get_state(env)`` -> floats ``[S]`` and ``set_state(env, state)``,
            with the unwrapped environment; optional, both or none.
        distance: ``distance(state, goal_state)`` -> named floats, of which the first counts;
            the root mean square difference if None.
        tolerance: success when that is at most this.
        play: most steps of play before a goal.
        image_size: height and width of the frames, which are resampled to it.
        render_obs: False leaves the frames out of the observations.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        get_state: GetState | None = None,
        set_state: SetState | None = None,
        distance: Callable[[np.ndarray, np.ndarray], dict[str, float]] | None = None,
        tolerance: float = 0.1,
        play: int = 50,
        image_size: int = 64,
        render_obs: bool = True,
    ):
        if env.render_mode != "rgb_array":
            raise ConfigError(f"render_mode = {env.render_mode!r}: make it with 'rgb_array'")
        if (get_state is None) != (set_state is None):
            raise ConfigError("give both get_state and set_state, or neither")
        self.env, self.tolerance, self.image_size = env, tolerance, image_size
        self.metadata = {"render_modes": ["rgb_array"], **_fps(env)}  # type: ignore[misc]
        self.render_mode, self.render_obs = "rgb_array", render_obs
        self._get, self._set, self._distance, self._play = get_state, set_state, distance, play
        box: Any = gymnasium.spaces.Box
        space: Any = env.action_space
        self._low, self._high = space.low, space.high
        self.action_space: Any = box(-1.0, 1.0, space.shape, np.float32)
        self._observation, _ = env.reset(seed=0)
        self.proprio_dim = len(self._proprio())
        spaces: dict[str, Any] = {"proprio": box(-np.inf, np.inf, (self.proprio_dim,), np.float32)}
        if render_obs:
            spaces["pixels"] = box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space: Any = gymnasium.spaces.Dict(spaces)
        self.goal_state: State = self.get_state()
        self._goal_image = self.render()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Play to a goal, then start an episode of the same seed, so in the same world.

        ``options``: ``state`` and ``goal_state``, where states can be set.

        Raises:
            ConfigError: an unknown option, or a state without a setter.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"state", "goal_state"}:
            raise ConfigError(f"unknown reset options {sorted(unknown)}: use state and goal_state")
        world = int(self.np_random.integers(2**31))
        self._observation, _ = self.env.reset(seed=world)
        if "goal_state" in options:
            self.set_state(options["goal_state"])
        else:
            self._wander()
        self.goal_state, self._goal_image = self.get_state(), self.render()
        self._observation, _ = self.env.reset(seed=world)
        if "state" in options:
            self.set_state(options["state"])
        return self._observe()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One step with ``action`` ``[A]`` in [-1, 1]; the episode ends where the environment ends
        it, and the reward is 1 at the goal, 0 elsewhere."""
        terminated, truncated = self._act(action)
        observation, info = self._observe()
        return observation, float(info["success"]), terminated, truncated, info

    def render(self) -> np.ndarray:
        """The current frame: uint8 ``[image_size, image_size, 3]``."""
        from PIL import Image

        frame = Image.fromarray(np.asarray(self.env.render(), np.uint8))
        size = (self.image_size, self.image_size)
        return np.array(frame.resize(size, Image.Resampling.BOX))

    def render_goal(self) -> np.ndarray:
        """The goal image: uint8 ``[image_size, image_size, 3]``."""
        return self._goal_image.copy()

    def get_state(self) -> State:
        """The state: float64 ``[S]``."""
        if self._get is None:
            return self._proprio().astype(np.float64)
        return np.array(self._get(self.env.unwrapped), np.float64)

    def set_state(self, state: State) -> None:
        """Restore a state from :meth:`get_state`.

        Raises:
            ConfigError: the environment was wrapped without ``set_state``.
        """
        if self._set is None:
            raise ConfigError("states cannot be set: wrap it with get_state= and set_state=")
        self._set(self.env.unwrapped, np.array(state, np.float64))
        observe = getattr(self.env.unwrapped, "_get_obs", None)
        if observe is not None:
            self._observation = observe()

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """Named distances; the first counts."""
        if self._distance is not None:
            return self._distance(state, goal_state)
        return {"rms": float(np.sqrt(np.mean((np.asarray(state) - goal_state) ** 2)))}

    def success(self, state: State, goal_state: State) -> bool:
        """Whether the first distance is within the tolerance."""
        return next(iter(self.distance(state, goal_state).values())) <= self.tolerance

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _act(self, action: np.ndarray) -> tuple[bool, bool]:
        share = (np.clip(np.asarray(action, np.float64), -1.0, 1.0) + 1.0) / 2.0
        command = (self._low + share * (self._high - self._low)).astype(self._low.dtype)
        self._observation, _, terminated, truncated, _ = self.env.step(command)
        return bool(terminated), bool(truncated)

    def _wander(self) -> None:
        """Coloured noise for up to ``play`` steps, not beyond the end of an episode."""
        steps, width = int(self.np_random.integers(1, self._play + 1)), self.action_space.shape[0]
        noise = [coloured_noise(steps, 1.0, self.np_random) for _ in range(width)]
        for action in np.stack(noise, axis=1):
            if any(self._act(action)):
                return

    def _proprio(self) -> np.ndarray:
        flat = gymnasium.spaces.flatten(self.env.observation_space, self._observation)
        return np.asarray(flat, np.float32).ravel()

    def _observe(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        state = self.get_state()
        observation = {"proprio": self._proprio()}
        if self.render_obs:
            observation["pixels"] = self.render()
        info = {
            "state": state,
            "goal_state": self.goal_state.copy(),
            "success": self.success(state, self.goal_state),
            "distance": self.distance(state, self.goal_state),
        }
        return observation, info


def _fps(env: gymnasium.Env[Any, Any]) -> dict[str, int]:
    return {"render_fps": round(env.metadata.get("render_fps", 10))}
