"""What all environments promise: exact states, deterministic pixels, Gymnasium's rules."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tubelet import envs
from tubelet.core.errors import ConfigError

IDS = list(envs.ENVIRONMENTS)


@pytest.fixture(params=IDS)
def env(request):
    return envs.make(request.param)


def actions(env, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, env.model.nu)).astype(np.float32)


def play(env, commands):
    return np.stack([env.step(action)[4]["state"] for action in commands])


@pytest.mark.parametrize("env_id", IDS)
def test_passes_gymnasiums_checker(env_id):
    made = gymnasium.make(env_id, render_mode="rgb_array")
    assert made.spec.max_episode_steps == 200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unbounded proprioception is meant
        check_env(made.unwrapped)


def test_set_state_restores_every_bit(env):
    env.reset(seed=1)
    play(env, actions(env, 7))
    state = env.get_state()
    play(env, actions(env, 9, seed=1))
    env.set_state(state)
    assert np.array_equal(env.get_state(), state)


def test_replaying_stored_actions_gives_identical_states_and_frames(env):
    """Also through contacts and joint limits: 100 steps of full force reach both."""
    env.reset(seed=2)
    play(env, actions(env, 5))
    state, commands = env.get_state(), np.sign(actions(env, 100))
    first, frame = play(env, commands), env.render()
    other = envs.make(next(i for i in IDS if type(envs.make(i)) is type(env)))
    other.reset(seed=9)
    other.set_state(state)
    assert np.array_equal(play(other, commands), first)
    assert np.array_equal(other.render(), frame)
    assert np.array_equal(env.render_state(first[-1]), frame)


def test_rendering_leaves_the_episode_alone(env):
    env.reset(seed=3)
    commands = actions(env, 10)
    play(env, commands[:5])
    state = env.get_state()
    env.render_goal()
    env.render_state(env.sample_state(np.random.default_rng(0)))
    assert np.array_equal(env.get_state(), state)


def test_equal_seeds_give_equal_episodes(env):
    first, second = env.reset(seed=4), env.reset(seed=4)
    assert np.array_equal(first[0]["pixels"], second[0]["pixels"])
    assert np.array_equal(first[1]["goal_state"], second[1]["goal_state"])
    assert not np.array_equal(first[1]["state"], env.reset(seed=5)[1]["state"])


def test_reset_takes_state_and_goal(env):
    rng = np.random.default_rng(0)
    state, goal = env.sample_state(rng), env.sample_goal(rng)
    observation, info = env.reset(options={"state": state, "goal_state": goal})
    assert np.array_equal(info["state"], state)
    assert np.array_equal(info["goal_state"], goal)
    assert np.array_equal(observation["pixels"], env.render_state(state))
    assert np.array_equal(env.render_goal(), env.render_state(goal))


def test_sampled_states_are_at_rest_and_stay(env):
    rng = np.random.default_rng(5)
    for _ in range(10):
        state = env.sample_goal(rng)
        env.reset(options={"state": state, "goal_state": state})
        after = play(env, np.zeros((5, env.model.nu), np.float32))[-1]
        assert np.allclose(env.position(after), env.position(state), atol=1e-9)


def test_a_state_is_at_its_own_goal(env):
    state = env.sample_goal(np.random.default_rng(6))
    assert env.success(state, state)
    assert set(env.distance(state, state).values()) == {0.0}


def test_an_image_tells_where_things_are(env):
    """Different poses give different pictures; every frame shows floor and mover."""
    rng = np.random.default_rng(7)
    frames = [env.render_state(env.sample_state(rng)) for _ in range(20)]
    assert len({frame.tobytes() for frame in frames}) == 20
    assert all(len(np.unique(frame.reshape(-1, 3), axis=0)) > 3 for frame in frames)


def test_image_size_and_no_pixels(env):
    kind = type(env)
    assert kind(image_size=96).reset(seed=0)[0]["pixels"].shape == (96, 96, 3)
    blind = kind(render_obs=False)
    observation, _ = blind.reset(seed=0)
    assert set(observation) == {"proprio"}
    assert blind.observation_space.contains(observation)
    assert blind.render().shape == (64, 64, 3)


@pytest.mark.parametrize("env_id", IDS)
def test_every_camera_shows_the_scene_at_every_size(env_id):
    cameras = envs.make(env_id, render_obs=False).cameras
    assert len(cameras) >= 2
    state = None
    for camera, size in zip(cameras, (64, 256, 100), strict=False):
        env = envs.make(env_id, camera=camera, image_size=size)
        state = env.sample_state(np.random.default_rng(0)) if state is None else state
        frame = env.render_state(state)
        assert frame.shape == (size, size, 3)
        assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 3
    with pytest.raises(ConfigError, match="camera = 'behind'"):
        envs.make(env_id, camera="behind")


def test_actions_are_clipped(env):
    env.reset(seed=8)
    state = env.get_state()
    beyond = play(env, np.full((3, env.model.nu), 7.0))
    env.set_state(state)
    assert np.array_equal(play(env, np.ones((3, env.model.nu))), beyond)


@pytest.mark.parametrize("action", [[0.0], [np.nan, 0.0], [[0.0, 0.0]]])
def test_impossible_actions_are_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite floats"):
        env.step(action)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": 1}, "unknown reset options"),
        ({"state": np.zeros(3)}, "states are"),
        ({"goal_state": np.full(29, np.nan)}, "finite"),
    ],
)
def test_impossible_resets_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        envs.make("tubelet/Reacher-v0").reset(options=options)


def test_unknown_environment_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'tubelet/Reacher-v0'"):
        envs.make("tubelet/reacher")


@pytest.mark.parametrize("options", [{"image_size": 4}, {"render_mode": "human"}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ConfigError):
        envs.make("tubelet/Reacher-v0", **options)


def test_importing_and_registering_loads_neither_mujoco_nor_gl():
    code = (
        "import sys, os, gymnasium, tubelet.envs, tubelet.envs.reacher, tubelet.envs.collect; "
        "assert 'tubelet/Reacher-v0' in gymnasium.registry; "
        "assert not {'mujoco', 'OpenGL', 'torch'} & set(sys.modules), 'imported too much'; "
        "assert 'MUJOCO_GL' not in os.environ"
    )
    environ = {"PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ)
