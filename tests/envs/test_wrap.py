"""Environments of others: Gymnasium's physics to the bit, exact states, goals from play."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tubelet import envs
from tubelet.core.errors import ConfigError
from tubelet.envs.collect import CollectConfig, collect
from tubelet.envs.oracle import SimulatorDynamics
from tubelet.envs.wrap import wrap

MUJOCO = ["Reacher-v5", "Pusher-v5", "HalfCheetah-v5", "Ant-v5"]


def make(env_id, **options):
    return envs.make(f"gymnasium/{env_id}", **options)


@pytest.mark.parametrize("env_id", MUJOCO)
def test_the_physics_are_gymnasiums_and_states_exact(env_id):
    env, raw = make(env_id, render_obs=False), gymnasium.make(env_id).unwrapped
    raw.reset(seed=1)
    env.set_state(env.state_at(raw.data.qpos.copy(), raw.data.qvel.copy()))
    raw.data.qacc_warmstart[:] = 0.0  # where the solver begins, which moves MuJoCo 3's last bits
    rng = np.random.default_rng(0)
    for action in rng.uniform(-1, 1, (30, env.model.nu)):
        env.step(action)
        raw.do_simulation(env.control(action.astype(np.float32)), raw.frame_skip)
        assert np.array_equal(env.position(env.get_state()), raw.data.qpos)
        assert np.array_equal(env.velocity(env.get_state()), raw.data.qvel)
    state, actions = env.get_state(), rng.uniform(-1, 1, (100, env.model.nu))
    first = [env.step(action)[4]["state"] for action in actions]
    env.set_state(state)
    assert np.array_equal(env.get_state(), state)
    assert np.array_equal([env.step(action)[4]["state"] for action in actions], first)


@pytest.mark.parametrize("env_id", MUJOCO)
def test_goals_come_from_play_and_images_show_them(env_id):
    env = make(env_id)
    assert env.control(np.ones(env.model.nu)).tolist() == env._inner.action_space.high.tolist()
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert not np.array_equal(env.render_goal(), observation["pixels"])
    assert not info["success"]
    env.set_state(info["goal_state"])
    assert np.array_equal(env.render(), env.render_goal())
    assert env.success(env.get_state(), info["goal_state"])
    again = make(env_id).reset(seed=3)
    assert np.array_equal(again[0]["pixels"], observation["pixels"])
    assert np.array_equal(again[1]["goal_state"], info["goal_state"])


def test_the_observation_is_gymnasiums():
    env, raw = make("HalfCheetah-v5", render_obs=False), gymnasium.make("HalfCheetah-v5").unwrapped
    seen, _ = raw.reset(seed=5)
    state = env.state_at(raw.data.qpos.copy(), raw.data.qvel.copy())
    np.testing.assert_allclose(env.proprio(state), seen, rtol=1e-5, atol=1e-6)


def test_markers_are_not_drawn():
    """The target of Gymnasium's reacher moves, and the picture stays."""
    env = make("Reacher-v5")
    position = env.position(env.sample_state(np.random.default_rng(0))).copy()
    first = env.render_state(env.state_at(position))
    position[2:] += 0.05
    assert np.array_equal(env.render_state(env.state_at(position)), first)


def test_the_oracle_plans_in_it():
    env = make("Reacher-v5", render_obs=False)
    oracle = SimulatorDynamics(env, action_block=2)
    states = np.stack([env.sample_state(np.random.default_rng(k)) for k in range(2)])
    import torch

    actions = torch.rand(2, 3, 4, oracle.action_dim) * 2 - 1
    imagined = oracle.rollout(oracle.encode({"state": states[:, None]}), actions).tokens
    env.set_state(states[1])
    for action in actions[1, 2].reshape(8, -1).numpy():
        env.step(action)
    expected = env.plan_features(env.position(env.get_state()))
    np.testing.assert_allclose(imagined[1, 2, -1, 0], expected, atol=1e-3)


@pytest.mark.slow
def test_it_is_collected_like_any_other(tmp_path):
    config = CollectConfig(
        out=str(tmp_path / "set"), env="gymnasium/Pusher-v5", episodes=2, steps=5, workers=1
    )
    stored = collect(config)
    assert stored.fps == 20
    assert stored.slice(1, 0, 6)["action"].shape == (6, 7)


@pytest.mark.parametrize("env_id", ["Reacher-v5", "HalfCheetah-v5"])
@pytest.mark.filterwarnings("ignore")
def test_passes_gymnasiums_checker(env_id):
    check_env(make(env_id, render_mode="rgb_array"), skip_render_check=True)


class Dot(gymnasium.Env):
    """A dot on a line, drawn by hand; no MuJoCo."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-0.1, 0.1, (1,), np.float32)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-1, 1))
        return self._get_obs(), {}

    def step(self, action):
        self.x = float(np.clip(self.x + action[0], -1, 1))
        return self._get_obs(), 0.0, False, False, {}

    def _get_obs(self):
        return np.array([self.x], np.float32)

    def render(self):
        frame = np.zeros((40, 80, 3), np.uint8)
        frame[:, int((self.x + 1) * 37) : int((self.x + 1) * 37) + 6] = 255
        return frame


def set_dot(env, state):
    env.x = float(state[0])


def test_any_environment_gets_goal_images():
    env = wrap(Dot(), image_size=32)
    observation, info = env.reset(seed=1)
    assert observation["pixels"].shape == env.render_goal().shape == (32, 32, 3)
    assert set(info) == {"state", "goal_state", "success", "distance"}
    for _ in range(60):  # walk to the goal by what info says
        gap = info["goal_state"] - info["state"]
        info = env.step(np.clip(10 * gap, -1, 1))[4]
    assert info["success"]
    assert np.array_equal(env.render(), env.render_goal())
    assert env.step([5.0])[4]["state"] == pytest.approx(info["state"] + 0.1)  # clipped, stretched
    with pytest.raises(ConfigError, match="states cannot be set"):
        env.set_state(info["state"])
    with pytest.raises(ConfigError, match="states cannot be set"):
        env.reset(options={"state": info["state"]})


def test_states_can_be_set_where_a_setter_is_given():
    env = wrap(Dot(), get_state=lambda env: np.array([env.x]), set_state=set_dot)
    state, goal = np.array([0.25]), np.array([-0.5])
    _, info = env.reset(options={"state": state, "goal_state": goal})
    assert info["state"] == state
    assert info["goal_state"] == goal
    first = [env.step([0.3])[4]["state"][0] for _ in range(3)]
    env.set_state(state)
    assert [env.step([0.3])[4]["state"][0] for _ in range(3)] == first


@pytest.mark.filterwarnings("ignore")
def test_any_environment_passes_gymnasiums_checker():
    check_env(wrap(Dot()), skip_render_check=True)


def test_impossible_environments_are_refused():
    with pytest.raises(ConfigError, match="only vectors within bounds"):
        wrap(gymnasium.make("CartPole-v1", render_mode="rgb_array"))
    with pytest.raises(ConfigError, match="neither"):
        wrap(Dot(), set_state=set_dot)
    with pytest.raises(ConfigError, match=r"Gymnasium cannot make 'Reacher-v9'"):
        make("Reacher-v9")
    with pytest.raises(ConfigError, match="has track, default"):
        make("Ant-v5", camera="top")
