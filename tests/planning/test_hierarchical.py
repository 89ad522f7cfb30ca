"""Two clocks: what a level hands down, where it may search, what it spends, and what it is worth
where no level errs."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError, PlanningError
from tubelet.core.latent import Latent
from tubelet.planning import (
    ALL_PLANNERS,
    CEM,
    CEMConfig,
    Hierarchical,
    HierarchicalConfig,
    LatentCost,
    MacroDynamics,
    MPCAgent,
    MPCConfig,
    NeighbourSupport,
    action_range,
    levels_of,
    make_planner,
)
from tubelet.planning.support import ActionSupport

LAST = LatentCost(steps="last")
SOON = LatentCost(steps="sum", saturation=0.3)
"""Arriving early and staying pays, whichever the way; with LAST there is always time left."""


class Plane:
    """A point that moves by a quarter of its action; a wall at x = 0 where |y| < ``wall``."""

    action_dim = 2

    def __init__(self, wall=0.0, lengths=(8,), macros=None):
        self.wall, self.seen = wall, []
        self.levels = tuple(Held(self, length, macros) for length in lengths)

    def step(self, place, action):
        new = place + 0.25 * action.clamp(-1, 1)
        crosses = (place[..., 0] * new[..., 0] <= 0) & (new[..., 1].abs() < self.wall)
        stopped = 0.01 * torch.where(place[..., 0] < 0, -1.0, 1.0)
        return torch.stack([torch.where(crosses, stopped, new[..., 0]), new[..., 1]], -1)

    def encode(self, obs):
        return Latent(torch.as_tensor(obs["place"]).float()[:, None, None])

    def encode_goal(self, obs):
        return Latent(torch.as_tensor(obs["place"]).float()[:, None])

    def rollout(self, context, actions):
        self.seen.append(tuple(actions.shape))
        return self.imagine(context, actions)

    def imagine(self, context, actions):
        place = context.tokens[:, -1, 0][:, None].expand(-1, actions.shape[1], -1)
        steps = []
        for action in actions.unbind(2):
            place = self.step(place, action)
            steps.append(place)
        return Latent(torch.stack(steps, 2)[:, :, :, None])


class Held:
    """The plane at a slower clock, exactly: one action held for ``length`` steps."""

    action_dim, price = 2, 1

    def __init__(self, plane, length, macros=None):
        self.plane, self.length, self.seen = plane, length, []
        corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
        self._macros = corners if macros is None else macros

    def macros(self):
        return self._macros

    def rollout(self, context, actions):
        self.seen.append(actions)
        found = self.plane.imagine(context, actions.repeat_interleave(self.length, 2))
        return found.map(lambda x: x[:, :, self.length - 1 :: self.length])


def config(**changes):
    macro = CEMConfig(horizon=4, samples=100, iterations=4, elites=10, init_std=1.0, returns="best")
    settings = {"horizon": 6, "samples": 60, "iterations": 3, "elites": 8, "macro": macro}
    return HierarchicalConfig(**{**settings, **changes})


def small(**changes):
    macro = CEMConfig(horizon=3, samples=6, iterations=2, elites=3)
    return config(horizon=2, samples=5, iterations=2, elites=2, macro=macro, **changes)


def problems(plane, count, seed=0):
    rng = np.random.default_rng(seed)
    start, goal = rng.uniform(-0.8, 0.8, (2, count, 2))
    start[:, 0], goal[:, 0] = -1.0, 1.0
    return plane.encode({"place": start}), plane.encode_goal({"place": goal})


def generators(count, seed=0):
    return [torch.Generator().manual_seed(100 * seed + n) for n in range(count)]


def far_from_goal(planner, plane, count=6, steps=32):
    """Distances to the goal after acting on the first action of every plan."""
    context, goal = problems(plane, count)
    streams = generators(count)
    for _ in range(steps):
        plan = planner.plan(plane, context, goal, generator=streams)
        context = Latent(plane.imagine(context, plan.actions[:, None, :1]).tokens[:, 0])
    return (context.tokens[:, 0, 0] - goal.tokens[:, 0]).norm(dim=1)


def test_with_exact_models_two_levels_never_plan_worse_than_a_short_horizon():
    plane = Plane(wall=1.2)
    context, goal = problems(plane, 20)
    macro = CEMConfig(horizon=4, samples=400, iterations=5, elites=20, init_std=1.0, returns="best")
    two = Hierarchical(config(macro=macro), 2, LAST)
    two = two.plan(plane, context, goal, generator=generators(20))
    flat = CEM(config(samples=400, iterations=5, elites=20).level1, 2, LAST)
    one = flat.plan(plane, context, goal, generator=generators(20))
    (top,) = two.diagnostics["levels"]
    # 4 macro-actions of 8 steps reach around the wall, 6 steps do not.
    assert top["model_calls"] < one.diagnostics["model_calls"]
    assert (top["cost"] <= one.cost).all()
    assert top["cost"].max() < 0.1 < 0.3 < one.cost.min()


def test_two_levels_get_around_a_wall_that_a_short_horizon_stays_behind():
    plane = Plane(wall=1.5)
    calls = 2600
    two = far_from_goal(Hierarchical(config(max_model_calls=calls), 2, SOON), plane)
    flat = CEM(config(samples=140, max_model_calls=calls).level1, 2, SOON)
    one = far_from_goal(flat, plane)
    assert (two < 0.2).all()
    assert (one > 1.0).all()


def test_without_a_wall_both_arrive():
    plane = Plane()
    assert (far_from_goal(Hierarchical(config(), 2, SOON), plane, steps=16) < 0.1).all()


def test_the_first_imagined_latent_is_the_goal_below():
    plane = Plane(wall=1.5, lengths=(2, 8))
    planner = Hierarchical(small(hand_goal=False), 2, LAST)
    context, goal = problems(plane, 3)
    plan = planner.plan(plane, context, goal, generator=generators(3))
    top, middle = plan.diagnostics["levels"]
    assert (top["level"], middle["level"]) == (3, 2)
    assert top["macros"].shape == (3, 3, 2)  # macro.horizon
    assert middle["macros"].shape == (3, 4, 2)  # one step of the level above
    for told, level, wanted in ((top, plane.levels[1], goal), (middle, plane.levels[0], None)):
        path = level.rollout(context, told["macros"][:, None])
        assert torch.allclose(told["subgoal"].tokens, path.tokens[:, 0, 0])
        wanted = wanted or top["subgoal"]
        assert torch.allclose(told["cost"], LAST(path, wanted)[:, 0])
    end = plane.imagine(context, plan.actions[:, None])
    assert torch.allclose(plan.cost, LAST(end, middle["subgoal"])[:, 0])


def test_a_goal_within_reach_is_handed_itself():
    plane = Plane()
    context = plane.encode({"place": [[-1.0, 0.0], [-1.0, 0.0]]})
    goal = plane.encode_goal({"place": [[0.9, 0.1], [6.9, 0.1]]})  # one macro-action goes 2 far
    for cost in (SOON, LatentCost(steps="sum")):
        planner = Hierarchical(config(), 2, cost)
        plan = planner.plan(plane, context, goal, generator=generators(2))
        (top,) = plan.diagnostics["levels"]
        assert top["handed"].tolist() == [True, False]
        assert torch.equal(top["subgoal"].tokens[0], goal.tokens[0])
        assert 0.5 < top["subgoal"].tokens[1, 0, 0] <= 1.0


@pytest.mark.parametrize("where", ["quantile", "range", "neighbours", "density", "none"])
def test_macro_actions_stay_in_the_support(where):
    macros = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    macros[:, 1] = 0.3 * macros[:, 0] + 0.1 * macros[:, 1]
    plane = Plane(macros=macros)
    planner = Hierarchical(config(macro_support=where, macro_tail=0.02), 2, LAST)
    context, goal = problems(plane, 4)
    goal = goal.map(lambda x: 50 * x)  # pulls as far as it is let
    for _ in range(6):  # every search begins where the last ended
        planner.plan(plane, context, goal, generator=generators(4))
    seen = torch.cat([s.flatten(0, -2) for s in plane.levels[0].seen])
    low, high = map(torch.tensor, action_range(macros, 0.02 if where == "quantile" else 0.0))
    inside = ((seen >= low - 1e-6) & (seen <= high + 1e-6)).all()
    if where == "neighbours":
        support = NeighbourSupport.fit(macros, 0.98)
        assert (support.nearest(seen)[1] <= support.radius * (1 + 1e-4)).all()
    if where == "density":
        support = ActionSupport.fit(macros, 0.98)
        assert (support.distance(seen) <= support.radius * (1 + 1e-4)).all()
    assert bool(inside) == (where != "none")


@settings(max_examples=25, deadline=None)
@given(
    calls=st.integers(50, 400),
    share=st.floats(0.3, 0.7),
    price=st.sampled_from([1, 2]),
    replan=st.integers(1, 3),
)
def test_the_budget_is_of_all_levels_together(calls, share, price, replan):
    plane = Plane()
    plane.levels[0].price = price
    chosen = small(max_model_calls=calls, macro_share=share, replan=replan)
    planner = Hierarchical(chosen, 2, LAST)
    context, goal = problems(plane, 2)
    if int(share * calls) // price - 3 < 12:
        with pytest.raises(ConfigError, match="max_model_calls"):
            planner.plan(plane, context, goal, generator=generators(2))
        return
    for _ in range(3):
        plane.seen.clear()
        plane.levels[0].seen.clear()
        plan = planner.plan(plane, context, goal, generator=generators(2))
        low = sum(s[1] * s[2] for s in plane.seen)
        high = sum(s.shape[1] * s.shape[2] for s in plane.levels[0].seen)
        assert plan.diagnostics["model_calls"] == low + price * high <= calls
        told = sum(each["model_calls"] for each in plan.diagnostics["levels"])
        assert told == price * high


def test_seconds_are_of_all_levels_together():
    plane = Plane()
    planner = Hierarchical(small(max_seconds=1.0), 2, LAST)
    ticks = itertools.count()
    planner.clock = lambda: 0.2 * next(ticks)  # time enough for the least of each level only
    context, goal = problems(plane, 2)
    plan = planner.plan(plane, context, goal, generator=generators(2))
    free = Hierarchical(small(), 2, LAST).plan(plane, context, goal, generator=generators(2))
    assert plan.diagnostics["model_calls"] < free.diagnostics["model_calls"]
    profile = free.diagnostics["profile"]
    assert sum(profile.values()) == pytest.approx(free.diagnostics["seconds"])


def test_each_level_replans_at_its_own_rate():
    plane = Plane(lengths=(2, 8))
    planner = Hierarchical(small(replan=2), 2, LAST)
    context, goal = problems(plane, 2)
    who = []
    for _ in range(6):
        plan = planner.plan(plane, context, goal, generator=generators(2))
        who.append([each["level"] for each in plan.diagnostics["levels"]])
    assert who == [[3, 2], [], [2], [], [3, 2], []]
    other = goal.map(lambda x: x + 0.1)
    plan = planner.plan(plane, context, other, generator=generators(2))
    assert len(plan.diagnostics["levels"]) == 2  # another goal: where it wanted to be is forgotten
    planner.plan(plane, context, other, generator=generators(2))
    planner.reset()
    plan = planner.plan(plane, context, other, generator=generators(2))
    assert len(plan.diagnostics["levels"]) == 2


def test_between_its_plans_the_subgoal_stays():
    plane = Plane(wall=1.5)
    planner = Hierarchical(config(replan=3, hand_goal=False), 2, LAST)
    context, goal = problems(plane, 2)
    first = planner.plan(plane, context, goal, generator=generators(2))
    subgoal = first.diagnostics["levels"][0]["subgoal"]
    moved = Latent(plane.imagine(context, first.actions[:, None, :1]).tokens[:, 0])
    plan = planner.plan(plane, moved, goal, generator=generators(2))
    end = plane.imagine(moved, plan.actions[:, None])
    assert torch.allclose(plan.cost, LAST(end, subgoal)[:, 0])


def test_a_problem_does_not_depend_on_its_batch():
    plane = Plane(wall=1.5)
    context, goal = problems(plane, 4)
    together = Hierarchical(small(), 2).plan(plane, context, goal, generator=generators(4))
    for n, stream in enumerate(generators(4)):
        one = [x.map(lambda t, n=n: t[n : n + 1]) for x in (context, goal)]
        alone = Hierarchical(small(), 2).plan(plane, *one, generator=[stream])
        assert torch.allclose(alone.actions[0], together.actions[n], atol=1e-5)


def test_an_agent_drives_it_with_held_actions_and_resets_it():
    class Blocks(Plane):
        action_dim = 4

        def imagine(self, context, actions):
            single = actions[..., :2]  # a held block of two: one action
            return super().imagine(context, single)

    plane = Blocks(wall=1.5)
    planner = make_planner(small(replan=4), 2, LAST)
    assert isinstance(planner, Hierarchical)
    agent = MPCAgent(plane, planner, MPCConfig(action_block=2, hold=True))
    obs = {"place": np.array([[-1.0, 0.0]])}
    agent.reset({"place": np.array([[1.0, 0.0]])})
    assert agent.act(obs).shape == (1, 2, 2)
    agent.act(obs)
    told = [len(record.plan.diagnostics["levels"]) for record in agent.records]
    assert told == [1, 0]
    agent.reset({"place": np.array([[1.0, 0.0]])})
    agent.act(obs)
    assert len(agent.records[0].plan.diagnostics["levels"]) == 1


def test_dynamics_that_cannot_be_planned_with_are_refused():
    plane = Plane(lengths=())
    context, goal = problems(plane, 1)
    planner = Hierarchical(small(), 2, LAST)
    with pytest.raises(PlanningError, match="has no levels"):
        planner.plan(plane, context, goal, generator=generators(1))
    with pytest.raises(PlanningError, match="multiple of the one below"):
        levels_of(Plane(lengths=(2, 3)))
    empty = Plane(macros=torch.zeros(0, 2))
    assert isinstance(empty.levels[0], MacroDynamics)
    for where in ("quantile", "neighbours", "none"):
        planner = Hierarchical(small(macro_support=where), 2, LAST)
        with pytest.raises(PlanningError, match=r"macro_support.*level 2 is empty"):
            planner.plan(empty, context, goal, generator=generators(1))
    with pytest.raises(PlanningError, match=r"cost.steps"):
        Hierarchical(small(), 2, LatentCost(steps="weights", weights=(1.0, 1.0)))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"macro": CEMConfig(low=(-2.0,))}, "macro.low"),
        ({"macro": CEMConfig(max_model_calls=900)}, "macro.max_model_calls"),
        ({"macro_support": "hull"}, "macro_support = 'hull'"),
        ({"macro_tail": 0.5}, "macro_tail"),
        ({"macro_share": 1.0}, "macro_share"),
        ({"replan": 0}, "replan"),
        ({"near": -1.0}, "near"),
        ({"max_model_calls": 107}, "max_model_calls = 107: .* = 108"),
    ],
)
def test_impossible_settings_are_refused_when_built(changes, names):
    with pytest.raises(ConfigError, match=names):
        config(**changes)


def test_it_is_a_planner_by_name_and_its_settings_survive_a_file():
    kind, planner = ALL_PLANNERS["hierarchical"]
    assert (kind, planner) == (HierarchicalConfig, Hierarchical)
    chosen = config(macro_support="neighbours", max_model_calls=500)
    assert from_toml(HierarchicalConfig, to_toml(chosen)) == chosen


class TestNeighbours:
    data = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0], [4.0, 2.0]])

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(-20, 20), min_size=2, max_size=2))
    def test_projection_is_the_nearest_point_of_the_balls(self, where):
        support = NeighbourSupport.fit(self.data, 1.0)
        point = torch.tensor(where)
        got = support.project(point)
        scaled = (self.data - point) / support.scale
        outside = (scaled.norm(dim=1).min() - support.radius).clamp_min(0)
        assert ((got - point) / support.scale).norm() == pytest.approx(float(outside), abs=1e-3)
        assert torch.allclose(support.project(got), got, atol=1e-4)

    def test_training_actions_and_their_middle_stay(self):
        support = NeighbourSupport.fit(self.data)
        assert torch.equal(support.project(self.data), self.data)
        assert torch.equal(support.project(support.mean), support.mean)

    def test_a_hole_stays_a_hole(self):
        noise = 0.05 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        sides = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).repeat(50, 1)
        middle = NeighbourSupport.fit(sides + noise).project(torch.zeros(2))
        assert middle[0].abs() > 0.7  # in the box of the data, and far from all of it

    def test_actions_that_are_all_alike(self):
        support = NeighbourSupport.fit(torch.ones(3, 2))
        assert torch.equal(support.project(torch.randn(4, 2)), torch.ones(4, 2))

    @pytest.mark.parametrize(
        "data", [torch.zeros(0, 2), torch.zeros(1, 2), torch.full((3, 2), torch.nan)]
    )
    def test_what_has_no_neighbours_is_refused(self, data):
        with pytest.raises(PlanningError, match="training actions"):
            NeighbourSupport.fit(data)
