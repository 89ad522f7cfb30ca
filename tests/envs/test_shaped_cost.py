"""Shaped costs: least at the goal, and no way to gain by undoing what is done."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet import envs
from tubelet.core.errors import ConfigError
from tubelet.envs.oracle import ShapedCost, SimulatorDynamics

SHAPED = ("tubelet/PushT-v0", "tubelet/ArmPickPlace-v0")
PUSH, PICK = (envs.make(env_id, render_obs=False) for env_id in SHAPED)
unit = st.floats(-1.0, 1.0)


def pose(disc, block, turn):
    return np.array([*disc, *block, turn])


@pytest.mark.parametrize("env", [PUSH, PICK], ids=["push", "pick"])
def test_success_is_cheaper_than_every_start(env):
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, goal = env.position(env.sample_state(rng)), env.position(env.sample_goal(rng))
        assert env.shaped_cost(goal, goal) < env.shaped_cost(start, goal)
        both = env.shaped_cost(np.stack([[start, goal]]), goal)
        assert both.shape == (1, 2)
        assert both[0, 0] == env.shaped_cost(start, goal)


@settings(max_examples=60, deadline=None)
@given(unit, unit, unit, unit, unit, st.floats(0.0, 1.0))
def test_no_move_of_the_t_away_from_its_goal_pays(dx, dy, bx, by, turn, share):
    """The disc keeps its distance to the T: a T nearer in place and angle is cheaper."""
    goal = pose((0.1, 0.1), (0.0, 0.0), 0.0)
    gap, disc = 0.1 * np.array([bx, by]), goal[:2] + 0.1 * np.array([dx, dy])
    far = pose(disc, gap, np.pi * turn)
    near = pose(disc, share * gap, share * np.pi * turn)
    apart = np.linalg.norm(far[:2] - far[2:4]) - np.linalg.norm(near[:2] - near[2:4])
    if apart >= 0:  # the disc is no farther from the T than before
        assert PUSH.shaped_cost(near, goal) <= PUSH.shaped_cost(far, goal) + 1e-9


def test_the_disc_counts_once_the_t_is_in_place():
    goal = pose((0.2, 0.0), (0.0, 0.0), 0.3)
    there = PUSH.shaped_cost(goal, goal)
    ways = [PUSH.shaped_cost(pose((x, 0.0), (0.0, 0.0), 0.3), goal) for x in (0.18, 0.1, -0.1)]
    assert there < ways[0] < ways[1] < ways[2]
    turned = goal + np.array([0, 0, 0, 0, 2 * np.pi])
    assert PUSH.shaped_cost(turned, goal) == pytest.approx(there)


def test_stages_of_picking_get_cheaper_in_their_order():
    place, goal_place = np.array([-0.05, 0.02, 0.025]), np.array([0.14, -0.05, 0.105])
    grasp = np.array([0, 0, 0.005])
    goal = PICK.pose(goal_place + grasp, 0.045, goal_place)

    def cost(hand, opening, cube):
        return float(PICK.shaped_cost(PICK.pose(hand, opening, cube), goal))

    up = np.array([0.0, 0.0, 1.0])
    lifted = place + 0.1 * up
    beside = place + np.array([-0.1, 0, 0.1])
    over = np.array([0.14, -0.05, 0.125])
    stages = [
        cost(beside + 0.05 * up, 0.045, place),
        cost(place + 0.08 * up, 0.045, place),
        cost(place + grasp, 0.045, place),
        cost(place + grasp, 0.025, place),
        cost(lifted + grasp, 0.025, lifted),
        cost(over + grasp, 0.025, over),
    ]
    assert all(np.diff(stages) < 0)
    # Closing beside the cube costs; one pushed against the shelf is as far as the way up.
    assert cost(beside, 0.0, place) > cost(beside, 0.045, place)
    pushed = np.array([0.06, 0.02, 0.025])
    above = pushed + 0.09 * up
    assert cost(pushed + grasp, 0.025, pushed) > cost(above + grasp, 0.025, above) + 0.1


def test_a_trajectory_costs_the_mean_of_its_steps():
    oracle = SimulatorDynamics(PUSH, action_block=2, positions=True, threads=1)
    rng = np.random.default_rng(1)
    starts = np.stack([PUSH.sample_state(rng) for _ in range(2)])
    goals = np.stack([PUSH.sample_goal(rng) for _ in range(2)])
    actions = torch.rand(2, 3, 4, oracle.action_dim, generator=torch.manual_seed(0)) * 2 - 1
    way = oracle.rollout(oracle.encode({"state": starts[:, None]}), actions)
    goal = oracle.encode_goal({"state": goals})
    assert way.tokens.shape == (2, 3, 4, 1, 5)
    found = ShapedCost(PUSH)(way, goal)
    for b in range(2):
        wanted = PUSH.shaped_cost(way.tokens[b, :, :, 0].numpy(), PUSH.position(goals[b])).mean(1)
        np.testing.assert_allclose(found[b], wanted, rtol=1e-4)


def test_environments_without_one_say_so():
    with pytest.raises(ConfigError, match="Reacher has no shaped cost"):
        ShapedCost(envs.make("tubelet/Reacher-v0", render_obs=False))
