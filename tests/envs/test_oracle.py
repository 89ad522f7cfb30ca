"""The oracle imagines exactly what the environment then does, and planning with it works."""

import numpy as np
import pytest
import torch

from tubelet import envs
from tubelet.core.errors import ConfigError, PlanningError
from tubelet.envs.factors import FactorConfig, draw_factors
from tubelet.envs.oracle import SimulatorDynamics
from tubelet.planning.cem import CEM, CEMConfig
from tubelet.planning.costs import LatentCost
from tubelet.planning.mpc import MPCAgent, MPCConfig
from tubelet.planning.protocol import LatentDynamics

IDS = list(envs.ENVIRONMENTS)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("block", [1, 3])
def test_rollout_is_what_the_environment_does(env_id, block):
    env = envs.make(env_id, render_obs=False)
    oracle = SimulatorDynamics(env, action_block=block)
    assert isinstance(oracle, LatentDynamics)
    rng = np.random.default_rng(0)
    starts = np.stack([env.sample_state(rng) for _ in range(2)])
    actions = torch.rand(2, 3, 4, oracle.action_dim, generator=torch.manual_seed(0)) * 2 - 1
    imagined = oracle.rollout(oracle.encode({"state": starts[:, None]}), actions).tokens
    assert imagined.shape[:4] == (2, 3, 4, 1)
    for problem in range(2):
        for candidate in range(3):
            env.set_state(starts[problem])
            for step, block_of_actions in enumerate(actions[problem, candidate]):
                for action in block_of_actions.reshape(block, -1).numpy():
                    env.step(action)
                expected = env.plan_features(env.position(env.get_state()))
                np.testing.assert_allclose(
                    imagined[problem, candidate, step, 0], expected, atol=1e-4
                )


@pytest.mark.parametrize("env_id", IDS)
def test_goal_and_trajectory_share_coordinates(env_id):
    """Standing still at the goal costs nothing; any other place costs more."""
    env = envs.make(env_id, render_obs=False)
    oracle = SimulatorDynamics(env)
    goals = np.stack([env.sample_goal(np.random.default_rng(k)) for k in range(3)])
    still = torch.zeros(3, 1, 5, oracle.action_dim)
    stay = oracle.rollout(oracle.encode({"state": goals[:, None]}), still)
    goal, other = oracle.encode_goal({"state": goals}), oracle.encode_goal({"state": goals[::-1]})
    cost = LatentCost(kind="l2", steps="last")
    assert cost(stay, goal).max() < 1e-6
    assert cost(stay, other)[[0, 2]].min() > 1e-3


def test_planning_with_the_oracle_reaches_goals():
    """Also where the wrist's short way is blocked by its limit."""
    pairs = [([0.5, 0.5], [-1.0, -1.0]), ([0.0, 2.6], [0.3, -2.6]), ([3.0, 0.0], [-3.0, 0.8])]
    worlds = [envs.make("tubelet/Reacher-v0", render_obs=False) for _ in pairs]
    for world, (start, goal) in zip(worlds, pairs, strict=True):
        start, goal = world.state_at(np.array(start)), world.state_at(np.array(goal))
        world.reset(options={"state": start, "goal_state": goal})
    oracle = SimulatorDynamics(worlds[0], action_block=5)
    planner = CEM(
        CEMConfig(horizon=5, samples=48, iterations=3, elites=8), 2, cost=LatentCost(steps="sum")
    )
    agent = MPCAgent(oracle, planner, MPCConfig(action_block=5, hold=True))
    agent.reset({"state": np.stack([world.goal_state for world in worlds])})
    for _ in range(12):
        plans = agent.act({"state": np.stack([world.get_state()[None] for world in worlds])})
        for world, actions in zip(worlds, plans, strict=True):
            for action in actions:
                world.step(action)
    assert all(world.success(world.get_state(), world.goal_state) for world in worlds)


def test_impossible_inputs_are_refused():
    env = envs.make("tubelet/Reacher-v0", render_obs=False)
    with pytest.raises(ConfigError, match="action_block = 0"):
        SimulatorDynamics(env, action_block=0)
    oracle = SimulatorDynamics(env)
    with pytest.raises(PlanningError, match="needs the simulator's 'state'"):
        oracle.encode({"pixels": np.zeros((1, 1, 8, 8, 3), np.uint8)})
    with pytest.raises(PlanningError, match="expected 2 axes"):
        oracle.encode_goal({"state": np.zeros((1, 1, 29))})


@pytest.mark.parametrize("env_id", ["tubelet/PushT-v0", "tubelet/PointMazeRandom-v0"])
def test_problems_of_different_weights_are_simulated_with_their_own(env_id):
    """Sizes and masses differ from problem to problem; candidates of one share them."""
    env, worlds = envs.make(env_id, render_obs=False), []
    oracle = SimulatorDynamics(env, threads=1)
    config = FactorConfig(kinds=("mass", "size", "distractors"), split="test")
    rng = np.random.default_rng(2)
    factors = [draw_factors(rng, config) for _ in range(3)]
    for one in factors:
        worlds.append(envs.make(env_id, render_obs=False))
        one.apply(worlds[-1])
    starts = np.stack([world.sample_state(rng) for world in worlds])
    context = oracle.encode({"state": starts[:, None], "factors": factors})
    again = oracle.encode({"state": starts[:, None], "factors": factors})
    assert torch.equal(context.tokens, again.tokens)
    actions = torch.rand(3, 2, 4, oracle.action_dim, generator=torch.manual_seed(0)) * 2 - 1
    imagined = oracle.rollout(context, actions).tokens
    plain = oracle.rollout(oracle.encode({"state": starts[:, None]}), actions).tokens
    assert (imagined - plain).abs().max() > 1e-4
    for b, world in enumerate(worlds):
        for candidate in range(2):
            world.set_state(starts[b])
            for step, action in enumerate(actions[b, candidate].numpy()):
                world.step(action)
                wanted = world.plan_features(world.position(world.get_state()))
                np.testing.assert_allclose(imagined[b, candidate, step, 0], wanted, atol=1e-4)
