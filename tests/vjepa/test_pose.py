"""Pose algebra against SciPy's rotations in float64."""

import warnings
from math import pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tubelet.core.errors import ConfigError
from tubelet.vjepa.pose import (
    camera_frame,
    compose,
    difference,
    euler_to_matrix,
    matrix_to_euler,
)

GENEROUS = settings(max_examples=150, deadline=None)


def turns(limit=pi / 2 - 0.05):
    full = st.floats(-3.14, 3.14)
    return st.tuples(full, st.floats(-limit, limit), full)


def poses(limit=pi / 2 - 0.05):
    place = st.tuples(*[st.floats(-1, 1)] * 3)
    return st.tuples(place, turns(limit), st.tuples(st.floats(0, 1))).map(
        lambda parts: torch.tensor([*parts[0], *parts[1], *parts[2]], dtype=torch.float64)
    )


def random_poses(*shape, seed=0):
    x = torch.rand(*shape, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.cat([2 * x[..., :3] - 1, 2.8 * x[..., 3:6] - 1.4, x[..., 6:]], -1)


def scipy_matrix(angles):
    return Rotation.from_euler("xyz", np.asarray(angles).reshape(-1, 3)).as_matrix()


def test_matrices_are_scipys():
    angles = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, (200, 3)))
    assert np.allclose(euler_to_matrix(angles), scipy_matrix(angles), atol=1e-14)


def test_angles_are_scipys():
    rotations = Rotation.from_quat(np.random.default_rng(0).standard_normal((500, 4)))
    got = matrix_to_euler(torch.from_numpy(rotations.as_matrix()))
    assert np.allclose(got, rotations.as_euler("xyz"), atol=1e-9)


@GENEROUS
@given(turns())
def test_angles_survive_the_round_trip(angles):
    angles = torch.tensor(angles, dtype=torch.float64)
    assert torch.allclose(matrix_to_euler(euler_to_matrix(angles)), angles, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("away", [0.0, 1e-16, 1e-12, 1e-8, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("side", [-1, 1])
def test_matrices_survive_the_round_trip_near_gimbal_lock(dtype, away, side):
    angles = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, (100, 3)))
    angles[:, 1] = side * (pi / 2 - away)
    matrix = euler_to_matrix(angles).to(dtype)
    error = (euler_to_matrix(matrix_to_euler(matrix)) - matrix).abs().max()
    assert error < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("side", [-1, 1])
def test_gimbal_lock_sets_the_third_angle_to_zero_as_scipy_does(side):
    a, c = 0.3, 0.5
    angles = torch.tensor([a, side * pi / 2, c], dtype=torch.float64)
    got = matrix_to_euler(euler_to_matrix(angles))
    wanted = torch.tensor([a - side * c, side * pi / 2, 0.0], dtype=torch.float64)
    assert torch.allclose(got, wanted, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy says that it met gimbal lock
        scipys = Rotation.from_euler("xyz", angles.numpy()).as_euler("xyz")
    assert np.allclose(got, scipys, atol=1e-7)


@GENEROUS
@given(poses(), poses())
def test_compose_follows_scipy(pose, action):
    got = compose(pose, action)
    turned = Rotation.from_euler("xyz", action[3:6]) * Rotation.from_euler("xyz", pose[3:6])
    assert torch.allclose(got[:3], pose[:3] + action[:3])
    assert np.allclose(scipy_matrix(got[3:6])[0], turned.as_matrix(), atol=1e-9)
    assert got[6] == (pose[6] + action[6]).clamp(0, 1)


@GENEROUS
@given(poses(), poses())
def test_the_difference_composes_to_the_next_pose(pose, later):
    assert torch.allclose(compose(pose, difference(later, pose)), later, atol=1e-9)


@GENEROUS
@given(poses(), poses())
def test_the_difference_is_the_published_training_action(pose, later):
    turn = Rotation.from_euler("xyz", later[3:6]) * Rotation.from_euler("xyz", pose[3:6]).inv()
    got = difference(later, pose)
    assert torch.allclose(got[[0, 1, 2, 6]], (later - pose)[[0, 1, 2, 6]])
    assert np.allclose(scipy_matrix(got[3:6])[0], turn.as_matrix(), atol=1e-9)


@GENEROUS
@given(poses(), poses())
def test_the_camera_frame_is_the_inverse_of_its_homogeneous_matrix(pose, camera):
    def homogeneous(values):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = scipy_matrix(values[3:6])[0], values[:3]
        return matrix

    got = camera_frame(pose, camera[:6])
    wanted = np.linalg.inv(homogeneous(camera)) @ homogeneous(pose)
    assert np.allclose(homogeneous(got), wanted, atol=1e-9)
    assert got[6] == pose[6]


def test_no_action_and_the_identity_camera_change_nothing():
    pose = random_poses(5)
    assert torch.allclose(compose(pose, torch.zeros(7).double()), pose)
    assert torch.allclose(camera_frame(pose, torch.zeros(6).double()), pose)


def test_batches_broadcast_and_equal_one_at_a_time():
    pose, action = random_poses(4, 1), random_poses(3, seed=1) / 10
    got = compose(pose, action)
    assert got.shape == (4, 3, 7)
    one_at_a_time = [torch.stack([compose(p[0], a) for a in action]) for p in pose]
    assert torch.allclose(got, torch.stack(one_at_a_time), atol=1e-15)
    assert compose(pose.float(), action.float()).dtype == torch.float32


def test_gradients_are_right_away_from_gimbal_lock():
    pose, action = random_poses(3).requires_grad_(), (random_poses(3, seed=1) / 3).requires_grad_()
    with torch.no_grad():
        pose[:, 6] /= 3  # the gripper stays inside its range
    assert torch.autograd.gradcheck(compose, (pose, action))
    assert torch.autograd.gradcheck(difference, (action, pose))
    assert torch.autograd.gradcheck(camera_frame, (pose, action[:, :6]))


@pytest.mark.parametrize("b", [pi / 2, -pi / 2, pi / 2 - 1e-9])
def test_gradients_are_finite_at_gimbal_lock(b):
    pose = torch.tensor([0, 0, 0, 0.3, b, 0.5, 0.2], dtype=torch.float64, requires_grad=True)
    action = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    compose(pose, action).sum().backward()
    assert torch.isfinite(pose.grad).all()
    assert torch.isfinite(action.grad).all()
    exact = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]], requires_grad=True)
    matrix_to_euler(exact).sum().backward()
    assert torch.isfinite(exact.grad).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: compose(torch.zeros(6), torch.zeros(7)), r"pose must be .* \[6\]"),
        (lambda: compose(torch.zeros(7), torch.zeros(7).int()), "action must be floating"),
        (lambda: camera_frame(torch.zeros(7), torch.zeros(7)), r"camera must be .*\[\.\.\., 6\]"),
        (lambda: matrix_to_euler(torch.zeros(3)), r"rotations must be .* \[3\]"),
        (lambda: euler_to_matrix(torch.tensor(1.0)), r"angles must be .* \[\]"),
    ],
)
def test_other_shapes_are_refused(call, said):
    with pytest.raises(ConfigError, match=said):
        call()
