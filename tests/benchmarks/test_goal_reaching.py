import dataclasses
import json

import numpy as np
import pytest

from tubelet.benchmarks.episodes import EpisodeSet, draw_far
from tubelet.benchmarks.goal_reaching import GoalReachingResult, evaluate
from tubelet.core.errors import ConfigError
from tubelet.envs import make
from tubelet.envs.factors import FactorConfig
from tubelet.envs.oracle import SimulatorDynamics
from tubelet.planning import CEM, CEMConfig, MPCAgent, MPCConfig

from .toy import GreedyAgent, PointEnv


class Script:
    """Plays fixed actions and keeps the observations it got."""

    def __init__(self, actions, steps):
        self.actions, self.steps, self.at, self.seen = np.asarray(actions), steps, 0, []

    def reset(self, goal_obs, *, problems):
        self.at, self.goal_obs = 0, goal_obs

    def act(self, obs):
        self.seen.append(obs)
        block = self.actions[self.at : self.at + self.steps]
        self.at += self.steps
        return np.repeat(block[None], len(obs["pixels"]), 0)


def one_problem(budget, start=(0.0, 0.0), goal=(1.0, 0.0)):
    return EpisodeSet(
        env_id="toy/Point-v0",
        kind="far",
        seed=0,
        budget=budget,
        start_states=np.array([[*start, 0, 0]]),
        goal_states=np.array([[*goal, 0, 0]]),
        drawn=1,
        mujoco_version="0",
    )


def test_greedy_agent_solves_everything(episodes):
    result = evaluate(PointEnv, GreedyAgent(), episodes, name="greedy", batch_size=3)
    assert len(result) == 7
    assert result.at_end.all()
    assert result.solved_at_reset == 0
    assert (result.distance["position"][:, -1] < 0.01).all()
    assert result.success.shape == (7, 16)
    assert result.seconds > 0
    assert result.model_calls == pytest.approx(16 / 15)  # 8 decisions of 2 for 15 actions


def test_batches_do_not_change_the_outcome(episodes):
    one, many = (
        evaluate(PointEnv, GreedyAgent(3), episodes, name="g", batch_size=b) for b in (1, 7)
    )
    np.testing.assert_array_equal(one.distance["position"], many.distance["position"])
    assert one.model_calls == many.model_calls


def test_end_and_any_differ_for_an_agent_that_passes_by():
    actions = np.tile([[1.0, 0.0]], (20, 1))
    result = evaluate(
        PointEnv, Script(actions, 4), one_problem(10, goal=(0.5, 0.0)), name="passes by"
    )
    assert not result.at_end.any()
    assert result.at_any.all()
    # steps of exactly .1 from 0: strictly nearer than .1 to .5 only at step 5 (up to rounding)
    assert result.first_success[0] in (4, 5)


def test_context_is_oldest_first_repeated_at_rest_and_strided():
    agent = Script(np.tile([[1.0, 0.0]], (10, 1)), 2)
    evaluate(PointEnv, agent, one_problem(6), name="s", context_frames=3, context_stride=2)
    seen = [obs["pixels"][0, :, 0, 0, 0] for obs in agent.seen]
    red = [round(255 * 0.1 * step) for step in range(7)]
    assert [list(x) for x in seen] == [
        [red[0], red[0], red[0]],
        [red[0], red[0], red[2]],
        [red[0], red[2], red[4]],
    ]
    np.testing.assert_allclose(agent.seen[2]["proprio"][0, :, 0], [0, 0.1, 0.1], atol=1e-6)
    assert agent.seen[0]["pixels"].shape == (1, 3, 16, 16, 3)
    assert agent.seen[0]["pixels"].dtype == np.uint8
    assert agent.seen[0]["proprio"].dtype == np.float32


def test_a_stride_that_blocks_do_not_hit_still_gives_the_right_frames():
    agent = Script(np.tile([[1.0, 0.0]], (12, 1)), 3)
    evaluate(PointEnv, agent, one_problem(9), name="s", context_frames=2, context_stride=2)
    assert list(agent.seen[2]["pixels"][0, :, 0, 0, 0]) == [round(255 * 0.4), round(255 * 0.6)]


def test_only_needed_frames_are_rendered():
    envs = []

    def factory():
        envs.append(PointEnv())
        return envs[-1]

    agent = Script(np.zeros((20, 2)), 5)
    evaluate(factory, agent, one_problem(20), name="s", context_frames=2, context_stride=5)
    assert envs[0].rendered == 1 + 4  # goal, and steps 0, 5, 10, 15


def test_state_is_for_privileged_agents_only():
    plain, oracle = (Script(np.zeros((4, 2)), 2) for _ in range(2))
    results = [
        evaluate(PointEnv, agent, one_problem(4), name="s", privileged=agent is oracle)
        for agent in (plain, oracle)
    ]
    assert set(plain.seen[0]) == {"pixels", "proprio"}
    assert set(plain.goal_obs) == {"pixels"}
    assert oracle.seen[0]["state"].shape == (1, 1, 4)
    assert oracle.goal_obs["state"].shape == (1, 4)
    assert [r.privileged for r in results] == [False, True]


