"""V-JEPA 2-AC's planner against a plain NumPy loop and known optima."""

import math

import numpy as np
import pytest
import torch

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError, PlanningError
from tubelet.core.latent import Latent
from tubelet.planning import LatentCost
from tubelet.planning.noise import standard_normal
from tubelet.planning.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACPlanner

SMALL = {"horizon": 2, "samples": 60, "elites": 10, "iterations": 4}


class Arm:
    """The latent is the arm's position and gripper: each action adds to it. Rotation is latent
    too, so that a planner that turned the arm would be seen."""

    action_dim = 7

    def __init__(self):
        self.seen = []

    def rollout(self, context, actions):
        self.seen.append(actions.clone())
        tokens = context.tokens[:, -1][:, None, None] + actions.cumsum(2)[..., None, :]
        return Latent(tokens)


def problems(*goals):
    """Contexts at zero and goals ``[x, y, z, gripper]``."""
    goal = torch.zeros(len(goals), 1, 7)
    goal[:, 0, [0, 1, 2, 6]] = torch.tensor(goals)
    return Latent(torch.zeros(len(goals), 1, 1, 7)), Latent(goal)


GOALS = [(0.03, -0.02, 0.01, 0.5), (-0.06, 0.05, 0.0, 0.0), (1.0, -1.0, 0.02, -0.9)]


def solve(*goals, seed=0, cost=None, warm_start=None, **changes):
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(goals))]
    arm, planner = Arm(), VJEPA2ACPlanner(VJEPA2ACConfig(**{**SMALL, **changes}), cost)
    plan = planner.plan(arm, *problems(*goals), warm_start=warm_start, generator=generators)
    return plan, arm


def numpy_loop(goal, config, generator):
    """The published procedure for one problem, in plain NumPy, with the planner's noise."""
    c = config
    mean, std = np.zeros((c.horizon, 4)), np.tile([c.max_move] * 3 + [1.0], (c.horizon, 1))
    for _ in range(c.iterations):
        shape = (c.samples, c.horizon, 4)
        noise = standard_normal([generator], 1, shape, torch.device("cpu"))[0].double().numpy()
        found = []
        for sample in range(c.samples):
            moves = mean + std * noise[sample]
            for step in range(c.horizon):
                for axis in range(3):
                    moves[step, axis] = min(max(moves[step, axis], -c.max_move), c.max_move)
                moves[step, 3] = min(max(moves[step, 3], -0.75), 0.75)
                for which, value in c.fixed:
                    moves[step, which] = value
                if c.close_gripper is not None and step >= c.close_gripper:
                    moves[step, 3] = 1
            cost = np.abs(moves.sum(0) - goal).sum() / 7  # the mean of 7 latents, 3 of them equal
            found.append((cost, moves))
        elites = np.array([moves for _, moves in sorted(found, key=lambda pair: pair[0])])[
            : c.elites
        ]
        for axis in range(4):
            keep_mean = c.momentum_mean if axis < 3 else c.momentum_mean_gripper
            keep_std = c.momentum_std if axis < 3 else c.momentum_std_gripper
            fitted = elites[:, :, axis]
            mean[:, axis] = fitted.mean(0) * (1 - keep_mean) + mean[:, axis] * keep_mean
            std[:, axis] = fitted.std(0, ddof=1) * (1 - keep_std) + std[:, axis] * keep_std
    mean[np.abs(mean[:, 3]) < 0.25, 3] = 0
    if c.close_gripper is not None:  # ours: what is forced holds exactly
        assert np.allclose(mean[c.close_gripper :, 3], 1 - c.momentum_mean_gripper**c.iterations)
        mean[c.close_gripper :, 3] = 1
    return mean


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"horizon": 1},
        {
            "momentum_mean": 0.25,
            "momentum_std": 0.95,
            "momentum_mean_gripper": 0.6,
            "momentum_std_gripper": 0.4,
        },
        {"max_move": 0.075, "elites": 2, "fixed": ((1, 0.02),)},
        {"close_gripper": 1},
    ],
    ids=["defaults", "one step", "momenta", "fixed axis", "closing"],
)
def test_plans_are_those_of_the_published_loop(changes):
    plan, _ = solve(*GOALS, **changes)
    config = VJEPA2ACConfig(**{**SMALL, **changes})
    for i, goal in enumerate(GOALS):
        wanted = numpy_loop(np.array(goal), config, torch.Generator().manual_seed(i))
        assert np.allclose(plan.actions[i][:, [0, 1, 2, 6]], wanted, atol=1e-5)
        assert (plan.actions[i][:, 3:6] == 0).all()


