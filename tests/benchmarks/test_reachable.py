"""Goals out of reach are found, named and reported; those that environments draw are in reach."""

import dataclasses

import numpy as np
import pytest

from tubelet.benchmarks.episodes import draw_far
from tubelet.benchmarks.reachable import report, unreachable_goals, why_unreachable
from tubelet.envs import ENVIRONMENTS, make
from tubelet.envs.factors import FactorConfig


@pytest.mark.parametrize("env_id", list(ENVIRONMENTS))
def test_goals_that_environments_draw_are_in_reach(env_id):
    problems = draw_far(make(env_id, render_obs=False), 5, env_id=env_id, seed=3, budget=5)
    assert unreachable_goals(problems) == {}


def test_goals_drawn_with_other_sizes_are_in_reach():
    env_id = "tubelet/PushT-v0"
    factors = FactorConfig(kinds=("size", "mass"), split="test")
    env = make(env_id, render_obs=False)
    problems = draw_far(env, 4, env_id=env_id, seed=0, budget=5, factors=factors)
    assert unreachable_goals(problems) == {}


def with_goals(env, env_id, goals):
    drawn = draw_far(env, len(goals), env_id=env_id, seed=0, budget=5)
    return dataclasses.replace(drawn, goal_states=np.stack(goals))


def test_a_joint_beyond_its_limits_is_named():
    env_id = "tubelet/Reacher-v0"
    env = make(env_id, render_obs=False)
    goals = [env.state_at(np.array(place)) for place in ([40.0, 0.5], [0.0, 3.1])]
    found = unreachable_goals(with_goals(env, env_id, goals))
    assert list(found) == [1]  # the shoulder turns freely
    assert "'wrist' at 3.1 is beyond its limits" in found[1]


def test_a_goal_in_a_wall_or_outside_is_found(capsys):
    env_id = "tubelet/PointMaze-v0"
    env = make(env_id, render_obs=False)
    places = ([0.0, 0.45], [9.0, 9.0], [-1.0, 1.0])
    problems = with_goals(env, env_id, [env.state_at(np.array(place)) for place in places])
    found = unreachable_goals(problems)
    assert set(found) == {0, 1} or set(found) == {1}  # half a ball in a wall is pushed out at once
    assert "is outside where goals are drawn" in found[1]
    report(problems, found, most=1)
    said = capsys.readouterr().err
    assert f"{len(found)} of 3 goals are out of reach" in said
    report(problems, {})
    assert capsys.readouterr().err == ""


def test_a_goal_that_does_not_last_is_found():
    """A cube in the air falls."""
    env = make("tubelet/ArmPickPlace-v0", render_obs=False)
    rng = np.random.default_rng(0)
    start, goal = env.sample_state(rng), env.sample_goal(rng)
    assert why_unreachable(env, start, goal) == ""
    place = env.position(goal).copy()
    place[9] += 0.12
    place[:5] = env.position(start)[:5]  # the hand is elsewhere
    assert "does not last" in why_unreachable(env, start, env.state_at(place))


def test_a_goal_in_another_maze_is_found():
    env = make("tubelet/PointMazeRandom-v0", render_obs=False)
    rng = np.random.default_rng(1)
    start, elsewhere = env.sample_state(rng), env.sample_state(rng)
    assert "walls stand elsewhere" in why_unreachable(env, start, elsewhere)
