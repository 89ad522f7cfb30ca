import numpy as np
import pytest

from tubelet.benchmarks.episodes import draw_far
from tubelet.benchmarks.floors import (
    Retrieval,
    coloured_random,
    no_action,
    pixel_embedding,
    replay,
    uniform_random,
)
from tubelet.benchmarks.goal_reaching import evaluate
from tubelet.core.errors import ConfigError

from .toy import PointEnv

GOAL = {"pixels": np.zeros((3, 16, 16, 3), np.uint8)}


def actions_of(agent, problems=(0, 1, 2)):
    agent.reset(GOAL, problems=problems)
    return agent.act(GOAL)


def test_no_action_stays_where_it_is(episodes):
    result = evaluate(PointEnv, no_action(15, 2), episodes, name="no action", role="floor")
    assert not result.at_any.any()
    distance = result.distance["position"]
    np.testing.assert_array_equal(distance[:, 0], distance[:, -1])


@pytest.mark.parametrize("make", [uniform_random, coloured_random])
def test_random_actions_are_bounded_seeded_and_belong_to_the_problem(make):
    actions = actions_of(make(40, 2, seed=0))
    assert actions.shape == (3, 40, 2)
    assert np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, actions_of(make(40, 2, seed=0)))
    np.testing.assert_array_equal(actions[2:], actions_of(make(40, 2, seed=0), problems=[2]))
    assert not np.array_equal(actions, actions_of(make(40, 2, seed=1)))


def test_coloured_actions_are_smoother_than_uniform_ones():
    def roughness(agent):
        actions = actions_of(agent, range(3))
        return np.diff(actions, axis=1).std() / actions.std()

    uniform, coloured = uniform_random(60, 2, seed=0), coloured_random(60, 2, seed=0, colour=2)
    assert roughness(coloured) < 0.5 * roughness(uniform)


def test_replay_plays_contiguous_pieces_and_never_the_unused_last_row():
    offsets = np.array([0, 5, 6, 14])
    actions = np.arange(14, dtype=float)[:, None]
    played = actions_of(replay(actions, offsets, 30, seed=0))[..., 0]
    assert played.shape == (3, 30)
    assert not np.isin(played, [4, 5, 13]).any()
    steps = np.diff(played, axis=1)
    broken = played[:, :-1][steps != 1]  # a piece may only end where its episode ends
    assert np.isin(broken, [3, 12]).all()


def trajectories(episodes=60, length=30, seed=0):
    """Random walks of the toy point: frames, actions, offsets."""
    rng, env = np.random.default_rng(seed), PointEnv()
    frames, actions = [], []
    for _ in range(episodes):
        env.set_state(env.sample_state(rng))
        direction = rng.uniform(-1, 1, 2)
        for _ in range(length):
            direction = np.clip(direction + rng.normal(0, 0.3, 2), -1, 1)
            frames.append(env.render_state(env.get_state()))
            actions.append(direction)
            env.goal = env.get_state()
            env.step(direction)
    return np.stack(frames), np.stack(actions), np.arange(0, episodes * length + 1, length)


def test_retrieval_replays_the_segment_that_fits_exactly():
    frames, actions, offsets = trajectories()
    agent = Retrieval(frames, actions, offsets, window=10, execute=12, stride=1)
    start, end = 35, 42  # inside the second episode
    agent.reset({"pixels": frames[end : end + 1]}, problems=[0])
    got = agent.act({"pixels": frames[None, start : start + 1]})
    np.testing.assert_allclose(got[0, : end - start], actions[start:end], atol=1e-6)
    assert (got[0, end - start :] == 0).all()


def test_retrieval_never_crosses_episodes():
    frames = np.zeros((6, 16, 16, 3), np.uint8)
    frames[3:] = 255  # the goal is shown only in the second episode
    agent = Retrieval(frames, np.ones((6, 2)), np.array([0, 3, 6]), window=5, execute=5, stride=1)
    agent.reset({"pixels": frames[5:]}, problems=[0])
    assert (agent._end[0, :3] < 3).all()


def test_retrieval_reaches_more_than_random_on_the_toy():
    problems = draw_far(PointEnv(), 40, env_id="toy/Point-v0", seed=5, budget=15)
    memory = Retrieval(*trajectories(), window=15, execute=3, embed=pixel_embedding)
    found = evaluate(PointEnv, memory, problems, name="retrieval", role="floor")
    random = evaluate(
        PointEnv, uniform_random(15, 2, seed=0), problems, name="random", role="floor"
    )
    assert found.at_end.mean() > random.at_end.mean() + 0.3


def test_pixel_embedding_averages():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    features = pixel_embedding(pixels, 16)
    assert features.shape == (2, 16 * 16 * 3)
    assert features[1, 0] == pytest.approx(pixels[1, :4, :4, 0].mean() / 255)


def test_impossible_memories_are_refused():
    frames, actions, offsets = trajectories(2, 5)
    with pytest.raises(ConfigError, match="window"):
        Retrieval(frames, actions, offsets, window=0)
    with pytest.raises(ConfigError, match="offsets"):
        Retrieval(frames, actions, offsets[:-1], window=3)
    with pytest.raises(ConfigError, match="shorter than two"):
        replay(actions[:2], np.array([0, 1, 2]), 5, seed=0)
