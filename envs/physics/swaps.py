"""Permanence, constancy of shape and colour, identity, occlusion: A and B differ in what is there.

Visible quadruplets swap in plain view. Occluded ones swap behind a curtain ("curtain"), behind a
screen that the object passes ("pass"), or twice: behind a curtain that comes twice, or behind a
screen that the object passes on its way out and back ("return").
"""

from __future__ import annotations

import numpy as np

from .assets import Rejected, Thing, delta_e, object_rgb, object_shape, object_size
from .occluders import curtain, extent, screen, union
from .plan import Ask, Part, Plan, bystanders, splice_plan, target
from .simulate import Body, Fixed, simulate
from .stage import Stage, sample_stage


def swap(ask: Ask, rng: np.random.Generator) -> Plan:
    """A quadruplet in which the target is another, or gone, after the swap."""
    stage = sample_stage(rng, moving=ask.moving)
    mine, axes = _targets(ask, rng, stage)
    route = _route(ask)
    if route == "static":
        return _static(ask, rng, stage, mine, axes)
    return _moving(ask, rng, stage, mine, axes, route)


def _route(ask: Ask) -> str:
    """static, pass or return."""
    if ask.principle in ("identity", "occlusion"):
        return "static"
    if not ask.occluded:
        return ask.turn("static", "pass")
    if ask.events == 2:
        return "return" if ask.bridge == 4 and ask.frames >= 48 else "static"
    return ask.turn("static", "pass") if 4 <= ask.bridge <= ask.frames // 4 else "static"


def _targets(
    ask: Ask, rng: np.random.Generator, stage: Stage
) -> tuple[list[tuple[Thing, bool, bool]], dict[str, float]]:
    """What may be there: (thing, in A, in B), and axes that describe the difference."""
    height = float(rng.uniform(0.3, 0.38))
    one = target(ask, rng, stage, "target", half_height=height)
    if ask.principle == "permanence":
        return [(one, True, False)], {}
    if ask.principle == "shape":
        shape = object_shape(rng, ask.held_out, unlike=one.shape)
        other = Thing(
            name="other",
            kind="object",
            shape=shape,
            size=object_size(rng, shape, height),
            rgb=one.rgb,
            held_out=ask.held_out,
        )
        return [(one, True, False), (other, False, True)], {}
    if ask.principle == "colour":
        apart = [(stage.floor[0], 30.0), (stage.sky[0], 20.0)]
        hard = ask.number % 4 >= 2
        near = (one.rgb, 25.0) if hard else None
        least = 12.0 if hard else 30.0
        rgb = object_rgb(rng, ask.held_out, [*apart, (one.rgb, least)], near=near)
        other = Thing(**{**vars(one), "name": "other", "rgb": rgb})
        difference = round(delta_e(one.rgb, rgb), 1)
        return [(one, True, False), (other, False, True)], {"delta_e": difference}
    if ask.principle == "identity":
        other = target(ask, rng, stage, "other", unlike=one)
        return [(one, True, True), (other, True, True)], {}
    short = Thing(**{**vars(_tall(one)), "name": "short", "size": (0.26, 0.26, 0.3)})
    return [(_tall(one), True, False), (short, False, True)], {}


def _tall(thing: Thing) -> Thing:
    shape = "box" if thing.shape == "box" else "cylinder"
    if thing.held_out:
        shape = "capsule"
    return Thing(**{**vars(thing), "shape": shape, "size": (0.26, 0.26, 0.62)})


