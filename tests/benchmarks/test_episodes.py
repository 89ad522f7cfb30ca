import dataclasses

import numpy as np
import pytest

from tubelet.benchmarks.episodes import EpisodeSet, draw_far, draw_near
from tubelet.core.errors import DatasetError
from tubelet.envs import make

from .toy import PointEnv

TOY = {"env_id": "toy/Point-v0", "budget": 10}


def test_far_pairs_are_unsolved_seeded_and_counted():
    episodes = draw_far(PointEnv(), 300, seed=3, **TOY)
    again = draw_far(PointEnv(), 300, seed=3, **TOY)
    other = draw_far(PointEnv(), 300, seed=4, **TOY)
    assert episodes.sha256 == again.sha256 != other.sha256
    pairs = zip(episodes.start_states, episodes.goal_states, strict=True)
    assert not any(PointEnv().success(start, goal) for start, goal in pairs)
    # Two uniform points of the unit square are within 0.1 of each other with probability .0289.
    assert 0 < episodes.rejected_share < 0.08
    assert len(episodes) == 300
    assert episodes.drawn > 300


def test_near_goals_are_at_rest_and_within_reach():
    def policy(env, steps, generator):
        direction = generator.choice([-1.0, 1.0], size=2)
        return lambda t: direction

    episodes = draw_near(PointEnv(), 50, seed=0, steps=3, policy=policy, **TOY)
    assert (episodes.goal_states[:, 2:] == 0).all()
    moved = np.abs(episodes.goal_states[:, :2] - episodes.start_states[:, :2]).max(1)
    assert moved.max() <= 0.3 + 1e-9
    assert len(np.unique(moved.round(3))) > 1


def test_goals_that_are_always_solved_are_an_error():
    def still(env, steps, generator):
        return lambda t: np.zeros(2)

    with pytest.raises(DatasetError, match="already solved"):
        draw_near(PointEnv(), 2, seed=0, steps=3, policy=still, **TOY)


def test_round_trip(tmp_path, episodes):
    path = tmp_path / "far.npz"
    episodes.save(path)
    loaded = EpisodeSet.load(path, env_id=episodes.env_id)
    assert loaded.sha256 == episodes.sha256
    np.testing.assert_array_equal(loaded.start_states, episodes.start_states)


def test_bad_files_are_refused(tmp_path, episodes):
    path = tmp_path / "far.npz"
    with pytest.raises(DatasetError, match="not a readable"):
        EpisodeSet.load(path)
    episodes.save(path)
    with pytest.raises(DatasetError, match="toy/Point-v0"):
        EpisodeSet.load(path, env_id="tubelet/Reacher-v0")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="not a readable"):
        EpisodeSet.load(path)
    dataclasses.replace(episodes, mujoco_version="1.2.3").save(path)
    with pytest.raises(DatasetError, match=r"mujoco 1\.2\.3"):
        EpisodeSet.load(path)


def test_a_changed_state_is_noticed(tmp_path, episodes):
    path = tmp_path / "far.npz"
    episodes.save(path)
    with np.load(path) as file:
        content = dict(file)
    content["goal"][0, 0] += 1e-9
    np.savez(path, **content)
    with pytest.raises(DatasetError, match="SHA-256"):
        EpisodeSet.load(path)


def test_reacher_episodes_start_and_end_at_rest():
    env = make("tubelet/Reacher-v0", render_obs=False)
    kwargs = {"env_id": "tubelet/Reacher-v0", "seed": 0, "budget": 50}
    for episodes in (draw_far(env, 5, **kwargs), draw_near(env, 5, steps=25, **kwargs)):
        for states in (episodes.start_states, episodes.goal_states):
            assert (env.velocity(states) == 0).all()
            assert states[:, 0].max() == 0  # time starts at zero
