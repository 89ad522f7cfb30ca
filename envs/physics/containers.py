"""Containment: what is in a container moves with it, what is behind it stays.

Occluded: an object falls into an opaque box or behind it; the box is pulled aside and shows the old
place. Visible: a pen, a back panel with side walls or without, is pulled along; the object before
it is pushed or stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .assets import WALL, Thing
from .contacts import _obstacle
from .plan import Ask, Plan, bystanders, factorial_plan, splice_plan, target
from .simulate import Body, Fixed, simulate
from .stage import sample_stage


def containment(ask: Ask, rng: np.random.Generator) -> Plan:
    """In against behind (occluded), with side walls against without (visible)."""
    return _box(ask, rng) if ask.occluded else _pen(ask, rng)


def _box(ask: Ask, rng: np.random.Generator) -> Plan:
    stage = sample_stage(rng, elevation=(8, 11), moving=ask.moving)
    thing = target(ask, rng, stage, half_height=float(rng.uniform(0.24, 0.28)))
    size = (0.46, 0.42, float(rng.uniform(0.5, 0.56)))
    box = Thing(**{**vars(_obstacle(rng, stage, "box", size)), "kind": "container"})
    box = Thing(**{**vars(box), "shape": "open_box"})
    x = float(rng.uniform(-1.1, -0.8))
    land = 9.0 + 0.3 * (ask.frames - 32)
    start = land + 2 + min(ask.bridge, 8)
    path = _pull(x, start / ask.fps, float(rng.uniform(1.5, 1.8)), 9 / ask.fps)
    fixed = Fixed(thing=box, position=(x, 0.0, size[2]), damped=True, path=path)
    motions = []
    for y, floor in ((0.0, 0.04), (size[1] + 0.06 + thing.size[1], 0.0)):
        rest = thing.size[2] + floor
        seconds = land / ask.fps
        up = (rest - 2.9 + 0.5 * 9.81 * seconds**2) / seconds
        body = Body(thing=thing, position=(x, y, 2.9), velocity=(0, 0, up), settles=False)
        motions.append(simulate([body], [fixed], frames=ask.frames, fps=ask.fps, bounce=0.3))
    one, two = motions
    parts = [
        (box, one.poses["box"], two.poses["box"]),
        (thing, one.poses[thing.name], two.poses[thing.name]),
        *((item, pose, pose) for item, pose in bystanders(ask, rng, stage)),
    ]
    sunk = max(one.penetration, two.penetration)
    cut = round(start) - 1
    return splice_plan(ask, stage, parts, (cut,), variant="in-or-behind", penetration=sunk)


def _pen(ask: Ask, rng: np.random.Generator) -> Plan:
    stage = sample_stage(rng, elevation=(9, 14), moving=ask.moving)
    thing = target(ask, rng, stage, half_height=float(rng.uniform(0.28, 0.33)))
    size = (0.62, 0.42, 0.42)
    back = Thing(**{**vars(_obstacle(rng, stage, "pen", size)), "kind": "container"})
    back = Thing(**{**vars(back), "shape": "pen"})
    sides = Thing(
        **{**vars(back), "name": "sides", "shape": "pen_walls", "size": (0.62, 0.36, 0.2)}
    )
    x = float(rng.uniform(-1.0, -0.7))
    start = (10.0 + 0.3 * (ask.frames - 32)) / ask.fps
    way, seconds = float(rng.uniform(1.5, 1.7)), 12 / ask.fps
    frame = Fixed(thing=back, position=(x, 0, 0.42), path=_pull(x, start, way, seconds))
    walls = Fixed(
        thing=sides, position=(x, -0.065, 0.2), damped=True, path=_pull(x, start, way, seconds)
    )
    body = Body(thing=thing, position=(x, -WALL, thing.size[2]))
    pushed = simulate([body], [frame, walls], frames=ask.frames, fps=ask.fps)
    left = simulate([body], [frame], frames=ask.frames, fps=ask.fps)
    parts = [
        (back, pushed.poses["pen"], left.poses["pen"]),
        (sides, pushed.poses["sides"], None),
        (thing, pushed.poses[thing.name], left.poses[thing.name]),
        *((item, pose, pose) for item, pose in bystanders(ask, rng, stage)),
    ]
    sunk = max(pushed.penetration, left.penetration)
    return factorial_plan(ask, stage, parts, ("sides",), variant="pen", penetration=sunk)


def _pull(x: float, start: float, way: float, seconds: float) -> Callable[[float], float]:
    """A smooth way of ``way`` metres to the right between ``start`` and ``start + seconds``."""

    def path(time: float) -> float:
        u = min(max((time - start) / seconds, 0.0), 1.0)
        return x + way * u * u * (3 - 2 * u)

    return path
