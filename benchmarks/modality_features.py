"""Features of point clouds and skeletons that nobody had to learn: the floors of their study."""

from __future__ import annotations

import numpy as np

from ..core.rng import numpy_generator


def cloud_features(clouds: np.ndarray, *, pairs: int = 1000, bins: int = 16) -> np.ndarray:
    """Shape distributions of clouds ``[M, P, 3]`` in the unit ball: float64 ``[M, 2 bins + 3]``.

    Histograms of the distance between random pairs of points (D2 of Osada et al. 2002) and from the
    mean, and the three standard deviations along the principal axes: unchanged by rotation.
    """
    draw = numpy_generator(0, "cloud-features")
    a, b = draw.integers(clouds.shape[1], size=(2, pairs))
    made = []
    for cloud in clouds.astype(np.float64):
        centred = cloud - cloud.mean(axis=0)
        apart = np.linalg.norm(cloud[a] - cloud[b], axis=1)
        radius = np.linalg.norm(centred, axis=1)
        shares = [
            np.histogram(np.clip(x, 0, top), bins=bins, range=(0, top))[0] / len(x)
            for x, top in ((apart, 2.0), (radius, 1.0))
        ]
        axes = np.sqrt(np.linalg.eigvalsh(centred.T @ centred / len(cloud)).clip(0))
        made.append(np.concatenate([*shares, axes]))
    return np.stack(made)


def motion_features(sequences: np.ndarray) -> np.ndarray:
    """Of skeletons ``[M, T, J, 3]``: each joint's mean speed, and its mean height and spread
    relative to joint 0, float64 ``[M, 3 J]``: unchanged by turns about the vertical."""
    x = sequences.astype(np.float64)
    speed = np.linalg.norm(np.diff(x, axis=1), axis=-1).mean(axis=1)
    local = x - x[:, :, :1]
    height = local[..., 2].mean(axis=1)
    spread = np.sqrt(local.var(axis=1).sum(axis=-1))
    return np.concatenate([speed, height, spread], axis=1)
