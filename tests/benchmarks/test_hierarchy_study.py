"""The hierarchy study: distances by hand, equal budgets, tables with known answers, and one run."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.benchmarks.goal_reaching import GoalReachingResult
from tubelet.benchmarks.grid import parse_suite
from tubelet.benchmarks.hierarchy_arms import (
    ARMS,
    BLOCK,
    ITERATIONS,
    ORACLE_ARMS,
    REACH,
    STRIDE,
    WORLDS,
    distances,
    oracle_arm,
    search,
)
from tubelet.benchmarks.hierarchy_study import SIZES, StudyConfig, run_study
from tubelet.benchmarks.hierarchy_tables import (
    bins,
    compute_table,
    difference,
    distance_table,
    seed_table,
    verdict,
)
from tubelet.benchmarks.suite import episode_set
from tubelet.core.errors import ConfigError
from tubelet.envs import make
from tubelet.envs.oracle_levels import add_levels
from tubelet.planning import HierarchicalConfig


def result(name, hits, *, seed=0, sha="a", calls=100.0):
    hits = np.asarray(hits, bool)
    return GoalReachingResult(
        name=name,
        role="model",
        seed=seed,
        privileged=False,
        env_id="toy/Point-v0",
        kind="far",
        episodes_sha256=sha,
        episodes_seed=0,
        rejected_share=0.0,
        budget=7,
        success=np.stack([np.zeros(len(hits), bool), hits], 1),
        distance={},
        seconds=0.1,
        model_calls=calls,
    )


DISTANCE = np.array([5.0, 1.0, 9.0, 2.0, 8.0, 6.0])


def test_problems_are_grouped_by_distance():
    groups = [part.tolist() for part in bins(DISTANCE)]
    assert groups == [[1, 3], [0, 5], [2, 4]]
    with pytest.raises(ConfigError, match="problems = 2"):
        bins(DISTANCE[:2])


def test_differences_are_paired_by_problem_and_seed():
    rows = np.arange(6)
    base = [result("flat", [1, 0, 1, 0, 1, 0], seed=s) for s in (0, 1)]
    same = difference(base, base, rows)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    arm = [result("x", [1, 1, 1, 1, 1, 1], seed=0), result("x", [1, 0, 1, 0, 1, 0], seed=1)]
    assert difference(arm, base, rows).value == pytest.approx(0.25)
    assert difference(arm, base, np.array([1, 3])).value == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="same seeds"):
        difference(arm[:1], base, rows)
    with pytest.raises(ConfigError, match="problems"):
        difference([replace(r, episodes_sha256="b") for r in arm], base, rows)


def test_the_distance_table_says_who_solved_what_how_far():
    results = {
        "flat": [result("flat", [1, 1, 0, 1, 0, 1])],
        "hierarchical": [result("h", [1, 1, 1, 1, 1, 0], calls=99)],
    }
    floor = result("no action", [0, 0, 0, 0, 0, 0])
    table = distance_table("t", results, DISTANCE, unit="cells", baseline="flat", floors=[floor])
    flat, two, none = table.rows
    assert table.columns[3] == "nearest third (1.0 to 2.0 cells)"
    assert [flat[k].split()[0] for k in (3, 5, 7)] == ["100", "100", "0"]
    assert [two[k].split()[0] for k in (3, 5, 7)] == ["100", "50", "100"]
    assert (two[1], two[8].split()[0], two[9]) == ("99", "+100.0", "2–0, p = 0.5")
    assert flat[4] == flat[9] == none[4] == ""
    assert "2 problems" not in table.note
    assert "6 problems × 1 training seed(s)" in table.note


def test_the_seed_table_tells_seeds_apart():
    arm = [result("h", [1, 1, 1, 1, 1, 1], seed=0), result("h", [0, 0, 0, 0, 0, 1], seed=7)]
    base = [result("flat", [1, 1, 0, 1, 0, 1], seed=0), result("flat", [1] * 6, seed=7)]
    table = seed_table("t", {"flat": base, "hierarchical": arm}, DISTANCE, baseline="flat")
    assert table.columns[1::3] == ["seed 0: all", "seed 7: all"]
    flat, two = ([cell.split()[0] for cell in row if cell] for row in table.rows)
    assert flat == ["flat", "67", "0", "100", "100"]
    assert two == ["hierarchical", "100", "100", "+100.0", "17", "0", "-100.0"]


def test_the_verdict_falls_either_way():
    many = np.arange(60.0)
    far = many >= 40
    base, arm = [result("flat", ~far)], [result("h", np.ones(60))]
    assert "is above" in verdict(arm, base, many)
    assert "is below" in verdict(base, arm, many)
    assert "No difference shown" in verdict(base, base, many)


def test_the_compute_table_has_a_column_per_budget():
    found = {"flat": {256: [result("f", [1, 0, 1, 0, 1, 0])], 64: [result("f", [0] * 6)]}}
    table = compute_table("t", found, DISTANCE)
    assert [c.split(" calls")[0] for c in table.columns[1::3]] == ["64", "256"]
    assert table.rows[0][1].startswith("0 %")
    assert table.rows[0][4].startswith("50 %")


@pytest.mark.parametrize("calls", [512, 1024, 2048])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_spends_the_same(arm, calls):
    """Nearly the budget, or more, which is cut to it: nobody is left with less than the others."""
    chosen = search(arm, calls)
    low = chosen.horizon * chosen.samples * ITERATIONS
    high = 0
    if isinstance(chosen, HierarchicalConfig):
        high = chosen.macro.horizon * chosen.macro.samples * ITERATIONS
        assert chosen.macro.horizon * STRIDE == search("flat, far-sighted", calls).horizon
    assert chosen.max_model_calls == calls
    assert low + high >= 0.95 * calls


def test_distance_in_the_maze_is_the_length_of_the_way(tmp_path):
    """Against the shortest path over the maze's cells, whose middles it leads through."""
    world = WORLDS["maze"]
    episodes = episode_set(tmp_path / "far.npz", world.env_id, "far", 25, seed=3, budget=5)
    env = make(world.env_id, render_obs=False)
    hops = []
    for start, goal in zip(episodes.start_states, episodes.goal_states, strict=True):
        here, there, count = env.position(start), env.position(goal), 0
        while env.cells.nearest(here) != env.cells.nearest(there):
            here, count = env.cells.waypoint(here, there), count + 1
        hops.append(count)
    assert np.abs(distances(world, episodes) - np.array(hops)).max() < 2.2
    assert np.corrcoef(distances(world, episodes), hops)[0, 1] > 0.95