def test_the_optimum_of_a_quadratic_is_found():
    """Reachable goals are reached; of one out of reach, the nearest corner of the box."""
    plan, _ = solve(*GOALS, cost=LatentCost(kind="l2"), samples=400, iterations=25)
    total = plan.actions.sum(1)[:, [0, 1, 2, 6]]
    wanted = torch.tensor([*GOALS[:2], (0.1, -0.1, 0.02, -0.9)])
    assert torch.allclose(total[:, :3], wanted[:, :3], atol=2e-3)
    assert torch.allclose(total[[0, 2], 3], wanted[[0, 2], 3], atol=0.25 + 1e-3)  # dead zone


def test_each_entry_stays_inside_its_bound():
    plan, arm = solve(*GOALS, max_move=0.02)
    for actions in [*arm.seen, plan.actions]:
        assert (actions[..., :3].abs() <= 0.02 + 1e-9).all()
        assert (actions[..., 3:6] == 0).all()
        assert (actions[..., 6].abs() <= 0.75 + 1e-9).all()
    # A box, not a ball: the corner, sqrt(3) times as far, is searched.
    assert max(float(a[..., :3].norm(dim=-1).max()) for a in arm.seen) > 1.5 * 0.02


def test_a_problem_is_planned_alike_alone_and_in_a_batch():
    together, _ = solve(*GOALS)
    for i, goal in enumerate(GOALS):
        alone, _ = solve(goal, seed=i)
        assert torch.allclose(together.actions[i], alone.actions[0], atol=1e-7)
        assert torch.allclose(together.cost[i], alone.cost[0], atol=1e-7)


def test_chunks_change_nothing():
    whole, parts = solve(*GOALS)[0], solve(*GOALS, chunk=7)[0]
    assert torch.equal(whole.actions, parts.actions)


def test_the_same_seed_plans_alike_and_another_does_not():
    first, again, other = solve(*GOALS)[0], solve(*GOALS)[0], solve(*GOALS, seed=9)[0]
    assert torch.equal(first.actions, again.actions)
    assert not torch.equal(first.actions, other.actions)


def test_the_cost_is_that_of_the_planned_actions():
    plan, _ = solve(*GOALS)
    context, goal = problems(*GOALS)
    imagined = Arm().rollout(context, plan.actions[:, None])
    wanted = (imagined.tokens[:, 0, -1] - goal.tokens).abs().mean((1, 2))
    assert torch.allclose(plan.cost, wanted)


def test_only_the_last_latent_counts():
    """Two steps there and back cost nothing: the steps on the way are free."""
    context, goal = problems((0.0, 0.0, 0.0, 0.0))
    there_and_back = torch.zeros(1, 1, 2, 7)
    there_and_back[0, 0, :, 0] = torch.tensor([0.05, -0.05])
    cost = VJEPA2ACPlanner(VJEPA2ACConfig()).cost
    assert cost(Arm().rollout(context, there_and_back), goal).item() == 0


def test_small_changes_of_the_gripper_are_taken_out():
    plan, _ = solve((0.01, 0, 0, 0.1), horizon=1, gripper_dead_zone=0.25, iterations=8)
    assert plan.actions[0, 0, 6] == 0
    plan, _ = solve((0.01, 0, 0, 0.1), horizon=1, gripper_dead_zone=0.0, iterations=8)
    assert plan.actions[0, 0, 6] == pytest.approx(0.1, abs=0.03)
    plan, _ = solve((0.01, 0, 0, 0.6), horizon=1, iterations=8)
    assert plan.actions[0, 0, 6] == pytest.approx(0.6, abs=0.05)


