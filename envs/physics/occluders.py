"""Screens and curtains that hide things for exactly so many frames.

A screen stands; things pass behind it. A curtain comes, covers things for L frames, and goes. Where
their edges must be follows from projecting outlines through the camera on the occluder's plane; the
segmentation rendering decides afterwards whether it worked (:mod:`.quadruplet`).
"""

from __future__ import annotations

import numpy as np

from .assets import HELD_OUT_STYLES, STYLES, Rejected, Thing, muted_rgb
from .plan import Ask
from .stage import Stage
from .track import still

PLANE = -0.75
"""The y of occluders, in metres: between the camera and the things."""
SPARE_PX = 2.6
"""Pixels by which a curtain covers more than it must."""
COMING = (0.3, 0.62)
"""How far a curtain is up (or down) in the frames before it covers everything."""

Extent = tuple[np.ndarray, np.ndarray, np.ndarray]


def extent(stage: Stage, things: list[tuple[Thing, np.ndarray]]) -> Extent:
    """What hides ``things``: left edge, right edge and top, float64 [T] each, metres on the plane.

    ``things``: each with its poses [T, 7].
    """
    frames = len(things[0][1])
    camera = stage.camera(frames)[:, None, :3]
    points = np.concatenate([pose[:, None, :3] + _outline(thing) for thing, pose in things], axis=1)
    t = (PLANE - camera[..., 1]) / (points[..., 1] - camera[..., 1])
    x = camera[..., 0] + t * (points[..., 0] - camera[..., 0])
    z = camera[..., 2] + t * (points[..., 2] - camera[..., 2])
    return x.min(1), x.max(1), z.max(1)


def union(*extents: Extent) -> Extent:
    """What hides everything that each of ``extents`` hides."""
    return (
        np.min([e[0] for e in extents], axis=0),
        np.max([e[1] for e in extents], axis=0),
        np.max([e[2] for e in extents], axis=0),
    )


def screen(
    ask: Ask, rng: np.random.Generator, stage: Stage, over: Extent, first: int, length: int
) -> tuple[Thing, np.ndarray]:
    """A standing screen behind which everything is hidden in frames [first, first + length) only.

    Raises:
        Rejected: the neighbouring frames' outlines lie within those to be hidden.
    """
    low, high, top = over
    inside = slice(first, first + length)
    outside = np.array([first - 1, first + length])
    left, right = low[inside].min(), high[inside].max()
    spare = 1.5 * _metres_per_pixel(ask, stage)
    beyond_left = low[outside][low[outside] < left]
    beyond_right = high[outside][high[outside] > right]
    if not len({*outside[low[outside] < left], *outside[high[outside] > right]}) == 2:
        raise Rejected("no screen hides the bridge and nothing else")
    left = (left + beyond_left.max()) / 2 if len(beyond_left) else left - spare
    right = (right + beyond_right.min()) / 2 if len(beyond_right) else right + spare
    height = float(top[inside].max()) + rng.uniform(1.2, 3) * spare
    thing = _panel(ask, rng, "screen", (right - left) / 2, height / 2)
    return thing, still(ask.frames, ((left + right) / 2, PLANE, height / 2))


def curtain(
    ask: Ask,
    rng: np.random.Generator,
    stage: Stage,
    over: Extent,
    covers: list[tuple[int, int]],
    *,
    leaves: float = 0.0,
    drops: bool | None = None,
) -> tuple[Thing, np.ndarray]:
    """A panel that covers ``over`` in the frames [lo, hi) of ``covers`` and is away otherwise.

    Args:
        leaves: the fraction of its height that stays up after the last cover. drops: comes from
            above rather than out of the floor (None: drawn).
    """
    low, high, top = over
    times = np.concatenate(
        [np.arange(max(0, lo - 2), min(ask.frames, hi + 2)) for lo, hi in covers]
    )
    spare = SPARE_PX * _metres_per_pixel(ask, stage)
    left, right = low[times].min() - spare, high[times].max() + spare
    needed = float(top[times].max())
    full = needed + spare
    drops = bool(rng.uniform() < 0.5) if drops is None else drops
    shown = np.zeros(ask.frames)
    for lo, hi in covers:
        shown[lo:hi] = full
        for back, share in enumerate(reversed(COMING), 1):
            shown[lo - back] = share * needed if lo >= back else 0.0
            if hi + back - 1 < ask.frames:
                shown[hi + back - 1] = share * needed
    if leaves:
        shown[covers[-1][1] :] = leaves
    thing = _panel(ask, rng, "curtain", (right - left) / 2, full / 2)
    pose = still(ask.frames, ((left + right) / 2, PLANE, 0))
    if drops and not leaves:
        pose[:, 2] = np.where(shown > 0, needed - shown + full / 2, 8.0)
        pose[shown == full, 2] = full / 2
    else:
        pose[:, 2] = np.where(shown > 0, shown, -0.1) - full / 2
    return thing, np.round(pose, 4)


def _panel(
    ask: Ask, rng: np.random.Generator, name: str, half_width: float, half_height: float
) -> Thing:
    style = str(rng.choice(HELD_OUT_STYLES if ask.held_out else STYLES))
    size = (round(float(half_width), 4), 0.04, round(float(half_height), 4))
    return Thing(
        name=name,
        kind="occluder",
        shape=style,
        size=size,
        rgb=muted_rgb(rng),
        rgb2=muted_rgb(rng),
        held_out=ask.held_out,
    )


def _metres_per_pixel(ask: Ask, stage: Stage) -> float:
    return 2 * stage.half_width / ask.size


def _outline(thing: Thing) -> np.ndarray:
    """Points around the thing: float64 [P, 3]."""
    x, y, z = thing.size
    if thing.shape in ("sphere", "ellipsoid", "capsule", "cylinder", "cone"):
        turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        ring = np.stack([x * np.cos(turn), y * np.sin(turn), np.zeros(32)], axis=1)
        levels = {"cylinder": (-z, z), "cone": (-z,), "capsule": (x - z, z - x)}
        rings = [ring + np.array([0, 0, level]) for level in levels.get(thing.shape, (0.0,))]
        return np.concatenate([*rings, np.array([[0.0, 0.0, z]])])
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], np.float64)
    return signs * (x, y, z)
