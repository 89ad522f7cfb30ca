"""Sliding windows over sampled frames, each distinct one scored once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...datasets.voe.record import VoeVideo


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Which frames are looked at; V-JEPA's protocol on IntPhys by default (arXiv 2502.11831)."""

    window: int = 16
    """Frames W of a window, context and future together, counted in sampled frames."""
    contexts: tuple[int, ...] = (2, 4, 6, 8, 10)
    """Lengths C of the context in sampled frames; each is scored."""
    stride: int = 2
    """Sampled frames from one window's start to the next."""
    skip: int = 2
    """Frames of the video from one sampled frame to the next."""
    most: int = 0
    """Frames of the video that are used at most, from the first on; 0: all. The published protocol
    leaves out the last of IntPhys's 100: 98 with skip 2."""

    def __post_init__(self) -> None:
        for name in ("window", "stride", "skip"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.most < 0:
            raise ConfigError(f"most = {self.most}: must be 0 (all) or more")
        wrong = [c for c in self.contexts if not 1 <= c < self.window]
        if wrong or not self.contexts or len(set(self.contexts)) != len(self.contexts):
            raise ConfigError(
                f"contexts = {self.contexts}: different lengths from 1 to window - 1 = "
                f"{self.window - 1}"
            )

    @property
    def span(self) -> int:
        """Frames of the video from a window's first to its last, both counted."""
        return (self.window - 1) * self.skip + 1


def sampled(video: VoeVideo, config: WindowConfig) -> np.ndarray:
    """Numbers of the sampled frames of a video, int64 ``[n]``.

    Raises:
        DatasetError: fewer than one window.
    """
    end = video.frames.count
    end = min(end, video.first + config.most) if config.most else end
    numbers = np.arange(video.first, end, config.skip)
    if len(numbers) < config.window:
        raise DatasetError(
            f"{len(numbers)} sampled frames (every {config.skip}. of {end - video.first}), a "
            f"window has {config.window}: use a smaller window or skip"
        )
    return numbers


def starts(count: int, config: WindowConfig) -> np.ndarray:
    """First sampled frame of each window: int64 ``[windows]``."""
    return np.arange(0, count - config.window + 1, config.stride)


def digests(rows: np.ndarray) -> list[bytes]:
    """A digest of each row (frame) of ``rows``."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def window_id(parts: Sequence[bytes]) -> int:
    """A 63-bit number of a window from its frames' digests; never 0."""
    whole = hashlib.blake2b(b"".join(parts), digest_size=8).digest()
    return (int.from_bytes(whole, "little") >> 1) or 1
