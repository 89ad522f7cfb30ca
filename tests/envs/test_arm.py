"""The arm: kinematics, commanded steps, the workspace, exact states, and one arm in all scenes."""

import re
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import tubelet.envs
from tubelet import envs
from tubelet.core.rng import numpy_generator
from tubelet.envs.arm import (
    HALF,
    HAND,
    HIGH,
    LINK,
    LOW,
    OPEN,
    SHOULDER_Z,
    STEP,
    arm_joints,
    object_place,
    opening,
    tip,
)
from tubelet.envs.oracle import SimulatorDynamics
from tubelet.envs.policies import PolicyMix, mixed_policy

IDS = [f"tubelet/{name}-v0" for name in ("ArmReach", "ArmReachWall", "ArmPush", "ArmPickPlace")]
REACH = envs.make(IDS[0], render_obs=False)
places = st.tuples(*(st.floats(*edges) for edges in zip(LOW, HIGH, strict=True)))


@pytest.fixture(params=IDS)
def env(request):
    return envs.make(request.param, render_obs=False)


def play(env, commands):
    return np.stack([env.step(action)[4]["state"] for action in commands])


def noise(env, count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4)).astype(np.float32)


def hold_in_hand(env):
    """Let the expert of a pick-and-place episode go on until it has lifted the object."""
    env.reset(seed=1)
    act = env.expert(np.random.default_rng(0))
    for t in range(env.budget):
        state = env.step(act(t))[4]["state"]
        if object_place(env.position(state))[2] > 0.12:
            return state
    raise AssertionError("never lifted")


def test_stretched_arm_in_closed_form():
    np.testing.assert_allclose(
        tip(np.array([0.0, 0.0, 0.0, 0.0])), [-0.4 + 2 * LINK, 0, SHOULDER_Z - HAND], atol=1e-12
    )


@given(places)
def test_joints_and_tip_are_inverse_and_the_hand_is_upright(place):
    joints = arm_joints(np.array(place))
    np.testing.assert_allclose(tip(joints), place, atol=1e-12)
    assert joints[1] + joints[2] + joints[3] == pytest.approx(0, abs=1e-12)
    assert joints[0] + joints[4] == 0


@settings(max_examples=30)
@given(st.lists(st.floats(-1.5, 1.5), min_size=5, max_size=5))
def test_the_tip_is_where_mujoco_has_it(joints):
    data = REACH._scratch
    data.qpos[:5] = joints
    REACH._mj.mj_kinematics(REACH.model, data)
    np.testing.assert_allclose(data.site("tip").xpos, tip(np.array(joints)), atol=1e-9)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("command", [1.0, -0.5])
def test_a_step_moves_the_tip_along_one_axis(axis, command):
    REACH.reset(options={"state": REACH.state_at(REACH.pose(np.array([0, 0, 0.12]), 0.0))})
    action = np.zeros(4)
    action[axis] = command
    path = tip(REACH.position(play(REACH, [action] * 8)))[2:]  # under way
    expected = np.zeros(3)
    expected[axis] = command * STEP
    np.testing.assert_allclose(np.diff(path, axis=0), np.tile(expected, (5, 1)), atol=0.001)


def test_the_gripper_closes_by_9_mm_per_finger_and_keeps_its_opening():
    REACH.reset(options={"state": REACH.state_at(REACH.pose(np.array([0, 0, 0.15]), OPEN))})
    close, keep = np.array([0, 0, 0, 1.0]), np.zeros(4)
    states = play(REACH, [close] * 3 + [keep] * 10)
    assert opening(REACH.position(states[-1])) == pytest.approx(OPEN - 3 * 0.009, abs=1e-4)
    assert opening(REACH.position(play(REACH, [-close] * 8)[-1])) == pytest.approx(OPEN, abs=1e-3)


def test_both_fingers_move_alike_and_the_hand_stays_upright(env):
    env.reset(seed=0)
    position = env.position(play(env, np.repeat(noise(env, 12), 5, axis=0)))
    assert np.abs(position[:, 5] - position[:, 6]).max() < 6e-3  # one jams at a wall
    assert np.abs(position[:, 1:4].sum(1)).max() < 0.1
    assert np.abs(position[:, 0] + position[:, 4]).max() < 0.1


def test_full_commands_never_leave_the_workspace(env):
    env.reset(seed=1)
    for corner in np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T:
        states = play(env, [np.append(corner, 1.0)] * 30)
        hand = tip(env.position(states))
        assert (hand > LOW - 0.02).all()
        assert (hand < HIGH + 0.02).all()


def test_proprioception_tells_hand_opening_and_aim(env):
    state = env.sample_state(np.random.default_rng(0))
    position = env.position(state)
    np.testing.assert_allclose(
        env.proprio(state), [*tip(position), opening(position), opening(position)], atol=1e-6
    )


def test_what_is_held_stays_held():
    """By zero actions for a second; also in the state at rest made from the positions alone."""
    env = envs.make("tubelet/ArmPickPlace-v0", render_obs=False)
    state = hold_in_hand(env)
    aim = env.proprio(state)[4]
    assert aim < opening(env.position(state)) - 0.01  # the servo squeezes
    for start in (state, env.state_at(env.position(state))):
        env.set_state(start)
        after = play(env, np.zeros((20, 4)))[-1]
        moved = object_place(env.position(after)) - object_place(env.position(start))
        assert np.linalg.norm(moved) < 0.02


