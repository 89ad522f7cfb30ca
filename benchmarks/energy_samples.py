"""Observations, true actions and what came next, from trajectories, for energy landscapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError, DatasetError
from ..core.rng import numpy_generator
from ..datasets.windows import FramePairs, window_batches
from ..vjepa.pose import POSE, difference
from ..vjepa.recipes import split_episodes

if TYPE_CHECKING:
    from ..datasets.trajectories import TrajectorySet
    from ..vjepa.ac_world_model import ACWorldModel
    from ..vjepa.world_model import WorldModel


class Samples(NamedTuple):
    """Observations, goals one model step later, and the true actions ``[B, A]`` between."""

    obs: dict[str, Any]
    goal: dict[str, Any]
    actions: Tensor


def world_model_samples(
    model: WorldModel, trajectories: TrajectorySet, count: int, *, held_out: float, seed: int
) -> Samples:
    """Windows of held-out episodes for one of our world models.

    Raises:
        ConfigError: actions of another width than the model's. DatasetError: short episodes.
    """
    c, actions = model.config, trajectories.arrays()["action"]
    if actions.shape[1] != c.action_dim:
        raise ConfigError(
            f"{trajectories.root} has actions of width {actions.shape[1]}, the model of "
            f"{c.action_dim}"
        )
    frames = trajectories.cache(c.image_size)
    observe = FramePairs(frames.frames, frames.offsets, count=c.encoder.tubelet, gap=c.frame_gap)
    batch = next(
        window_batches(
            observe,
            actions,
            frames.offsets,
            episodes=split_episodes(trajectories.num_episodes, held_out)[1],
            horizon=1,
            block=c.action_block,
            batch_size=count,
            seed=seed,
            name="energy",
        )
    )
    now, later = batch.observations.unbind(1)
    return Samples({"pixels": now}, {"pixels": later[:, -1]}, batch.actions[:, 0])


def pose_samples(
    model: ACWorldModel, trajectories: TrajectorySet, count: int, *, seed: int, rate: float = 4.0
) -> Samples:
    """Pairs of frames 1 / ``rate`` seconds apart, poses from ``observation.state``.

    Raises:
        DatasetError: no poses (seven numbers, :mod:`tubelet.vjepa.pose`), or too short episodes.
    """
    width = trajectories.arrays()["proprio"].shape[1]
    if width != POSE:
        raise DatasetError(
            f"{trajectories.root}: observation.state has width {width}; V-JEPA 2-AC wants poses of "
            f"{POSE}: position, extrinsic xyz angles, gripper"
        )
    step = max(1, round(trajectories.fps / rate))
    starts = np.maximum(trajectories.lengths - step, 0)
    if not starts.sum():
        raise DatasetError(f"{trajectories.root}: no episode has the {step + 1} frames of a pair")
    drawn = numpy_generator(seed, "energy").integers(0, starts.sum(), count)
    episodes = np.searchsorted(np.cumsum(starts), drawn, side="right")
    firsts = drawn - (np.cumsum(starts) - starts)[episodes]
    pairs = [
        trajectories.slice(int(e), int(t), int(t) + step + 1, step)
        for e, t in zip(episodes, firsts, strict=True)
    ]
    frames = torch.stack([droid_frames(pair["pixels"], model.image_size) for pair in pairs])
    poses = torch.from_numpy(np.stack([pair["proprio"] for pair in pairs]))
    obs = {"pixels": frames[:, :1], "state": poses[:, :1]}
    return Samples(obs, {"pixels": frames[:, 1]}, difference(poses[:, 1], poses[:, 0]))


def droid_frames(frames: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Frames uint8 ``[T, H, W, 3]`` as V-JEPA 2-AC was trained on them: the centre of an aspect
    between 0.75 and 1.35, squashed to (height, width) ``size``, bilinear. uint8."""
    height, width = frames.shape[1:3]
    rows, columns = min(height, round(width / 0.75)), min(width, round(1.35 * height))
    top, left = (height - rows) // 2, (width - columns) // 2
    x = torch.from_numpy(np.array(frames[:, top : top + rows, left : left + columns]))
    x = F.interpolate(x.movedim(-1, 1).float(), size=size, mode="bilinear", align_corners=False)
    return x.movedim(1, -1).round().clamp(0, 255).to(torch.uint8)
