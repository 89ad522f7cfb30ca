"""What CEM promises whatever its settings."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError, PlanningError
from tubelet.core.latent import Latent
from tubelet.planning import CEM, CEMConfig, LatentCost
from tubelet.planning.gaussian import _moments

SMALL = {"horizon": 3, "samples": 40, "elites": 6, "iterations": 5}


class Recorder:
    """Wraps a dynamics and keeps every candidate it was shown."""

    def __init__(self, dynamics):
        self.dynamics, self.action_dim, self.seen = dynamics, dynamics.action_dim, []

    def rollout(self, context, actions):
        self.seen.append(actions)
        return self.dynamics.rollout(context, actions)


@st.composite
def configs(draw):
    elites = draw(st.integers(1, 10))
    low = draw(st.floats(-3, 0))
    norm = draw(st.sampled_from([None, 0.3, 1.0, math.inf]))
    return CEMConfig(
        horizon=draw(st.integers(1, 4)),
        samples=draw(st.integers(max(2, elites), 20)),
        elites=elites,
        iterations=draw(st.integers(1, 4)),
        init_std=draw(st.floats(0.1, 5)),
        min_std=draw(st.floats(0, 0.1)),
        momentum_mean=draw(st.floats(0, 0.9)),
        momentum_std=draw(st.floats(0, 0.9)),
        keep_elites=draw(st.floats(0, 1)),
        noise_beta=draw(st.floats(0, 3)),
        low=(low, -0.2),
        high=(low + draw(st.floats(0.1, 3)) + (-low if norm else 0), 0.7),
        norm_groups=(2,) if norm else (),
        max_norms=(norm,) if norm else (),
        returns=draw(st.sampled_from(["mean", "best"])),
        chunk=draw(st.sampled_from([None, 1, 7])),
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(config=configs(), warm_scale=st.sampled_from([None, 0.1, 100.0]), seed=st.integers(0, 99))
def test_bounds_hold_for_every_candidate_and_the_plan(
    linear, problem, generators, config, warm_scale, seed
):
    dynamics = Recorder(linear(width=4))
    context, goal, *_ = problem(dynamics.dynamics, 2)
    warm = None
    if warm_scale is not None:
        warm = warm_scale * torch.randn(2, config.horizon, 4, generator=generators(1, seed)[0])
    plan = CEM(config, 4).plan(
        dynamics, context, goal, warm_start=warm, generator=generators(2, seed)
    )
    low, high = (torch.tensor(b, dtype=torch.float32).repeat(2) for b in (config.low, config.high))
    for actions in [*dynamics.seen, plan.actions]:
        assert (actions >= low).all()
        assert (actions <= high).all()
        for start in (0, 2) if config.max_norms else ():
            assert (actions[..., start : start + 2].norm(dim=-1) <= config.max_norms[0]).all()


def test_same_seed_same_plan_and_another_seed_another(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 3)
    cem = CEM(CEMConfig(**SMALL), 2)
    first, again, other = (
        cem.plan(dynamics, context, goal, generator=generators(3, seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first.actions, again.actions)
    assert torch.equal(first.cost, again.cost)
    assert not torch.equal(first.actions, other.actions)
    one = [
        cem.plan(dynamics, context, goal, generator=torch.Generator().manual_seed(5)).actions
        for _ in range(2)
    ]
    assert torch.equal(*one)


@pytest.mark.parametrize("chunk", [None, 1, 7, 64])
def test_batched_equals_one_at_a_time(linear, problem, generators, chunk):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 4)
    warm = torch.full((4, 3, 2), 0.1)
    together = CEM(CEMConfig(**SMALL, chunk=chunk, noise_beta=1.0), 2).plan(
        dynamics, context, goal, warm_start=warm, generator=generators(4)
    )
    alone = CEM(CEMConfig(**SMALL, noise_beta=1.0), 2)
    for b, generator in enumerate(generators(4)):
        one = slice(b, b + 1)
        plan = alone.plan(
            dynamics,
            context.map(lambda x, one=one: x[one]),
            goal.map(lambda x, one=one: x[one]),
            warm_start=warm[one],
            generator=[generator],
        )
        torch.testing.assert_close(plan.actions[0], together.actions[b], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(plan.cost[0], together.cost[b], atol=1e-5, rtol=1e-5)


def test_all_candidates_of_all_problems_go_in_one_call_or_in_chunks(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 4)
    CEM(CEMConfig(**SMALL), 2).plan(dynamics, context, goal, generator=generators(4))
    assert dynamics.calls == [(4, 40, 3, 2)] * 5 + [(4, 1, 3, 2)]
    dynamics.calls.clear()
    CEM(CEMConfig(**SMALL, chunk=70), 2).plan(dynamics, context, goal, generator=generators(4))
    assert max(b * s for b, s, *_ in dynamics.calls) <= 70
    assert sum(s for _, s, *_ in dynamics.calls) == 40 * 5 + 1


def test_warm_start_is_never_worse_and_helps_a_small_search(linear, problem, generators):
    dynamics = linear(effort=0.1)
    context, goal, *_ = problem(dynamics, 6)
    cost = LatentCost(steps="sum")
    good = CEM(CEMConfig(horizon=3, iterations=20), 2, cost).plan(
        dynamics, context, goal, generator=generators(6)
    )
    small = CEM(CEMConfig(**SMALL, returns="best"), 2, cost)
    cold = small.plan(dynamics, context, goal, generator=generators(6))
    warm = small.plan(dynamics, context, goal, warm_start=good.actions, generator=generators(6))
    assert (warm.cost <= good.cost + 1e-6).all()
    assert (warm.cost <= cold.cost + 1e-6).all()
    assert warm.cost.sum() < cold.cost.sum()


def test_kept_elites_make_the_best_cost_non_increasing(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 4)
    config = CEMConfig(**{**SMALL, "samples": 8, "iterations": 15}, keep_elites=0.1)
    plan = CEM(config, 2).plan(dynamics, context, goal, generator=generators(4))
    assert (plan.diagnostics["cost_per_iteration"].diff(dim=1) <= 0).all()


def test_the_plan_cost_is_the_model_cost_of_the_plan(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 4)
    for returns in ("mean", "best"):
        plan = CEM(CEMConfig(**SMALL, returns=returns), 2).plan(
            dynamics, context, goal, generator=generators(4)
        )
        cost = LatentCost()(dynamics.rollout(context, plan.actions[:, None]), goal)[:, 0]
        torch.testing.assert_close(plan.cost, cost)
        assert (plan.diagnostics["best_cost"] <= plan.cost + 1e-6).all()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(budget=st.integers(21, 900))
def test_the_budget_is_respected_and_used(linear, problem, generators, budget):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 2)
    cem = CEM(CEMConfig(**SMALL, max_model_calls=budget), 2)
    plan = cem.plan(dynamics, context, goal, generator=generators(2))
    spent = sum(samples * horizon for _, samples, horizon, _ in dynamics.calls)
    assert spent == plan.diagnostics["model_calls"] == min(budget // 3 * 3, 3 * (40 * 5 + 1))
    dynamics.calls.clear()


class Broken:
    """NaN wherever the first action is positive, or always."""

    def __init__(self, dynamics, always=False):
        self.dynamics, self.action_dim, self.always = dynamics, dynamics.action_dim, always

    def rollout(self, context, actions):
        broken = (actions[..., 0, 0] > 0) | self.always
        trajectory = self.dynamics.rollout(context, actions)
        return trajectory.map(lambda x: torch.where(broken[:, :, None, None, None], torch.nan, x))


@pytest.mark.parametrize("returns", ["mean", "best"])
def test_nan_costs_are_the_worst_and_counted(linear, problem, generators, returns):
    dynamics = Broken(linear())
    context, goal, *_ = problem(dynamics.dynamics, 3)
    plan = CEM(CEMConfig(**SMALL, returns=returns), 2).plan(
        dynamics, context, goal, generator=generators(3)
    )
    assert plan.diagnostics["invalid_costs"] > 0
    assert torch.isfinite(plan.cost).all()
    assert torch.isfinite(plan.actions).all()
    assert (plan.actions[:, 0, 0] <= 0).all()


def test_fewer_finite_candidates_than_elites_are_enough(linear, problem, generators):
    """Elites of infinite cost must not move the mean."""

    class OnlyTheMean:
        action_dim = 2

        def rollout(self, context, actions):
            trajectory = linear().rollout(context, actions)
            trajectory.tokens[:, 1:] = torch.nan
            return trajectory

    context, goal, *_ = problem(linear(), 2)
    warm = torch.full((2, 3, 2), 0.25)
    plan = CEM(CEMConfig(**SMALL), 2).plan(
        OnlyTheMean(), context, goal, warm_start=warm, generator=generators(2)
    )
    torch.testing.assert_close(plan.actions, warm)


def test_only_nan_is_an_error_that_names_the_problem(linear, problem, generators):
    dynamics = Broken(linear(), always=torch.tensor([[False], [True]]))
    context, goal, *_ = problem(dynamics.dynamics, 2)
    with pytest.raises(PlanningError, match=r"problem\(s\) \[1\].*NaN"):
        CEM(CEMConfig(**SMALL), 2).plan(dynamics, context, goal, generator=generators(2))


def test_plans_are_ordinary_tensors(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 1)
    plan = CEM(CEMConfig(**SMALL), 2).plan(dynamics, context, goal, generator=generators(1))
    assert not plan.actions.is_inference()
    plan.actions.requires_grad_().square().sum().backward()


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"horizon": 0}, "horizon = 0"),
        ({"samples": 1, "elites": 1}, "samples = 1"),
        ({"elites": 301}, "elites = 301.*300"),
        ({"min_std": 2.0}, "min_std = 2.0"),
        ({"momentum_mean": 1.0}, "momentum_mean = 1.0"),
        ({"keep_elites": -0.1}, "keep_elites = -0.1"),
        ({"returns": "median"}, "returns = 'median'"),
        ({"chunk": 0}, "chunk = 0"),
        ({"max_model_calls": 185}, "max_model_calls = 185.*186"),
        ({"init_std": float("nan")}, "init_std = nan"),
        *(({"effort": e}, f"effort = {e}") for e in (-1.0, float("nan"), float("inf"))),
        ({"horizon": 0, "iterations": 0}, "horizon = 0.*iterations = 0"),
    ],
)
def test_impossible_settings_are_named(settings_, words):
    with pytest.raises(ConfigError, match=words):
        CEMConfig(**settings_)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"low": (-1.0, -1.0, -1.0)}, "low has 3 numbers.*width 4"),
        ({"low": (2.0,)}, "low must be below high"),
        ({"high": (float("inf"),)}, "finite"),
        ({"norm_groups": (3,), "max_norms": (1.0,)}, "cover 3 entries"),
        ({"norm_groups": (2,), "max_norms": ()}, "equally long"),
        ({"norm_groups": (2,), "max_norms": (0.0,)}, "above 0"),
        ({"norm_groups": (2,), "max_norms": (1.0,), "low": (0.5,)}, "contain 0"),
    ],
)
def test_impossible_bounds_are_named(settings_, words):
    with pytest.raises(PlanningError, match=words):
        CEM(CEMConfig(**settings_), 4)


def test_shapes_that_do_not_fit_are_named(linear, problem, generators):
    dynamics = linear()
    context, goal, *_ = problem(dynamics, 2)
    cem = CEM(CEMConfig(**SMALL), 2)
    with pytest.raises(PlanningError, match="width 3 but the dynamics takes 2"):
        CEM(CEMConfig(**SMALL), 3).plan(dynamics, context, goal, generator=generators(2))
    with pytest.raises(PlanningError, match=r"warm_start has shape \(2, 2, 2\)"):
        cem.plan(dynamics, context, goal, warm_start=torch.zeros(2, 2, 2), generator=generators(2))
    nan = torch.full((2, 3, 2), torch.nan)
    with pytest.raises(PlanningError, match="warm_start holds NaN"):
        cem.plan(dynamics, context, goal, warm_start=nan, generator=generators(2))
    with pytest.raises(PlanningError, match="3 generators for 2 problems"):
        cem.plan(dynamics, context, goal, generator=generators(3))
    with pytest.raises(PlanningError, match="2 contexts but 1 goals"):
        cem.plan(dynamics, context, goal.map(lambda x: x[:1]), generator=generators(2))
    with pytest.raises(PlanningError, match="cost has shape"):
        CEM(CEMConfig(**SMALL), 2, lambda t, g: t.tokens).plan(
            dynamics, context, goal, generator=generators(2)
        )


def test_latent_precision_of_the_model_does_not_leak_into_the_actions(linear, generators):
    class Half:
        action_dim = 2

        def rollout(self, context, actions):
            return Latent(actions.cumsum(2)[..., None, :].bfloat16())

    context = Latent(torch.zeros(1, 1, 1, 2, dtype=torch.bfloat16))
    plan = CEM(CEMConfig(**SMALL), 2).plan(
        Half(), context, context.map(lambda x: x[:, 0]), generator=generators(1)
    )
    assert plan.actions.dtype == plan.cost.dtype == torch.float32


def test_elites_that_weigh_alike_need_no_weights():
    elites = torch.randn(2, 7, 3, 4, generator=torch.manual_seed(0))
    alike = _moments(elites, None)
    weighed = _moments(elites, torch.full((2, 7), 1 / 7))
    for a, b in zip(alike, weighed, strict=True):
        torch.testing.assert_close(a, b)
    one = elites[:, :1]
    assert torch.equal(_moments(one, None)[0], one[:, 0])
    assert not _moments(one, None)[1].any()  # 0, not NaN
