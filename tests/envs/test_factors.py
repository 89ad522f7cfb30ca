"""Factors change looks and weights and nothing else; draws are reproducible, tests held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet import envs
from tubelet.core.errors import ConfigError
from tubelet.datasets.trajectories import TrajectorySet
from tubelet.envs.collect import CollectConfig, collect, episode_factors
from tubelet.envs.factors import HELD_OUT, KINDS, SIZES, FactorConfig, Factors, draw_factors

IDS = list(envs.ENVIRONMENTS)
LOOKS = ("colour", "light", "camera", "distractors")


def middle(*kinds):
    return Factors({kind: np.full(SIZES[kind], 0.5) for kind in kinds})


@given(st.integers(0, 2**32 - 1))
def test_train_and_test_never_meet(seed):
    for split in ("train", "test"):
        config = FactorConfig(kinds=KINDS, split=split)
        drawn = draw_factors(np.random.default_rng(seed), config)
        assert drawn.values.keys() == SIZES.keys()
        for kind, values in drawn.values.items():
            assert values.shape == (SIZES[kind],)
            inside = np.abs(values - 0.5) <= 0.5 - HELD_OUT
            assert inside.all() if split == "train" else not inside.any()
            assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("env_id", IDS)
def test_looks_change_the_picture_but_not_the_physics(env_id):
    plain, env = envs.make(env_id), envs.make(env_id)
    rng = np.random.default_rng(0)
    state, goal = plain.sample_state(rng), plain.sample_goal(rng)
    plain.reset(options={"state": state, "goal_state": goal})
    before = plain.render()
    for kind in LOOKS:
        draw_factors(np.random.default_rng(1), FactorConfig(kinds=(kind,), split="test")).apply(env)
        assert not np.array_equal(env.render_state(state), before), kind
    env.reset(options={"state": state, "goal_state": goal})
    for action in rng.uniform(-1, 1, (20, env.model.nu)):
        first, second = plain.step(action)[4], env.step(action)[4]
        assert np.array_equal(first["state"], second["state"])
        assert first["distance"] == second["distance"]
    assert np.array_equal(plain.render(), before) is False
    Factors({}).apply(env)  # nothing drawn: the scene as it is written
    assert np.array_equal(env.render(), plain.render())


def test_masses_and_sizes_scale():
    env = envs.make("tubelet/PushT-v0", render_obs=False)
    block = env.model.body("block").id
    mass, size = float(env.model.body_mass[block]), float(env.model.geom("disc").size[0])
    Factors({"mass": np.ones(1), "size": np.zeros(1)}).apply(env)
    assert env.model.body_mass[block] == pytest.approx(1.5 * mass)
    assert env.model.geom("disc").size[0] == pytest.approx(0.85 * size)
    assert env.model.geom("bar").pos[1] == pytest.approx(0.85 * 0.0257143)
    middle("mass", "size").apply(env)  # draws do not add up
    assert env.model.body_mass[block] == pytest.approx(mass)
    assert env.model.geom("disc").size[0] == pytest.approx(size)
    fixed = envs.make("tubelet/PushT-v0", render_obs=False).model
    assert fixed.body_mass[block] == pytest.approx(mass)  # nobody else's scene changed


def test_a_heavier_ball_is_slower():
    env = envs.make("tubelet/PointMaze-v0", render_obs=False)
    ways = []
    for share in (0.0, 1.0):
        factors = Factors({"mass": np.array([share])})
        start = env.state_at(np.array([1.0, -1.0]))
        env.reset(options={"state": start, "goal_state": start, "factors": factors})
        for _ in range(5):
            info = env.step(np.array([0.0, 1.0]))[4]
        ways.append(env.position(info["state"])[1] + 1)
    assert ways[0] > 1.2 * ways[1]


def test_walls_keep_their_size():
    env = envs.make("tubelet/PointMazeRandom-v0", render_obs=False)
    slab = env.model.geom("slab0").size.copy()
    Factors({"size": np.ones(1)}).apply(env)
    assert np.array_equal(env.model.geom("slab0").size, slab)


def test_sets_with_factors_can_be_drawn_again(tmp_path):
    config = CollectConfig(
        out=str(tmp_path / "set"),
        env="tubelet/TwoRooms-v0",
        episodes=2,
        steps=4,
        workers=1,
        factors=FactorConfig(kinds=("colour", "mass")),
    )
    collect(config)
    stored = TrajectorySet.open(config.out)
    assert stored.metadata["factors"] == {"kinds": ["colour", "mass"], "split": "train"}
    env = envs.make(config.env)
    for episode in (0, 1):
        record = stored.slice(episode, 0, 5)
        episode_factors(config, episode).apply(env)
        env.set_state(record["state"][0])
        for action, state in zip(record["action"][:-1], record["state"][1:], strict=True):
            assert np.array_equal(env.step(action)[4]["state"], state)
        error = np.abs(env.render().astype(int) - record["pixels"][-1])
        assert error.mean() < 6
    first, second = (stored.slice(k, 0, 1)["pixels"].astype(int) for k in (0, 1))
    assert np.abs(first - second).mean() > 6


@pytest.mark.parametrize("wrong", [{"kinds": ("colours",)}, {"split": "validation"}])
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(ConfigError):
        FactorConfig(**wrong)
