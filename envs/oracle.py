"""The simulator as the dynamics that planners plan with: the ceiling of every world model.

A planner that fails with the oracle fails by itself; one that succeeds with the oracle and not with
a model fails by the model.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError, PlanningError
from ..core.latent import Latent
from .base import GoalEnv
from .factors import Factors
from .rendering import MjModel, load_mujoco


class SimulatorDynamics:
    """``planning.LatentDynamics`` over the true simulator.

    An encoded context *is* the simulator's state, tokens float64 ``[B, 1, 1, S]``; goals and
    imagined trajectories are the environment's ``plan_features``, tokens float32 ``[..., 1, F]``,
    in which the L2 distance is a fair cost. Observations with ``factors``, one per problem
    (:class:`.factors.Factors`), are simulated with the sizes and masses that these give; a last
    number of the context then says which.

    Args:
        env: of the kind to simulate; its own episode is not touched.
        action_block: environment steps per model step; actions are then the concatenation of that
            many environment actions, in order.
        threads: that simulate candidates side by side.
        positions: goals and trajectories are joint positions instead of ``plan_features``, tokens
            float32 ``[..., 1, nq]``, for :class:`ShapedCost`.
    """

    levels: tuple[Any, ...] = ()
    """Slower clocks; :func:`.oracle_levels.add_levels` gives it some."""

    def __init__(
        self, env: GoalEnv, *, action_block: int = 1, threads: int = 2, positions: bool = False
    ):
        if action_block < 1 or threads < 1:
            raise ConfigError(
                f"action_block = {action_block}, threads = {threads}: both must be at least 1"
            )
        rollout: Any = importlib.import_module("mujoco.rollout")
        self.env, self.action_block, self._positions = env, action_block, positions
        self.action_dim: int = action_block * env.model.nu
        self._rollout: Any = rollout.Rollout(nthread=threads)
        mj = load_mujoco()
        self._data = [mj.MjData(env.model) for _ in range(threads)]
        self._varied: dict[int, tuple[Factors, MjModel]] = {}  # by the factors' identity
        bits = mj.mjtState
        self._physics_spec = int(bits.mjSTATE_FULLPHYSICS)
        self._layout_spec = int(bits.mjSTATE_MOCAP_POS) | int(bits.mjSTATE_MOCAP_QUAT)
        self._control_spec = int(bits.mjSTATE_CTRL) | self._layout_spec

    def encode(self, obs: Mapping[str, Any]) -> Latent:
        """The last of the states float64 ``[B, T, S]`` in ``obs["state"]``, as ``[B, 1, 1, S]``."""
        states = self._states(obs, 3)[:, -1:, None]
        if "factors" not in obs:
            return Latent(states)
        numbers = torch.tensor([self._number(factors) for factors in obs["factors"]]).double()
        return Latent(torch.cat([states, numbers[:, None, None, None]], 3))

    def encode_goal(self, obs: Mapping[str, Any]) -> Latent:
        """Features ``[B, 1, F]`` of the goal states float64 ``[B, S]`` in ``obs["state"]``."""
        states = self._states(obs, 2).numpy()
        return Latent(self._features(states, self.env.position(states))[:, None])

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Simulate ``actions`` float32 ``[B, S, H, A]``: features ``[B, S, H, 1, F]``."""
        position = self.simulate(context, actions)[:, :, self.action_block - 1 :: self.action_block]
        states = context.tokens[:, -1, 0, : self.env.state_dim].cpu().numpy()
        return Latent(self._features(states, position)[..., None, :].to(actions.device))

    def simulate(self, context: Latent, actions: Tensor) -> np.ndarray:
        """Joint positions after every environment step: ``[B, S, H * action_block, nq]``."""
        problems, candidates, horizon, _ = actions.shape
        states = context.tokens[:, -1, 0].cpu().numpy()
        models, data = self._models(states[:, self.env.state_dim :], candidates)
        controls = actions.detach().cpu().numpy().astype(np.float64)
        controls = controls.reshape(problems, candidates, horizon * self.action_block, -1)
        controls = np.repeat(self.env.control(controls), self.env.frame_skip, axis=2)
        start, fixed = self._parts(states[:, : self.env.state_dim])
        controls = np.concatenate(
            [
                controls,
                np.broadcast_to(fixed[:, None, None], (*controls.shape[:3], fixed.shape[1])),
            ],
            axis=3,
        )
        simulated, _ = self._rollout.rollout(
            models,
            data,
            np.repeat(start, candidates, axis=0),
            controls.reshape(problems * candidates, controls.shape[2], -1),
            control_spec=self._control_spec,
        )
        skip = self.env.frame_skip
        position = self.env.position(simulated[:, skip - 1 :: skip])
        return position.reshape(problems, candidates, horizon * self.action_block, -1)

    def _number(self, factors: Factors) -> int:
        """What the context calls a draw of factors; its model is made when it is first met."""
        if id(factors) not in self._varied:
            plain, scene = self.env.model, self.env.scene
            factors.apply(self.env)
            self._varied[id(factors)] = (factors, self.env.model)
            self.env.use_model(plain)
            self.env.scene = scene
        return list(self._varied).index(id(factors))

    def _models(self, numbers: np.ndarray, candidates: int) -> tuple[Any, list[Any]]:
        """The model, or one for each rollout, and the memory of the threads that fits it."""
        if not numbers.shape[1]:
            return self.env.model, self._data
        every = [model for _, model in self._varied.values()]
        mj = load_mujoco()
        chosen = [every[int(number)] for number in numbers[:, 0] for _ in range(candidates)]
        return chosen, [mj.MjData(every[0]) for _ in self._data]

    def _parts(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of states ``[B, S]``: what a rollout starts from, and the layout that stays in place."""
        parts = [
            np.stack([self.env.part(state, spec) for state in states])
            for spec in (self._physics_spec, self._layout_spec)
        ]
        return parts[0], parts[1]

    def _features(self, states: np.ndarray, position: np.ndarray) -> Tensor:
        """float32 ``[B, ..., F]`` of positions ``[B, ..., nq]``, each in its state's layout."""
        if self._positions:
            return torch.from_numpy(np.array(position)).float()
        pairs = zip(states, position, strict=True)
        features = np.stack([self.env.plan_features_in(state, place) for state, place in pairs])
        return torch.from_numpy(features).float()

    def _states(self, obs: Mapping[str, Any], axes: int) -> Tensor:
        if "state" not in obs:
            raise PlanningError(
                f"the oracle needs the simulator's 'state' in the observation, got {sorted(obs)}"
            )
        states = torch.from_numpy(np.array(obs["state"], np.float64))
        if states.ndim != axes or states.shape[-1] != self.env.state_dim:
            raise PlanningError(
                f"states of shape {list(states.shape)}: expected {axes} axes, the last of "
                f"{self.env.state_dim}"
            )
        return states


class ShapedCost:
    """An environment's ``shaped_cost``, averaged over the horizon, for ``SimulatorDynamics`` with
    ``positions=True``: ``cost(trajectory, goal) -> float32 [B, S]``.

    Raises:
        ConfigError: the environment has no shaped cost.
    """

    def __init__(self, env: GoalEnv):
        position = env.position(env.get_state())
        env.shaped_cost(position, position)
        self.env = env

    def __call__(self, trajectory: Latent, goal: Latent) -> Tensor:
        """Of positions ``[B, S, H, 1, nq]`` and a goal's ``[B, 1, nq]``."""
        positions = trajectory.tokens[..., 0, :].double().cpu().numpy()
        goals = goal.tokens[:, None, None, 0].double().cpu().numpy()
        cost = self.env.shaped_cost(positions, goals).mean(-1)
        return torch.from_numpy(cost).float().to(trajectory.tokens.device)
