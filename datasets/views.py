"""Many views of each clip, for objectives that compare views: LeJEPA on images, LeV-JEPA on video.

>>> clips = torch.zeros(2, 1, 64, 64, 3, dtype=torch.uint8)
>>> [list(view.shape) for view in make_views(clips, ViewConfig(local_views=1), torch.Generator())]
[[2, 1, 64, 64, 3], [2, 1, 64, 64, 3], [2, 1, 32, 32, 3]]

The published recipe (arXiv 2511.08544): two global crops (area .3 to 1) and six local ones (.05 to
.3); flip, colour jitter, grey, blur and solarization, each with its own probability. All frames of
a clip share a view's box, colours and blur.

Cropping, flipping, scaling and blurring are linear in the pixels and act on rows and columns
separately, so that a view is ``rows @ frame @ columns`` with one small matrix each per clip; jitter
and grey together are one affine map of the colours. Nothing loops over clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import ConfigError
from .augment import AugmentConfig, crop_boxes

BLUR_REFERENCE = 224
"""Side of the view that ``blur_sigma`` is meant for; other sizes blur in proportion."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How many views of each clip, and how they are cut and coloured."""

    global_views: int = 2
    """Large crops; they come first."""
    local_views: int = 6
    """Small crops."""
    global_size: int = 64
    """Side of a global view in pixels (published: 224)."""
    local_size: int = 32
    """Side of a local view in pixels (published: 98)."""
    global_scale: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest share of the frame's area in a global crop."""
    local_scale: tuple[float, float] = (0.05, 0.3)
    """The same of a local crop."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop."""
    flip: float = 0.5
    """Probability of a horizontal flip. Leave it at 0 where left and right matter."""
    jitter: float = 0.8
    """Probability of the colour jitter."""
    brightness: float = 0.4
    """Brightness is multiplied by a factor in [1 - this, 1 + this]."""
    contrast: float = 0.4
    """The same of the distance from the clip's mean grey."""
    saturation: float = 0.2
    """The same of the distance from each pixel's own grey."""
    hue: float = 0.1
    """Hues are turned by up to this share of the colour circle, either way."""
    grey: float = 0.2
    """Probability of losing all colour."""
    blur: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur in pixels of a view of 224 pixels."""
    solarize: float = 0.2
    """Probability of inverting all values of one half and above."""

    def __post_init__(self) -> None:
        wrong = []
        for key in ("global_views", "global_size", "local_size"):
            if getattr(self, key) < 1:
                wrong.append(f"{key}={getattr(self, key)} must be at least 1")
        if self.local_views < 0:
            wrong.append(f"local_views={self.local_views} must be at least 0")
        for key in ("global_scale", "local_scale"):
            low, high = getattr(self, key)
            if not 0 < low <= high <= 1:
                wrong.append(f"{key}={(low, high)} must be two shares with 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            wrong.append(f"ratio={self.ratio} must be two ratios with 0 < low <= high")
        for key in ("flip", "jitter", "grey", "blur", "solarize"):
            if not 0 <= getattr(self, key) <= 1:
                wrong.append(f"{key}={getattr(self, key)} is not a probability between 0 and 1")
        for key in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, key) <= 1:
                wrong.append(f"{key}={getattr(self, key)} must lie between 0 and 1")
        if not 0 <= self.hue <= 0.5:
            wrong.append(f"hue={self.hue} must lie between 0 and .5")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            wrong.append(f"blur_sigma={self.blur_sigma} must be two lengths with 0 < low <= high")
        if wrong:
            raise ConfigError("views: " + "; ".join(wrong))


def make_views(video: Tensor, config: ViewConfig, generator: torch.Generator) -> list[Tensor]:
    """The views of a batch, global ones first.

    Args:
        video: uint8 ``[B, T, H, W, 3]``, on any device.
        generator: on the CPU, so that every device makes the same choices.

    Returns:
        a list of uint8 ``[B, T, S, S, 3]`` on the same device, S the global or the local size.
        A pixel may differ by 1 between devices, whose sums are ordered differently.

    Raises:
        ConfigError: another type or shape.
    """
    if video.dtype != torch.uint8 or video.ndim != 5 or video.shape[-1] != 3:
        raise ConfigError(
            f"views are made of uint8 [B, T, H, W, 3], got {video.dtype} {list(video.shape)}"
        )
    planes = video.permute(0, 1, 4, 2, 3).float()  # [B, T, 3, H, W]
    kinds = [(config.global_size, config.global_scale)] * config.global_views
    kinds += [(config.local_size, config.local_scale)] * config.local_views
    return [_view(planes, size, scale, config, generator) for size, scale in kinds]


def _view(
    planes: Tensor,
    size: int,
    scale: tuple[float, float],
    config: ViewConfig,
    generator: torch.Generator,
) -> Tensor:
    """One view, uint8 [B, T, S, S, 3], of float [B, T, 3, H, W] in 0..255."""
    batch, _, _, height, width = planes.shape
    cut = AugmentConfig(scale=scale, ratio=config.ratio)
    boxes = crop_boxes(batch, height, width, cut, generator)
    flip = _chance(batch, config.flip, generator)
    blur = _chance(batch, config.blur, generator)
    sigma = _uniform(batch, *config.blur_sigma, generator) * (size / BLUR_REFERENCE)
    smooth = torch.where(blur[:, None, None], blur_matrix(sigma, size), torch.eye(size))
    rows = smooth @ resize_matrix(boxes[:, 0], boxes[:, 2], height, size)
    columns = smooth @ resize_matrix(boxes[:, 1], boxes[:, 3], width, size)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    factors = _jitter_factors(batch, config, generator)
    grey = _chance(batch, config.grey, generator)
    solarize = _chance(batch, config.solarize, generator)

    view = _separable(planes, rows.to(planes.device), columns.to(planes.device))
    mix, lift = colour_map(*factors, grey)
    mean = view.mean(dim=(1, 2, 3)) @ view.new_tensor(_LUMA)  # [B]: the clip's mean grey
    lift = (lift.to(mean.device) * mean)[:, None]  # the same for every pixel and channel
    view = view.flatten(1, 3) @ mix.to(view.device).transpose(1, 2) + lift[..., None]
    view = view.unflatten(1, (-1, size, size)).clamp_(0, 255)
    inverted = solarize.to(view.device)[:, None, None, None, None] & (view >= 127.5)
    return torch.where(inverted, 255 - view, view).round_().to(torch.uint8)


def _separable(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """float [B, T, S, S, 3]: ``rows @ frame @ columns^T`` of every frame and channel."""
    batch, time, _, height, width = planes.shape
    narrow = planes.reshape(batch, time * 3 * height, width) @ columns.transpose(1, 2)
    narrow = narrow.unflatten(1, (time * 3, height)).transpose(1, 2).flatten(2)  # [B, H, T 3 S]
    size = rows.shape[1]
    return (rows @ narrow).view(batch, size, time, 3, size).permute(0, 2, 1, 4, 3)


def resize_matrix(start: Tensor, length: Tensor, total: int, size: int) -> Tensor:
    """The matrix that scales a part of a row of pixels: bilinear, antialiased when it shrinks.

    Args:
        start, length: ``[B]`` whole numbers: pixels ``start … start + length - 1`` of ``total``.

    Returns:
        float32 ``[B, size, total]``; every row sums to 1.
    """
    start, length = start.double()[:, None], length.double()[:, None]
    scale = length / size
    reach = scale.clamp(min=1)  # half the base of the triangle that weighs the pixels
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale  # [B, size], in the part
    pixel = torch.arange(total, dtype=torch.float64) + 0.5 - start  # [B, total]
    gap = (pixel[:, None, :] - centre[:, :, None]).abs() / reach[:, :, None]
    inside = (pixel > 0) & (pixel < length)
    weights = (1 - gap).clamp(min=0) * inside[:, None, :]
    return (weights / weights.sum(-1, keepdim=True)).float()


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """float32 ``[B, size, size]``: Gaussian blur of a row of ``size`` pixels with standard
    deviation ``sigma`` ``[B]`` in pixels. At the borders the pixels that there are count
    for more; every row sums to 1."""
    place = torch.arange(size, dtype=torch.float64)
    gap = (place[:, None] - place[None]) / sigma.double()[:, None, None]
    return torch.softmax(-0.5 * gap.square(), dim=-1).float()


_LUMA = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def colour_map(
    brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor, grey: Tensor
) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation, hue and grey, in this order, as one map of colours.

    Clipping happens once, at the end, and hue turns the plane of YIQ's two colour axes, so that it
    leaves grey and luma alone.

    Args:
        brightness, contrast, saturation: factors ``[B]``, 1 for no change. hue: ``[B]``, share of
            the colour circle. grey: bool ``[B]``, take all colour away.

    Returns:
        ``mix`` float32 ``[B, 3, 3]`` and ``lift`` ``[B]``: a colour becomes ``mix @ colour + lift *
        m``, m the mean luma of the clip before.
    """
    luma = torch.tensor(_LUMA).expand(3, 3)  # a colour's luma in all three channels
    eye = torch.eye(3)
    angle = 2 * math.pi * hue
    turn = torch.zeros(len(hue), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    to_yiq = torch.tensor(_TO_YIQ)
    turn = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    factor = torch.where(grey, 0.0, saturation)[:, None, None]
    mix = turn @ (factor * eye + (1 - factor) * luma)
    return mix * (brightness * contrast)[:, None, None], brightness * (1 - contrast)


def _jitter_factors(
    batch: int, config: ViewConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Brightness, contrast, saturation and hue of each clip ``[B]``; no change without jitter."""
    on = _chance(batch, config.jitter, generator)
    spreads = (config.brightness, config.contrast, config.saturation)
    factors = [_uniform(batch, 1 - s, 1 + s, generator) for s in spreads]
    b, c, s = (torch.where(on, factor, 1.0) for factor in factors)
    return b, c, s, torch.where(on, _uniform(batch, -config.hue, config.hue, generator), 0.0)


def _uniform(batch: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(batch, generator=generator)


def _chance(batch: int, probability: float, generator: torch.Generator) -> Tensor:
    return torch.rand(batch, generator=generator) < probability