def _static(
    ask: Ask,
    rng: np.random.Generator,
    stage: Stage,
    mine: list[tuple[Thing, bool, bool]],
    axes: dict[str, float],
) -> Plan:
    """The targets stand still; a curtain covers them, or nothing does."""
    spots = [(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.1, 0.3)))]
    if ask.principle == "identity":
        gap = float(rng.uniform(0.55, 0.75))
        spots = [(spots[0][0] - gap, spots[0][1]), (spots[0][0] + gap, spots[0][1])]
    parts: list[Part] = []
    for number, (thing, in_a, in_b) in enumerate(mine):
        last = len(spots) - 1
        at_a, at_b = spots[min(number, last)], spots[max(last - number, 0)]
        poses = [_standing(ask, thing, spot) for spot in (at_a, at_b)]
        parts.append((thing, poses[0] if in_a else None, poses[1] if in_b else None))
    parts += [(thing, pose, pose) for thing, pose in bystanders(ask, rng, stage)]
    covers = _covers(ask, rng)
    cuts = tuple((lo + hi) // 2 for lo, hi in covers)
    hides = ask.occluded or ask.principle == "occlusion"
    if hides:
        everything = [(t, p) for t, a, b in parts[: len(mine)] for p in (a, b) if p is not None]
        over = extent(stage, everything)
        leaves = _low(stage, everything) if ask.principle == "occlusion" else 0.0
        if ask.occluded:
            panel, pose = curtain(ask, rng, stage, over, covers, leaves=leaves)
        else:  # the low screen alone, from before the swap on
            low = (over[0], over[1], np.full(ask.frames, leaves))
            panel, pose = curtain(ask, rng, stage, low, [(cuts[0] // 2, ask.frames)], drops=False)
        parts.append((panel, pose, pose))
    twice = len(covers) == 2
    variant = ("curtain-twice" if twice else "curtain") if ask.occluded else "in-view-static"
    return splice_plan(
        ask, stage, parts, cuts, variant=variant, exact=ask.occluded, axes=dict(axes)
    )


def _standing(ask: Ask, thing: Thing, spot: tuple[float, float]) -> np.ndarray:
    body = Body(thing=thing, position=(*spot, thing.size[2]))
    return simulate([body], [], frames=ask.frames, fps=ask.fps).poses[thing.name]


def _low(stage: Stage, things: list[tuple[Thing, np.ndarray]]) -> float:
    """A height on the occluders' plane that hides the short object and not the tall one."""
    tops = sorted(float(extent(stage, [item])[2].max()) for item in things)
    return tops[0] + 0.35 * (tops[-1] - tops[0])


def _covers(ask: Ask, rng: np.random.Generator) -> list[tuple[int, int]]:
    """When a curtain covers: intervals of ``ask.bridge`` frames, as many as events."""
    length = ask.bridge if ask.occluded else 0
    spare = ask.frames - ask.events * (length + 4) - 8 * (ask.events + 1)
    if spare < 0:
        raise Rejected("the video is too short for bridges of this length")
    covers, at = [], 0
    for left in range(ask.events, 0, -1):
        wait = int(rng.integers(0, max(1, spare // (left + 1) + 1)))
        spare -= wait
        at += 8 + 2 + wait
        covers.append((at, at + length))
        at += length + 2
    return covers


def _moving(
    ask: Ask,
    rng: np.random.Generator,
    stage: Stage,
    mine: list[tuple[Thing, bool, bool]],
    axes: dict[str, float],
    route: str,
) -> Plan:
    """The target slides; a screen stands in its way to the eye, or none."""
    back = route == "return"
    length = ask.bridge if ask.occluded else 0
    speed = float(rng.uniform(0.145, 0.16) if back else rng.uniform(0.115, 0.155))
    middle = float(rng.uniform(-0.4, -0.2) if back else rng.uniform(-0.3, 0.3))
    centre = 12 if back else ask.frames // 2 + int(rng.integers(-2, 3))
    first = centre - length // 2
    start = middle - speed * (first + (length - 1) / 2)
    depth = float(rng.uniform(-0.1, 0.3))
    fixed = [_bouncer(rng, depth, middle + speed * 10.5)] if back else []
    parts: list[Part] = []
    for thing, in_a, in_b in mine:
        body = Body(
            thing=thing,
            position=(start, depth, thing.size[2]),
            velocity=(speed * ask.fps, 0.0, 0.0),
        )
        motion = simulate([body], fixed, frames=ask.frames, fps=ask.fps)
        pose = motion.poses[thing.name]
        parts.append((thing, pose if in_a else None, pose if in_b else None))
    path = [(t, p) for t, a, b in parts for p in (a, b) if p is not None]
    if any(np.abs(p - path[0][1]).max() > 2e-3 for _, p in path) and not back:
        raise Rejected("two shapes do not follow the same path")
    parts += [(thing, pose, pose) for thing, pose in bystanders(ask, rng, stage)]
    for item in fixed:
        rest = simulate([], [item], frames=ask.frames, fps=ask.fps).poses[item.thing.name]
        parts.append((item.thing, rest, rest))
    cuts = [first + length // 2]
    if ask.occluded:
        over = union(*(extent(stage, [item]) for item in path))
        panel, pose = screen(ask, rng, stage, over, first, length)
        parts.append((panel, pose, pose))
    if back:
        x = path[0][1][:, 0]
        turn = int(np.argmax(x))
        cuts.append(turn + int(np.argmin(np.abs(x[turn:] - middle))))
    variant = {"pass": "pass" if ask.occluded else "in-view-moving", "return": "return"}[route]
    return splice_plan(
        ask, stage, parts, tuple(cuts), variant=variant, exact=ask.occluded, axes=dict(axes)
    )


def _bouncer(rng: np.random.Generator, depth: float, x: float) -> Fixed:
    grey = float(rng.uniform(0.3, 0.7))
    wall = Thing(
        name="wall", kind="support", shape="box", size=(0.06, 0.5, 0.4), rgb=(grey, grey, grey)
    )
    return Fixed(thing=wall, position=(round(x + 0.4, 3), depth, 0.4))
