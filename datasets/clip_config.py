"""How clips are cut out of videos, and which frames a clip has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from ..core.errors import ConfigError
from .decode import Backend

Sampling = Literal["starts", "videos"]
Stills = Literal["repeat", "single"]


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How clips are cut out of videos.

    Attributes:
        frames: frames per clip.
        frame_step: take every n-th frame (1 if neither this nor ``fps`` is given).
        fps: take the frames nearest to this rate by their true times, instead of ``frame_step``.
        buckets: several lengths and rates in one run instead, each (frames, fps, share of the
            steps): all clips of a step have one of them. ``16 4 0.75 64 4 0.25`` on the command
            line.
        size: side of the square clips in pixels (short side scaled, centre cut out).
        sampling: ``starts`` makes every clip of the corpus equally likely, so that longer videos
            are seen more often; ``videos`` makes every video equally likely.
        stills: images of a mixture are clips of equal frames beside the videos' (``repeat``, as
            V-JEPA 2 does), or have steps of their own with one frame per clip (``single``, as
            V-JEPA 2.1 does, for encoders with a tokenizer for images).
        backend: video library, see :func:`.decode.open_video`.
        seed: names the random streams.
        max_bad_share: stop when more than this share of the videos turned out to be damaged.
        clip_timeout: seconds after which a worker that decodes one clip counts as hung: it is
            stopped, another one takes its place, and the file is left out.
    """

    frames: int = 16
    frame_step: int | None = None
    fps: float | None = None
    buckets: tuple[tuple[int, float, float], ...] = ()
    size: int = 64
    sampling: Sampling = "starts"
    stills: Stills = "repeat"
    backend: Backend = "auto"
    seed: int = 0
    max_bad_share: float = 0.5
    clip_timeout: float = 60.0

    def __post_init__(self) -> None:
        wrong = []
        for key in ("frames", "size", "frame_step"):
            value = getattr(self, key)
            if value is not None and value < 1:
                wrong.append(f"{key}={value} must be at least 1")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            wrong.append(f"fps={self.fps} must be above 0")
        if self.fps is not None and self.frame_step is not None:
            wrong.append(f"frame_step={self.frame_step} and fps={self.fps}: give only one")
        for frames, fps, share in self.buckets:
            if frames < 1 or not 0 < fps < float("inf") or not 0 < share < float("inf"):
                wrong.append(
                    f"buckets: ({frames}, {fps:g}, {share:g}) must be frames of at least 1, a "
                    "rate and a share above 0"
                )
        if self.buckets and (self.fps is not None or self.frame_step is not None):
            wrong.append(f"buckets={self.buckets} name their own rates: leave fps and frame_step")
        for key, allowed in (
            ("sampling", get_args(Sampling)),
            ("stills", get_args(Stills)),
            ("backend", get_args(Backend)),
        ):
            if getattr(self, key) not in allowed:
                wrong.append(f"{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}")
        if not 0 <= self.max_bad_share <= 1:
            wrong.append(f"max_bad_share={self.max_bad_share} is not a share between 0 and 1")
        if not self.clip_timeout > 0:
            wrong.append(f"clip_timeout={self.clip_timeout} must be above 0 seconds")
        if wrong:
            raise ConfigError("clips: " + "; ".join(wrong))

    def kinds(self) -> list[tuple[ClipConfig, float]]:
        """The lengths and rates that steps may have, as configs without buckets, and their shares
        of the steps (relative to each other)."""
        if not self.buckets:
            return [(self, 1.0)]
        return [
            (replace(self, frames=frames, fps=fps, buckets=()), share)
            for frames, fps, share in self.buckets
        ]


def clip_frames(timestamps: np.ndarray, start: int, config: ClipConfig) -> np.ndarray:
    """int64 [T]: the frame numbers of the clip that begins at frame ``start``.

    With ``fps``, the frames nearest to ``timestamps[start] + i / fps`` (the earlier one when two
    are equally near). Frame numbers always increase: a video slower than ``fps`` gives all its
    frames, none twice. The last number may lie beyond the video; see :func:`num_starts`.
    """
    steps = np.arange(config.frames)
    if config.fps is None:
        return start + steps * (config.frame_step or 1)
    between = (timestamps[:-1] + timestamps[1:]) / 2 + 1e-6
    nearest = np.searchsorted(between, timestamps[start] + steps / config.fps)
    return np.maximum.accumulate(nearest - steps) + steps


def num_starts(timestamps: np.ndarray, config: ClipConfig) -> int:
    """How many frames of a video with these times can begin a clip (0: the video is too short)."""
    last = len(timestamps)
    if config.fps is None:
        return max(0, last - (config.frames - 1) * (config.frame_step or 1))
    end = timestamps[-1] - (config.frames - 1) / config.fps + 1e-6
    starts = min(last - config.frames + 1, int(np.searchsorted(timestamps, end, side="right")))
    while starts > 0 and clip_frames(timestamps, starts - 1, config)[-1] >= last:
        starts -= 1
    return max(0, starts)


def length(config: ClipConfig) -> str:
    """The length and rate in words."""
    rate = f"{config.fps:g} frames/s" if config.fps else f"a step of {config.frame_step or 1}"
    return f"{config.frames} frames at {rate}"
