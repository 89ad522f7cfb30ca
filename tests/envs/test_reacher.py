"""The arm's geometry, distances and success rule, in closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet import envs
from tubelet.envs.reacher import LINK, WRIST_LIMIT, arm_points

ENV = envs.make("tubelet/Reacher-v0", render_obs=False)
shoulders = st.floats(-20, 20)
wrists = st.floats(-WRIST_LIMIT, WRIST_LIMIT)


def state(shoulder, wrist):
    return ENV.state_at(np.array([shoulder, wrist]))


def test_known_poses():
    elbow, tip = arm_points(np.array([[0.0, 0.0], [np.pi / 2, 0.0], [0.0, np.pi / 2]]))
    np.testing.assert_allclose(elbow, [[LINK, 0], [0, LINK], [LINK, 0]], atol=1e-12)
    np.testing.assert_allclose(tip, [[2 * LINK, 0], [0, 2 * LINK], [LINK, LINK]], atol=1e-12)


@given(shoulders, wrists)
def test_the_tip_is_where_mujoco_has_it(shoulder, wrist):
    data = ENV._scratch
    data.qpos[:] = shoulder, wrist
    ENV._mj.mj_kinematics(ENV.model, data)
    _, tip = arm_points(np.array([shoulder, wrist]))
    np.testing.assert_allclose(data.site("tip").xpos[:2], tip, atol=1e-9)


@given(shoulders, wrists, st.integers(-3, 3))
def test_whole_turns_of_the_shoulder_do_not_count(shoulder, wrist, turns):
    there = state(shoulder + 2 * np.pi * turns, wrist)
    assert ENV.distance(state(shoulder, wrist), there)["joint_rms"] < 1e-6
    assert ENV.success(there, state(shoulder, wrist))


def test_distances_in_closed_form():
    distance = ENV.distance(state(0, 0), state(np.pi, 0))
    assert distance["tip"] == pytest.approx(4 * LINK)
    assert distance["joint_rms"] == pytest.approx(np.pi / np.sqrt(2))
    distance = ENV.distance(state(0, 0.5), state(0, -0.5))
    assert distance["joint_rms"] == pytest.approx(1 / np.sqrt(2))
    assert distance["tip"] == pytest.approx(2 * LINK * np.sin(0.5))


def test_success_needs_the_tip_and_the_pose():
    elbow_up, elbow_down = state(0.4, -0.8), state(-0.4, 0.8)
    assert ENV.distance(elbow_up, elbow_down)["tip"] < 1e-9  # same tip, mirrored arm
    assert not ENV.success(elbow_up, elbow_down)
    assert not ENV.success(state(0, 0), state(0.3, 0))  # pose within .35, tip 7 cm off
    assert ENV.success(state(0, 0), state(0.2, 0))


def test_features_are_the_absolute_angles():
    np.testing.assert_allclose(
        ENV.features(state(0.3, 0.5)),
        np.array([np.cos(0.3), np.sin(0.3), np.cos(0.8), np.sin(0.8)], np.float32),
        rtol=1e-6,
    )


def test_states_cover_the_whole_range():
    rng = np.random.default_rng(0)
    position = np.stack([ENV.position(ENV.sample_state(rng)) for _ in range(2000)])
    limit = np.array([np.pi, WRIST_LIMIT])
    assert (np.abs(position) <= limit).all()
    np.testing.assert_allclose(position.std(0), limit / np.sqrt(3), rtol=0.05)


def test_full_torque_turns_at_most_a_fifth_radian_per_step():
    ENV.reset(options={"state": state(0, 0)})
    angles = [ENV.position(ENV.step(np.array([1, 0]))[4]["state"])[0] for _ in range(50)]
    assert 0.15 < np.diff(angles).max() <= 0.2001


def test_the_whole_arm_is_in_the_picture():
    """Stretched in any direction, no coloured pixel touches the border."""
    env = envs.make("tubelet/Reacher-v0")
    for angle in np.linspace(0, 2 * np.pi, 16):
        frame = env.render_state(env.state_at(np.array([angle, 0.0]))).astype(int)
        coloured = frame.max(-1) - frame.min(-1) > 40
        assert coloured.sum() > 60
        assert not coloured[[0, -1]].any()
        assert not coloured[:, [0, -1]].any()


def test_the_scripted_policy_visits_the_workspace():
    ENV.reset(seed=0)
    act = ENV.scripted_policy(np.random.default_rng(0))
    visited = []
    for t in range(400):
        action = act(t)
        assert (np.abs(action) <= 1).all()
        visited.append(ENV.features(ENV.step(action)[4]["state"]))
    assert (np.std(visited, axis=0) > 0.4).all()