def test_the_oracle_counts_predictions_as_a_learned_model_does():
    world = WORLDS["maze"]
    env = make(world.env_id, render_obs=False)
    rng = np.random.default_rng(0)
    states = np.stack([env.sample_state(rng) for _ in range(2)])
    for arm in ORACLE_ARMS:
        agent = oracle_arm(arm, 400, world, threads=1).agent
        simulated = []
        inner = agent.dynamics.dynamics
        rollout = inner.rollout

        def count(context, actions, rollout=rollout, simulated=simulated):
            simulated.append(actions.shape[1] * actions.shape[2])
            return rollout(context, actions)

        inner.rollout = count
        agent.reset({"state": states})
        agent.act({"state": states[:, None]})
        found = agent.records[0].plan.diagnostics
        assert 300 < found["model_calls"] <= 400
        slow = sum(told["model_calls"] for told in found.get("levels", []))
        assert sum(simulated) == found["model_calls"] + (STRIDE - 1) * slow


def test_the_oracle_levels_are_the_simulator_at_a_slower_clock():
    agent = oracle_arm("hierarchical", 800, WORLDS["maze"], threads=1).agent
    dynamics = agent.dynamics.dynamics
    (level,) = dynamics.levels
    assert (level.length, level.price, level.action_dim) == (STRIDE, 1, 4)
    state = dynamics.env.sample_state(np.random.default_rng(0))
    context = dynamics.encode({"state": state[None, None]})
    macros = torch.rand(1, 3, 2, 4) * 2 - 1
    one = macros.view(1, 3, 2, 2, 2).repeat_interleave(STRIDE // 2, 3).flatten(2, 3)
    fine = dynamics.rollout(context, one.repeat(1, 1, 1, BLOCK))
    slow = level.rollout(context, macros)
    assert torch.equal(slow.tokens, fine.tokens[:, :, STRIDE - 1 :: STRIDE])
    add_levels(dynamics, (2, 6), knots=2)
    assert [level.price for level in dynamics.levels] == [2, 6]
    with pytest.raises(ConfigError, match="knots = 2"):
        add_levels(dynamics, (3,), knots=2)
    assert slow.tokens.shape == (1, 3, 2, 1, 2)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"preset": "smal"}, "did you mean 'small'"),
        ({"worlds": ()}, "worlds"),
        ({"worlds": ("moon",)}, "worlds"),
        ({"arms": ("hierarchical",)}, "must hold 'flat'"),
        ({"problems": 2}, "problems = 2"),
        ({"calls": (0,)}, "calls"),
        ({"oracle_calls": -1}, "'oracle_calls': -1"),
        ({"learned": False, "oracle": False}, "nothing is left"),
    ],
)
def test_impossible_studies_are_refused_when_built(changes, names):
    with pytest.raises(ConfigError, match=names):
        StudyConfig(**changes)


