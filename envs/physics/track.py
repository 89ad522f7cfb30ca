"""Tracks: where everything is in every frame. Impossible videos are recombined tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Track:
    """The state of a scene over T frames. A frame's picture is a function of its row alone.

    Attributes:
        pose: float64 [T, N, 7], position (m) and quaternion (w, x, y, z) of each thing.
        present: bool [T, N]. camera: float64 [T, 7]. light: float64 [T], 1 = as in the scene.
    """

    pose: np.ndarray
    present: np.ndarray
    camera: np.ndarray
    light: np.ndarray

    @property
    def frames(self) -> int:
        """T."""
        return len(self.light)

    def rows(self) -> np.ndarray:
        """float64 [T, 8 + 8 N]: one state per frame; poses of absent things are zero."""
        shown = np.concatenate(
            [np.where(self.present[..., None], self.pose, 0.0), self.present[..., None]], axis=-1
        )
        parts = [self.camera, self.light[:, None], shown.reshape(self.frames, -1)]
        return np.concatenate(parts, axis=1) + 0.0  # -0 and 0 draw the same picture

    def mirrored(self) -> Track:
        """Left and right exchanged, the camera included."""
        flip = np.array([-1.0, 1, 1, 1, 1, -1, -1])
        return replace(self, pose=self.pose * flip, camera=self.camera * flip)


def splice(a: Track, b: Track, cuts: Sequence[int]) -> Track:
    """``a`` until the first cut, then ``b`` until the second, then ``a`` again, and so on."""
    times = np.searchsorted(np.asarray(sorted(cuts)), np.arange(a.frames), side="right") % 2 == 1
    return Track(
        pose=np.where(times[:, None, None], b.pose, a.pose),
        present=np.where(times[:, None], b.present, a.present),
        camera=np.where(times[:, None], b.camera, a.camera),
        light=np.where(times, b.light, a.light),
    )


def in_context(outcome: Track, context: Track, things: Sequence[int]) -> Track:
    """``outcome`` replayed in another scene: the poses of ``things`` come from ``context``."""
    chosen = np.zeros(outcome.present.shape[1], bool)
    chosen[list(things)] = True
    return replace(
        outcome,
        pose=np.where(chosen[:, None], context.pose, outcome.pose),
        present=np.where(chosen, context.present, outcome.present),
    )


def still(frames: int, position: Sequence[float], yaw: float = 0.0) -> np.ndarray:
    """A pose that does not change: float64 [T, 7]."""
    row = [*position, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    return np.tile(np.asarray(row, np.float64), (frames, 1))


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """The maximal intervals [lo, hi) on which the bool array ``flags`` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]])))
    return [(int(lo), int(hi)) for lo, hi in zip(edges[::2], edges[1::2], strict=True)]
