"""Environments of others as goal-image environments: any Gymnasium environment in one call.

env = wrap(gymnasium.make("HalfCheetah-v5"))          # every MujocoEnv: exact states, fast frames
env = wrap(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), tolerance=0.3)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from ..core.errors import ConfigError
from .base import GoalEnv, State
from .policies import coloured_noise
from .rendering import FreeCamera, MjModel, load_mujoco

MARKERS = ("target", "goal")
"""Bodies of these names show a task's goal; they are not drawn."""
GetState = Callable[[Any], np.ndarray]
SetState = Callable[[Any, np.ndarray], None]


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


class MujocoGoalEnv(GoalEnv):
    """A Gymnasium ``MujocoEnv`` with goal images, exact states and fast frames.

    The simulation is Gymnasium's, step by step; starts are those of its ``reset``, and
    proprioception is its observation. A goal is where coloured noise took it in up to ``play``
    steps, after coming to rest. Distances compare where the bodies are.

    Args:
        env: the environment. tolerance: success when the bodies are within this many metres of the
            goal's, root mean square; if None, a quarter of their distance from their middle.
        play: most steps of play before a goal, and half as many at least. settle: steps without
            action at its end. options: those of :class:`GoalEnv`.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        tolerance: float | None = None,
        play: int = 50,
        settle: int = 20,
        **options: Any,
    ):
        self._inner: Any = env.unwrapped
        self.frame_skip = int(self._inner.frame_skip)  # type: ignore[misc]
        self.metadata = {  # type: ignore[misc]
            "render_modes": ["rgb_array"],
            "render_fps": self._inner.metadata["render_fps"],
        }
        self.proprio_dim = int(np.prod(self._inner.observation_space.shape))  # type: ignore[misc]
        self._low, self._high = self._inner.action_space.low, self._inner.action_space.high
        self._play, self._settle = play, settle
        options.setdefault("camera", _named_camera(self._inner.model))
        super().__init__(**options)
        if (self.model.nq, self.model.nv) != (self._inner.model.nq, self._inner.model.nv):
            raise ConfigError(f"{self._inner}: its model is not the one in {self._inner.fullpath}")
        shown = ~np.isin(np.arange(self.model.nbody), _markers(self.model))
        self._bodies = np.flatnonzero((self.model.body_weldid != 0) & shown)
        places = self._places(self.model.qpos0)
        size = float(np.sqrt(((places - places.mean(0)) ** 2).sum(-1).mean()))
        self.tolerance = size / 4 if tolerance is None else tolerance

    def load_scene(self) -> MjModel:
        """The environment's scene without shadows, multisampling and markers."""
        path = self._inner.fullpath
        if path not in _scenes:
            _scenes[path] = self.spec_of_scene().compile()
        return _scenes[path]

    def spec_of_scene(self) -> Any:
        """The scene as a new ``mujoco.MjSpec``."""
        spec = load_mujoco().MjSpec.from_file(self._inner.fullpath)
        spec.visual.quality.shadowsize, spec.visual.quality.offsamples = 0, 0
        for light in spec.lights:
            light.castshadow = False
        for body in spec.bodies:
            if body.name in MARKERS:
                for geom in body.geoms:
                    geom.rgba[3] = 0.0
        return spec

    def control(self, action: np.ndarray) -> np.ndarray:
        """Gymnasium's actions: [-1, 1] stretched to its bounds."""
        share = (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
        return self._low + share * (self._high - self._low)

    def sample_state(self, rng: np.random.Generator) -> State:
        """A start of Gymnasium's ``reset``."""
        self._inner.reset(seed=int(rng.integers(2**31)))
        return self.state_at(self._inner.data.qpos.copy(), self._inner.data.qvel.copy())

    def sample_goal(self, rng: np.random.Generator) -> State:
        """Where coloured noise took it, after coming to rest; in a world like that of the state
        last sampled."""
        mj, data = self._mj, self._mj.MjData(self.model)
        state = self.sample_state(rng)
        mj.mj_setState(self.model, data, state, self._spec)
        steps = int(rng.integers(self._play // 2, self._play + 1))
        noise = [coloured_noise(steps, 1.0, rng) for _ in range(self.model.nu)]
        for action in np.stack(noise, axis=1):
            data.ctrl[:] = self.control(action)
            mj.mj_step(self.model, data, self.frame_skip)
        data.ctrl[:] = self.control(np.zeros(self.model.nu))
        for _ in range(self._settle):
            mj.mj_step(self.model, data, self.frame_skip)
        return self.state_at(data.qpos.copy())

    def proprio(self, state: State) -> np.ndarray:
        """float32 [P]: what Gymnasium observes in this state."""
        inner = self._inner
        inner.set_state(self.position(state).copy(), self.velocity(state).copy())
        self._mj.mj_rnePostConstraint(inner.model, inner.data)
        return np.asarray(inner._get_obs(), np.float32).ravel()

    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """``bodies``: metres between where the bodies are, root mean square."""
        gap = self._places(self.position(state)) - self._places(self.position(goal_state))
        return {"bodies": float(np.sqrt((gap**2).sum(-1).mean()))}

    def reached(self, distance: dict[str, float]) -> bool:
        """Within the tolerance."""
        return distance["bodies"] <= self.tolerance

    def features(self, state: State) -> np.ndarray:
        """float32 [3 * bodies]: where the bodies are, metres."""
        return self._places(self.position(state)).ravel().astype(np.float32)

    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """Where the bodies are, in units in which the tolerance is .3 (root mean square)."""
        flat = np.asarray(position).reshape(-1, self.model.nq)
        places = np.stack([self._places(row) for row in flat])
        scale = 0.3 * np.sqrt(3) / self.tolerance
        return (scale * places).reshape(*np.shape(position)[:-1], -1)

    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """Coloured noise without end, a new strength every 50 steps."""
        chunks: dict[int, np.ndarray] = {}

        def act(t: int) -> np.ndarray:
            if t // 50 not in chunks:
                noise = [coloured_noise(50, 1.0, rng) for _ in range(self.model.nu)]
                chunks[t // 50] = rng.uniform(0.1, 1.0) * np.stack(noise, axis=1)
            return np.clip(chunks[t // 50][t % 50], -1.0, 1.0)

        return act

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the scene's cameras, and ``default``, Gymnasium's own view."""
        return (*super().cameras, "default")

    @property
    def view(self) -> str | FreeCamera:
        if self.camera != "default":
            return self.camera
        return _free_camera(self.model, self._inner.mujoco_renderer.default_cam_config or {})

    def _places(self, position: np.ndarray) -> np.ndarray:
        """Where the moving bodies are: float64 ``[bodies, 3]``."""
        self._scratch.qpos[:] = position
        self._mj.mj_kinematics(self.model, self._scratch)
        return self._scratch.xpos[self._bodies].copy()


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


_scenes: dict[str, MjModel] = {}


def _fps(env: gymnasium.Env[Any, Any]) -> dict[str, int]:
    return {"render_fps": round(env.metadata.get("render_fps", 10))}


def _named_camera(model: MjModel) -> str:
    """What Gymnasium looks through: the camera ``track`` if there is one."""
    names = [model.cam(number).name for number in range(model.ncam)]
    return "track" if "track" in names else "default"


def _markers(model: MjModel) -> list[int]:
    return [number for number in range(model.nbody) if model.body(number).name in MARKERS]


def _free_camera(model: MjModel, config: dict[str, Any]) -> FreeCamera:
    """Gymnasium's default view: MuJoCo's free camera with the environment's changes."""
    lookat = config.get("lookat", model.stat.center)
    return FreeCamera(
        lookat=tuple(float(x) for x in lookat),
        distance=float(config.get("distance", 1.5 * model.stat.extent)),
        azimuth=float(config.get("azimuth", 90.0)),
        elevation=float(config.get("elevation", -45.0)),
    )