def test_the_small_study_has_problems_enough_for_a_claim():
    assert SIZES["small"].problems >= SIZES["small"].oracle_problems >= 200
    own = {"problems": 9, "calls": (7,), "oracle_calls": 5}
    assert StudyConfig(**own).size == replace(SIZES["small"], **own)
    assert search("flat", 512).horizon < REACH * STRIDE


def test_a_study_runs_and_goes_on_where_it_stopped(tmp_path):
    config = StudyConfig(
        preset="debug",
        out=str(tmp_path),
        worlds=("maze",),
        arms=("flat", "hierarchical", "hierarchical, naive"),
        threads=1,
        oracle=False,
    )
    tables = run_study(config)
    assert [table.title.split(", ")[1] for table in tables] == ["learned model"] * 3
    rows = {row[0]: row for row in tables[0].rows}
    assert {"flat", "hierarchical", "hierarchical, naive", "no action"} <= rows.keys()
    spent = [float(rows[arm][1]) for arm in config.arms]
    plans = math.ceil(SIZES["debug"].budget / BLOCK)  # of at most 256 calls
    assert max(spent) <= 256 * plans / SIZES["debug"].budget
    assert max(spent) <= 1.1 * min(spent)
    said = (tmp_path / "tables.md").read_text()
    assert "No difference shown" in said
    files = [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.safetensors")]
    again = (tmp_path / "results", tmp_path / "maze" / "data")  # tables, and facts about the data
    kept = {p: p.stat().st_mtime_ns for p in files if not set(again) & set(p.parents)}
    assert any("levels-0" in str(path) for path in kept)
    assert run_study(config) == tables
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def suite_table(**train):
    return {
        "envs": {"maze": {"env": "tubelet/PointMaze-v0"}},
        "models": {"two": {"preset": "hjepa", "train": {"train": train}}},
        "planners": {"deep": {"kind": "hierarchical", "replan": 2, "macro": {"samples": 32}}},
    }


def test_suites_plan_with_levels_where_models_have_them():
    found = parse_suite(suite_table(hierarchy={"first": "joint"}))
    planner = found.planners["deep"]
    assert isinstance(planner, HierarchicalConfig)
    assert (planner.replan, planner.macro.samples) == (2, 32)
    assert found.models["two"].lengths == (4,)
    with pytest.raises(ConfigError, match=r"planners.deep is hierarchical.*two .models"):
        parse_suite(suite_table(hierarchy={"strides": []}))
