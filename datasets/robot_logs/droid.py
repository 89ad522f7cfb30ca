"""Folders of raw DROID recordings: ``trajectory.h5`` and ``recordings/MP4/<serial>.mp4``.

Actions are what V-JEPA 2-AC trains on (Assran et al. 2025, section 3): the differences of the
end effector's pose between the frames used, ``[dx, dy, dz, rotation, gripper]``, the rotation as
extrinsic xyz Euler angles of R' R^T. The files are stamped 60 frames per second although the
cameras ran at about 15, so time is read from the recorded capture times, never from the video.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError
from ..decode import open_video
from .hdf5 import open_h5, read
from .log import LogEpisode

CAMERAS = ("left", "right", "wrist")


class DroidLog:
    """Folders of raw DROID recordings as a :class:`.log.RobotLog`, at a rate of your choice.

    Proprioception ``[7]``: x, y, z (m), Euler angles (rad), closedness of the gripper (0 to 1).

    Args:
        path: a recording's folder, or one in which such folders lie at any depth.
        camera: "left", "right" or "wrist", found through ``metadata_*.json``, or a serial number.
        fps: frames per second to read, 4 as in V-JEPA 2-AC. For every instant the frame captured
            nearest to it is taken.

    Raises:
        DatasetError: no recordings below ``path``.
    """

    def __init__(self, path: str | os.PathLike[str], *, camera: str = "left", fps: int = 4):
        self.path, self.camera, self.fps = Path(path), camera, fps
        self._folders = sorted(file.parent for file in self.path.rglob("trajectory.h5"))
        if not self._folders:
            raise DatasetError(f"{path} holds no DROID recordings (no trajectory.h5 below it)")
        self.num_episodes = len(self._folders)
        self.facts: dict[str, Any] = {
            "format": "droid",
            "source": self.path.name,
            "camera": camera,
            "proprio": ["cartesian_position", "gripper_position"],
        }

    def episode(self, number: int) -> LogEpisode:
        """Recording ``number`` in the order of the folders' names."""
        folder = self._folders[number]
        serial = _serial(folder, self.camera)
        with open_h5(folder / "trajectory.h5") as file:
            observation = file.get("observation", {})
            robot = observation.get("robot_state", {})
            pose = read(robot, "cartesian_position", f"{folder}: robot_state")
            grip = read(robot, "gripper_position", f"{folder}: robot_state").reshape(-1, 1)
            seconds = _capture_times(observation, serial, folder)
        if not len(pose) == len(grip) == len(seconds):
            raise DatasetError(
                f"{folder}: {len(pose)} poses, {len(grip)} gripper positions, {len(seconds)} "
                "capture times"
            )
        rows = rows_at(seconds, self.fps, str(folder))
        state = np.concatenate([pose, grip], axis=1).astype(np.float64)[rows]
        return LogEpisode(
            name=str(folder),
            pixels=_frames(folder / f"recordings/MP4/{serial}.mp4", rows, len(pose)),
            proprio=state.astype(np.float32),
            action=pose_deltas(state).astype(np.float32),
            state=state,
        )


def rows_at(seconds: np.ndarray, fps: float, name: str) -> np.ndarray:
    """The rows int64 ``[T]`` captured nearest to the instants 0, 1/fps, 2/fps, … after the first.

    Args:
        seconds: float64 ``[N]``, when each row was captured.

    Raises:
        DatasetError: times that do not increase, or no frame within half an interval of an instant.
    """
    if len(seconds) < 2 or not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
        raise DatasetError(f"{name}: the {len(seconds)} capture times do not increase")
    since = seconds - seconds[0]
    instants = np.arange(int(np.floor(since[-1] * fps + 1e-9)) + 1) / fps
    after = np.clip(np.searchsorted(since, instants), 1, len(since) - 1)
    nearer_before = instants - since[after - 1] <= since[after] - instants
    rows = after - nearer_before
    missed = np.abs(since[rows] - instants).max() * fps
    if missed > 0.5 + 1e-9:
        raise DatasetError(
            f"{name}: at {fps} frames per second some instant has no frame nearer than "
            f"{missed / fps:.3f} s: the recording has a gap, or ran slower"
        )
    return rows


def pose_deltas(state: np.ndarray) -> np.ndarray:
    """Actions float64 ``[T, 7]`` between states ``[T, 7]``: differences of position and gripper,
    and the rotation from one pose to the next as extrinsic xyz Euler angles. The last is zeros."""
    from scipy.spatial.transform import Rotation

    action = np.zeros_like(state)
    if not np.isfinite(state).all():  # Euler angles of NaN are refused by scipy without a name
        return np.full_like(state, np.nan)
    turn = Rotation.from_euler("xyz", state[:, 3:6])
    action[:-1] = state[1:] - state[:-1]
    action[:-1, 3:6] = (turn[1:] * turn[:-1].inv()).as_euler("xyz")
    return action


def _capture_times(observation: Any, serial: str, folder: Path) -> np.ndarray:
    """Seconds ``[N]`` at which a camera's frames were captured (DROID records milliseconds)."""
    times = observation.get("timestamp", {})
    cameras = times.get("cameras", {})
    name = f"{folder}: observation/timestamp/cameras"
    for suffix in ("estimated_capture", "frame_received", "read_end"):
        for key in (f"{serial}_{suffix}", f"{serial}_left_{suffix}"):
            if key in cameras:
                return read(cameras, key, name).reshape(-1).astype(np.float64) / 1000.0
    raise DatasetError(
        f"{name} has no capture times of camera {serial} (only "
        f"{', '.join(sorted(cameras)) or 'nothing'}); the video's own frame rate is not used: it "
        "is wrong in DROID"
    )


def _serial(folder: Path, camera: str) -> str:
    """The serial number of a camera by its place, from the recording's metadata."""
    if camera not in CAMERAS:
        return camera
    for path in sorted(folder.glob("metadata*.json")):
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
        if video := metadata.get(f"{camera}_mp4_path"):
            return Path(video).stem
    raise DatasetError(f"{folder} has no metadata with {camera}_mp4_path: give a serial as camera")


def _frames(path: Path, rows: np.ndarray, total: int) -> np.ndarray:
    if not path.exists():
        raise DatasetError(f"{path} is missing: the recording has no images of this camera")
    with open_video(path) as video:
        if video.num_frames != total:
            raise DatasetError(f"{path} has {video.num_frames} frames for {total} recorded poses")
        return video.get_frames(rows)
