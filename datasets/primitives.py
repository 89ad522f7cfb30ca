"""Surfaces of simple solids, sampled evenly by area: what generated point clouds are made of.

Every solid is centred and about 2 wide. A function takes a generator and a number of points and
gives float64 ``[n, 3]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Sampler = Callable[[np.random.Generator, int], np.ndarray]

TORUS = (0.7, 0.3)
"""Radii of the ring and of its tube."""
CAPSULE = (0.5, 0.5)
"""Radius, and half the length of the straight part."""


def sphere(draw: np.random.Generator, n: int) -> np.ndarray:
    """The unit sphere."""
    x = draw.standard_normal((n, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def box(draw: np.random.Generator, n: int) -> np.ndarray:
    """The cube [-1, 1]³."""
    x = draw.uniform(-1, 1, (n, 3))
    x[np.arange(n), draw.integers(3, size=n)] = draw.choice([-1.0, 1.0], n)
    return x


def cylinder(draw: np.random.Generator, n: int) -> np.ndarray:
    """Radius 1 about the third axis, from -1 to 1, with both lids."""
    x = np.column_stack([_disc(draw, n), draw.choice([-1.0, 1.0], n)])
    side = draw.uniform(size=n) < 4 / (4 + 2)  # areas: 4 pi and 2 pi
    x[side, :2] = _circle(draw, n)[side]
    x[side, 2] = draw.uniform(-1, 1, n)[side]
    return x


def cone(draw: np.random.Generator, n: int) -> np.ndarray:
    """Tip at (0, 0, 1), base of radius 1 at -1."""
    slant = np.sqrt(5.0)
    side = draw.uniform(size=n) < slant / (slant + 1)
    down = np.sqrt(draw.uniform(size=n))  # distance from the tip, even by area
    mantle = np.column_stack([_circle(draw, n) * down[:, None], 1 - 2 * down])
    base = np.column_stack([_disc(draw, n), np.full(n, -1.0)])
    return np.where(side[:, None], mantle, base)


def torus(draw: np.random.Generator, n: int) -> np.ndarray:
    """A ring about the third axis."""
    ring, tube = TORUS
    angle = np.empty(0)
    while len(angle) < n:  # the outer half has more area
        some = draw.uniform(0, 2 * np.pi, 2 * n)
        keep = draw.uniform(0, ring + tube, 2 * n) < ring + tube * np.cos(some)
        angle = np.concatenate([angle, some[keep]])
    angle = angle[:n]
    return np.column_stack(
        [_circle(draw, n) * (ring + tube * np.cos(angle))[:, None], tube * np.sin(angle)]
    )


def pyramid(draw: np.random.Generator, n: int) -> np.ndarray:
    """A square base at -1 and a tip at (0, 0, 1)."""
    corners = np.array([[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [0, 0, 1.0]])
    return mesh(corners, [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4), (0, 1, 2), (0, 2, 3)])(
        draw, n
    )


def tetrahedron(draw: np.random.Generator, n: int) -> np.ndarray:
    """Four corners of the cube [-1, 1]³."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    return mesh(corners, [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)])(draw, n)


def capsule(draw: np.random.Generator, n: int) -> np.ndarray:
    """A cylinder about the third axis that ends in half spheres."""
    radius, half = CAPSULE
    side = draw.uniform(size=n) < half / (half + radius)  # areas: 4 pi r h and 4 pi r²
    straight = np.column_stack([_circle(draw, n) * radius, draw.uniform(-half, half, n)])
    ends = sphere(draw, n) * radius
    ends[:, 2] += np.where(ends[:, 2] < 0, -half, half)
    return np.where(side[:, None], straight, ends)


SOLIDS: dict[str, Sampler] = {
    "sphere": sphere,
    "box": box,
    "cylinder": cylinder,
    "cone": cone,
    "torus": torus,
    "pyramid": pyramid,
    "tetrahedron": tetrahedron,
    "capsule": capsule,
}
"""Name -> sampler; the order is that of the labels."""


def mesh(corners: np.ndarray, faces: Sequence[Sequence[int]] | np.ndarray) -> Sampler:
    """Samples triangles evenly by area.

    Args:
        corners: float ``[V, 3]``. faces: corner numbers ``[F, 3]``.
    """
    a, b, c = (corners[np.asarray(faces)[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)

    def draw_points(draw: np.random.Generator, n: int) -> np.ndarray:
        which = draw.choice(len(area), n, p=area / area.sum())
        u, v = np.sqrt(draw.uniform(size=n))[:, None], draw.uniform(size=n)[:, None]
        return (1 - u) * a[which] + u * (1 - v) * b[which] + u * v * c[which]

    return draw_points


def _circle(draw: np.random.Generator, n: int) -> np.ndarray:
    angle = draw.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def _disc(draw: np.random.Generator, n: int) -> np.ndarray:
    return _circle(draw, n) * np.sqrt(draw.uniform(size=n))[:, None]
