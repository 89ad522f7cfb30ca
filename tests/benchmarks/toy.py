"""A point in the unit square with the GoalEnv interface, and its exact dynamics as a model."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch

from tubelet.core.latent import Latent

SIZE = 16


class PointEnv:
    """State [x, y, vx, vy] in [0, 1]; an action moves by 0.1 per unit; success within 0.1."""

    action_space = SimpleNamespace(shape=(2,))
    observation_space: ClassVar = {"proprio": SimpleNamespace(shape=(2,))}

    def __init__(self):
        self.unwrapped = self
        self.rendered = 0
        self.state = self.goal = np.zeros(4)

    def sample_state(self, rng):
        return self.state_at(rng.uniform(size=2))

    sample_goal = sample_state

    def position(self, state):
        return state[:2]

    def state_at(self, position):
        return np.concatenate([position, np.zeros(2)])

    def get_state(self):
        return self.state.copy()

    def set_state(self, state):
        self.state = np.array(state, float)

    def reset(self, *, options):
        self.goal = options["goal_state"]
        self.set_state(options["state"])
        return self._observe()

    def step(self, action):
        move = 0.1 * np.clip(action, -1, 1)
        self.state = np.concatenate([np.clip(self.state[:2] + move, 0, 1), move])
        observation, info = self._observe()
        return observation, 0.0, False, False, info

    def _observe(self):
        info = {
            "state": self.get_state(),
            "success": self.success(self.state, self.goal),
            "distance": self.distance(self.state, self.goal),
        }
        return {"proprio": self.state[2:].astype(np.float32)}, info

    def render_state(self, state):
        self.rendered += 1
        frame = np.zeros((SIZE, SIZE, 3), np.uint8)
        frame[..., 0] = round(255 * state[0])
        frame[..., 1] = round(255 * state[1])
        return frame

    def distance(self, state, goal_state):
        return {"position": float(np.linalg.norm(state[:2] - goal_state[:2]))}

    def success(self, state, goal_state):
        return self.distance(state, goal_state)["position"] < 0.1


class GreedyAgent:
    """Reads x, y off the colours and walks straight to the goal, K steps at a time."""

    def __init__(self, steps=2):
        self.steps = steps

    def reset(self, goal_obs, *, problems):
        self.problems, self.records = list(problems), []
        self.goal = goal_obs["pixels"][:, 0, 0, :2] / 255

    def act(self, obs):
        plan = SimpleNamespace(diagnostics={"model_calls": self.steps})
        self.records.append(SimpleNamespace(plan=plan))
        here = obs["pixels"][:, -1, 0, 0, :2] / 255
        actions = []
        for _ in range(self.steps):
            action = np.clip((self.goal - here) / 0.1, -1, 1)
            here = here + 0.1 * action
            actions.append(action)
        return np.stack(actions, 1).astype(np.float32)


class PixelDynamics:
    """Latent = mean colour; knows the point's motion exactly (a LatentDynamics)."""

    action_dim = 2

    def encode(self, obs):
        pixels = torch.as_tensor(obs["pixels"]).float() / 255
        return Latent(pixels.mean((-3, -2))[..., None, :2])

    encode_goal = encode

    def rollout(self, context, actions):
        start = context.tokens[:, -1, 0]  # [B, 2]
        return Latent((start[:, None, None] + 0.1 * actions.cumsum(2)).clamp(0, 1)[..., None, :])
