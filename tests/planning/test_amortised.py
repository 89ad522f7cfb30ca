"""Proposals of a model's head: planning with them alone, and where every search may begin."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError, PlanningError
from tubelet.planning import (
    PLANNERS,
    AmortisedConfig,
    CEMConfig,
    HeldActions,
    LatentCost,
    MPCAgent,
    MPCConfig,
    Proposer,
    make_planner,
)
from tubelet.planning.candidates import GRADIENT_PRICE

COST = LatentCost(steps="sum")
WIDTH, HORIZON = 4, 3
SMALL = {
    "shooting": {"samples": 12},
    "cem": {"samples": 12, "elites": 4, "iterations": 2},
    "icem": {"samples": 12, "elites": 4, "iterations": 2},
    "mppi": {"samples": 12, "iterations": 2},
    "pgd": {"iterations": 2, "restarts": 2},
    "adam": {"iterations": 2, "restarts": 2},
    "hybrid": {
        "samples": 12,
        "elites": 4,
        "iterations": 2,
        "refine_iterations": 2,
        "refine_restarts": 2,
    },
    "amortised": {"samples": 3},
}
property_settings = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def build(name, cost=COST, **changes):
    config = PLANNERS[name][0](**{"horizon": HORIZON, **SMALL[name], **changes})
    return make_planner(config, WIDTH, cost)


class Counting:
    """A linear world whose rollouts are counted and whose proposals are scaled."""

    def __init__(self, dynamics, scale=1.0):
        self.dynamics, self.action_dim, self.scale = dynamics, dynamics.action_dim, scale
        self.spent = 0

    def rollout(self, context, actions):
        price = GRADIENT_PRICE if actions.requires_grad else 1
        self.spent += price * actions.shape[1] * actions.shape[2]
        return self.dynamics.rollout(context, actions)

    def propose(self, *problem):
        return self.scale * self.dynamics.propose(*problem)


def cost_of(dynamics, context, goal, actions):
    return COST(dynamics.rollout(context, actions[:, None]), goal)[:, 0]


def test_all_planners_but_the_categorical_can_begin_with_proposals():
    assert set(SMALL) == set(PLANNERS) - {"categorical"}
    with pytest.raises(ConfigError, match="categorical actions have no proposals"):
        PLANNERS["categorical"][0](propose=(2,), levels=(-1.0, 1.0))


def test_the_protocol_is_recognised(linear):
    assert isinstance(linear(), Proposer)


@property_settings
@given(
    name=st.sampled_from(list(SMALL)),
    scale=st.sampled_from([0.0, 0.3, 1.0, 50.0]),
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    budget=st.one_of(st.none(), st.integers(45, 200)),
    seed=st.integers(0, 99),
)
def test_a_plan_costs_no_more_than_any_proposal_or_the_warm_start(
    linear, problem, generators, name, scale, steps, budget, seed
):
    """And bounds and budgets hold whatever is proposed."""
    base = linear(effort=0.1, width=WIDTH)
    dynamics = Counting(base, scale)
    planner = build(name, propose=tuple(steps), max_model_calls=budget, low=(-0.4,))
    context, goal, *_ = problem(base, 2)
    warm = 0.1 * torch.randn(2, HORIZON, WIDTH, generator=torch.Generator().manual_seed(seed))
    plan = planner.plan(dynamics, context, goal, warm_start=warm, generator=generators(2, seed))
    assert dynamics.spent == plan.diagnostics["model_calls"]
    assert (plan.actions >= -0.4).all()
    assert (plan.actions <= 1).all()
    torch.testing.assert_close(plan.cost, cost_of(base, context, goal, plan.actions))
    known = [warm]
    if budget is None:
        known += dynamics.propose(context, goal, steps, HORIZON).unbind(1)
    else:
        assert plan.diagnostics["model_calls"] <= budget
    for actions in known:
        allowed = planner.bounds.project(actions)
        limit = cost_of(base, context, goal, allowed) * (1 + 1e-5)
        assert (plan.cost <= limit).all()


def test_a_good_proposal_saves_iterations(linear, problem, generators):
    """With a head that knows the answer one iteration ends where many without it do not."""
    dynamics = linear(effort=0.1, width=WIDTH)
    context, goal, start, end = problem(dynamics, 8)

    class Knowing(Counting):
        def propose(self, context, goal, steps, horizon):
            answers = []
            for x, y in zip(start, end, strict=True):
                matrix, right = dynamics.least_squares(x, y, horizon)
                answers.append(torch.linalg.lstsq(*_tensors(matrix, right)).solution[:, 0])
            plan = torch.stack(answers).float().view(len(start), 1, horizon, -1)
            return plan.expand(-1, len(steps), -1, -1)

    wide = {"low": (-50.0,), "high": (50.0,), "init_std": 0.02, "min_std": 0.0, "samples": 30}
    cold, warm = (
        build("cem", iterations=i, propose=p, **wide).plan(
            Knowing(dynamics), context, goal, generator=generators(8)
        )
        for i, p in ((8, ()), (1, (1,)))
    )
    assert (warm.cost <= cold.cost + 1e-5).all()
    assert warm.cost.mean() < 0.9 * cold.cost.mean()


def _tensors(matrix, right):
    return torch.from_numpy(matrix), torch.from_numpy(right)[:, None]


def test_the_head_alone_decides_where_it_is_asked_to(linear, problem, generators):
    base = linear(effort=0.1, width=WIDTH)
    dynamics = Counting(base, 5.0)  # it overshoots: doing nothing would be cheaper
    context, goal, *_ = problem(base, 3)
    alone = build("amortised", propose=(2, 1), choose="proposal", low=(-9.0,), high=(9.0,))
    plan = alone.plan(dynamics, context, goal, generator=generators(3))
    wanted = dynamics.propose(context, goal, (2,), HORIZON)[:, 0].clamp(-9, 9)
    torch.testing.assert_close(plan.actions, wanted)
    assert plan.diagnostics["model_calls"] == HORIZON  # for the cost that is reported
    torch.testing.assert_close(plan.cost, cost_of(base, context, goal, wanted))
    judged = build("amortised", propose=(2, 1), low=(-9.0,), high=(9.0,), samples=0)
    cheaper = judged.plan(dynamics, context, goal, generator=generators(3))
    assert (cheaper.cost < plan.cost).all()
    assert cheaper.diagnostics["model_calls"] == 3 * HORIZON


def test_held_blocks_hold_the_mean_of_what_is_proposed(linear, problem):
    base = linear(width=4)
    context, goal, *_ = problem(base, 2)
    held = HeldActions(base, 2)
    whole = base.propose(context, goal, (1, 3), HORIZON)
    found = held.propose(context, goal, (1, 3), HORIZON)
    torch.testing.assert_close(found, (whole[..., :2] + whole[..., 2:]) / 2)
    mute = HeldActions(_Mute(base), 2)
    assert not hasattr(mute, "propose")


class _Mute:
    def __init__(self, dynamics):
        self.action_dim, self.rollout = dynamics.action_dim, dynamics.rollout


@pytest.mark.parametrize("name", ["cem", "amortised"])
def test_models_that_propose_nothing_or_nonsense_are_named(linear, problem, generators, name):
    base = linear(width=WIDTH)
    context, goal, *_ = problem(base, 2)
    planner = build(name, propose=(2,))

    def plan(dynamics):
        return planner.plan(dynamics, context, goal, generator=generators(2))

    with pytest.raises(PlanningError, match=r"_Mute has no head .*`tubelet amortise`"):
        plan(_Mute(base))
    wrong = Counting(base)
    wrong.propose = lambda *problem: torch.zeros(2, 1, HORIZON, 1)
    with pytest.raises(PlanningError, match=r"shape \(2, 1, 3, 1\), expected .*\(2, 1, 3, 4\)"):
        plan(wrong)
    with pytest.raises(PlanningError, match="NaN or infinite"):
        plan(Counting(base, float("nan")))


def test_impossible_settings_are_named():
    with pytest.raises(ConfigError, match=r"propose = \(\): name at least one"):
        AmortisedConfig(propose=())
    with pytest.raises(ConfigError, match=r"propose = \(2, 0\): numbers of steps"):
        CEMConfig(propose=(2, 0))
    with pytest.raises(ConfigError, match=r"samples = -1.*std = 0\.0"):
        AmortisedConfig(samples=-1, std=0.0)


def test_the_agent_closes_the_loop_with_proposals(linear):
    """No search at all: a linear world is driven to its goal by what the head says."""
    dynamics = linear(width=WIDTH)
    planner = make_planner(
        AmortisedConfig(horizon=HORIZON, propose=(1,), choose="proposal", low=(-9.0,), high=(9.0,)),
        WIDTH,
        COST,
    )
    agent = MPCAgent(dynamics, planner, MPCConfig())
    draw = torch.Generator().manual_seed(0)
    state, goal = torch.randn(2, 5, 4, generator=draw)
    agent.reset({"state": goal})
    a, b = (torch.tensor(m, dtype=torch.float32) for m in (dynamics.a, dynamics.b))
    action = torch.from_numpy(agent.act({"state": state[:, None]}))[:, 0]
    torch.testing.assert_close(state @ a.T + action @ b.T, goal, atol=1e-3, rtol=1e-3)
