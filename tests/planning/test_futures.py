"""Costs of several futures: their order, their weights, one future, and every planner unchanged."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError, PlanningError
from tubelet.core.latent import Latent
from tubelet.planning import CEM, PLANNERS, CEMConfig, LatentCost, MPCAgent, MPCConfig, make_planner
from tubelet.planning.futures import (
    FutureCost,
    FutureDynamics,
    FutureRollouts,
    FuturesConfig,
    ImaginedFutures,
    across_futures,
    judged,
)

finite = st.floats(-100, 100, width=32)
shares = st.just(0.0) | st.floats(0.015625, 1, width=32)
futures = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.lists(finite, min_size=n, max_size=n),
        st.lists(shares, min_size=n, max_size=n).filter(lambda w: sum(w) > 0.1),
    )
)
close = {"rel": 1e-4, "abs": 1e-3}


def tensors(drawn):
    costs, weights = (torch.tensor(values) for values in drawn)
    return costs, weights / weights.sum()


# --- judging -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(drawn=futures, tails=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_worst_cvar_expected_optimistic_are_in_order(drawn, tails):
    costs, weights = tensors(drawn)
    low, high = sorted(tails)
    rows = [
        judged(costs, weights, "worst"),
        judged(costs, weights, "cvar", low),
        judged(costs, weights, "cvar", high),
        judged(costs, weights, "expected"),
        judged(costs, weights, "optimistic"),
    ]
    for above, below in itertools.pairwise(rows):
        assert above >= below - 1e-3


@settings(max_examples=100, deadline=None)
@given(drawn=futures)
def test_the_ends_of_cvar(drawn):
    costs, weights = tensors(drawn)
    every = judged(costs, weights, "cvar", 1.0)
    assert every.item() == pytest.approx(judged(costs, weights, "expected").item(), **close)
    least = weights[weights > 0].min().item()
    narrow = judged(costs, weights, "cvar", 0.5 * least)
    assert narrow.item() == pytest.approx(judged(costs, weights, "worst").item(), **close)


def test_weights_by_hand():
    costs, weights = torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0.5, 0.2, 0.3])
    assert judged(costs, weights, "expected").item() == pytest.approx(2.4)
    assert judged(costs, weights, "worst").item() == 5
    assert judged(costs, weights, "optimistic").item() == 1
    # the worst 0.4: all 0.2 of the five, and 0.2 of the three
    assert judged(costs, weights, "cvar", 0.4).item() == pytest.approx((0.2 * 5 + 0.2 * 3) / 0.4)


def test_futures_of_no_weight_do_not_exist():
    costs, weights = torch.tensor([math.inf, 2.0, -50.0]), torch.tensor([0.0, 1.0, 0.0])
    for rule in ("expected", "worst", "optimistic", "cvar"):
        assert judged(costs, weights, rule).item() == 2


def test_a_future_without_a_finite_cost_spoils_all_but_optimism():
    weights = torch.tensor([0.5, 0.5])
    for bad in (math.nan, math.inf, -math.inf):
        costs = torch.tensor([bad, 1.0])
        for rule in ("expected", "worst", "cvar"):
            assert judged(costs, weights, rule).item() == math.inf
        assert judged(costs, weights, "optimistic").item() == 1


# --- trajectories --------------------------------------------------------------------------------


def imagined(generator=0, proprio=False):
    draw = torch.Generator().manual_seed(generator)
    tokens = torch.randn(2, 3, 4, 5, 1, 6, generator=draw)
    felt = torch.randn(2, 3, 4, 5, 2, generator=draw) if proprio else None
    weights = torch.rand(2, 3, 4, generator=draw)
    return ImaginedFutures(tokens, felt, weights=weights / weights.sum(dim=2, keepdim=True))


@pytest.mark.parametrize("steps", ["last", "sum", "discounted"])
@pytest.mark.parametrize("proprio", [False, True])
def test_the_cost_of_futures_is_that_of_each_judged(steps, proprio):
    found = imagined(proprio=proprio)
    goal = Latent(torch.randn(2, 1, 6), torch.randn(2, 2) if proprio else None)
    cost = LatentCost(steps=steps, proprio_weight=0.5 * proprio)
    each = []
    for f in range(4):
        felt = None if found.proprio is None else found.proprio[:, :, f]
        each.append(cost(Latent(found.tokens[:, :, f], felt), goal))
    costs = torch.stack(each, dim=-1)
    for rule in ("expected", "worst", "optimistic", "cvar"):
        wanted = judged(costs, found.weights, rule)
        assert torch.allclose(FutureCost(cost, rule)(found, goal), wanted, atol=1e-5)


@pytest.mark.parametrize("rule", ["expected", "worst", "optimistic", "cvar", "likely"])
def test_one_future_has_the_plain_cost(rule):
    found = imagined()
    one = ImaginedFutures(found.tokens[:, :, :1], weights=torch.ones(2, 3, 1))
    goal, plain = Latent(torch.randn(2, 1, 6)), LatentCost()
    wanted = plain(Latent(one.tokens[:, :, 0]), goal)
    assert torch.allclose(FutureCost(plain, rule)(one, goal), wanted, rtol=1e-6)
    assert torch.equal(FutureCost(plain, rule)(Latent(one.tokens[:, :, 0]), goal), wanted)


# --- planners ------------------------------------------------------------------------------------


class Gusty:
    """A linear system that a gust may push: with probability 0.75 not, with 0.25 by ``gust``."""

    codes = 2

    def __init__(self, linear, gust=0.0):
        self.linear, self.gust, self.action_dim = linear, gust, linear.action_dim

    def encode(self, obs):
        return self.linear.encode(obs)

    def encode_goal(self, obs):
        return self.linear.encode_goal(obs)

    def rollout(self, context, actions):
        return self.linear.rollout(context, actions)

    def candidate_bytes(self, horizon, *, gradient=False):
        return 100 * horizon

    def rollout_futures(self, context, actions, *, how, count, seed):
        calm = self.linear.rollout(context, actions)
        blown = calm.map(lambda x: x + self.gust)
        tokens = torch.stack([calm.tokens, blown.tokens], dim=2)
        weights = torch.tensor([0.75, 0.25]).expand(*actions.shape[:2], 2)
        return Latent(tokens), weights


SMALL = {
    "shooting": {"samples": 40, "batch": 20},
    "cem": {"samples": 16, "elites": 4, "iterations": 3},
    "icem": {"samples": 16, "elites": 4, "iterations": 3},
    "mppi": {"samples": 16, "iterations": 3},
    "pgd": {"iterations": 4, "restarts": 2, "lr": 0.05},
    "adam": {"iterations": 4, "restarts": 2},
    "hybrid": {
        "samples": 16,
        "elites": 4,
        "iterations": 2,
        "refine_iterations": 2,
        "refine_restarts": 2,
    },
    "categorical": {"samples": 16, "elites": 4, "iterations": 3, "levels": (-0.2, 0.0, 0.3)},
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_planner_plans_over_futures_unchanged(linear, problem, generators, name):
    """The plan's cost is the judged cost of its actions; without a gust, that is the plain plan."""
    config = PLANNERS[name][0](horizon=3, **SMALL[name])
    plain = LatentCost(steps="sum")
    plans = {}
    for gust, rule in ((0.0, "expected"), (0.0, "likely"), (0.7, "worst")):
        dynamics = Gusty(linear(effort=0.1, width=2), gust)
        context, goal, *_ = problem(dynamics, 2)
        seen, cost = across_futures(dynamics, plain, FuturesConfig(judge=rule))
        planner = make_planner(config, 2, cost)
        plans[rule] = planner.plan(seen, context, goal, generator=generators(2))
        if rule == "worst":
            found, _ = dynamics.rollout_futures(
                context, plans[rule].actions[:, None], how="sample", count=2, seed=0
            )
            each = [plain(found.map(lambda x, f=f: x[:, :, f]), goal)[:, 0] for f in range(2)]
            assert torch.allclose(plans[rule].cost, torch.maximum(*each), rtol=1e-4)
    assert torch.allclose(plans["expected"].actions, plans["likely"].actions, atol=1e-4)
    assert torch.allclose(plans["expected"].cost, plans["likely"].cost, rtol=1e-4)


