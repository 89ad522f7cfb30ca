"""CEM against optima that are known in closed form, or solved by another method."""

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from tubelet.core.latent import Latent
from tubelet.planning import CEM, CEMConfig, LatentCost

HORIZON = 4
COST = LatentCost(kind="l2", steps="sum")


def thorough(**changes):
    defaults = {
        "horizon": HORIZON,
        "samples": 400,
        "elites": 40,
        "iterations": 100,
        "min_std": 1e-5,
        "momentum_std": 0.7,  # slow cooling: without it the Gaussian shrinks before it arrives
        "low": (-4.0,),
        "high": (4.0,),
    }
    return CEMConfig(**{**defaults, **changes})


@pytest.mark.parametrize("returns", ["mean", "best"])
@pytest.mark.parametrize(("beta", "tolerance"), [(0.0, 2e-3), (0.5, 2e-2)])
def test_reaches_the_optimum_of_a_linear_quadratic_problem(
    linear, problem, generators, returns, beta, tolerance
):
    dynamics = linear(effort=0.3)
    context, goal, starts, goals = problem(dynamics, 5)
    config = thorough(returns=returns, noise_beta=beta)
    plan = CEM(config, 2, COST).plan(dynamics, context, goal, generator=generators(5))
    for b in range(5):
        matrix, right = dynamics.least_squares(starts[b], goals[b], HORIZON)
        best = np.linalg.solve(matrix.T @ matrix, matrix.T @ right)  # the normal equations
        assert np.abs(best).max() < 4
        np.testing.assert_allclose(plan.actions[b].flatten(), best, atol=tolerance)
        least = np.square(matrix @ best - right).sum() / (HORIZON * 6)
        assert plan.cost[b].item() == pytest.approx(least, rel=1e-4)


def test_reaches_the_optimum_with_active_box_bounds(linear, problem, generators):
    dynamics = linear(effort=0.05)
    context, goal, starts, goals = problem(dynamics, 5)
    config = thorough(low=(-0.3, -0.2), high=(0.3, 0.4))
    plan = CEM(config, 2, COST).plan(dynamics, context, goal, generator=generators(5))
    low, high = np.tile([-0.3, -0.2], HORIZON), np.tile([0.3, 0.4], HORIZON)
    active = 0
    for b in range(5):
        matrix, right = dynamics.least_squares(starts[b], goals[b], HORIZON)
        solved = lsq_linear(matrix, right, (low, high), tol=1e-12)
        active += (solved.active_mask != 0).sum()
        np.testing.assert_allclose(plan.actions[b].flatten(), solved.x, atol=2e-3)
        least = 2 * solved.cost / (HORIZON * 6)
        assert plan.cost[b].item() == pytest.approx(least, rel=1e-4)
    assert active >= 5


class Identity:
    """One step whose latent is the action itself."""

    action_dim = 3

    def encode(self, obs):
        return Latent(obs["x"])

    encode_goal = encode

    def rollout(self, context, actions):
        return Latent(actions[..., None, :])


def test_norm_bound_gives_the_goal_projected_on_the_ball(generators):
    target = torch.tensor([[[2.0, 1.0, 0.5]], [[0.1, 0.2, 2.0]]])
    config = thorough(
        horizon=1, norm_groups=(2, 1), max_norms=(0.5, float("inf")), low=(-1.0,), high=(1.0,)
    )
    plan = CEM(config, 3).plan(
        Identity(), Latent(target[:, None]), Latent(target), generator=generators(2)
    )
    xy, z = target[:, 0, :2], target[:, 0, 2:].clamp(-1, 1)
    expected = torch.cat([xy * (0.5 / xy.norm(dim=-1, keepdim=True)).clamp(max=1), z], -1)
    torch.testing.assert_close(plan.actions[:, 0], expected, atol=2e-3, rtol=0)