def test_the_gripper_closes_from_the_given_step_on():
    plan, arm = solve((0.01, 0, 0, 0), horizon=3, close_gripper=1, iterations=6)
    assert all((actions[..., 1:, 6] == 1).all() for actions in arm.seen)
    assert (plan.actions[0, 1:, 6] == 1).all()
    assert plan.actions[0, 0, 6] <= 0.75


def test_the_search_starts_from_the_warm_start_inside_the_bounds():
    warm = torch.full((1, 2, 7), 9.0)
    _, arm = solve(GOALS[0], warm_start=warm, samples=2000, iterations=1)
    first = arm.seen[0][0]
    # Half of a Gaussian around the bound is clipped to it.
    assert (first[..., 0] == 0.05).float().mean() == pytest.approx(0.5, abs=0.05)
    assert (first[..., 3:6] == 0).all()


def test_diagnostics_say_what_was_done():
    plan, arm = solve(*GOALS)
    d = plan.diagnostics
    assert d["model_calls"] == sum(a.shape[1] * a.shape[2] for a in arm.seen) == 2 * (60 * 4 + 1)
    assert d["cost_per_iteration"].shape == (3, 4)
    assert d["std_per_iteration"].shape == (3, 4, 4)
    assert torch.allclose(d["std_per_iteration"][:, 0], torch.tensor([0.05, 0.05, 0.05, 1.0]))
    assert d["invalid_costs"] == 0
    assert d["seconds"] > 0


def test_a_model_that_fails_for_some_candidates_is_planned_with():
    def cost(trajectory, goal):
        l1 = LatentCost(kind="l1")(trajectory, goal)
        return torch.where(trajectory.tokens[:, :, -1, 0, 0] < 0.04, l1, math.nan)

    plan, _ = solve((0.03, 0, 0, 0), cost=cost)
    assert plan.cost.isfinite().all()
    assert plan.diagnostics["invalid_costs"] > 0
    few, _ = solve((0.03, 0, 0, 0), cost=cost, elites=60)  # not so many are finite
    assert few.actions.isfinite().all()
    with pytest.raises(PlanningError, match=r"problem\(s\) \[0\] has a NaN"):
        solve((0.03, 0, 0, 0), cost=lambda t, g: LatentCost()(t, g) * math.nan)


def test_the_config_survives_a_file():
    config = VJEPA2ACConfig(fixed=((2, 0.01), (0, 0.0)), close_gripper=1, chunk=8)
    assert from_toml(VJEPA2ACConfig, to_toml(config)) == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"elites": 1}, r"elites = 1: must be in 2\.\.samples"),
        ({"elites": 61}, "elites = 61"),
        ({"horizon": 0}, "horizon = 0"),
        ({"iterations": 0}, "iterations = 0"),
        ({"momentum_std_gripper": 1.0}, "momentum_std_gripper = 1.0"),
        ({"momentum_mean": -0.1}, "momentum_mean = -0.1"),
        ({"max_move": math.inf}, "max_move = inf"),
        ({"max_gripper": 1.5}, "max_gripper = 1.5"),
        ({"gripper_dead_zone": -1.0}, "gripper_dead_zone"),
        ({"fixed": ((4, 0.0),)}, "fixed = "),
        ({"fixed": ((0, 0.2),)}, "fixed = "),
        ({"close_gripper": 2}, r"close_gripper = 2: must be a step below 2"),
        ({"chunk": 0}, "chunk = 0"),
    ],
)
def test_impossible_configs_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        VJEPA2ACConfig(**{**SMALL, **changes})


def test_problems_that_do_not_fit_are_refused(linear, problem, generators):
    dynamics = linear()
    planner = VJEPA2ACPlanner(VJEPA2ACConfig(**SMALL))
    context, goal, *_ = problem(dynamics, 1)
    with pytest.raises(PlanningError, match="width 7 but the dynamics takes 2"):
        planner.plan(dynamics, context, goal, generator=generators(1))
    with pytest.raises(PlanningError, match=r"warm_start has shape \(1, 2, 4\)"):
        solve(GOALS[0], warm_start=torch.zeros(1, 2, 4))
