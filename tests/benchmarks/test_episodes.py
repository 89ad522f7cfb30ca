import dataclasses
import hashlib
import json

import numpy as np
import pytest

from tubelet.benchmarks.episodes import EpisodeSet, draw_far, draw_near
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.envs import make
from tubelet.envs.factors import HELD_OUT, FactorConfig
from tubelet.envs.maze_layouts import layout_split

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


def hand_written(path, episodes, **header):
    """The file format by hand, as it was before splits and factors were kept."""
    names = ("env_id", "kind", "seed", "budget", "drawn", "mujoco_version")
    header = {name: getattr(episodes, name) for name in names} | header
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for states in (episodes.start_states, episodes.goal_states):
        digest.update(states.astype("<f8").tobytes())
    header = json.dumps(header | {"sha256": digest.hexdigest()})
    np.savez(path, header=header, start=episodes.start_states, goal=episodes.goal_states)


def test_files_written_before_there_were_factors_load(tmp_path, episodes):
    hand_written(tmp_path / "old.npz", episodes)
    old = EpisodeSet.load(tmp_path / "old.npz")
    assert old.sha256 == episodes.sha256
    assert (old.split, old.factor_split, old.factors) == ("train", "train", {})
    assert old.factors_of(0) is None


MAZE = "tubelet/PointMazeRandom-v0"


def test_held_out_layouts_and_factors_are_kept_in_the_file(tmp_path):
    env = make(MAZE, render_obs=False, split="test")
    config = FactorConfig(kinds=("colour", "mass"), split="test")
    options = {"env_id": MAZE, "seed": 0, "budget": 5}
    drawn = draw_far(env, 3, factors=config, **options)
    drawn.save(tmp_path / "far.npz")
    loaded = EpisodeSet.load(tmp_path / "far.npz")
    assert (loaded.split, loaded.factor_split) == ("test", "test")
    assert set(loaded.factors) == {"colour", "mass"}
    assert loaded.sha256 == drawn.sha256
    for k in range(3):
        values = loaded.factors_of(k).values
        assert all(((v < HELD_OUT) | (v > 1 - HELD_OUT)).all() for v in values.values())
        env.set_state(loaded.start_states[k])
        assert layout_split(env.closed) == "test"
    again = draw_far(make(MAZE, render_obs=False, split="test"), 3, factors=config, **options)
    assert again.sha256 == drawn.sha256
    train = draw_far(make(MAZE, render_obs=False), 3, factors=FactorConfig(), **options)
    assert train.sha256 == draw_far(make(MAZE, render_obs=False), 3, **options).sha256
    changed = dataclasses.replace(drawn, factors={"mass": drawn.factors["mass"]})
    assert changed.sha256 != drawn.sha256


def test_more_problems_of_a_seed_begin_with_the_same():
    config = FactorConfig(kinds=("light",))
    few, many = (
        draw_far(make(MAZE, render_obs=False), n, env_id=MAZE, seed=4, budget=5, factors=config)
        for n in (2, 4)
    )
    np.testing.assert_array_equal(few.goal_states, many.goal_states[:2])
    np.testing.assert_array_equal(few.factors["light"], many.factors["light"][:2])


def test_environments_without_layouts_have_none_to_hold_out():
    with pytest.raises(ConfigError, match=r"split = .test..*Reacher"):
        make("tubelet/Reacher-v0", split="test")
