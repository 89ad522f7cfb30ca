"""Checks of experts, of the oracle, and of speed: what they count, and that they write it down."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tubelet.benchmarks import env_speed, expert_check, oracle_check
from tubelet.benchmarks.env_checks import Played, Rows, play
from tubelet.benchmarks.oracle_search import LIGHT, SEARCHES, Oracle, OracleSearch
from tubelet.core.errors import ConfigError
from tubelet.envs import ENVIRONMENTS, make

from .toy import PointEnv

ROOMS = "tubelet/TwoRooms-v0"
QUICK = OracleSearch(planner=replace(LIGHT, horizon=4, samples=16, iterations=2, elites=4))


def test_experts_are_judged_at_the_last_step(tmp_path):
    out = tmp_path / "experts.json"
    whole, cut = (expert_check.check(ROOMS, 5, budget=budget, out=out) for budget in (None, 3))
    assert whole["budget"] == 70
    assert whole["success_at_end"]["value"] == 1.0
    assert whole["success_at_end"]["low"] == pytest.approx(0.5655, abs=1e-3)  # Wilson, 5 of 5
    assert whole["failures"] == []
    assert 0 < whole["first_success"] <= 70
    assert cut["success_at_end"]["value"] < 1.0  # the other room is farther than 7.35 pixels
    assert {row["episode"] for row in cut["failures"]} <= set(range(5))


def test_environments_without_an_expert_are_left_out(tmp_path, capsys):
    out = tmp_path / "experts.json"
    with pytest.raises(ConfigError, match="no scripted expert"):
        expert_check.check("gymnasium/Reacher-v5", 1, out=out)
    assert not out.exists()
    names = ["--env", ROOMS, "gymnasium/Reacher-v5", "--n", "2", "--out", str(out)]
    assert expert_check.main(names) == 0
    assert [row["env"] for row in json.loads(out.read_text())["rows"]] == [ROOMS]
    assert "no scripted expert" in capsys.readouterr().out


def test_the_oracle_is_checked_with_its_own_budget(tmp_path):
    out = tmp_path / "oracle.json"
    row = oracle_check.check("tubelet/Reacher-v0", 2, budget=30, search=QUICK, out=out)
    assert (row["n"], row["budget"], row["search"]["planner"]["samples"]) == (2, 30, 16)
    assert 0 <= row["success_at_end"]["value"] <= row["success_at_any"]["value"] <= 1
    assert set(row["outcomes"][0]["distance"]) == {"tip", "joint_rms"}
    assert json.loads(out.read_text())["rows"] == [row]
    with pytest.raises(ConfigError, match="no search is known"):
        oracle_check.check("gymnasium/Reacher-v5", 1, out=out)


def test_every_environment_has_a_search(capsys):
    assert set(SEARCHES) == set(ENVIRONMENTS)
    assert oracle_check.main(["--list", "--n", "200"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ENVIRONMENTS)


def test_a_larger_n_goes_on_where_the_last_stopped(tmp_path):
    """The same problems in the same order, none of them played twice; other rows are kept."""
    out = tmp_path / "oracle.json"
    options = {"budget": 6, "search": QUICK, "out": out}
    other = oracle_check.check(ROOMS, 1, seed=3, **options)
    first = oracle_check.check(ROOMS, 2, **options)
    more = oracle_check.check(ROOMS, 3, **options)
    assert more["outcomes"][:2] == first["outcomes"]  # processor seconds too: not played again
    assert json.loads(out.read_text())["rows"] == [other, more]
    fresh = oracle_check.check(ROOMS, 3, **options | {"out": tmp_path / "fresh.json"})
    for a, b in zip(more["outcomes"], fresh["outcomes"], strict=True):
        assert {**a, "cpu_seconds": 0} == {**b, "cpu_seconds": 0}
    assert oracle_check.check(ROOMS, 1, **options)["n"] == 3  # nothing is thrown away


def test_a_check_that_is_killed_keeps_what_was_played(tmp_path):
    played: list[int] = []

    def episode(k):
        if k == 17:
            raise KeyboardInterrupt
        played.append(k)
        return Played(success=np.array([False, k % 2 == 0]), distance={"d": 0.5}, cpu_seconds=0.1)

    out = tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        Rows(out).extend({"env": "a", "seed": 0, "budget": 1}, 40, episode)
    (row,) = json.loads(out.read_text())["rows"]
    assert row["n"] == 10
    assert row["success_at_end"]["value"] == 0.5
    assert (row["first_success"], row["solved_at_reset"]) == (1.0, 0.0)
    assert [failure["episode"] for failure in row["failures"]] == [1, 3, 5, 7, 9]
    Rows(out).extend({"env": "a", "seed": 0, "budget": 1}, 12, episode)
    assert played == [*range(17), 10, 11]
    out.write_text("[]")
    with pytest.raises(ConfigError, match="no results of a check"):
        Rows(out)


def test_success_is_counted_from_the_reset_to_the_last_step():
    goal, start = np.array([0.5, 0.5, 0, 0]), np.array([0.1, 0.5, 0, 0])
    done = play(PointEnv(), start, goal, 6, lambda env: lambda t: np.array([1.0, 0.0]))
    assert done.success.tolist() == [False, False, False, True, True, True, False]
    outcome = done.outcome()
    assert (outcome["end"], outcome["first"]) == (False, 3)


def test_the_oracle_rests_only_where_resting_ends_at_the_goal():
    """A ball that rolls through its goal would not stay there; one at rest would."""
    env = make("tubelet/PointMaze-v0", render_obs=False)
    oracle = Oracle("tubelet/PointMaze-v0", QUICK)
    goal = env.state_at(np.array([0.0, 1.0]))
    still = env.state_at(np.array([0.2, 1.0]))
    fast = env.state_at(np.array([0.2, 1.0]), np.array([3.0, 0.0]))
    far = env.state_at(np.array([-1.0, 1.0]))
    assert env.success(fast, goal)
    assert [oracle.rests_at(state, goal, 20) for state in (still, fast, far)] == [
        True,
        False,
        False,
    ]
    env.reset(options={"state": still, "goal_state": goal})
    act = oracle.controller(env, number=0, budget=20)
    assert not act(0).any()
    env.set_state(far)  # decided: it looks no more
    assert not act(1).any()


@pytest.mark.slow
def test_speed_counts_frames_of_all_processes(tmp_path):
    out = tmp_path / "speed.json"
    names = ["--env", ROOMS, "--seconds", "0.5", "--size", "32", "--out", str(out)]
    assert env_speed.main(names) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["frames"] % (5 * row["copies"]) == 0
    assert row["faults"] == 0
    assert row["cpu"]["best"] >= row["cpu"]["median"] > 0
