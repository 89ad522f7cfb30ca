"""Solidity and collision: a wall (or a post) is there or not, and a sliding object meets it or not.

Visible: factorial, the outcome of one scene is replayed in the other. Occluded: a splice; the wall
shows, a curtain comes over the place of the contact, and what comes out again tells.
"""

from __future__ import annotations

import numpy as np

from .assets import Thing, delta_e, muted_rgb
from .occluders import Extent, curtain, extent, union
from .plan import Ask, Plan, bystanders, factorial_plan, splice_plan, target
from .simulate import Body, Fixed, simulate
from .stage import Stage, sample_stage


def solidity(ask: Ask, rng: np.random.Generator) -> Plan:
    """A wall across the way, or none: the object rebounds, or passes."""
    stage = sample_stage(rng, moving=ask.moving)
    thing = target(ask, rng, stage)
    x = float(rng.uniform(0.0, 0.4))
    wall = _obstacle(rng, stage, "wall", (0.08, 0.4, float(rng.uniform(0.38, 0.5))))
    hit = _time_of_contact(ask, rng)
    speed = float(rng.uniform(0.125, 0.15))
    contact = x - wall.size[0] - thing.size[0]
    body = _slider(ask, thing, contact - speed * hit, speed)
    fixed = Fixed(thing=wall, position=(round(x, 3), 0.0, wall.size[2]))
    bounce = float(rng.uniform(0.9, 0.98))
    blocked = simulate([body], [fixed], frames=ask.frames, fps=ask.fps, bounce=bounce)
    free = simulate([body], [], frames=ask.frames, fps=ask.fps)
    parts = [
        (wall, blocked.poses["wall"], None),
        (thing, blocked.poses["target"], free.poses["target"]),
    ]
    over = union(
        steady(extent(stage, [(wall, blocked.poses["wall"])])),
        steady(extent(stage, [(thing, blocked.poses["target"])]), int(hit) - 1, int(hit) + 3),
    )
    sunk = blocked.penetration
    return _finish(ask, rng, stage, parts, "wall", "rebound-or-pass", over, int(hit), sunk)


def collision(ask: Ask, rng: np.random.Generator) -> Plan:
    """A post in front of a resting object, or none: it stays, or is launched."""
    stage = sample_stage(rng, moving=ask.moving)
    thing = target(ask, rng, stage, "striker")
    other = target(ask, rng, stage, "struck", unlike=thing)
    x = float(rng.uniform(0.35, 0.6))
    post = _obstacle(rng, stage, "post", (0.07, 0.3, float(rng.uniform(0.34, 0.42))))
    hit = _time_of_contact(ask, rng)
    speed = float(rng.uniform(0.125, 0.15))
    contact = x - other.size[0] - thing.size[0]
    place = x - other.size[0] - 0.1 - post.size[0]
    striker = _slider(ask, thing, contact - speed * hit, speed)
    struck = Body(thing=other, position=(round(x, 3), 0.0, other.size[2]))
    fixed = Fixed(thing=post, position=(round(place, 3), 0.0, post.size[2]), damped=True)
    stopped = simulate([striker, struck], [fixed], frames=ask.frames, fps=ask.fps)
    struck_at = simulate([striker, struck], [], frames=ask.frames, fps=ask.fps)
    parts = [
        (post, stopped.poses["post"], None),
        (thing, stopped.poses["striker"], struck_at.poses["striker"]),
        (other, stopped.poses["struck"], struck_at.poses["struck"]),
    ]
    zone = (int(hit) - 3, ask.frames)
    over = union(
        steady(extent(stage, [(post, stopped.poses["post"])])),
        steady(extent(stage, [(thing, stopped.poses["striker"])]), *zone),
        steady(extent(stage, [(thing, struck_at.poses["striker"])]), *zone),
    )
    sunk = max(stopped.penetration, struck_at.penetration)
    return _finish(ask, rng, stage, parts, "post", "launch-or-rest", over, int(hit) - 1, sunk)


def steady(over: Extent, lo: int = 0, hi: int | None = None) -> Extent:
    """The extent that covers ``over`` at all times of [lo, hi), as if it did not change."""
    when, frames = slice(max(lo, 0), hi), len(over[0])
    edges = over[0][when].min(), over[1][when].max(), over[2][when].max()
    return np.full(frames, edges[0]), np.full(frames, edges[1]), np.full(frames, edges[2])


def _time_of_contact(ask: Ask, rng: np.random.Generator) -> float:
    """In frames; early enough for the outcome, late enough for what comes before."""
    return float(rng.uniform(13.0, 15.0) + 0.4 * (ask.frames - 32))


def _slider(ask: Ask, thing: Thing, start: float, speed: float) -> Body:
    velocity = (speed * ask.fps, 0.0, 0.0)
    return Body(thing=thing, position=(start, 0.0, thing.size[2]), velocity=velocity)


def _obstacle(
    rng: np.random.Generator, stage: Stage, name: str, size: tuple[float, float, float]
) -> Thing:
    """A wall or a post that stands out from the floor."""
    rgb = muted_rgb(rng)
    for _ in range(50):
        if delta_e(rgb, stage.floor[0]) >= 25:
            break
        rgb = muted_rgb(rng)
    return Thing(name=name, kind="support", shape="box", size=size, rgb=rgb)


def _finish(
    ask: Ask,
    rng: np.random.Generator,
    stage: Stage,
    parts: list,
    obstacle: str,
    variant: str,
    over: Extent,
    hit: int,
    sunk: float,
) -> Plan:
    parts = parts + [(thing, pose, pose) for thing, pose in bystanders(ask, rng, stage)]
    if not ask.occluded:
        return factorial_plan(ask, stage, parts, (obstacle,), variant=variant, penetration=sunk)
    panel, pose = curtain(ask, rng, stage, over, [(hit - 3, ask.frames)])
    parts.append((panel, pose, pose))
    return splice_plan(ask, stage, parts, (hit,), variant=variant, penetration=sunk)
