"""Gymnasium's MuJoCo environments with goal images, exact states and fast frames."""

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


_scenes: dict[str, MjModel] = {}


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
