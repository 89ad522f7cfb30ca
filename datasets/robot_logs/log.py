"""What every robot log is read as: numbered episodes of frames, proprioception and actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...core.errors import DatasetError


@dataclass(frozen=True, kw_only=True, eq=False)
class LogEpisode:
    """One episode, checked when built.

    Attributes:
        name: where it is from, for messages.
        pixels: uint8 ``[T, H, W, 3]``, at least two frames.
        proprio: float32 ``[T, P]``. action: float32 ``[T, A]``; row ``t`` acts between frames ``t``
            and ``t + 1``, the last row is zeros.
        state: float64 ``[T, S]``: the simulator's state, or what the robot's log holds.

    Raises:
        DatasetError: arrays of different lengths or impossible shapes, NaN or infinite values, a
            last action that is not zeros; the message names the episode, the array and the row.
    """

    name: str
    pixels: np.ndarray
    proprio: np.ndarray
    action: np.ndarray
    state: np.ndarray

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
            raise DatasetError(
                f"{self.name}: images are {pixels.dtype} {list(pixels.shape)}, expected uint8 "
                "[T, H, W, 3]"
            )
        if len(pixels) < 2:
            raise DatasetError(f"{self.name}: {len(pixels)} frames; an episode has two at least")
        for name in ("proprio", "action", "state"):
            rows = getattr(self, name)
            if rows.ndim != 2 or len(rows) != len(pixels):
                raise DatasetError(
                    f"{self.name}: {name} has shape {list(rows.shape)} for {len(pixels)} frames; "
                    "the recording's parts have different lengths"
                )
            if wrong := np.flatnonzero(~np.isfinite(rows).all(1)).tolist():
                raise DatasetError(
                    f"{self.name}: {name} is NaN or infinite in {len(wrong)} rows, the first is "
                    f"{wrong[0]}; leave the episode out or repair it"
                )
        if self.action[-1].any():
            raise DatasetError(f"{self.name}: the action of the last frame must be zeros")


class RobotLog(Protocol):
    """A recording that :func:`.convert.convert_log` reads.

    Attributes:
        fps: frames per second of the episodes.
        num_episodes: how many there are.
        facts: JSON values for the converted set's metadata: format, source, keys.
    """

    fps: int
    num_episodes: int
    facts: dict[str, Any]

    def episode(self, number: int) -> LogEpisode:
        """Read one episode.

        Raises:
            IndexError: there is no such episode. DatasetError: it is damaged or inconsistent.
        """
        ...


def follow(
    name: str, pixels: np.ndarray, vectors: dict[str, np.ndarray], action: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bring frames and the actions between them to one length.

    Args:
        pixels: ``[T, ...]``. vectors: name to ``[T, n]`` or ``[T]``, joined in the dictionary's
            order. action: ``[T, A]``, whose last row has no next frame and is dropped, or
            ``[T - 1, A]``.

    Returns:
        the joined vectors float64 ``[T, P]`` (one column of zeros without any), and actions float32
        ``[T, A]``, the last row zeros.

    Raises:
        DatasetError: any other lengths; the message gives all of them.
    """
    total = len(pixels)
    lengths = {key: len(rows) for key, rows in vectors.items()}
    if action.ndim != 2 or len(action) not in (total, total - 1) or {*lengths.values()} - {total}:
        raise DatasetError(
            f"{name}: {total} images, actions {list(action.shape)}, {lengths}: there must be as "
            "many of each, or one action less than images"
        )
    joined = [np.asarray(rows, np.float64).reshape(total, -1) for rows in vectors.values()]
    actions = np.zeros((total, action.shape[1]), np.float32)
    actions[:-1] = action[: total - 1]
    if not np.isfinite(action).all():  # of the dropped row too: the log is damaged
        actions[:-1][~np.isfinite(action[: total - 1]).all(1)] = np.nan
    return np.concatenate(joined or [np.zeros((total, 1))], axis=1), actions
