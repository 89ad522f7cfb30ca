"""Coordinates in which the squared straight-line distance is the length of the way around walls.

On a tree, on a cycle and on an open grid, the square root of the shortest path's length is a
Euclidean distance (they embed isometrically in L1; Deza & Laurent 1997), so classical scaling
(Torgerson 1952) of the lengths taken as squared distances loses nothing there, and little on mazes
made of such parts.
"""

from __future__ import annotations

import numpy as np

FEATURES = 24
"""Leading coordinates that are kept."""


class Geodesic:
    """Coordinates for the free part of a square lattice of points.

    Args:
        free: bool ``[nx, ny]``, lattice points that are not inside a wall.
        right: bool ``[nx - 1, ny]``, whether point (i, j) leads to (i + 1, j).
        up: bool ``[nx, ny - 1]``, whether point (i, j) leads to (i, j + 1).
        origin: place of point (0, 0). spacing: between neighbours, in the units of places.
        unit: length of a way that counts as mean squared difference .1 between coordinates.
    """

    def __init__(
        self,
        free: np.ndarray,
        right: np.ndarray,
        up: np.ndarray,
        *,
        origin: float,
        spacing: float,
        unit: float,
    ):
        self._origin, self._spacing = origin, spacing
        ids = np.arange(free.size).reshape(free.shape)
        right = right & free[:-1] & free[1:]
        up = up & free[:, :-1] & free[:, 1:]
        links = np.concatenate(
            [
                np.stack([ids[:-1][right], ids[1:][right]]),
                np.stack([ids[:, :-1][up], ids[:, 1:][up]]),
            ],
            axis=1,
        )
        inside = ids[free]
        length = spacing * _path_lengths(links, free.size)[np.ix_(inside, inside)]
        flat = np.zeros((free.size, FEATURES))
        flat[inside] = _classical_scaling(length, FEATURES)
        flat *= np.sqrt(0.1 * FEATURES / unit)
        self._table = flat[_nearest(free)].reshape(*free.shape, FEATURES)

    def __call__(self, place: np.ndarray) -> np.ndarray:
        """float64 ``[..., FEATURES]`` of places ``[..., 2]``, bilinear between lattice points."""
        size = np.array(self._table.shape[:2])
        where = np.clip((np.asarray(place) - self._origin) / self._spacing, 0, size - 1.000001)
        low = where.astype(int)
        share = (where - low)[..., None, :]
        i, j = low[..., 0], low[..., 1]
        left = self._table[i, j] * (1 - share[..., 1]) + self._table[i, j + 1] * share[..., 1]
        right = (
            self._table[i + 1, j] * (1 - share[..., 1]) + self._table[i + 1, j + 1] * share[..., 1]
        )
        return left * (1 - share[..., 0]) + right * share[..., 0]


def _path_lengths(links: np.ndarray, count: int) -> np.ndarray:
    """Steps of the shortest path between any two of ``count`` points, inf where there is none."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    graph = csr_array((np.ones(links.shape[1]), (links[0], links[1])), shape=(count, count))
    return shortest_path(graph, directed=False, unweighted=True)


def _classical_scaling(squared: np.ndarray, width: int) -> np.ndarray:
    """Points ``[n, width]`` whose squared distances are nearest to ``squared`` ``[n, n]``."""
    if not np.isfinite(squared).all():
        raise ValueError("the free part of the lattice falls into pieces")
    centred = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    from scipy.linalg import eigh

    count = len(squared)
    first = max(0, count - width)
    values, vectors = eigh(-0.5 * centred, subset_by_index=(first, count - 1))
    points = np.zeros((count, width))
    points[:, : len(values)] = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1]
    return points


def _nearest(free: np.ndarray) -> np.ndarray:
    """For every lattice point the number of the nearest free one: int ``[nx * ny]``."""
    from scipy.ndimage import distance_transform_edt

    i, j = np.asarray(distance_transform_edt(~free, return_distances=False, return_indices=True))
    return (i * free.shape[1] + j).ravel()
