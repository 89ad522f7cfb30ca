"""Receding horizon control on a system whose behaviour is known."""

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError, PlanningError
from tubelet.core.latent import Latent
from tubelet.planning import (
    CEM,
    CEMConfig,
    HeldActions,
    LatentCost,
    LatentDynamics,
    MPCAgent,
    MPCConfig,
    Plan,
)


class Blocks:
    """Points moved by .1 times each of ``block`` planar actions per model step."""

    def __init__(self, block):
        self.block, self.action_dim = block, 2 * block

    def encode(self, obs):
        return Latent(torch.as_tensor(obs["x"]).float()[:, :, None])

    def encode_goal(self, obs):
        return Latent(torch.as_tensor(obs["x"]).float()[:, None])

    def rollout(self, context, actions):
        moves = 0.1 * actions.unflatten(-1, (self.block, 2)).sum(-2).cumsum(2)
        return Latent((context.tokens[:, -1, 0][:, None, None] + moves)[:, :, :, None])


def drive(agent, start, goal, calls, problems=None):
    """Closed loop on the points; final positions and all actions ``[B, calls * K, 2]``."""
    x, taken = start.copy(), []
    agent.reset({"x": goal}, problems=problems)
    for _ in range(calls):
        actions = agent.act({"x": x[:, None]})
        taken.append(actions)
        x = x + 0.1 * actions.sum(1)
    return x, np.concatenate(taken, 1)


START = np.zeros((3, 2))
GOAL = np.array([[0.9, -0.4], [-1.2, 0.0], [0.05, 0.05]])


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("warm_start", ["zeros", "last", "none"])
@pytest.mark.parametrize("execute", [1, 2])
def test_closed_loop_reaches_the_goal(hold, warm_start, execute):
    config = CEMConfig(horizon=3, samples=200, elites=20, min_std=0.01)
    agent = MPCAgent(
        Blocks(3),
        CEM(config, 2 if hold else 6, LatentCost(steps="sum")),
        MPCConfig(execute=execute, action_block=3, hold=hold, warm_start=warm_start),
    )
    x, actions = drive(agent, START, GOAL, 8)
    assert np.abs(x - GOAL).max() < 0.08
    assert actions.dtype == np.float32
    assert actions.shape == (3, 8 * 3 * execute, 2)
    assert np.abs(actions).max() <= 1
    if hold:
        blocks = actions.reshape(3, -1, 3, 2)
        assert (blocks == blocks[:, :, :1]).all()


def test_drives_a_linear_system_to_rest_at_the_goal(linear):
    """Regulation to the origin, an equilibrium of x' = A x + B u."""
    dynamics = linear(width=4)
    config = CEMConfig(
        horizon=3, low=(-2.0,), high=(2.0,), iterations=30, min_std=0.001, momentum_std=0.3
    )
    agent = MPCAgent(dynamics, CEM(config, 4, LatentCost(steps="sum")), MPCConfig())
    x = np.random.default_rng(0).standard_normal((2, 4))
    agent.reset({"state": np.zeros((2, 4))})
    for _ in range(12):
        x = x @ dynamics.a.T + agent.act({"state": x[:, None]})[:, 0] @ dynamics.b.T
    assert np.abs(x).max() < 0.05


def test_a_problem_does_not_depend_on_its_batch():
    def agent():
        return MPCAgent(Blocks(1), CEM(CEMConfig(horizon=3, samples=50, elites=5), 2), MPCConfig())

    _, together = drive(agent(), START, GOAL, 3, problems=[4, 5, 6])
    _, alone = drive(agent(), START[1:2], GOAL[1:2], 3, problems=[5])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)
    _, other = drive(agent(), START[1:2], GOAL[1:2], 3, problems=[9])
    assert not np.allclose(alone, other, atol=1e-5)


def test_reset_starts_over():
    agent = MPCAgent(Blocks(1), CEM(CEMConfig(horizon=3, samples=50, elites=5), 2), MPCConfig())
    _, first = drive(agent, START, GOAL, 3)
    _, again = drive(agent, START, GOAL, 3)
    assert np.array_equal(first, again)
    assert len(agent.records) == 3


def test_held_actions_equal_explicit_repetition():
    inner = Blocks(3)
    held = HeldActions(inner, 3)
    assert isinstance(held, LatentDynamics)
    assert held.action_dim == 2
    actions = torch.randn(2, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    context = held.encode({"x": np.ones((2, 1, 2))})
    repeated = torch.stack([actions] * 3, dim=-2).flatten(-2)
    assert torch.equal(
        held.rollout(context, actions).tokens, inner.rollout(context, repeated).tokens
    )
    with pytest.raises(PlanningError, match="block = 4"):
        HeldActions(inner, 4)


class Scripted:
    """A planner that returns 1, 2, 3, ... and remembers its warm starts."""

    horizon, action_dim = 4, 2

    def __init__(self):
        self.warm_starts = []

    def plan(self, dynamics, context, goal, *, warm_start=None, generator):
        self.warm_starts.append(warm_start)
        actions = torch.arange(1.0, 5.0)[None, :, None].expand(1, 4, 2)
        return Plan(
            actions=actions, cost=torch.zeros(1), diagnostics={"model_calls": 60, "seconds": 0.0}
        )


@pytest.mark.parametrize(
    ("warm_start", "execute", "shifted"),
    [
        ("zeros", 1, [2, 3, 4, 0]),
        ("last", 1, [2, 3, 4, 4]),
        ("last", 3, [4, 4, 4, 4]),
        ("zeros", 4, [0, 0, 0, 0]),
        ("none", 1, None),
    ],
)
def test_warm_start_shifts_by_what_was_executed(warm_start, execute, shifted):
    planner = Scripted()
    agent = MPCAgent(Blocks(1), planner, MPCConfig(execute=execute, warm_start=warm_start))
    _, actions = drive(agent, START[:1], GOAL[:1], 2)
    np.testing.assert_array_equal(actions[0, :execute, 0], np.arange(1, execute + 1))
    assert planner.warm_starts[0] is None
    if shifted is None:
        assert planner.warm_starts[1] is None
    else:
        assert planner.warm_starts[1][0, :, 0].tolist() == shifted
    record = agent.records[0]
    assert record.model_calls_per_action == 60 / execute
    assert record.seconds_per_action == pytest.approx(record.seconds / execute)


def test_misuse_is_named():
    cem = CEM(CEMConfig(horizon=2), 2)
    with pytest.raises(PlanningError, match="execute = 3 is more than the planner's horizon 2"):
        MPCAgent(Blocks(1), cem, MPCConfig(execute=3))
    with pytest.raises(PlanningError, match="width 2, but hold = False needs 6"):
        MPCAgent(Blocks(3), cem, MPCConfig(action_block=3))
    with pytest.raises(PlanningError, match="action_block = 4 does not divide"):
        MPCAgent(Blocks(3), cem, MPCConfig(action_block=4))
    with pytest.raises(ConfigError, match=r"execute = 0.*warm_start = 'shift'"):
        MPCConfig(execute=0, warm_start="shift")
    agent = MPCAgent(Blocks(1), cem, MPCConfig())
    with pytest.raises(PlanningError, match="before reset"):
        agent.act({"x": START[:, None]})
    with pytest.raises(PlanningError, match="2 problem numbers for 3 goals"):
        agent.reset({"x": GOAL}, problems=[0, 1])
