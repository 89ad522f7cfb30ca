"""Pictures of imagined futures: latents have no pixels, so each shows the frame that comes nearest.

A bank holds frames and their latents, as the model encodes them. What is seen is then a true frame,
sharp whatever the latent: a latent between two frames shows one of them, and how far it was says
:attr:`Shown.distance`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.io import atomic_path

GAP = 2
"""White pixels between pictures."""


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Frames uint8 ``[M, H, W, 3]`` and their latents float ``[M, N, D]``."""

    frames: np.ndarray
    latents: Tensor

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.latents) or not len(self.frames):
            raise ConfigError(
                f"{len(self.frames)} frames with {len(self.latents)} latents: a bank needs one "
                "latent for each frame, and at least one"
            )
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise ConfigError(
                f"frames are {self.frames.dtype} {list(self.frames.shape)}: uint8 [M, H, W, 3]"
            )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Frames uint8 ``[..., H, W, 3]``, their numbers in the bank, and how far the latents were from
    theirs, both ``[...]``; the distance is the root mean square over elements."""

    frames: np.ndarray
    number: np.ndarray
    distance: np.ndarray


def nearest_frames(bank: Bank, latents: Tensor) -> Shown:
    """What the bank has for latents ``[..., N, D]``.

    Raises:
        ConfigError: latents of another shape than the bank's.
    """
    if latents.shape[-2:] != bank.latents.shape[1:]:
        raise ConfigError(
            f"latents {list(latents.shape)} are not of the bank's [..., "
            f"{', '.join(map(str, bank.latents.shape[1:]))}]"
        )
    flat = latents.detach().float().flatten(-2)
    known = bank.latents.detach().float().flatten(1).to(flat.device)
    gaps = torch.cdist(flat.flatten(0, -2), known).view(*flat.shape[:-1], len(known))
    best = gaps.min(dim=-1)
    number = best.indices.cpu().numpy()
    distance = best.values.cpu().numpy() / np.sqrt(flat.shape[-1])
    return Shown(frames=bank.frames[number], number=number, distance=distance)


def futures_picture(
    start: np.ndarray, futures: np.ndarray, weights: np.ndarray | None = None, *, scale: int = 1
) -> np.ndarray:
    """One image: a row per future, the start left of it, steps to the right.

    Args:
        start: uint8 ``[H, W, 3]``. futures: uint8 ``[F, T, H, W, 3]``. weights: ``[F]`` of sum 1,
            drawn as a bar below each start as wide as its future is probable; None draws none.
        scale: enlargement in whole pixels.

    Returns:
        uint8 ``[F * (h + 2) - 2, (T + 1) * (w + 2) - 2, 3]``, h and w enlarged.
    """
    if futures.ndim != 5 or futures.shape[2:] != start.shape:
        raise ConfigError(
            f"futures {list(futures.shape)} after a start {list(start.shape)}: give [F, T, H, W, 3]"
        )
    F, T = futures.shape[:2]
    height, width = (scale * side for side in start.shape[:2])
    page = np.full((F * (height + GAP) - GAP, (T + 1) * (width + GAP) - GAP, 3), 255, np.uint8)
    for f in range(F):
        top = f * (height + GAP)
        for t, frame in enumerate([start, *futures[f]]):
            left = t * (width + GAP)
            large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
            page[top : top + height, left : left + width] = large
        if weights is not None:
            bar = max(1, height // 16)
            page[top + height - bar : top + height, :width] = 255
            filled = round(float(weights[f]) * width)
            page[top + height - bar : top + height, :filled] = (40, 160, 90)
    return page


def save_picture(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 ``[H, W, 3]`` as a PNG, atomically."""
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
