"""The evaluation transforms of the V-JEPA family, in plain torch, on any device.

    config = PRESETS["vjepa2"](crop=256)
    tokens = encoder(preprocess(video, config)[None])                  # uint8, [T, 256, 256, 3]
    tokens = encoder(normalised(video, config)[None], normalised=True)  # float32, as published

Which resize is the published one differs within the family, and it matters more than its name
("bilinear" everywhere) says:

- *opencv*: Meta's video evaluation resizes decoded frames with OpenCV's bilinear interpolation,
  which does not antialias. V-JEPA 2-AC's transform does the same on float pixels.
- *pillow*: Meta's image evaluation (ImageNet with V-JEPA 1 and 2) goes through Pillow, whose
  bilinear filter widens when it shrinks: antialiased.
- *torchvision*: Hugging Face's processors resize uint8 tensors with antialiasing.

Shrinking 640 x 480 to a short side of 292, *opencv* and *pillow* differ by 0.2 of 255 on average on
smooth frames (at most 2) and by 22 on white noise; enlarging, by rounding.

*pillow* here is Pillow to the bit. *torchvision* does what torchvision does on the machine at hand:
where PyTorch calls the CPU's capability AVX2 it resizes integers (within one step of Pillow's, in
0.1 to 0.3 % of values), on any other CPU, AVX-512 among them, and on a GPU it goes through float32
(one step, in 15 %): a port's preprocessing is not the same on every machine. *opencv* is exact
interpolation, rounded; OpenCV itself computes in fixed point, so expect single steps of difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError
from .resample import pillow_bilinear


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """One evaluation transform; :data:`PRESETS` names the published ones."""

    crop: int = 256
    """Side of the square that comes out, in pixels."""
    kind: Literal["centre", "views", "squash"] = "centre"
    """centre: the short side is resized to ``short_side``, then the middle cut out. views: the
    short side is resized to ``crop`` and ``views`` squares cut out along the long side. squash: the
    largest middle part with width / height within ``aspect`` is resized to the square, its aspect
    lost."""
    short_side: int | None = None
    """For "centre"; None: int(crop * 256 / 224), the family's rule (256 -> 292, 384 -> 438)."""
    views: int = 3
    """For "views", 2 or more."""
    aspect: tuple[float, float] = (0.75, 1.35)
    """For "squash": least and greatest width / height that is kept."""
    like: Literal["opencv", "pillow", "torchvision"] = "opencv"
    """Whose bilinear resize and rounding; see the module's text."""
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per-channel mean of pixels in [0, 1] (ImageNet's)."""
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per-channel standard deviation of pixels in [0, 1]."""

    def __post_init__(self) -> None:
        low, high = self.aspect
        checks = {
            f"crop = {self.crop}: must be 1 or more": self.crop >= 1,
            f"kind = {self.kind!r}: choose centre, views or squash": (
                self.kind in ("centre", "views", "squash")
            ),
            f"short_side = {self.short_side}: must be at least crop = {self.crop}, or None": (
                self.short_side is None or self.short_side >= self.crop
            ),
            f"views = {self.views}: must be 2 or more (one view is kind = 'centre')": (
                self.views >= 2
            ),
            f"aspect = {self.aspect}: must be two numbers above 0 that do not fall": (
                0 < low <= high < float("inf")
            ),
            f"like = {self.like!r}: choose opencv, pillow or torchvision": (
                self.like in ("opencv", "pillow", "torchvision")
            ),
            f"pixel_std = {self.pixel_std}: must be above 0": min(self.pixel_std) > 0,
        }
        wrong = [message for message, fine in checks.items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))

    @property
    def resized_short_side(self) -> int:
        """Short side after the resize of "centre" and "views"."""
        if self.kind == "views":
            return self.crop
        return int(self.crop * 256 / 224) if self.short_side is None else self.short_side


def vjepa(crop: int = 224) -> PreprocessConfig:
    """Video evaluation of V-JEPA 1, 2 and 2.1 with one view (and of torch.hub's preprocessor)."""
    return PreprocessConfig(crop=crop)


def vjepa_views(crop: int = 224, views: int = 3) -> PreprocessConfig:
    """Video evaluation of V-JEPA 1, 2 and 2.1 with several views along the long side."""
    return PreprocessConfig(crop=crop, kind="views", views=views)


def vjepa2_ac(crop: int = 256) -> PreprocessConfig:
    """V-JEPA 2-AC on robot cameras: the published random crop never fits inside the frame and
    falls back to this fixed one, so training and planning see the same."""
    return PreprocessConfig(crop=crop, kind="squash")


def image(crop: int = 224) -> PreprocessConfig:
    """ImageNet evaluation of V-JEPA 1 and 2. I-JEPA's evaluation code was never released; this is
    the nearest published thing."""
    return PreprocessConfig(crop=crop, like="pillow")


def huggingface_video(crop: int = 256) -> PreprocessConfig:
    """Hugging Face's ``VJEPA2VideoProcessor``."""
    return PreprocessConfig(crop=crop, like="torchvision")


def huggingface_image(crop: int = 224) -> PreprocessConfig:
    """The processor that Hugging Face's I-JEPA port was converted with, ``ViTImageProcessor()`` as
    it is by default: the whole image squashed to a square, and pixels scaled to [-1, 1] instead of
    by ImageNet's statistics, which the weights were trained with. Use it to reproduce the port, and
    :func:`image` for the model."""
    half = (0.5, 0.5, 0.5)
    return PreprocessConfig(
        crop=crop,
        kind="squash",
        aspect=(1e-9, 1e9),
        like="torchvision",
        pixel_mean=half,
        pixel_std=half,
    )


PRESETS: dict[str, Callable[..., PreprocessConfig]] = {
    "vjepa": lambda crop=224: vjepa(crop),
    "vjepa-views": vjepa_views,
    "vjepa2": lambda crop=256: vjepa(crop),
    "vjepa2-views": lambda crop=256, views=3: vjepa_views(crop, views),
    "vjepa2.1": lambda crop=384: vjepa(crop),
    "vjepa2-ac": vjepa2_ac,
    "ijepa": image,
    "image": image,
    "hf-vjepa2": huggingface_video,
    "hf-ijepa": huggingface_image,
}
"""The published transforms by name; each takes the crop size."""


def preprocess(video: Tensor, config: PreprocessConfig) -> Tensor:
    """Resize and crop, for encoders that normalise on their own.

    Args:
        video: uint8 ``[T, H, W, 3]`` or ``[B, T, H, W, 3]``, 0..255; an image is T = 1.
        config: which transform.

    Returns:
        uint8 ``[..., T, crop, crop, 3]``; with kind "views" ``[..., V, T, crop, crop, 3]``. Where
        the published transform keeps fractions of pixel values ("vjepa2-ac"), they are rounded.

    Raises:
        ConfigError: another type or shape, or an empty one.
    """
    return _to_uint8(_transformed(video, config))


def normalised(video: Tensor, config: PreprocessConfig) -> Tensor:
    """As :func:`preprocess`, then ``(x / 255 - mean) / std`` in float32.

    Channels stay last; ``.movedim(-1, -3)`` is what Hugging Face's models take
    (``[B, T, 3, H, W]``), ``.movedim(-1, -4)`` what Meta's take (``[B, 3, T, H, W]``). The order of
    operations is the library's: torchvision's folds 255 into mean and std.
    """
    x = _transformed(video, config).float()
    mean, std = (torch.tensor(v, device=x.device) for v in (config.pixel_mean, config.pixel_std))
    if config.like == "torchvision":
        return (x - mean * 255.0) / (std * 255.0)
    return (x / 255 - mean) / std


def _transformed(video: Tensor, config: PreprocessConfig) -> Tensor:
    """Pixels ``[..., crop, crop, 3]`` in 0..255: uint8, or float32 where they are not rounded."""
    _check(video)
    frames = video.flatten(0, -4).permute(0, 3, 1, 2).contiguous()  # [N, 3, H, W]
    height, width = frames.shape[-2:]
    if config.kind == "squash":
        frames = _middle(frames, config.aspect)
        frames = _resize(frames, (config.crop, config.crop), config.like, rounded=False)
    else:
        size = _short_to(height, width, config.resized_short_side)
        frames = _resize(frames, size, config.like)
    out = frames.permute(0, 2, 3, 1).unflatten(0, video.shape[:-3])  # [..., T, H, W, 3]
    if config.kind == "centre":
        return _centre(out, config)
    return _views(out, config) if config.kind == "views" else out


def _resize(frames: Tensor, size: tuple[int, int], like: str, rounded: bool = True) -> Tensor:
    """Frames uint8 ``[N, 3, H, W]`` resized to ``size`` (height, width), bilinear."""
    if like == "pillow":
        return pillow_bilinear(frames, size)
    antialias = like == "torchvision"
    if antialias and frames.device.type == "cpu" and _resizes_integers():
        return F.interpolate(frames, size=size, mode="bilinear", antialias=True)
    x = F.interpolate(frames.float(), size=size, mode="bilinear", antialias=antialias)
    return _to_uint8(x) if rounded or antialias else x


def _resizes_integers() -> bool:
    """Whether torchvision would resize uint8 without float32; asked exactly as it asks."""
    return "AVX2" in torch.backends.cpu.get_cpu_capability()


def _short_to(height: int, width: int, short: int) -> tuple[int, int]:
    """Height and width scaled so that the shorter is ``short``; the longer is cut to an integer."""
    long = short * max(height, width) // min(height, width)
    return (long, short) if height > width else (short, long)


def _middle(frames: Tensor, aspect: tuple[float, float]) -> Tensor:
    """The largest middle part of frames ``[..., H, W]`` with width / height within bounds."""
    height, width = frames.shape[-2:]
    part_height, part_width = height, width
    if width / height < aspect[0]:
        part_height = round(width / aspect[0])
    elif width / height > aspect[1]:
        part_width = round(height * aspect[1])
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return frames[..., top : top + part_height, left : left + part_width]


def _centre(video: Tensor, config: PreprocessConfig) -> Tensor:
    """The middle square; an odd margin is halved to the even side, or down (torchvision's own)."""
    down = config.like == "torchvision"
    margins = [(size - config.crop) / 2 for size in video.shape[-3:-1]]
    top, left = (int(margin) if down else round(margin) for margin in margins)
    return video[..., top : top + config.crop, left : left + config.crop, :]


def _views(video: Tensor, config: PreprocessConfig) -> Tensor:
    """Squares at equal steps along the long side, ``[..., V, T, crop, crop, 3]``."""
    axis = -3 if video.shape[-3] > video.shape[-2] else -2
    step = (video.shape[axis] - config.crop) // (config.views - 1)
    starts = [view * step for view in range(config.views)]
    return torch.stack([video.narrow(axis, start, config.crop) for start in starts], dim=-5)


def _to_uint8(x: Tensor) -> Tensor:
    return x if x.dtype == torch.uint8 else x.round().clamp(0, 255).to(torch.uint8)


def _check(video: Tensor) -> None:
    shape = list(video.shape)
    if video.dtype != torch.uint8 or len(shape) not in (4, 5) or shape[-1] != 3 or 0 in shape:
        raise ConfigError(
            f"video must be uint8 [T, H, W, 3] or [B, T, H, W, 3] and not empty, got "
            f"{video.dtype} {shape}"
        )