def test_films_cover_every_step_and_json_keeps_the_rest(episodes):
    result = evaluate(
        PointEnv, GreedyAgent(), episodes, name="g", seed=1, record=[2, 6], batch_size=4
    )
    assert set(result.films) == set(result.goals) == {2, 6}
    assert result.films[6].shape == (16, 16, 16, 3)
    expected = (episodes.goal_states[6, 0] * 255).round()
    assert abs(int(result.films[6][-1, 0, 0, 0]) - expected) <= 1
    again = GoalReachingResult.from_json(json.loads(json.dumps(result.to_json())))
    np.testing.assert_array_equal(again.success, result.success)
    np.testing.assert_allclose(again.distance["position"], result.distance["position"], atol=1e-5)
    assert (again.name, again.seed, again.role) == ("g", 1, "model")


def test_hits_and_misses_are_filmed_after_the_fact():
    goals = [(0.1, 0.0), (0.9, 0.0), (0.2, 0.0), (0.9, 0.9), (0.2, 0.1)]
    problems = dataclasses.replace(
        one_problem(2),
        start_states=np.zeros((5, 4)),
        goal_states=np.array([[*goal, 0, 0] for goal in goals]),
    )
    result = evaluate(
        PointEnv, GreedyAgent(), problems, name="g", record_each=1, record=[4], batch_size=2
    )
    assert list(result.at_end) == [True, False, True, False, True]
    assert set(result.films) == set(result.goals) == {0, 1, 4}


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 3), (1, 0, 2), (2, 1, 2)])
def test_actions_of_the_wrong_shape_are_named(shape):
    agent = Script(np.zeros((4, 2)), 2)
    agent.act = lambda obs: np.zeros(shape)
    with pytest.raises(ConfigError, match="actions"):
        evaluate(PointEnv, agent, one_problem(4), name="s")


def test_nan_actions_and_impossible_contexts_are_refused():
    agent = Script(np.full((4, 2), np.nan), 2)
    with pytest.raises(ConfigError, match="NaN"):
        evaluate(PointEnv, agent, one_problem(4), name="s")
    with pytest.raises(ConfigError, match="context_frames"):
        evaluate(PointEnv, agent, one_problem(4), name="s", context_frames=0)
    with pytest.raises(ConfigError, match="role"):
        evaluate(PointEnv, Script(np.zeros((4, 2)), 2), one_problem(4), name="s", role="king")


@pytest.mark.parametrize("batch_size", [2, 3])
def test_the_oracle_with_the_real_planner_solves_real_problems(batch_size):
    """Reacher, CEM and the simulator as dynamics, through the interfaces that models use."""
    env = make("tubelet/Reacher-v0", render_obs=False)
    problems = draw_far(env, 3, env_id="tubelet/Reacher-v0", seed=0, budget=30)
    dynamics = SimulatorDynamics(env, action_block=5)
    planner = CEM(CEMConfig(horizon=4, samples=48, iterations=4, elites=8), action_dim=2)
    agent = MPCAgent(dynamics, planner, MPCConfig(action_block=5, hold=True))
    result = evaluate(
        lambda: make("tubelet/Reacher-v0", render_obs=False),
        agent,
        problems,
        name="oracle",
        role="ceiling",
        privileged=True,
        context_frames=2,
        context_stride=5,
        batch_size=batch_size,
    )
    assert result.model_calls is not None
    assert result.model_calls > 0
    tip = result.distance["tip"]
    assert np.median(tip[:, -1]) < 0.25 * np.median(tip[:, 0])


def test_every_problem_is_played_with_its_own_looks_and_weights():
    """Whatever shares its batch: frames, films, and what the oracle is told."""
    env_id = "tubelet/PointMaze-v0"
    config = FactorConfig(kinds=("colour", "mass"))
    env = make(env_id, render_obs=False, image_size=16)
    problems = draw_far(env, 3, env_id=env_id, seed=0, budget=3, factors=config)
    plain = dataclasses.replace(problems, factors={})
    runs, seen = {}, {}
    for name, episodes, batch in (
        ("alone", problems, 1),
        ("together", problems, 3),
        ("plain", plain, 3),
    ):
        agent = Script(np.full((3, 2), 0.5, np.float32), 1)
        runs[name] = evaluate(
            lambda: make(env_id, render_obs=False, image_size=16),
            agent,
            episodes,
            name=name,
            batch_size=batch,
            record=range(3),
            privileged=True,
        )
        seen[name] = agent.seen
    alone, together, usual = (runs[name] for name in ("alone", "together", "plain"))
    for k in range(3):
        np.testing.assert_array_equal(alone.films[k], together.films[k])
        np.testing.assert_array_equal(alone.goals[k], together.goals[k])
        assert (alone.films[k][0] != usual.films[k][0]).any()  # colours
    gaps = [run.distance["distance"] for run in (alone, together, usual)]
    np.testing.assert_array_equal(gaps[0], gaps[1])
    assert (gaps[0][:, -1] != gaps[2][:, -1]).all()  # masses
    assert "factors" not in seen["plain"][0]
    told = seen["together"][0]["factors"]
    np.testing.assert_array_equal(told[1].values["mass"], problems.factors["mass"][1])
