"""What a frozen encoder is shown of a video: segments in time and views in space.

A video is cut into ``segments`` clips; of each come ``views`` squares. The encoder sees every clip
on its own; a probe reads the tokens of all clips of one view side by side (V-JEPA, arXiv
2404.08471; V-JEPA 2, 2506.09985), and the views' softmax outputs are averaged.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ConfigError
from ...datasets.decode import Backend, open_video
from ...datasets.image_file import read_image
from ...datasets.images import IMAGE_EXTENSIONS
from ...vjepa.preprocess import PreprocessConfig, preprocess


@dataclass(frozen=True, kw_only=True)
class FrozenProtocol:
    """Frames, segments and views of a video; :data:`PROTOCOLS` names the published ones."""

    frames: int = 16
    """Frames of a clip; an image is repeated this often."""
    step: int = 4
    """Frames of the video from one frame of the clip to the next."""
    fps: float | None = None
    """If set, the step is the video's frame rate over this one, rounded as published: the rate up,
    the quotient down, and never below 1."""
    segments: int = 2
    """Clips of a video."""
    views: int = 3
    """Squares of a clip: along the long side at equal steps, or the middle if 1."""
    crop: int = 224
    """Side of the squares, in pixels."""
    short_side: int | None = None
    """Of the resized video with one view; None: int(crop * 256 / 224)."""
    layers: int = 1
    """Blocks whose tokens a probe reads, side by side: the last one, or 4 as published for what
    moves finely; see :func:`layer_numbers`."""
    spacing: Literal["published", "even"] = "published"
    """published: frames * step frames of the video are spanned from end to end, so that distances
    are not all equal. even: exactly ``step`` apart."""
    like: Literal["opencv", "pillow", "torchvision"] = "opencv"
    """Whose bilinear resize."""
    backend: Backend = "auto"
    """Who decodes."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)}: must be 1 or more"
            for name in ("frames", "step", "segments", "views", "layers")
            if getattr(self, name) < 1
        ]
        if self.fps is not None and not 0 < self.fps < math.inf:
            wrong.append(f"fps = {self.fps}: must be above 0")
        if self.spacing not in ("published", "even"):
            wrong.append(f"spacing = {self.spacing!r}: choose published or even")
        if wrong:
            raise ConfigError("protocol: " + "; ".join(wrong))
        self.transform()

    def transform(self) -> PreprocessConfig:
        """The resize and crop."""
        if self.views == 1:
            return PreprocessConfig(crop=self.crop, short_side=self.short_side, like=self.like)
        return PreprocessConfig(crop=self.crop, kind="views", views=self.views, like=self.like)


PROTOCOLS = {
    "ssv2": FrozenProtocol(),
    "k400": FrozenProtocol(segments=8),
    "coin": FrozenProtocol(segments=8),
    "diving48": FrozenProtocol(frames=32, step=2, segments=4, crop=256, layers=4),
    "jester": FrozenProtocol(frames=32, step=2, segments=4, crop=256, layers=4),
}
"""Frames x segments x views and layers of the published results."""


def layer_numbers(depth: int, count: int) -> tuple[int, ...]:
    """Numbers (from 1) of the blocks that are read of an encoder with ``depth`` of them, rising.

    As published for V-JEPA 2: four of ViT-L's 24 are 18, 20, 22, 24; of ViT-g's 40: 25, 30, 35, 40.
    Elsewhere they are an eighth of the depth apart, at least one, down from the last.

    Raises ConfigError for more than there are.
    """
    if not 1 <= count <= depth:
        raise ConfigError(f"protocol.layers = {count}: the encoder has {depth} blocks")
    step = 2 if depth == 24 else max(1, depth // 8)
    step = min(step, (depth - 1) // (count - 1)) if count > 1 else step
    return tuple(depth - step * back for back in reversed(range(count)))


def segment_frames(count: int, protocol: FrozenProtocol, step: int | None = None) -> np.ndarray:
    """Frame numbers int64 ``[segments, frames]`` of a video of ``count`` frames.

    The video falls into ``segments`` equal parts, and each clip begins with its part. Parts shorter
    than a clip overlap instead: the clips begin at equal steps from the first frame to the last one
    that a clip can begin with. A video shorter than a clip gives its frames at ``step``, then its
    last one over and over.

    Raises ConfigError without frames.
    """
    if count < 1:
        raise ConfigError(f"a video of {count} frames has no clips")
    step = protocol.step if step is None else step
    frames, segments = protocol.frames, protocol.segments
    length = frames * step
    if protocol.spacing == "even":
        offsets = np.arange(frames) * step
        length = int(offsets[-1]) + 1
    else:
        offsets = np.linspace(0, length, frames).astype(np.int64).clip(max=length - 1)
    if count < length:
        return np.tile((np.arange(frames) * step).clip(max=count - 1), (segments, 1))
    part = count // segments
    if part >= length:
        starts = np.arange(segments) * part
    else:
        starts = np.linspace(0, count - length, segments).astype(np.int64)
    return starts[:, None] + offsets


def read_views(path: str | os.PathLike[str], protocol: FrozenProtocol) -> Tensor:
    """A video or image as the encoder sees it: uint8 ``[views, segments, T, crop, crop, 3]``.

    Raises:
        VideoDecodeError: a file that cannot be read.
    """
    if Path(path).suffix.lower() in IMAGE_EXTENSIONS:
        image = read_image(path)
        clips = np.broadcast_to(image, (protocol.segments, protocol.frames, *image.shape)).copy()
    else:
        with open_video(path, protocol.backend) as video:
            step = protocol.step
            if protocol.fps is not None:
                step = max(1, int(math.ceil(video.fps) // protocol.fps))
            numbers = segment_frames(video.num_frames, protocol, step)
            pixels = video.get_frames(numbers.ravel())
        clips = pixels.reshape(*numbers.shape, *pixels.shape[1:])
    out = preprocess(torch.from_numpy(clips), protocol.transform())
    return out.movedim(1, 0) if protocol.views > 1 else out.unsqueeze(0)
