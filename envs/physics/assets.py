"""What scenes are made of: shapes, colours and occluder styles, some held out for the OOD split."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

SHAPES = ("sphere", "box", "cylinder", "ellipsoid")
"""Shapes of objects in training and in-distribution probes."""
HELD_OUT_SHAPES = ("cone", "capsule")
"""Shapes that only the OOD split has."""
STYLES = ("plain", "framed")
"""How occluders look: one colour, or a border of another."""
HELD_OUT_STYLES = ("banded",)
"""Occluders that only the OOD split has: horizontal bands."""
HELD_OUT_HUES = ((0.12, 0.19), (0.74, 0.88))
"""Hues (0 to 1) of objects that only the OOD split has: yellow and violet."""

Rgb = tuple[float, float, float]
Vector = tuple[float, float, float]


class Rejected(Exception):
    """A drawn scene breaks a rule; draw another. The message names the rule."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something with a pose. Its geoms are equal in the simulation and in the picture."""

    name: str
    kind: str
    """object, occluder, support or container."""
    shape: str
    """A shape of objects, a style of occluders, ``box``, or ``open_box`` and ``pen``."""
    size: Vector
    """Half extents in metres along x, y, z."""
    rgb: Rgb
    """Colour, 0 to 1."""
    rgb2: Rgb = (0.5, 0.5, 0.5)
    """Second colour of framed and banded occluders."""
    held_out: bool = False
    """Made of what only the OOD split has."""


def geoms(thing: Thing) -> str:
    """The MJCF geoms of ``thing`` around its origin."""
    x, y, z = thing.size
    if thing.shape == "sphere":
        return _geom("sphere", (x,), thing.rgb)
    if thing.shape == "cylinder":
        return _geom("cylinder", (x, z), thing.rgb)
    if thing.shape == "capsule":
        return _geom("capsule", (x, z - x), thing.rgb)
    if thing.shape == "ellipsoid":
        return _geom("ellipsoid", thing.size, thing.rgb)
    if thing.shape == "cone":
        return f'<geom type="mesh" mesh="cone-{thing.name}" rgba="{_rgba(thing.rgb)}"/>'
    if thing.shape == "framed":
        rim = 0.12 * min(x, z)
        inner = _geom("box", (x - rim, y, z - rim), thing.rgb)
        return inner + _geom("box", (x, 0.6 * y, z), thing.rgb2)
    if thing.shape == "banded":
        return "".join(
            _geom("box", (x, y, z / 5), (thing.rgb, thing.rgb2)[i % 2], (0, 0, z * (2 * i - 4) / 5))
            for i in range(5)
        )
    if thing.shape in _WALLED:
        return _walled(thing)
    return _geom("box", thing.size, thing.rgb)


def meshes(thing: Thing) -> str:
    """The MJCF assets that :func:`geoms` of ``thing`` refers to, or nothing."""
    if thing.shape != "cone":
        return ""
    x, y, z = thing.size
    corners = [
        (x * math.cos(2 * math.pi * k / 24), y * math.sin(2 * math.pi * k / 24), -z)
        for k in range(24)
    ]
    points = " ".join(f"{v:.6f}" for corner in [*corners, (0.0, 0.0, z)] for v in corner)
    return f'<mesh name="cone-{thing.name}" vertex="{points}"/>'


_WALLED = {
    "open_box": ("bottom", "front", "back", "left", "right"),
    "pen": ("back",),
    "pen_walls": ("left", "right"),
}
WALL = 0.05
"""Half thickness of the walls of containers, in metres."""


def _walled(thing: Thing) -> str:
    """Boxes along the sides of the box ``thing.size``."""
    x, y, z = thing.size
    walls = {
        "bottom": ((x, y, 0.02), (0, 0, 0.02 - z)),
        "front": ((x, WALL, z), (0, WALL - y, 0)),
        "back": ((x, WALL, z), (0, y - WALL, 0)),
        "left": ((WALL, y, z), (WALL - x, 0, 0)),
        "right": ((WALL, y, z), (x - WALL, 0, 0)),
    }
    shade: dict[str, float] = {"front": 1.0, "back": 0.75, "left": 0.85, "right": 0.85}
    return "".join(
        _geom("box", walls[side][0], _scaled(thing.rgb, shade.get(side, 0.7)), walls[side][1])
        for side in _WALLED[thing.shape]
    )


def object_shape(rng: np.random.Generator, held_out: bool, *, unlike: str = "") -> str:
    """A shape of the split, other than ``unlike``."""
    pool = [shape for shape in (HELD_OUT_SHAPES if held_out else SHAPES) if shape != unlike]
    return str(rng.choice(pool))


def object_size(rng: np.random.Generator, shape: str, half_height: float | None = None) -> Vector:
    """Half extents: all shapes of one ``half_height`` rest at the same height."""
    h = float(rng.uniform(0.30, 0.38)) if half_height is None else half_height
    if shape == "sphere":
        return h, h, h
    if shape == "box":
        return 0.86 * h, 0.86 * h, h
    if shape == "cylinder":
        return 0.8 * h, 0.8 * h, h
    if shape == "capsule":
        return 0.6 * h, 0.6 * h, h
    if shape == "ellipsoid":
        return 0.68 * h, 0.68 * h, h
    return h, h, h


def object_rgb(
    rng: np.random.Generator,
    held_out: bool,
    apart: list[tuple[Rgb, float]],
    *,
    near: tuple[Rgb, float] | None = None,
) -> Rgb:
    """A colour at least so far (CIELab dE) from each of ``apart``, at most so far from ``near``.

    Raises:
        Rejected: none found in 200 draws.
    """
    for _ in range(200):
        hue = float(rng.uniform())
        if held_out != any(low <= hue <= high for low, high in HELD_OUT_HUES):
            continue
        value = colorsys.hsv_to_rgb(hue, float(rng.uniform(0.55, 1.0)), float(rng.uniform(0.5, 1)))
        rgb = (round(value[0], 3), round(value[1], 3), round(value[2], 3))
        if any(delta_e(rgb, other) < least for other, least in apart):
            continue
        if near is not None and delta_e(rgb, near[0]) > near[1]:
            continue
        return rgb
    raise Rejected("no colour has the contrast asked for")


def muted_rgb(rng: np.random.Generator) -> Rgb:
    """A colour of floors, walls and screens: little saturation, middle brightness."""
    value = colorsys.hsv_to_rgb(
        float(rng.uniform()), float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.35, 0.85))
    )
    return round(value[0], 3), round(value[1], 3), round(value[2], 3)


def delta_e(a: Rgb, b: Rgb) -> float:
    """Colour difference CIE76: the Euclidean distance in CIELab (D65) of two sRGB colours."""
    return float(np.linalg.norm(_lab(a) - _lab(b)))


def _lab(rgb: Rgb) -> np.ndarray:
    c = np.asarray(rgb, np.float64)
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = _RGB_TO_XYZ @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


_RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def _geom(kind: str, size: tuple[float, ...], rgb: Rgb, pos: Vector = (0, 0, 0)) -> str:
    sizes = " ".join(f"{v:.6f}" for v in size)
    place = " ".join(f"{v:.6f}" for v in pos)
    return f'<geom type="{kind}" size="{sizes}" pos="{place}" rgba="{_rgba(rgb)}"/>'


def _rgba(rgb: Rgb) -> str:
    return " ".join(f"{v:.4f}" for v in (*rgb, 1.0))


def _scaled(rgb: Rgb, by: float) -> Rgb:
    return rgb[0] * by, rgb[1] * by, rgb[2] * by
