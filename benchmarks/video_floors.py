"""What :mod:`.video_study` puts beside trained encoders: features that nothing has to learn."""

from __future__ import annotations

import numpy as np
import torch

from ..vjepa.positions import sincos_table
from .probes import pca_features
from .video_arms import ArmConfig, tubelets

MOVING = 12.0
"""Of 255: pixels that change by more between frames are taken to move."""


def pixel_components(clips: np.ndarray, arm: ArmConfig, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Principal components of pixels, as wide as the encoder, fitted on ``rows``; float16.

    For the linear probe, of whole clips: ``[M, 1, D]``. For the attentive one, of single tubelets
    with the sin-cos table of their places added, ``[M, N, D]``: a set of tubelets that does not say
    where they are would hide all motion from it.
    """
    grid, width = arm.encoder.grid(*clips.shape[1:4]), arm.encoder.width
    whole = pca_features(clips, min(width, len(rows)), fit_rows=rows)
    cut = tubelets(torch.from_numpy(clips), grid).numpy()
    flat = cut.reshape(-1, cut.shape[-1])
    fit = (rows[:, None] * grid.size + np.arange(grid.size)).ravel()
    parts = pca_features(flat, min(width, flat.shape[-1]), fit_rows=fit)
    parts = np.pad(parts, ((0, 0), (0, width - parts.shape[1])))
    places = sincos_table(grid, width, torch.device("cpu")).numpy()
    tokens = (parts / parts[fit].std()).reshape(len(clips), grid.size, width) + places
    scaled = whole / whole[rows].std(0).clip(1e-6)
    return {"linear": scaled[:, None].astype(np.float16), "attentive": tokens.astype(np.float16)}


def motion_by_hand(clips: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """One velocity of everything that moves: its direction and the logarithm of its speed.

    Least squares on the brightness that moves along (Lucas and Kanade 1981), over all pixels that
    change and all frames: ``sum g gT v = -sum g dI/dt`` with g the gradient of the image.

    Args:
        clips: uint8 ``[M, T, H, W, 3]``.

    Returns:
        float16 ``[M, 1, width]`` for both probes: cosine, sine, log of pixels per frame, then 0.
    """
    features = np.zeros((len(clips), 1, width), np.float32)
    for row, clip in enumerate(clips):
        grey = clip.astype(np.float32).mean(-1)
        change, middle = grey[1:] - grey[:-1], (grey[1:] + grey[:-1]) / 2
        down, along = np.gradient(middle, axis=(1, 2))
        some = np.abs(change) > MOVING
        g = np.stack([along[some], down[some]])
        moves = np.linalg.solve(g @ g.T + 1e-3 * np.eye(2), -(g @ change[some]))
        speed = max(float(np.hypot(*moves)), 1e-3)
        features[row, 0, :3] = *(moves / speed), np.log(speed)
    return dict.fromkeys(("linear", "attentive"), features.astype(np.float16))
