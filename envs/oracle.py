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
from .rendering import load_mujoco


class SimulatorDynamics:
    """``planning.LatentDynamics`` over the true simulator.

    An encoded context *is* the simulator's state, tokens float64 ``[B, 1, 1, S]``; goals and
    imagined trajectories are the environment's ``plan_features``, tokens float32 ``[..., 1, F]``,
    in which the L2 distance is a fair cost.

    Args:
        env: of the kind to simulate; its own episode is not touched.
        action_block: environment steps per model step; actions are then the concatenation of that
            many environment actions, in order.
        threads: that simulate candidates side by side.
    """

    def __init__(self, env: GoalEnv, *, action_block: int = 1, threads: int = 2):
        if action_block < 1 or threads < 1:
            raise ConfigError(
                f"action_block = {action_block}, threads = {threads}: both must be at least 1"
            )
        rollout: Any = importlib.import_module("mujoco.rollout")
        self.env, self.action_block = env, action_block
        self.action_dim: int = action_block * env.model.nu
        self._rollout: Any = rollout.Rollout(nthread=threads)
        self._data = [load_mujoco().MjData(env.model) for _ in range(threads)]

    def encode(self, obs: Mapping[str, Any]) -> Latent:
        """The last of the states float64 ``[B, T, S]`` in ``obs["state"]``, as ``[B, 1, 1, S]``."""
        return Latent(self._states(obs, 3)[:, -1:, None])

    def encode_goal(self, obs: Mapping[str, Any]) -> Latent:
        """Features ``[B, 1, F]`` of the goal states float64 ``[B, S]`` in ``obs["state"]``."""
        position = self.env.position(self._states(obs, 2).numpy())
        return Latent(self._features(position)[:, None])

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Simulate ``actions`` float32 ``[B, S, H, A]``: features ``[B, S, H, 1, F]``."""
        problems, candidates, horizon, _ = actions.shape
        model, skip = self.env.model, self.env.frame_skip
        physics = 1 + model.nq + model.nv  # time, qpos, qvel: what a rollout starts from
        start = context.tokens[:, -1, 0, :physics].cpu().numpy()
        controls = actions.detach().clamp(-1.0, 1.0).cpu().numpy().astype(np.float64)
        controls = controls.reshape(problems * candidates, horizon * self.action_block, model.nu)
        states, _ = self._rollout.rollout(
            model,
            self._data,
            np.repeat(start, candidates, axis=0),
            np.repeat(controls, skip, axis=1),
        )
        every = self.action_block * skip
        position = self.env.position(states[:, every - 1 :: every])
        features = self._features(position).to(actions.device)
        return Latent(features.reshape(problems, candidates, horizon, 1, -1))

    def _features(self, position: np.ndarray) -> Tensor:
        return torch.from_numpy(self.env.plan_features(position)).float()

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
