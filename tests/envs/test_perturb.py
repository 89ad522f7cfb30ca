"""Changes in the middle of an episode: exact before, nothing at size 0, what they say at size 1."""

import numpy as np
import pytest

from tubelet import envs
from tubelet.core.errors import ConfigError
from tubelet.envs.perturb import HEAVIER, KINDS, Change, draw_change, play, record, restored, things
from tubelet.envs.perturb import apply as change_now
from tubelet.envs.policies import PolicyMix

IDS = list(envs.ENVIRONMENTS)
STEPS, AT = 12, 5


def episode(env_id, seed=0, steps=STEPS):
    env = envs.make(env_id, render_obs=False)
    state, actions = record(env, steps, PolicyMix(), np.random.default_rng(seed))
    return env, state, actions, play(env, state, actions)


@pytest.mark.parametrize("env_id", IDS)
def test_a_change_of_size_0_changes_no_bit_and_one_of_size_1_begins_where_it_should(env_id):
    env, state, actions, plain = episode(env_id)
    model = env.model
    for kind, looks in KINDS.items():
        change = draw_change(env, kind, AT, plain, np.random.default_rng(1))
        null = play(env, state, actions, Change(**{**vars(change), "size": 0.0}))
        assert np.array_equal(null.states, plain.states), kind
        assert np.array_equal(null.pixels, plain.pixels), kind
        whole = play(env, state, actions, change)
        differs = (whole.pixels != plain.pixels).any((1, 2, 3))
        assert not differs[:AT].any(), kind
        assert differs[AT] == (looks == "visible"), kind
        assert np.array_equal(whole.states[:AT], plain.states[:AT])
    assert env.model is model
    again = play(env, state, actions)
    assert np.array_equal(again.states, plain.states)
    assert np.array_equal(again.pixels, plain.pixels)


def test_colour_leaves_the_motion_as_it_is_and_teleports_keep_the_velocity():
    env, state, actions, plain = episode("tubelet/PushT-v0")
    colour = play(env, state, actions, draw_change(env, "colour", AT, plain, None))
    assert np.array_equal(colour.states, plain.states)
    change = draw_change(env, "teleport", AT, plain, np.random.default_rng(3))
    jumped = play(env, state, actions, change)
    assert np.array_equal(env.velocity(jumped.states[AT]), env.velocity(plain.states[AT]))
    block = env.position(jumped.states[AT])[2:]
    np.testing.assert_allclose(block, change.target)
    disc = env.position(plain.states[AT])[:2]
    assert np.array_equal(env.position(jumped.states[AT])[:2], disc)
    half = play(env, state, actions, Change(**{**vars(change), "size": 0.5}))
    middle = (env.position(plain.states[AT])[2:] + change.target) / 2
    np.testing.assert_allclose(env.position(half.states[AT])[2:], middle)


def test_a_heavier_ball_is_slower_under_the_same_force():
    """v' = (F - d v) / m: from rest, the speed after a short time goes as 1 / m."""
    env = envs.make("tubelet/PointMaze-v0", render_obs=False)
    env.reset(seed=0)
    start, push = env.state_at(env.position(env.get_state())), np.array([0.3, 0.3], np.float32)
    light = play(env, start, push[None])
    heavy = play(env, start, push[None], Change(kind="mass", step=0, thing="ball"))
    ratio = env.velocity(light.states[1]) / env.velocity(heavy.states[1])
    assert (ratio > 1.5).all()
    assert (ratio < HEAVIER + 1e-6).all()


def test_friction_slows_what_is_in_motion():
    env = envs.make("tubelet/PushT-v0", render_obs=False)
    env.reset(seed=1)
    speed = np.zeros(env.model.nv)
    speed[2] = 0.2
    start = env.state_at(env.position(env.get_state()), speed)
    idle = np.zeros((2, 2), np.float32)
    free = play(env, start, idle)
    sticky = play(env, start, idle, Change(kind="friction", step=0, thing="block"))
    way = [abs(env.position(p.states[-1])[2] - env.position(start)[2]) for p in (free, sticky)]
    assert way[1] < 0.5 * way[0]


def test_what_has_vanished_is_not_drawn_and_not_touched():
    """A ball that rolls at a body without contacts goes on as if it were not there."""
    env, state, actions, plain = episode("tubelet/ArmPush-v0")
    assert things(env)[0] == "object"
    gone = play(env, state, actions, Change(kind="vanish", step=0, thing="object"))
    with restored(env):
        env.reset(options={"state": state, "goal_state": state})
        change_now(env, Change(kind="vanish", step=0, thing="object"))
        geoms = env.model.geom_bodyid == env.model.body("object").id
        for _ in range(10):
            env.step(np.zeros(env.model.nu, np.float32))
            pairs = env._data.contact.geom
            assert not np.isin(pairs, np.flatnonzero(geoms)).any()
    away = (gone.pixels[0] != plain.pixels[0]).any(-1)
    green = plain.pixels[0][away].astype(int)
    assert (green[:, 1] > green[:, 0]).mean() > 0.8  # the cube is green, and it alone is gone


def test_things_that_are_pushed_come_before_those_that_push():
    assert things(envs.make("tubelet/PushT-v0", render_obs=False)) == ["block", "disc"]
    assert things(envs.make("tubelet/Reacher-v0", render_obs=False)) == ["upper"]


def test_impossible_changes_are_refused():
    env, state, actions, _ = episode("tubelet/Reacher-v0", steps=4)
    for wrong in ({"size": 1.5}, {"step": -1}, {"kind": "melt"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Change(**{"kind": "mass", "step": 1, "thing": "upper", **wrong})
    with pytest.raises(ConfigError, match="has upper"):
        play(env, state, actions, Change(kind="mass", step=1, thing="lower"))
    with pytest.raises(ConfigError, match="frames 0 to 4"):
        play(env, state, actions, Change(kind="mass", step=5, thing="upper"))
    with pytest.raises(ConfigError, match="no MuJoCo model"):
        things(object())
    with pytest.raises(ConfigError, match="target"):
        play(env, state, actions, Change(kind="teleport", step=1, thing="upper"))
