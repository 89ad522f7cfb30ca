"""What every planner promises, whatever its algorithm."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError, PlanningError
from tubelet.core.latent import Latent
from tubelet.planning import (
    PLANNERS,
    ActionSupport,
    LatentCost,
    SearchConfig,
    VJEPA2ACConfig,
    make_planner,
)
from tubelet.planning.candidates import GRADIENT_PRICE

COST = LatentCost(steps="sum")
SMALL = {
    "shooting": {"samples": 60, "batch": 25},
    "cem": {"samples": 20, "elites": 4, "iterations": 4},
    "icem": {"samples": 20, "elites": 4, "iterations": 4},
    "mppi": {"samples": 20, "iterations": 4},
    "pgd": {"iterations": 5, "restarts": 3, "lr": 0.05},
    "adam": {"iterations": 5, "restarts": 3},
    "hybrid": {
        "samples": 20,
        "elites": 4,
        "iterations": 3,
        "refine_iterations": 3,
        "refine_restarts": 2,
    },
    "categorical": {
        "samples": 20,
        "elites": 4,
        "iterations": 4,
        "levels": (-0.2, 0.0, 0.3),
    },
    "amortised": {"samples": 20, "std": 0.5},
}
CONTINUOUS = [name for name in PLANNERS if name != "categorical"]
WIDTH, HORIZON = 4, 3
any_planner = st.sampled_from(list(PLANNERS))
property_settings = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def build(name, support=None, cost=COST, **changes):
    config = PLANNERS[name][0](**{"horizon": HORIZON, **SMALL[name], **changes})
    return make_planner(config, WIDTH, cost, support)


class Recorder:
    """Keeps every candidate that a dynamics was shown, and whether it was differentiated."""

    def __init__(self, dynamics):
        self.dynamics, self.action_dim, self.seen = dynamics, dynamics.action_dim, []

    def rollout(self, context, actions):
        self.seen.append(actions)
        return self.dynamics.rollout(context, actions)

    def propose(self, *problem):
        return self.dynamics.propose(*problem)

    def spent(self):
        """Model calls per problem: a differentiated prediction counts as three."""
        return sum(
            actions.shape[1] * actions.shape[2] * (GRADIENT_PRICE if actions.requires_grad else 1)
            for actions in self.seen
        )


def solve(planner, dynamics, problem, generators, count=2, seed=0, warm=None):
    context, goal, *_ = problem(getattr(dynamics, "dynamics", dynamics), count)
    return planner.plan(dynamics, context, goal, warm_start=warm, generator=generators(count, seed))


def model_cost(dynamics, problem, actions):
    context, goal, *_ = problem(dynamics, len(actions))
    return COST(dynamics.rollout(context, actions[:, None]), goal)[:, 0]


def warm_start(scale, seed, count=2):
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, HORIZON, WIDTH, generator=draw)


# --- bounds ------------------------------------------------------------------------------------


@property_settings
@given(
    name=any_planner,
    low=st.floats(-2, -0.2),
    high=st.floats(0.3, 2),
    norm=st.sampled_from([None, 0.25, 1.0]),
    scale=st.sampled_from([0.0, 0.1, 100.0]),
    seed=st.integers(0, 99),
)
def test_bounds_hold_for_every_candidate_and_the_plan(
    linear, problem, generators, name, low, high, norm, scale, seed
):
    bounds = {"low": (low, -0.2), "high": (high, 0.3)}
    if norm and name != "categorical":
        bounds |= {"norm_groups": (2,), "max_norms": (norm,)}
    dynamics = Recorder(linear(effort=0.1, width=WIDTH))
    planner = build(name, **bounds)
    plan = solve(planner, dynamics, problem, generators, seed=seed, warm=warm_start(scale, seed))
    least, most = (torch.tensor(bounds[k], dtype=torch.float32).repeat(2) for k in ("low", "high"))
    for actions in [*dynamics.seen, plan.actions]:
        assert (actions >= least).all()
        assert (actions <= most).all()
        for start in (0, 2) if "max_norms" in bounds else ():
            assert (actions[..., start : start + 2].norm(dim=-1) <= norm).all()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_plans_stay_inside_the_support_of_the_data(linear, problem, generators, name):
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(WIDTH, WIDTH, generator=draw)
    data = 0.2 * torch.randn(2000, WIDTH, generator=draw) @ mix + 0.1
    support = ActionSupport.fit(data, 0.95)
    dynamics = Recorder(linear(width=WIDTH))
    planner = build(name, support, norm_groups=(2,), max_norms=(0.9,))
    plan = solve(planner, dynamics, problem, generators, warm=warm_start(5.0, 1))
    for actions in [*dynamics.seen, plan.actions]:
        assert (support.distance(actions) <= support.radius).all()
        assert (actions.abs() <= 1).all()
        assert (actions.unflatten(-1, (2, 2)).norm(dim=-1) <= 0.9).all()


# --- budgets -----------------------------------------------------------------------------------


@property_settings
@given(name=any_planner, budget=st.integers(40, 400), seed=st.integers(0, 9))
def test_a_budget_of_model_calls_is_never_exceeded(linear, problem, generators, name, budget, seed):
    dynamics = Recorder(linear(width=WIDTH))
    plan = solve(build(name, max_model_calls=budget), dynamics, problem, generators, seed=seed)
    assert dynamics.spent() == plan.diagnostics["model_calls"] <= budget
    assert torch.isfinite(plan.cost).all()


@pytest.mark.parametrize("name", PLANNERS)
def test_a_budget_that_is_not_reached_changes_nothing(linear, problem, generators, name):
    dynamics = linear(width=WIDTH)
    free, limited = (
        solve(build(name, **limit), dynamics, problem, generators)
        for limit in ({}, {"max_model_calls": 10**6, "max_seconds": 10**6})
    )
    torch.testing.assert_close(limited.actions, free.actions, atol=1e-5, rtol=1e-5)


class SlowDynamics(Recorder):
    """Takes ``base + each * candidates`` seconds of a clock of its own."""

    def __init__(self, dynamics, base, each):
        super().__init__(dynamics)
        self.base, self.each, self.now = base, each, 100.0

    def rollout(self, context, actions):
        self.now += self.base + self.each * actions.shape[1]
        return super().rollout(context, actions)


@property_settings
@given(
    name=any_planner,
    base=st.sampled_from([0.0, 0.01, 0.5]),
    each=st.sampled_from([0.001, 0.01, 0.1]),
    calls=st.floats(1.5, 60),
)
def test_a_budget_of_seconds_is_never_exceeded(
    linear, problem, generators, name, base, each, calls
):
    dynamics = SlowDynamics(linear(width=WIDTH), base, each)
    seconds = calls * (base + each)  # of one candidate at a time
    planner = build(name, max_seconds=seconds)
    planner.clock = lambda: dynamics.now
    plan = solve(planner, dynamics, problem, generators)
    assert dynamics.now - 100.0 <= seconds + 1e-9
    assert plan.diagnostics["seconds"] == pytest.approx(dynamics.now - 100.0)
    assert torch.isfinite(plan.cost).all()


@pytest.mark.parametrize("name", PLANNERS)
def test_a_budget_of_seconds_is_used(linear, problem, generators, name):
    """Ample time gives the whole search although its first calls are small."""
    dynamics = SlowDynamics(linear(width=WIDTH), 0.01, 0.001)
    planner = build(name, max_seconds=60.0)
    planner.clock = lambda: dynamics.now
    plan = solve(planner, dynamics, problem, generators)
    free = solve(build(name), linear(width=WIDTH), problem, generators)
    assert plan.diagnostics["model_calls"] == free.diagnostics["model_calls"]
    torch.testing.assert_close(plan.actions, free.actions, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PLANNERS)
def test_one_evaluation_is_made_however_short_the_time(linear, problem, generators, name):
    dynamics = SlowDynamics(linear(width=WIDTH), 1.0, 0.0)
    planner = build(name, max_seconds=0.5)
    planner.clock = lambda: dynamics.now
    warm = warm_start(0.1, 3)
    plan = solve(planner, dynamics, problem, generators, warm=warm)
    assert len(dynamics.seen) == 1
    if name in CONTINUOUS and name != "shooting":
        torch.testing.assert_close(plan.actions, warm)


# --- cost --------------------------------------------------------------------------------------


@property_settings
@given(
    name=any_planner,
    scale=st.sampled_from([0.0, 0.05, 0.5, 10.0]),
    budget=st.sampled_from([None, 60, 200]),
    returns=st.sampled_from(["mean", "best"]),
    seed=st.integers(0, 99),
)
def test_the_plan_never_costs_more_than_the_warm_start(
    linear, problem, generators, name, scale, budget, returns, seed
):
    dynamics = linear(effort=0.1, width=WIDTH)
    changes = {"max_model_calls": budget}
    if "returns" in PLANNERS[name][0].__dataclass_fields__:
        changes["returns"] = returns
    planner = build(name, **changes)
    warm = warm_start(scale, seed)
    plan = solve(planner, dynamics, problem, generators, seed=seed, warm=warm)
    if name == "categorical":
        levels = torch.tensor(SMALL[name]["levels"])
        allowed = levels[(warm.clamp(-1, 1)[..., None] - levels).abs().argmin(-1)]
    else:
        allowed = planner.bounds.project(warm)
    assert (plan.cost <= model_cost(dynamics, problem, allowed) * (1 + 1e-5)).all()
    torch.testing.assert_close(plan.cost, model_cost(dynamics, problem, plan.actions))
    assert (plan.diagnostics["best_cost"] <= plan.cost + 1e-6).all()


# --- batches, seeds, memory --------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANNERS)
def test_a_problem_does_not_depend_on_its_batch(linear, problem, generators, name):
    """Neither on its place in it, nor on who else is there, nor on how candidates are chunked."""
    dynamics = linear(effort=0.1, width=WIDTH)
    context, goal, *_ = problem(dynamics, 5)
    warm, order = warm_start(0.1, 0, 5), [3, 0, 4]
    together = build(name).plan(dynamics, context, goal, warm_start=warm, generator=generators(5))
    for chunk in (None, 1, 2, 7):
        some = build(name, chunk=chunk).plan(
            dynamics,
            context.map(lambda x: x[order]),
            goal.map(lambda x: x[order]),
            warm_start=warm[order],
            generator=[generators(5)[i] for i in order],
        )
        torch.testing.assert_close(some.actions, together.actions[order], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(some.cost, together.cost[order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PLANNERS)
def test_same_seed_same_plan(linear, problem, generators, name):
    dynamics = linear(width=WIDTH)
    first, again = (solve(build(name), dynamics, problem, generators) for _ in range(2))
    assert torch.equal(first.actions, again.actions)
    assert torch.equal(first.cost, again.cost)
    seen = []
    for seed in (0, 1):
        recorder = Recorder(dynamics)
        solve(build(name), recorder, problem, generators, seed=seed)
        seen.append(recorder.seen[-1])
    assert not torch.equal(*seen)


@pytest.mark.parametrize("name", PLANNERS)
def test_chunks_hold_no_more_than_the_memory_allows(linear, problem, generators, name):
    class Known(Recorder):
        def candidate_bytes(self, horizon, *, gradient=False):
            return 100 * horizon * (2 if gradient else 1)

    dynamics = Known(linear(width=WIDTH))
    planner = build(name, max_bytes=3000)
    solve(planner, dynamics, problem, generators, count=4)
    each = dynamics.candidate_bytes(HORIZON, gradient=planner.differentiates)
    sizes = [actions.shape[0] * actions.shape[1] * each for actions in dynamics.seen]
    assert max(sizes) <= 3000
    assert max(sizes) > 1000  # and no less than it needs to be
    with pytest.raises(PlanningError, match=r"max_bytes = 100: one candidate .* takes"):
        solve(build(name, max_bytes=100), dynamics, problem, generators)
    with pytest.raises(PlanningError, match=r"candidate_bytes.*Recorder.*set chunk"):
        solve(build(name, max_bytes=3000), Recorder(linear(width=WIDTH)), problem, generators)


# --- what goes wrong ---------------------------------------------------------------------------


class Broken:
    """NaN wherever the first action is positive, or always."""

    def __init__(self, dynamics, always=False):
        self.dynamics, self.action_dim, self.always = dynamics, dynamics.action_dim, always

    def rollout(self, context, actions):
        broken = (actions[..., 0, 0] > 0) | self.always
        trajectory = self.dynamics.rollout(context, actions)
        return trajectory.map(lambda x: torch.where(broken[:, :, None, None, None], torch.nan, x))

    def propose(self, *problem):
        return self.dynamics.propose(*problem)


@pytest.mark.parametrize("name", PLANNERS)
def test_nan_costs_are_the_worst_and_counted(linear, problem, generators, name):
    dynamics = Broken(linear(effort=0.1, width=WIDTH))
    plan = solve(build(name), dynamics, problem, generators, count=3)
    assert torch.isfinite(plan.cost).all()
    assert torch.isfinite(plan.actions).all()
    assert (plan.actions[:, 0, 0] <= 0).all()
    assert plan.diagnostics["invalid_costs"] > 0


@pytest.mark.parametrize("name", PLANNERS)
def test_only_nan_is_an_error_that_names_the_problem(linear, problem, generators, name):
    dynamics = Broken(linear(width=WIDTH), always=torch.tensor([[False], [True]]))
    with pytest.raises(PlanningError, match=r"problem\(s\) \[1\].*NaN"):
        solve(build(name), dynamics, problem, generators)


@pytest.mark.parametrize("name", PLANNERS)
def test_impossible_settings_are_named(linear, problem, generators, name):
    for key, value in {"horizon": 0, "chunk": 0, "max_bytes": 0, "max_model_calls": 2}.items():
        with pytest.raises(ConfigError, match=f"{key} = {value}"):
            build(name, **{key: value})
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match=f"max_seconds = {value}"):
            build(name, max_seconds=value)
    with pytest.raises(PlanningError, match="low must be below high"):
        build(name, low=(1.0,), high=(-1.0,))
    with pytest.raises(PlanningError, match="finite"):
        build(name, high=(math.inf,))
    context, goal, *_ = problem(linear(width=WIDTH), 2)
    with pytest.raises(PlanningError, match="2 contexts but 1 goals"):
        build(name).plan(
            linear(width=WIDTH), context, goal.map(lambda x: x[:1]), generator=generators(2)
        )
    nothing = Latent(torch.zeros(0, 1, WIDTH, 1))
    with pytest.raises(PlanningError, match="no problems"):
        build(name).plan(linear(width=WIDTH), nothing, nothing, generator=[])


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("cem", {"elites": 0}, "elites = 0: must be in 1"),
        ("icem", {"elites": 0}, "elites = 0"),
        ("icem", {"decay": 0.5}, "decay = 0.5"),
        ("hybrid", {"elites": 0}, "elites = 0"),
        ("hybrid", {"refine_share": 1.0}, "refine_share = 1.0"),
        ("mppi", {"elites": -1}, "elites = -1"),
        ("mppi", {"temperature": 0.0}, "temperature = 0.0"),
        ("categorical", {"elites": 0}, "elites = 0"),
        ("categorical", {"levels": ()}, "give one of them"),
        ("categorical", {"levels": (0.1, 0.1)}, "different numbers"),
        ("categorical", {"levels": (), "choices": (1,)}, "each must be 2 or more"),
        ("shooting", {"samples": 0}, "samples = 0"),
        ("shooting", {"noise": "pink"}, "noise = 'pink'"),
        ("adam", {"restarts": 0}, "restarts = 0"),
        ("adam", {"beta2": 1.0}, "beta2 = 1.0"),
        ("pgd", {"lr": 0.0}, "lr = 0.0"),
    ],
)
def test_impossible_settings_of_one_planner_are_named(name, changes, words):
    with pytest.raises(ConfigError, match=words):
        build(name, **changes)


@pytest.mark.parametrize("name", ["pgd", "adam", "hybrid"])
def test_planning_by_gradient_needs_a_gradient(linear, problem, generators, name):
    class Detached(Recorder):
        def rollout(self, context, actions):
            return super().rollout(context, actions.detach())

    with pytest.raises(PlanningError, match="use a planner that samples"):
        solve(build(name), Detached(linear(width=WIDTH)), problem, generators)


@pytest.mark.parametrize("name", PLANNERS)
def test_plans_and_profiles_are_ordinary(linear, problem, generators, name):
    """Also in inference mode, and from latents that were made there."""
    dynamics = linear(width=WIDTH)
    with torch.inference_mode():
        context, goal, *_ = problem(dynamics, 2)
        context, goal = context.map(torch.clone), goal.map(torch.clone)
        plan = build(name).plan(dynamics, context, goal, generator=generators(2))
    again = build(name).plan(dynamics, context, goal, generator=generators(2))
    assert torch.equal(plan.actions, again.actions)
    assert not again.actions.is_inference()
    again.actions.requires_grad_().square().sum().backward()
    parts = again.diagnostics["profile"]
    assert set(parts) == {"rollout", "cost", "gradient", "sampling", "overhead"}
    assert sum(parts.values()) == pytest.approx(again.diagnostics["seconds"])
    assert min(parts.values()) >= 0


@pytest.mark.parametrize("name", PLANNERS)
def test_configs_come_back_from_toml(name):
    kind = PLANNERS[name][0]
    config = kind(**SMALL[name], horizon=4, max_seconds=0.5, low=(-0.4, -1.0))
    assert from_toml(kind, to_toml(config)) == config


def test_configs_of_no_planner_are_refused():
    with pytest.raises(PlanningError, match="SearchConfig is the config of no planner"):
        make_planner(SearchConfig(), 2)
    with pytest.raises(PlanningError, match=r"width 7 \(not 2\)"):
        make_planner(VJEPA2ACConfig(), 2)
    assert make_planner(VJEPA2ACConfig(horizon=3), 7).horizon == 3
