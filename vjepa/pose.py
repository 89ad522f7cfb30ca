"""End-effector poses and the actions between them, batched in torch (V-JEPA 2-AC, 2506.09985).

A pose is seven numbers ``[x, y, z, a, b, c, g]``: position in metres, orientation as extrinsic
'xyz' Euler angles in radians (turn by a about the fixed x axis, then by b about y, then by c about
z: R = Rz(c) Ry(b) Rx(a)), and how far the gripper is closed, 0 to 1. An action is the same seven
numbers for the change, in the frame of the robot's base: x moves by the action's x, the orientation
becomes R_action R, the gripper adds. Everything takes any leading axes (they broadcast), any
floating type and device, and can be differentiated.

Gimbal lock: where b is +-90 degrees, only a + c or a - c is defined. There c is set to 0 and a
takes the whole turn about the common axis (SciPy's convention), so the angles always give the
matrix back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import ConfigError

POSE = 7
"""Numbers in a pose: position, Euler angles, gripper."""


def euler_to_matrix(angles: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of extrinsic 'xyz' angles ``[..., 3]`` in radians.

    Raises :class:`ConfigError` for another shape or a type that is not floating.
    """
    _check("angles", angles, 3)
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    entries = [
        *(cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa),
        *(sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa),
        *(-sb, cb * sa, cb * ca),
    ]
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def matrix_to_euler(matrix: Tensor) -> Tensor:
    """Angles ``[..., 3]`` of rotation matrices ``[..., 3, 3]``; inverse of
    :func:`euler_to_matrix`.

    a and c lie in [-pi, pi], b in [-pi/2, pi/2]. c comes from the first column, a from what is left
    when the turn by c is undone, so near gimbal lock rounding moves both together and the angles
    give the matrix back to rounding error everywhere. The gradient is finite everywhere: it grows
    as 1 / cos(b) towards gimbal lock, and leaves c out at it.

    Raises :class:`ConfigError` for another shape or a type that is not floating.
    """
    if matrix.shape[-2:] != (3, 3) or not matrix.is_floating_point():
        raise ConfigError(
            f"rotations must be floating [..., 3, 3], got {matrix.dtype} {list(matrix.shape)}"
        )
    (r00, r01, r02), (r10, r11, r12), (r20, _, _) = (row.unbind(-1) for row in matrix.unbind(-2))
    locked = torch.hypot(r00.detach(), r10.detach()) < 4 * torch.finfo(matrix.dtype).eps
    c = torch.atan2(torch.where(locked, 0.0, r10), torch.where(locked, 1.0, r00))
    cos, sin = c.cos(), c.sin()
    a = torch.atan2(sin * r02 - cos * r12, cos * r11 - sin * r01)
    b = torch.atan2(-r20, cos * r00 + sin * r10)
    return torch.stack([a, b, c], -1)


def compose(pose: Tensor, action: Tensor) -> Tensor:
    """The pose ``[..., 7]`` after ``action [..., 7]`` from ``pose [..., 7]``.

    Positions add, R = R_action R_pose, the gripper adds and is clipped to [0, 1] (where it is
    clipped, no gradient reaches it).

    Raises :class:`ConfigError` for another shape or a type that is not floating.
    """
    (position, rotation, gripper), (move, turn, grip) = (
        _parts("pose", pose),
        _parts("action", action),
    )
    gripper = (gripper + grip).clamp(0, 1)
    return _joined(position + move, turn @ rotation, gripper)


def difference(pose_next: Tensor, pose: Tensor) -> Tensor:
    """The action ``[..., 7]`` that takes ``pose`` to ``pose_next``, both ``[..., 7]``: the action
    V-JEPA 2-AC is trained on. ``difference(p[1:], p[:-1])`` are the actions of a trajectory.

    Raises :class:`ConfigError` for another shape or a type that is not floating.
    """
    later, earlier = _parts("pose_next", pose_next), _parts("pose", pose)
    turn = later[1] @ earlier[1].transpose(-1, -2)
    return _joined(later[0] - earlier[0], turn, later[2] - earlier[2])


def camera_frame(pose: Tensor, camera: Tensor) -> Tensor:
    """``pose [..., 7]`` of the base frame seen from a camera at ``camera [..., 6]`` (its position
    and Euler angles in the base frame): inv(E) pose. The gripper stays.

    Raises :class:`ConfigError` for another shape or a type that is not floating.
    """
    _check("camera", camera, 6)
    position, rotation, gripper = _parts("pose", pose)
    inverse = euler_to_matrix(camera[..., 3:]).transpose(-1, -2)
    offset = position - camera[..., :3]
    return _joined((inverse @ offset.unsqueeze(-1)).squeeze(-1), inverse @ rotation, gripper)


def _parts(name: str, pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Position ``[..., 3]``, rotation ``[..., 3, 3]`` and gripper ``[..., 1]``."""
    _check(name, pose, POSE)
    return pose[..., :3], euler_to_matrix(pose[..., 3:6]), pose[..., 6:]


def _joined(position: Tensor, rotation: Tensor, gripper: Tensor) -> Tensor:
    parts = (position, matrix_to_euler(rotation), gripper)
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)


def _check(name: str, x: Tensor, width: int) -> None:
    if not x.is_floating_point() or x.ndim < 1 or x.shape[-1] != width:
        raise ConfigError(f"{name} must be floating [..., {width}], got {x.dtype} {list(x.shape)}")
