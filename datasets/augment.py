"""Augmentation of a whole batch of clips at once, on the device where it lies.

The published V-JEPA recipe: one random resized crop per clip (the same box in all its frames;
area 0.3 to 1, aspect ratio 0.75 to 1.35 uniform in its logarithm, bilinear without antialiasing)
and a horizontal flip. Pixels stay uint8; scaling to floats is the model's first layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..core.errors import ConfigError

_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What :func:`augment` does.

    Attributes:
        scale: smallest and largest share of the frame's area in the crop; (1, 1) with ratio (1, 1)
            keeps a square frame whole.
        ratio: smallest and largest width / height of the crop.
        flip: probability of a horizontal flip. Leave it at 0 where left and right matter, as for
            clips of actions.
        size: side of the result in pixels; None keeps the height and width of the input.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.75, 1.35)
    flip: float = 0.5
    size: int | None = None

    def __post_init__(self) -> None:
        wrong = []
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            wrong.append(f"scale={self.scale} must be two shares with 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            wrong.append(f"ratio={self.ratio} must be two ratios with 0 < low <= high")
        if not 0 <= self.flip <= 1:
            wrong.append(f"flip={self.flip} is not a probability between 0 and 1")
        if self.size is not None and self.size < 1:
            wrong.append(f"size={self.size} must be at least 1")
        if wrong:
            raise ConfigError("augment: " + "; ".join(wrong))


def augment(video: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    """Crop, scale and flip each clip of a batch.

    Args:
        video: uint8 [B, T, H, W, C], on any device.
        generator: on the CPU, so that every device gives the same boxes. Each clip uses the same
            count of numbers, so clip b's box depends on its place in the batch and nothing else.

    Returns: uint8 [B, T, size, size, C] on the same device ([B, T, H, W, C] without a size). A
    pixel may differ by 1 between the CPU, which interpolates in fixed point, and a GPU.
    """
    batch, time, height, width, channels = video.shape
    boxes = crop_boxes(batch, height, width, config, generator)
    flips = torch.rand(batch, generator=generator) < config.flip
    shape = (config.size or height, config.size or width)
    out = video.new_empty((batch, time, *shape, channels))
    for i, ((top, left, h, w), flip) in enumerate(zip(boxes.tolist(), flips.tolist(), strict=True)):
        crop = video[i, :, top : top + h, left : left + w].permute(0, 3, 1, 2)
        crop = _scale(crop, shape).permute(0, 2, 3, 1)
        out[i] = crop.flip(2) if flip else crop
    return out


def crop_boxes(
    batch: int, height: int, width: int, config: AugmentConfig, generator: torch.Generator
) -> torch.Tensor:
    """int64 [B, 4]: a box (top, left, height, width) inside the frame for each clip.

    Area and aspect ratio are drawn until the box fits, ten times at most; then the box is the
    largest in the frame's middle whose aspect ratio is allowed.
    """
    numbers = torch.rand(batch, 2 * _TRIES + 2, generator=generator, dtype=torch.float64)
    low, high = (math.log(value) for value in config.ratio)
    area = config.scale[0] + numbers[:, :_TRIES] * (config.scale[1] - config.scale[0])
    ratio = torch.exp(low + numbers[:, _TRIES : 2 * _TRIES] * (high - low))
    heights = (area * height * width / ratio).sqrt().round().clamp_(min=1)
    widths = (area * height * width * ratio).sqrt().round().clamp_(min=1)
    fits = (heights <= height) & (widths <= width)
    first = fits.int().argmax(dim=1, keepdim=True)
    fallback = min(max(width / height, config.ratio[0]), config.ratio[1])
    found = fits.any(dim=1)
    h = torch.where(found, heights.gather(1, first)[:, 0], min(height, round(width / fallback)))
    w = torch.where(found, widths.gather(1, first)[:, 0], min(width, round(height * fallback)))
    place = torch.where(found[:, None], numbers[:, -2:], 0.5)
    top = (place[:, 0] * (height - h + 1)).floor()
    left = (place[:, 1] * (width - w + 1)).floor()
    return torch.stack([top, left, h, w], dim=1).long()


def _scale(frames: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """uint8 [T, C, h, w] to uint8 [T, C, *shape], bilinear."""
    if frames.shape[2:] == shape:
        return frames
    if frames.device.type == "cpu":  # has a uint8 kernel, ten times as fast as the float one
        return F.interpolate(frames, shape, mode="bilinear", align_corners=False)
    scaled = F.interpolate(frames.float(), shape, mode="bilinear", align_corners=False)
    return scaled.round_().to(torch.uint8)
