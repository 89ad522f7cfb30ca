"""Every planner on problems whose optimum is known: quadratic, ill-conditioned, an obstacle, and
actions that only pay together.

``regret`` is how much of the way from doing nothing (1) to the optimum (0) is left.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from tubelet.core.latent import Latent
from tubelet.planning import (
    CEM,
    ICEM,
    MPPI,
    PGD,
    Adam,
    AdamConfig,
    CategoricalCEM,
    CategoricalConfig,
    CEMConfig,
    Hybrid,
    HybridConfig,
    ICEMConfig,
    LatentCost,
    MPPIConfig,
    PGDConfig,
    RandomShooting,
    ShootingConfig,
    make_planner,
)

SUM, LAST = LatentCost(steps="sum"), LatentCost(steps="last")
SLOW = {"min_std": 1e-4, "momentum_std": 0.6}  # cool slowly: precision is what is tested


def configs(horizon, iterations=60, lr=1.0, temperature=0.05, **bounds):
    """A thorough config of each planner."""
    shared = {"horizon": horizon, **bounds}
    wide = {"samples": 300, "elites": 30, "iterations": iterations, **SLOW}
    return {
        "cem": CEMConfig(**shared, **wide),
        "icem": ICEMConfig(**shared, **wide, decay=1.0, noise_beta=0.5),
        "mppi": MPPIConfig(**shared, **(wide | {"elites": 0}), temperature=temperature),
        "pgd": PGDConfig(**shared, iterations=300, restarts=4, lr=lr),
        "adam": AdamConfig(**shared, iterations=300, restarts=8, final_lr=0.01),
        "hybrid": HybridConfig(**shared, refine_iterations=150),
    }


class Shooting(torch.nn.Module):
    """Latents that are a function of the whole sequence of actions, one step at a time."""

    def __init__(self, action_dim, function):
        super().__init__()
        self.action_dim, self.function = action_dim, function

    def rollout(self, context, actions):
        return Latent(self.function(actions)[..., None, :])


def regret(dynamics, config, context, goal, optimum, generators, cost):
    """``[B]``, of a plan that starts from zeros."""
    plan = make_planner(config, dynamics.action_dim, cost).plan(
        dynamics, context, goal, generator=generators(len(goal.tokens))
    )
    nothing = torch.zeros_like(plan.actions)[:, None]
    idle = cost(dynamics.rollout(context, nothing), goal)[:, 0]
    return (plan.cost - optimum) / (idle - optimum), plan


@pytest.mark.parametrize("name", configs(1))
def test_quadratic_with_active_bounds(linear, problem, generators, name):
    dynamics, horizon = linear(effort=0.05), 4
    context, goal, starts, goals = problem(dynamics, 4)
    curvature = 2 * np.linalg.norm(dynamics.least_squares(starts[0], goals[0], horizon)[0], 2) ** 2
    lr = float(horizon * 6 / curvature / 0.3**2)
    config = configs(horizon, lr=lr, temperature=0.2, low=(-0.3, -0.2), high=(0.3, 0.4))[name]
    low, high = np.tile([-0.3, -0.2], horizon), np.tile([0.3, 0.4], horizon)
    solved = [
        lsq_linear(matrix, right, (low, high), tol=1e-12)
        for matrix, right in (
            dynamics.least_squares(starts[b], goals[b], horizon) for b in range(4)
        )
    ]
    assert sum((one.active_mask != 0).sum() for one in solved) >= 4
    optimum = torch.tensor([2 * one.cost / (horizon * 6) for one in solved]).float()
    left, plan = regret(dynamics, config, context, goal, optimum, generators, SUM)
    assert left.abs().max() < 1e-3
    best = torch.tensor(np.stack([one.x for one in solved])).float()
    assert (plan.actions.flatten(1) - best).abs().max() < 0.05


@pytest.mark.parametrize("name", configs(1))
def test_effort_in_the_search_is_effort_in_the_model(linear, problem, generators, name):
    """The optimum with bounds, of a cost that the search adds and the latents do not tell."""
    horizon, weight, half = 4, 0.5, 0.3
    known, blind = linear(effort=weight), linear(effort=0.0)
    context, goal, starts, goals = problem(blind, 2)
    matrices = [known.least_squares(starts[b], goals[b], horizon) for b in range(2)]
    solved = [lsq_linear(*one, (-half, half), tol=1e-12) for one in matrices]
    optimum = torch.tensor([2 * one.cost / (horizon * 6) for one in solved]).float()
    curvature = 2 * np.linalg.norm(matrices[0][0], 2) ** 2
    lr = float(horizon * 6 / curvature / half**2)
    box = {"low": (-half,), "high": (half,)}
    config = configs(horizon, lr=lr, temperature=0.2, **box)[name]
    # latents are 6 numbers wide, actions 2
    config = replace(config, effort=weight * half**2 * 2 / 6)
    left, plan = regret(blind, config, context, goal, optimum, generators, SUM)
    assert left.abs().max() < 1e-3
    best = torch.tensor(np.stack([one.x for one in solved])).float()
    assert (plan.actions.flatten(1) - best).abs().max() < 0.05


@pytest.mark.parametrize("name", configs(1))
def test_ill_conditioned(generators, name):
    """A rotated valley, 30 times as steep across as along: condition 900. The optimum is inside."""
    draw = torch.Generator().manual_seed(4)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=draw))
    matrix = torch.diag(torch.logspace(0, math.log10(30), 6)) @ turn
    dynamics = Shooting(3, lambda a: (a.flatten(2) @ matrix.T)[:, :, None].expand(-1, -1, 2, -1))
    best = 0.6 * torch.rand(3, 6, generator=draw) - 0.3
    goal = Latent((best @ matrix.T)[:, None])
    context = Latent(torch.zeros(3, 1, 1, 6))
    # the curvature of the mean squared difference, half-widths 1: at most 2 * 900 / 6
    config = configs(2, iterations=150, lr=1 / 310)[name]
    left, _ = regret(dynamics, config, context, goal, torch.zeros(3), generators, LAST)
    assert left.max() < (5e-3 if name == "pgd" else 1e-3)  # the slowest way along a valley


def obstacle(actions):
    """A point in the plane that moves .3 per step at most; the third number is its way inside a
    disc between start and goal, ten times over."""
    position = 0.3 * actions.cumsum(2)
    inside = (0.5 - (position - torch.tensor([1.0, 0.0])).norm(dim=-1)).clamp(min=0)
    blame = 10 * inside.sum(2, keepdim=True).expand_as(inside)
    return torch.cat([position, blame[..., None]], -1)


@pytest.mark.parametrize("name", [n for n in configs(1) if n != "pgd"])
def test_obstacle(generators, name):
    """The straight way costs; the way around, which is free, is longer but fits the horizon."""
    dynamics = Shooting(2, obstacle)
    goal = Latent(torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.05, 0.0]])[:, None])
    context = Latent(torch.zeros(2, 1, 1, 3))
    config = configs(9)[name]
    left, plan = regret(dynamics, config, context, goal, torch.zeros(2), generators, LAST)
    straight = torch.tensor([2 / 9 / 0.3, 0.0]).expand(2, 1, 9, 2)
    assert (LAST(dynamics.rollout(context, straight), goal) > 1).all()
    assert left.max() < 5e-3
    assert (dynamics.rollout(context, plan.actions[:, None]).tokens[..., 2] < 0.5).all()


def pendulum_free_mass(actions):
    """Position and velocity of a mass pushed along a line, .2 seconds per step."""
    velocity = 0.2 * actions.cumsum(2)
    position = (0.2 * velocity).cumsum(2)
    return torch.cat([position, velocity], -1)


@pytest.mark.parametrize("name", configs(1))
def test_actions_that_only_pay_together(generators, name):
    """Be at 0.6 and at rest at the last step: push first, brake later; every push alone is worse
    than none, in velocity. Reachable with pushes below 1, so the least cost is 0."""
    horizon = 10
    dynamics = Shooting(1, pendulum_free_mass)
    goal = Latent(torch.tensor([[0.6, 0.0], [-0.4, 0.0]])[:, None])
    context = Latent(torch.zeros(2, 1, 1, 2))
    config = configs(horizon, lr=1.0)[name]  # the curvature is 1
    left, plan = regret(dynamics, config, context, goal, torch.zeros(2), generators, LAST)
    assert left.max() < 1e-3
    first, second = plan.actions[:, :5].sum((1, 2)), plan.actions[:, 5:].sum((1, 2))
    assert (first * torch.tensor([1.0, -1.0]) > 0).all()
    assert (first * second < 0).all()


def test_random_shooting_is_as_good_as_its_samples(linear, problem, generators):
    """Of 3000 uniform sequences the best is among the best 0.5 % of others (but once in 3 M)."""
    dynamics = linear(effort=0.1)
    context, goal, *_ = problem(dynamics, 4)
    plan = RandomShooting(ShootingConfig(horizon=3), 2, SUM).plan(
        dynamics, context, goal, generator=generators(4)
    )
    draw = torch.Generator().manual_seed(9)
    others = 2 * torch.rand(4, 20000, 3, 2, generator=draw) - 1
    cost = SUM(dynamics.rollout(context, others), goal)
    assert (plan.cost <= cost.quantile(0.005, dim=1)).all()
    assert plan.diagnostics["model_calls"] == 3000 * 3


# --- MPPI's temperature ------------------------------------------------------------------------


def test_mppi_step_is_the_posterior_mean(generators):
    """Gaussian samples weighted by exp(-cost / temperature) of a quadratic cost have a mean in
    closed form: (mu / s^2 + 2 g / T) / (1 / s^2 + 2 / T). Multiplying would give another."""
    dynamics = Shooting(1, lambda a: a)
    goal, start, std = 0.8, 0.1, 0.5
    for temperature in (0.1, 1.0, 10.0):
        config = MPPIConfig(
            horizon=1,
            samples=200_000,
            iterations=1,
            init_std=std / 10,
            temperature=temperature,
            relative=False,
            low=(-10.0,),
            high=(10.0,),
        )
        plan = MPPI(config, 1, LAST).plan(
            dynamics,
            Latent(torch.zeros(1, 1, 1, 1)),
            Latent(torch.full((1, 1, 1), goal)),
            warm_start=torch.full((1, 1, 1), start),
            generator=generators(1),
        )
        precision = 1 / std**2 + 2 / temperature
        expected = (start / std**2 + 2 * goal / temperature) / precision
        assert plan.actions.item() == pytest.approx(expected, abs=0.01)


def test_temperature_decides_how_many_samples_count(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 3)
    counts = []
    for temperature in (1e-4, 0.1, 1.0, 1e4):
        config = MPPIConfig(horizon=3, iterations=2, temperature=temperature)
        plan = MPPI(config, 2).plan(dynamics, context, goal, generator=generators(3))
        counts.append(plan.diagnostics["effective_samples"][:, 0])
    cold, *_, hot = counts
    assert (torch.stack(counts).diff(dim=0) > 0).all()
    torch.testing.assert_close(cold, torch.ones(3), atol=0.1, rtol=0)
    torch.testing.assert_close(hot, torch.full((3,), 300.0), atol=1.0, rtol=0)


def test_relative_temperature_does_not_depend_on_the_scale_of_the_cost(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 3)
    plans = [
        MPPI(MPPIConfig(horizon=3), 2, lambda t, g, s=scale: s * SUM(t, g)).plan(
            dynamics, context, goal, generator=generators(3)
        )
        for scale in (1.0, 1000.0)
    ]
    torch.testing.assert_close(plans[0].actions, plans[1].actions, atol=1e-3, rtol=1e-3)


# --- Adam --------------------------------------------------------------------------------------


def test_adam_is_adam_while_no_bound_is_met(linear, problem, generators):
    """Algorithm 1 of arXiv:1412.6980 in NumPy, on the gradient of the linear-quadratic cost."""
    dynamics, horizon, lr = linear(effort=0.2), 3, 0.002
    context, goal, starts, goals = problem(dynamics, 2)
    config = AdamConfig(
        horizon=horizon, iterations=12, restarts=1, lr=lr, final_lr=1.0, low=(-9.0,), high=(9.0,)
    )
    plan = Adam(config, 2, SUM).plan(dynamics, context, goal, generator=generators(2))
    for b in range(2):
        matrix, right = dynamics.least_squares(starts[b], goals[b], horizon)
        x, first, second = np.zeros(6), np.zeros(6), np.zeros(6)  # x in half-widths of the box
        for t in range(1, 13):
            gradient = 9 * 2 * matrix.T @ (matrix @ (9 * x) - right) / (horizon * 6)
            first = 0.9 * first + 0.1 * gradient
            second = 0.99 * second + 0.01 * gradient**2
            x = x - lr * (first / (1 - 0.9**t)) / np.sqrt(second / (1 - 0.99**t))
        np.testing.assert_allclose(plan.actions[b].flatten(), 9 * x, atol=1e-5)


def test_restarts_leave_a_local_minimum(generators):
    """Two valleys; the start is in the shallower."""
    dynamics = Shooting(1, lambda a: torch.cat([(a - 0.7) * (a + 0.6), 0.2 * (a - 0.7)], -1))
    problem = Latent(torch.zeros(1, 1, 1, 2)), Latent(torch.zeros(1, 1, 2))
    cost = LatentCost()
    start = torch.full((1, 1, 1), -0.5)
    alone, many = (
        Adam(AdamConfig(horizon=1, restarts=n, iterations=80, final_lr=0.01), 1, cost).plan(
            dynamics, *problem, warm_start=start, generator=generators(1)
        )
        for n in (1, 8)
    )
    assert alone.actions.item() < -0.4
    assert many.actions.item() == pytest.approx(0.7, abs=0.01)


def test_gradient_steps_do_not_depend_on_the_units_of_actions(generators):
    for kind, planner in ((AdamConfig, Adam), (PGDConfig, PGD)):
        plans = []
        for unit in (1.0, 100.0):
            dynamics = Shooting(2, lambda a, u=unit: (a / u).cumsum(2))
            config = kind(horizon=2, iterations=20, restarts=2, low=(-unit,), high=(unit,))
            plan = planner(config, 2, LAST).plan(
                dynamics,
                Latent(torch.zeros(1, 1, 1, 2)),
                Latent(torch.tensor([[[0.3, -0.6]]])),
                generator=generators(1),
            )
            plans.append(plan.actions / unit)
        torch.testing.assert_close(*plans, atol=1e-4, rtol=1e-4)


# --- iCEM, hybrid ------------------------------------------------------------------------------


def test_icem_decays_its_samples_and_offers_the_mean_first_and_last(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 2)
    config = ICEMConfig(horizon=3, samples=100, elites=20, iterations=6, decay=1.5)
    ICEM(config, 2).plan(dynamics, context, goal, generator=generators(2))
    assert [s for _, s, *_ in dynamics.calls] == [100, 66, 44, 40, 40, 40, 1]
    assert [config.offers_mean(i) for i in range(6)] == [True, *[False] * 4, True]


def test_coloured_noise_pays_where_one_has_to_keep_going(generators):
    """A goal far away along one direction: smooth candidates come closer from the same budget."""
    dynamics = Shooting(2, lambda a: 0.1 * a.cumsum(2))
    context, goal = Latent(torch.zeros(16, 1, 1, 2)), Latent(torch.full((16, 1, 2), 1.5))
    costs = [
        CEM(CEMConfig(horizon=20, samples=50, elites=5, iterations=4, noise_beta=beta), 2, LAST)
        .plan(dynamics, context, goal, generator=generators(16))
        .cost.mean()
        for beta in (0.0, 2.0)
    ]
    assert costs[1] < 0.5 * costs[0]


def test_refining_improves_on_cem(linear, problem, generators):
    dynamics = linear(effort=0.1)
    context, goal, *_ = problem(dynamics, 6)
    config = HybridConfig(horizon=4, iterations=5, refine_iterations=60)
    plan = Hybrid(config, 2, SUM).plan(dynamics, context, goal, generator=generators(6))
    assert (plan.cost < plan.diagnostics["cost_after_cem"]).all()
    assert plan.diagnostics["cost_per_iteration"].shape == (6, 65)


# --- discrete actions --------------------------------------------------------------------------


def exhaustive(dynamics, context, goal, options, horizon, cost):
    """The least cost ``[B]`` over all sequences of the actions ``options [K, A]``."""
    every = torch.stack(
        [torch.stack(s) for s in itertools.product(options.unbind(0), repeat=horizon)]
    )
    every = every.expand(len(goal.tokens), -1, -1, -1)
    return cost(dynamics.rollout(context, every), goal).amin(1)


def test_one_hot_actions_find_the_best_of_all_sequences(linear, problem, generators):
    dynamics = linear(width=5)
    context, goal, *_ = problem(dynamics, 4)
    config = CategoricalConfig(horizon=4, choices=(5,), samples=200, iterations=12)
    plan = CategoricalCEM(config, 5, SUM).plan(dynamics, context, goal, generator=generators(4))
    assert (plan.actions.sum(-1) == 1).all()
    assert ((plan.actions == 0) | (plan.actions == 1)).all()
    least = exhaustive(dynamics, context, goal, torch.eye(5), 4, SUM)
    torch.testing.assert_close(plan.cost, least, atol=1e-5, rtol=1e-5)
    entropy = plan.diagnostics["entropy_per_iteration"]
    torch.testing.assert_close(entropy[:, 0], torch.full((4,), math.log(5)))
    assert (entropy[:, -1] < entropy[:, 0]).all()


def test_levels_find_the_best_of_all_sequences(linear, problem, generators):
    dynamics = linear(effort=0.1)
    context, goal, *_ = problem(dynamics, 4)
    levels = (-0.8, 0.0, 0.5)
    config = CategoricalConfig(horizon=3, levels=levels, samples=200, iterations=12)
    plan = CategoricalCEM(config, 2, SUM).plan(dynamics, context, goal, generator=generators(4))
    assert torch.isin(plan.actions, torch.tensor(levels)).all()
    options = torch.tensor(list(itertools.product(levels, repeat=2)))
    least = exhaustive(dynamics, context, goal, options, 3, SUM)
    torch.testing.assert_close(plan.cost, least, atol=1e-5, rtol=1e-5)


def test_several_choices_and_blocks_are_one_hot_each(linear, problem, generators):
    dynamics = linear(width=10)  # two blocks of a choice of 2 and one of 3
    context, goal, *_ = problem(dynamics, 2)
    plan = CategoricalCEM(CategoricalConfig(horizon=2, choices=(2, 3)), 10).plan(
        dynamics, context, goal, generator=generators(2)
    )
    for part in plan.actions.split([2, 3, 2, 3], -1):
        assert (part.sum(-1) == 1).all()
        assert ((part == 0) | (part == 1)).all()
