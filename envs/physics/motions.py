"""Continuity and inertia: A and B differ in how the object moves; midway they meet or hide."""

from __future__ import annotations

import numpy as np

from .assets import Rejected, Thing
from .occluders import extent, screen, union
from .plan import Ask, Part, Plan, bystanders, splice_plan, target
from .simulate import Body, simulate
from .stage import Stage, sample_stage


def continuity(ask: Ask, rng: np.random.Generator) -> Plan:
    """One path against another: other lane in depth, other time, other side.

    After the swap the object is on the path that it was not on. Occluded: while a screen hides it.
    """
    stage = sample_stage(rng, elevation=(11, 16), moving=ask.moving)
    thing = target(ask, rng, stage)
    variant = ask.turn("lane", "time", "side")
    speed = float(rng.uniform(0.12, 0.15))
    near, far = -0.15, float(rng.uniform(0.95, 1.2))
    delay = float(rng.uniform(2.6, 3.4)) if variant == "time" else 0.0
    sign = -1.0 if variant == "side" else 1.0
    lanes = (near, near if variant == "time" else far)
    length, first = _bridge(ask, rng)
    middle = first + (length - 1) / 2 if ask.occluded else first - 0.5
    shift = 0.5 * delay * speed
    if rng.uniform() < 0.5:
        shift = -shift
    one = _slide(ask, thing, middle, lanes[0], shift, (speed, 0.0))
    two = _slide(ask, thing, middle, lanes[1], -shift, (sign * speed, 0.0))
    return _plan(ask, rng, stage, thing, (one, two), variant, first, length)


def inertia(ask: Ask, rng: np.random.Generator) -> Plan:
    """Two ways through one place: turned back, turned by a right angle, or slowed down.

    Visible: both tracks share one frame in plain view, and the swap is there (L = 1).
    """
    stage = sample_stage(rng, elevation=(11, 16), moving=ask.moving)
    thing = target(ask, rng, stage)
    variant = ask.turn("reverse", "speed", "turn")
    speed = float(rng.uniform(0.12, 0.15))
    ways = {
        "reverse": (-speed, 0.0),
        "speed": (0.45 * speed, 0.0),
        "turn": (0.0, 2.0 / ask.frames),
    }
    length, first = _bridge(ask, rng)
    length = length if ask.occluded else 1
    middle = float(first + (length - 1) / 2)
    depth = 1.0 if variant == "turn" else 0.0
    one = _slide(ask, thing, middle, depth, 0.0, (speed, 0.0))
    two = _slide(ask, thing, middle, depth, 0.0, ways[variant])
    return _plan(ask, rng, stage, thing, (one, two), variant, first, length)


def _bridge(ask: Ask, rng: np.random.Generator) -> tuple[int, int]:
    """(length, first frame) of the bridge."""
    length = max(ask.bridge, 4) if ask.occluded else 0
    length = min(length, ask.frames // 4)
    return length, ask.frames // 2 - length // 2 + int(rng.integers(-2, 3))


def _slide(
    ask: Ask,
    thing: Thing,
    middle: float,
    depth: float,
    shift: float,
    step: tuple[float, float],
) -> np.ndarray:
    """Slide by ``step`` metres a frame through (shift, depth) at frame ``middle``: [T, 7]."""
    start = (shift - step[0] * middle, depth - step[1] * middle)
    body = Body(
        thing=thing,
        position=(*start, thing.size[2]),
        velocity=(step[0] * ask.fps, step[1] * ask.fps, 0.0),
    )
    return simulate([body], [], frames=ask.frames, fps=ask.fps).poses[thing.name]


def _plan(
    ask: Ask,
    rng: np.random.Generator,
    stage: Stage,
    thing: Thing,
    poses: tuple[np.ndarray, np.ndarray],
    variant: str,
    first: int,
    length: int,
) -> Plan:
    parts: list[Part] = [(thing, poses[0], poses[1])]
    if variant != "turn":  # it would run into them
        parts += [(item, pose, pose) for item, pose in bystanders(ask, rng, stage)]
    if ask.occluded:
        if _too_close(stage, poses):
            raise Rejected("the object comes too close to the screen")
        over = union(*(extent(stage, [(thing, pose)]) for pose in poses))
        panel, pose = screen(ask, rng, stage, over, first, length)
        parts.append((panel, pose, pose))
    cut = first + length // 2
    return splice_plan(ask, stage, parts, (cut,), variant=variant)


def _too_close(stage: Stage, poses: tuple[np.ndarray, np.ndarray]) -> bool:
    """Would an object pass through the plane of the occluders where it can be seen?"""
    return any(((p[:, 1] < -0.3) & (np.abs(p[:, 0]) < stage.half_width)).any() for p in poses)
