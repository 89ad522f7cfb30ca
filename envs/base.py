"""GoalEnv: a MuJoCo environment whose task is to bring the world to a goal image.

Everything a benchmark needs is exact: a state is the full integration state of the simulator, so
``set_state(get_state())`` is the identity to the bit, and stored actions replayed from a stored
state give bit-identical states (one MuJoCo version, one machine architecture).
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from ..core.errors import ConfigError
from .rendering import FreeCamera, MjModel, load_mujoco, shared_renderer

State = np.ndarray
"""float64 [S]: time, qpos, qvel and the rest of mjSTATE_INTEGRATION, as mj_getState packs them."""


class GoalEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Base of the goal-reaching environments.

    Observations are ``{"pixels": uint8 [H, W, 3], "proprio": float32 [P]}``; actions are float32
    ``[A]`` in [-1, 1]; one step is ``frame_skip`` physics steps. ``info`` holds ``state``,
    ``goal_state`` (float64 [S]), ``success`` (bool) and ``distance`` (named floats). The reward is
    1.0 on success and 0.0 otherwise. An episode never terminates by itself: reaching the goal and
    leaving it again is a failure, so success is judged at the end. ``gymnasium.make`` adds a limit
    of 200 steps; an environment made by :func:`tubelet.envs.make` runs until its caller stops.

    A subclass names its scene (``asset``, ``frame_skip``, ``proprio_dim``) and defines the methods
    below that raise ``NotImplementedError``. Scenes whose walls change from episode to episode hold
    them as mocap bodies: then the layout is a part of every state, and :meth:`state_at` keeps the
    layout of the state last sampled or set.

    Args:
        image_size: height and width of the frames in pixels.
        render_obs: False leaves ``pixels`` out of the observations (steps are 5x faster).
        render_mode: Gymnasium's; only "rgb_array" is drawn.
        camera: a camera of the scene (``cameras`` lists them).
        split: of the layouts that starts are drawn with, "train" or "test"; scenes whose layout
            never changes have none to hold out.
    """

    asset: ClassVar[str]
    frame_skip: ClassVar[int]
    proprio_dim: ClassVar[int]
    budget: ClassVar[int] = 50
    """Environment steps in which the scripted expert is expected at any goal."""
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(
        self,
        *,
        image_size: int = 64,
        render_obs: bool = True,
        render_mode: str | None = None,
        camera: str = "top",
        split: str = "train",
    ):
        if not 8 <= image_size <= 2048:
            raise ConfigError(f"image_size = {image_size}: must be 8 to 2048 pixels")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode = {render_mode!r}: only 'rgb_array' is drawn")
        if split != "train":
            raise ConfigError(
                f"split = {split!r}: {type(self).__name__} looks the same in every episode and has "
                "no layouts to hold out; PointMazeRandom and TwoRoomsRandom have"
            )
        self.split = split
        self._mj = load_mujoco()
        self.image_size, self.render_obs, self.render_mode = image_size, render_obs, render_mode
        self.model = self.load_scene()
        self.scene: MjModel | None = None
        """What draws of factors start from (:mod:`.factors`); None before the first."""
        self.camera = self._checked_camera(camera)
        self._data = self._mj.MjData(self.model)
        self._scratch = self._mj.MjData(self.model)  # for rendering and for building states
        self._spec = int(self._mj.mjtState.mjSTATE_INTEGRATION)
        self.state_dim: int = self._mj.mj_stateSize(self.model, self._spec)
        self._layout = self._data.mocap_pos.copy(), self._data.mocap_quat.copy()
        self.goal_state: State = self.get_state()
        box = gymnasium.spaces.Box
        self.action_space = box(-1.0, 1.0, (self.model.nu,), np.float32)
        spaces: dict[str, Any] = {"proprio": box(-np.inf, np.inf, (self.proprio_dim,), np.float32)}
        if render_obs:
            spaces["pixels"] = box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space: Any = gymnasium.spaces.Dict(spaces)

    def load_scene(self) -> MjModel:
        """The compiled scene; environments share it and never change it."""
        return load_model(self.asset)

    def spec_of_scene(self) -> Any:
        """The scene as a new ``mujoco.MjSpec``, to be changed and compiled."""
        return self._mj.MjSpec.from_string(_text(self.asset))

    # What a subclass defines.

    @abstractmethod
    def sample_state(self, rng: np.random.Generator) -> State:
        """A start state at rest, drawn from the whole workspace."""
        raise NotImplementedError

    @abstractmethod
    def proprio(self, state: State) -> np.ndarray:
        """What the robot feels in ``state``: float32 ``[P]``."""
        raise NotImplementedError

    @abstractmethod
    def distance(self, state: State, goal_state: State) -> dict[str, float]:
        """Named distances between two states, in the units of the task."""
        raise NotImplementedError

    @abstractmethod
    def reached(self, distance: dict[str, float]) -> bool:
        """Whether a :meth:`distance` counts as success."""
        raise NotImplementedError

    @abstractmethod
    def features(self, state: State) -> np.ndarray:
        """What a probe should read off an image of ``state``: float32 ``[F]``."""
        raise NotImplementedError

    @abstractmethod
    def plan_features(self, position: np.ndarray) -> np.ndarray:
        """Coordinates in which the straight line to the goal is a fair cost: positions
        ``[..., nq]`` to float64 ``[..., F]``, in units of which the success tolerance is a few
        tenths (the scale of normalised latents, so that planners can keep their settings)."""
        raise NotImplementedError

    @abstractmethod
    def scripted_policy(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """A controller that heads for one random target after another: ``act(t) -> action`` for
        this environment's current episode."""
        raise NotImplementedError

    def expert(self, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        """A controller that brings this environment's current episode to its goal and stays there:
        ``act(t) -> action``. It may look at the simulator's state.

        Raises:
            ConfigError: this environment has none.
        """
        raise ConfigError(f"{type(self).__name__} has no scripted expert")

    def control(self, action: np.ndarray) -> np.ndarray:
        """The simulator's controls for actions ``[..., A]``: the same, clipped to [-1, 1]."""
        return np.clip(action, -1.0, 1.0)

    def shaped_cost(self, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """What being at positions ``[..., nq]`` on the way to a goal's ``[..., nq]`` costs a
        planner that has the true simulator: float64 ``[...]``, lower is better. For tasks of
        several stages, whose order no straight line in :meth:`plan_features` tells.

        Raises:
            ConfigError: this environment has none, its ``plan_features`` do.
        """
        raise ConfigError(f"{type(self).__name__} has no shaped cost: plan in its plan_features")

    def plan_features_in(self, state: State, position: np.ndarray) -> np.ndarray:
        """:meth:`plan_features` of positions ``[..., nq]`` in the layout that ``state`` holds."""
        return self.plan_features(position)

    def sample_goal(self, rng: np.random.Generator) -> State:
        """A goal state: physical, at rest, and independent of the start."""
        return self.sample_state(rng)

    def success(self, state: State, goal_state: State) -> bool:
        """Whether ``state`` counts as having reached ``goal_state``."""
        return self.reached(self.distance(state, goal_state))

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode from ``options["state"]`` towards ``options["goal_state"]``.

        Either may be left out and is then drawn from ``seed``'s stream (the state always first).
        ``options["factors"]`` (:class:`.factors.Factors`) changes looks, sizes and masses first,
        until others are given.

        Raises:
            ConfigError: an unknown option, or a state of another length.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"state", "goal_state", "factors"}:
            raise ConfigError(
                f"unknown reset options {sorted(unknown)}: use state, goal_state and factors"
            )
        if "factors" in options:
            options["factors"].apply(self)
        state, goal = options.get("state"), options.get("goal_state")
        state = self.sample_state(self.np_random) if state is None else state
        self.remember(self._checked(state, "state"))
        goal = self.sample_goal(self.np_random) if goal is None else goal
        self.goal_state = self._checked(goal, "goal_state")
        self.set_state(state)
        return self._observe()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Apply ``action`` (float ``[A]``, clipped to [-1, 1]) for ``frame_skip`` physics steps.

        Raises:
            ValueError: an action of another shape, or one that is not finite.
        """
        action = np.asarray(action, np.float32)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f"an action is {self.action_space.shape} finite floats, got {action}")
        self._data.ctrl[:] = self.control(action)
        self._mj.mj_step(self.model, self._data, self.frame_skip)
        observation, info = self._observe()
        return observation, float(info["success"]), False, False, info

    def render(self) -> np.ndarray:
        """The current frame: uint8 ``[image_size, image_size, 3]``."""
        return self._draw(self.get_state())

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the scene's cameras."""
        return tuple(self.model.cam(number).name for number in range(self.model.ncam))

    @property
    def view(self) -> str | FreeCamera:
        """What frames are drawn from."""
        return self.camera

    # States and goals.

    def get_state(self) -> State:
        """The full simulator state: float64 ``[state_dim]``."""
        state = np.empty(self.state_dim)
        self._mj.mj_getState(self.model, self._data, state, self._spec)
        return state

    def set_state(self, state: State) -> None:
        """Restore a state from :meth:`get_state`, exactly."""
        self._mj.mj_resetData(self.model, self._data)
        state = self._checked(state, "state")
        self._mj.mj_setState(self.model, self._data, state, self._spec)
        self.remember(state)

    def render_state(self, state: State) -> np.ndarray:
        """The frame of any state, without touching the episode: uint8 ``[H, W, 3]``."""
        return self._draw(self._checked(state, "state"))

    def render_goal(self) -> np.ndarray:
        """The goal image: uint8 ``[H, W, 3]``."""
        return self.render_state(self.goal_state)

    def use_model(self, model: MjModel) -> None:
        """Go on in another model with the same joints and actuators; the state is kept."""
        state = self.get_state()
        self.model = model
        self._data, self._scratch = self._mj.MjData(model), self._mj.MjData(model)
        self.set_state(state)

    def position(self, state: State) -> np.ndarray:
        """The joint positions (``qpos``) inside a state: float64 ``[..., nq]``."""
        return np.asarray(state)[..., 1 : 1 + self.model.nq]

    def velocity(self, state: State) -> np.ndarray:
        """The joint velocities (``qvel``) inside a state: float64 ``[..., nv]``."""
        first = 1 + self.model.nq
        return np.asarray(state)[..., first : first + self.model.nv]

    def state_at(self, position: np.ndarray, velocity: np.ndarray | None = None) -> State:
        """The state with these joint positions, at time 0 and (unless given) at rest."""
        self._mj.mj_resetData(self.model, self._scratch)
        self._scratch.mocap_pos[:], self._scratch.mocap_quat[:] = self._layout
        self._scratch.qpos[:] = position
        if velocity is not None:
            self._scratch.qvel[:] = velocity
        state = np.empty(self.state_dim)
        self._mj.mj_getState(self.model, self._scratch, state, self._spec)
        return state

    def _observe(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        state = self.get_state()
        observation = {"proprio": self.proprio(state)}
        if self.render_obs:
            observation["pixels"] = self.render()
        distance = self.distance(state, self.goal_state)
        info = {
            "state": state,
            "goal_state": self.goal_state.copy(),
            "success": self.reached(distance),
            "distance": distance,
        }
        return observation, info

    def remember(self, state: State) -> None:
        """Take note of the last state sampled or set: :meth:`state_at` keeps its layout."""
        if self.model.nmocap:
            self._layout = self.layout_of(state)

    def layout_of(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Places ``[M, 3]`` and quaternions ``[M, 4]`` of the mocap bodies in a state."""
        bits = self._mj.mjtState
        place = self.part(state, int(bits.mjSTATE_MOCAP_POS))
        turn = self.part(state, int(bits.mjSTATE_MOCAP_QUAT))
        return place.reshape(-1, 3), turn.reshape(-1, 4)

    def part(self, state: State, spec: int) -> np.ndarray:
        """The part of a state that ``spec`` (bits of ``mjtState``) names, in MuJoCo's order."""
        self._mj.mj_setState(self.model, self._scratch, self._checked(state, "state"), self._spec)
        out = np.empty(self._mj.mj_stateSize(self.model, spec))
        self._mj.mj_getState(self.model, self._scratch, out, spec)
        return out

    def _draw(self, state: State) -> np.ndarray:
        """Render a state through the scratch data: after a step the simulator's own body frames
        still belong to the state before its last integration."""
        self._mj.mj_setState(self.model, self._scratch, state, self._spec)
        self._mj.mj_kinematics(self.model, self._scratch)
        self._mj.mj_comPos(self.model, self._scratch)  # for cameras that follow something
        self._mj.mj_camlight(self.model, self._scratch)
        alike = self.model if self.scene is None else self.scene
        renderer = shared_renderer(alike, self.image_size, self.view)
        return renderer.render(self.model, self._scratch)

    def _checked_camera(self, camera: str) -> str:
        if camera not in self.cameras:
            raise ConfigError(
                f"camera = {camera!r}: {type(self).__name__} has {', '.join(self.cameras)}"
            )
        return camera

    def _checked(self, state: State, name: str) -> State:
        state = np.array(state, np.float64)
        if state.shape != (self.state_dim,) or not np.isfinite(state).all():
            raise ConfigError(
                f"{name} has shape {state.shape}: {type(self).__name__} states are "
                f"{self.state_dim} finite floats (from get_state, sample_state or state_at)"
            )
        return state


@functools.cache
def load_model(asset: str) -> MjModel:
    """The compiled scene ``assets/<asset>``, one per process (environments never change it)."""
    return load_mujoco().MjModel.from_xml_string(_text(asset))


def _text(asset: str) -> str:
    return (Path(__file__).parent / "assets" / asset).read_text(encoding="utf-8")