@pytest.mark.parametrize("axis", range(3))
def test_what_is_held_does_not_slip_when_the_hand_starts_and_stops(axis):
    env = envs.make("tubelet/ArmPickPlace-v0", render_obs=False)
    hand = np.array([-0.05, 0.0, 0.18])
    state = env.state_at(env.pose(hand, HALF - 0.0015, hand))
    assert env.aim(state) == 0
    env.set_state(state)
    before = play(env, np.zeros((10, 4)))[-1]
    action = np.zeros(4)
    action[axis] = 1.0
    after = play(env, [action] * 4 + [-action] * 4 + [np.zeros(4)] * 4)[-1]
    offset = [object_place(env.position(s)) - tip(env.position(s)) for s in (before, after)]
    assert np.linalg.norm(offset[1] - offset[0]) < 0.006


def test_a_state_is_the_whole_state(env):
    """Bit-exact restoration and 100 replayed steps, from the middle of an expert's episode."""
    env.reset(seed=3)
    act = env.expert(np.random.default_rng(0))
    for t in range(25):
        env.step(act(t))
    state, commands = env.get_state(), np.repeat(noise(env, 20), 5, axis=0)
    first = play(env, commands)
    other = type(env)(render_obs=False)
    other.reset(seed=9)
    play(other, noise(other, 3, seed=1))
    other.set_state(state)
    assert np.array_equal(other.get_state(), state)
    assert np.array_equal(play(other, commands), first)


def test_sampled_states_and_goals_are_at_rest_and_stay(env):
    rng = np.random.default_rng(5)
    for state in [env.sample_state(rng) for _ in range(5)] + [
        env.sample_goal(rng) for _ in range(5)
    ]:
        env.reset(options={"state": state, "goal_state": state})
        after = play(env, np.zeros((5, 4)))[-1]
        np.testing.assert_allclose(env.position(after), env.position(state), atol=1e-9, rtol=1e-5)


def test_the_picture_shows_hand_and_goal(env):
    """In every camera, moving the hand moves pixels, and no marker of the goal is drawn."""
    rng = np.random.default_rng(2)
    for camera in env.cameras:
        eye = type(env)(camera=camera, image_size=96)
        state, goal = eye.sample_state(rng), eye.sample_goal(rng)
        frames = [eye.render_state(state), eye.render_state(goal)]
        assert (frames[0].astype(int) - frames[1]).__abs__().max(-1).__gt__(30).sum() > 40
        first = eye.reset(options={"state": state, "goal_state": goal})[0]["pixels"]
        other = eye.reset(options={"state": state, "goal_state": state})[0]["pixels"]
        assert np.array_equal(first, other)


def test_the_arm_is_the_same_in_all_scenes():
    """Everything but names, notes, walls, shelves and objects is the same text."""
    folder = Path(tubelet.envs.__file__).parent / "assets"
    task = re.compile(
        r"<!--.*?-->|<mujoco.*?>|\s*<geom name=\"(wall|shelf)\".*?/>"
        r"|\s*<body name=\"object\".*?</body>",
        re.DOTALL,
    )
    texts = {task.sub("", path.read_text()) for path in folder.glob("arm_*.xml")}
    assert len(list(folder.glob("arm_*.xml"))) == 4
    assert len(texts) == 1


def test_the_oracle_imagines_what_the_environment_does(env):
    oracle = SimulatorDynamics(env, action_block=5)
    start = env.sample_state(np.random.default_rng(0))
    actions = torch.rand(1, 2, 3, 20, generator=torch.manual_seed(0)) * 2 - 1
    imagined = oracle.rollout(oracle.encode({"state": start[None, None]}), actions).tokens
    for candidate in range(2):
        env.set_state(start)
        for step in range(3):
            state = play(env, actions[0, candidate, step].reshape(5, 4).numpy())[-1]
            expected = env.plan_features(env.position(state))
            np.testing.assert_allclose(imagined[0, candidate, step, 0], expected, atol=1e-4)


def test_experts_reach_goals(env):
    """Ten episodes each, all of them; the measured rate over 200 is in the documentation."""
    for episode in range(10):
        rng = numpy_generator(7, "arm", episode)
        start, goal = env.sample_state(rng), env.sample_goal(rng)
        env.reset(options={"state": start, "goal_state": goal})
        assert not env.success(start, goal) or "Reach-v0" in str(type(env))
        act = env.expert(rng)
        for t in range(env.budget):
            action = act(t)
            assert (np.abs(action) <= 1).all()
            info = env.step(action)[4]
        assert info["success"], (episode, info["distance"])


@pytest.mark.parametrize("kind", ["scripted", "expert", "held"])
def test_every_policy_moves_the_hand(env, kind):
    mix = PolicyMix(
        **{name: float(name == kind) for name in ("noise", "held", "scripted", "expert")}
    )
    env.reset(seed=2)
    act = mixed_policy(mix, env, 60, np.random.default_rng(0))
    states = [env.step(act(t))[4]["state"] for t in range(60)]
    assert (tip(env.position(np.array(states))).std(0) > 0.005).all()


@pytest.mark.parametrize("env_id", IDS)
def test_passes_gymnasiums_checker(env_id):
    made = gymnasium.make(env_id, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unbounded proprioception is meant
        check_env(made.unwrapped)
