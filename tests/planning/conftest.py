"""A linear system with a known optimum, as latent dynamics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tubelet.core.latent import Latent


class LinearDynamics:
    """x' = A x + B u; the latent is one token [x', sqrt(effort) u], so L2 cost is an LQ cost."""

    def __init__(self, effort: float = 0.0, width: int = 2):
        rng = np.random.default_rng(7)
        self.a = np.eye(4) + 0.15 * rng.standard_normal((4, 4))
        self.b = rng.standard_normal((4, width))
        self.effort, self.action_dim = effort, width
        self.calls: list[tuple[int, ...]] = []

    def encode(self, obs):
        return Latent(torch.as_tensor(obs["state"], dtype=torch.float32)[:, :, None])

    def encode_goal(self, obs):
        state = torch.as_tensor(obs["state"], dtype=torch.float32)
        return Latent(torch.cat([state, torch.zeros(len(state), self.action_dim)], -1)[:, None])

    def rollout(self, context, actions):
        self.calls.append(tuple(actions.shape))
        a, b = (torch.tensor(matrix, dtype=torch.float32) for matrix in (self.a, self.b))
        state = context.tokens[:, -1, 0][:, None].expand(-1, actions.shape[1], -1)
        steps = []
        for action in actions.unbind(2):
            state = state @ a.T + action @ b.T
            steps.append(torch.cat([state, self.effort**0.5 * action], -1))
        return Latent(torch.stack(steps, 2)[:, :, :, None])

    def propose(self, context, goal, steps, horizon):
        """A part of the way in each step: rough, but in the right direction."""
        a, b = (torch.tensor(matrix, dtype=torch.float32) for matrix in (self.a, self.b))
        gap = goal.tokens[:, 0, :4] - context.tokens[:, -1, 0] @ a.T
        move = gap @ torch.linalg.pinv(b).T
        counts = torch.as_tensor(steps, dtype=torch.float32)
        now = torch.arange(horizon) < counts[:, None]  # [K, H]
        return move[:, None, None] * (now / counts[:, None])[None, :, :, None]

    def least_squares(self, start, goal, horizon):
        """Matrix and right-hand side whose residual's square is the LQ cost times a constant."""
        width, rows, right = self.action_dim, [], []
        free, response = start, np.zeros((4, horizon * width))
        for step in range(horizon):
            free, response = self.a @ free, self.a @ response
            response[:, step * width : (step + 1) * width] += self.b
            rows.append(response.copy())
            right.append(goal - free)
        effort = self.effort**0.5 * np.eye(horizon * width)
        return np.vstack([*rows, effort]), np.concatenate([*right, np.zeros(len(effort))])


@pytest.fixture
def linear():
    return LinearDynamics


@pytest.fixture
def problem():
    """``problem(dynamics, count)``: context, goal and their states float64 ``[count, 4]``."""

    def build(dynamics, count):
        rng = np.random.default_rng(3)
        start, goal = rng.standard_normal((2, count, 4))
        context = dynamics.encode({"state": start[:, None]})
        return context, dynamics.encode_goal({"state": goal}), start, goal

    return build


@pytest.fixture
def generators():
    """``generators(count, seed=0)``: one generator per problem."""

    def build(count, seed=0):
        return [torch.Generator().manual_seed(1000 * seed + n) for n in range(count)]

    return build