class Lottery:
    """One action in [-1, 1]; beyond 0 the world doubles it or takes it back, both half the time."""

    action_dim, codes = 1, 2

    def encode(self, obs):
        return Latent(torch.zeros(1, 1, 1, 1))

    def encode_goal(self, obs):
        return Latent(torch.full((1, 1, 1), 1.0))

    def rollout(self, context, actions):
        return Latent(actions[..., None])

    def rollout_futures(self, context, actions, *, how, count, seed):
        won = torch.where(actions > 0, 2 * actions, actions)
        lost = torch.where(actions > 0, -actions, actions)
        return Latent(torch.stack([won, lost], 2)[..., None]), torch.full(
            (*actions.shape[:2], 2), 0.5
        )


def test_what_is_judged_decides_what_is_done():
    """Goal 1. Best case: 1/2, which is doubled. Expected: ((2a - 1)² + (a + 1)²) / 2 is least at
    a = 1/5. Worst: the loss (a + 1)² is least at 0. The most probable future of the plain rollout:
    1."""
    wanted = {"optimistic": 0.5, "expected": 0.2, "worst": 0.0, "likely": 1.0}
    for rule, action in wanted.items():
        dynamics, cost = across_futures(Lottery(), LatentCost(), FuturesConfig(judge=rule))
        config = CEMConfig(horizon=1, samples=200, elites=10, iterations=8, returns="best")
        agent = MPCAgent(dynamics, CEM(config, 1, cost), MPCConfig())
        agent.reset({})
        assert agent.act({}).item() == pytest.approx(action, abs=0.03), rule


def test_memory_counts_every_future(linear):
    inner = Gusty(linear())
    assert isinstance(inner, FutureDynamics)
    sample = FutureRollouts(inner, FuturesConfig(judge="worst", count=5))
    assert sample.candidate_bytes(3) == 5 * inner.candidate_bytes(3)
    held = FutureRollouts(inner, FuturesConfig(judge="worst", how="hold"))
    assert held.candidate_bytes(3, gradient=True) == 2 * inner.candidate_bytes(3)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"judge": "mean"}, "judge = 'mean': choose one of likely, expected"),
        ({"how": "all"}, "how = 'all'"),
        ({"tail": 0.0}, "tail = 0.0"),
        ({"tail": 1.1}, "tail = 1.1"),
        ({"count": 0}, "count = 0"),
    ],
)
def test_impossible_settings(bad, message):
    with pytest.raises(ConfigError, match=message):
        FuturesConfig(**bad)


def test_a_dynamics_without_futures(linear):
    with pytest.raises(PlanningError, match="has no `rollout_futures`"):
        across_futures(linear(), LatentCost(), FuturesConfig(judge="worst"))
    dynamics, cost = across_futures(linear(), plain := LatentCost(), FuturesConfig())
    assert cost is plain
    assert not isinstance(dynamics, FutureRollouts)


def test_the_most_probable_of_several():
    with pytest.raises(PlanningError, match="of one future"):
        judged(torch.zeros(3), torch.full((3,), 1 / 3), "likely")
