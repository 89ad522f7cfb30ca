"""Training videos: free play of the same assets, always possible, never the scenes of the probes.

Things slide, meet, fall on the floor, on boards and into boxes, topple off ledges and from stacks;
screens stand and curtains come and go, with full occlusions of all lengths, so that a model can
learn that hidden things come back. Nothing is recombined.
"""

from __future__ import annotations

import numpy as np

from .assets import Thing
from .contacts import _obstacle
from .occluders import _panel
from .plan import Ask, Plan, target
from .simulate import Body, Fixed, simulate
from .stage import Stage, sample_stage, track
from .track import still

LANES = (-0.1, 0.95, 2.0)
"""Depths (y) in which things move: one event per lane."""


def freeform(ask: Ask, rng: np.random.Generator) -> Plan:
    """One to three events, each in its lane, behind none to two screens and none or one curtain."""
    stage = sample_stage(rng, elevation=(7, 17), moving=rng.uniform() < 0.25)
    bodies: list[Body] = []
    fixed: list[Fixed] = []
    chosen = rng.permutation(len(LANES))[: int(rng.integers(1, 4))]
    for number, lane in enumerate(chosen):
        event = _EVENTS[int(rng.integers(len(_EVENTS)))]
        more = event(ask, rng, stage, LANES[lane], f"{number}")
        bodies += more[0]
        fixed += more[1]
    bounce, grip = float(rng.uniform(0.5, 0.98)), float(rng.choice([0.0, 0.0, 0.3, 0.6]))
    motion = simulate(bodies, fixed, frames=ask.frames, fps=ask.fps, bounce=bounce, grip=grip)
    things = tuple(item.thing for item in (*bodies, *fixed))
    poses: list[np.ndarray | None] = [motion.poses[thing.name] for thing in things]
    panels = _panels(ask, rng)
    things += tuple(panel for panel, _ in panels)
    poses += [pose for _, pose in panels]
    tracks = {"free": track(stage, poses, ask.frames)}
    if rng.uniform() < 0.5:
        tracks = {"free": tracks["free"].mirrored()}
    return Plan(
        stage=stage,
        things=things,
        design="none",
        tracks=tracks,
        variant="freeform",
        penetration=motion.penetration,
    )


def _speed(ask: Ask, rng: np.random.Generator) -> float:
    return float(rng.uniform(0.04, 0.18)) * ask.fps


def _stand(ask: Ask, rng: np.random.Generator, stage: Stage, lane: float, name: str):
    """One object stands, or two, one on the other."""
    thing = target(ask, rng, stage, f"object{name}")
    x = float(rng.uniform(-1.6, 1.6))
    bodies = [Body(thing=thing, position=(x, lane, thing.size[2]))]
    if rng.uniform() < 0.4:
        base = target(ask, rng, stage, f"base{name}", shape="box")
        lift = 2 * base.size[2] + thing.size[2]
        bodies = [
            Body(thing=base, position=(x, lane, base.size[2])),
            Body(thing=thing, position=(x + float(rng.uniform(-0.3, 0.3)), lane, lift), rolls=True),
        ]
    return bodies, []


def _slide(ask: Ask, rng: np.random.Generator, stage: Stage, lane: float, name: str):
    """One object slides through, or is in the middle and slides from there."""
    thing = target(ask, rng, stage, f"object{name}")
    speed = _speed(ask, rng)
    where = (float(rng.uniform(-3.0, -0.5)), lane, thing.size[2])
    return [Body(thing=thing, position=where, velocity=(speed, 0, 0))], []


def _meet(ask: Ask, rng: np.random.Generator, stage: Stage, lane: float, name: str):
    """Two objects, one at least moving towards the other."""
    one = target(ask, rng, stage, f"object{name}")
    two = target(ask, rng, stage, f"other{name}", unlike=one)
    back = -_speed(ask, rng) if rng.uniform() < 0.5 else 0.0
    first = Body(
        thing=one,
        position=(float(rng.uniform(-3.0, -1.2)), lane, one.size[2]),
        velocity=(_speed(ask, rng), 0, 0),
    )
    second = Body(
        thing=two,
        position=(float(rng.uniform(0.0, 1.6)), lane, two.size[2]),
        velocity=(back, 0, 0),
        mass=float(rng.uniform(0.5, 2)),
    )
    return [first, second], []


def _bump(ask: Ask, rng: np.random.Generator, stage: Stage, lane: float, name: str):
    """An object slides against a wall."""
    bodies, _ = _slide(ask, rng, stage, lane, name)
    size = (float(rng.uniform(0.05, 0.3)), 0.4, float(rng.uniform(0.2, 0.6)))
    wall = _obstacle(rng, stage, f"wall{name}", size)
    place = (float(rng.uniform(0.4, 1.8)), lane, size[2])
    return bodies, [Fixed(thing=wall, position=place, damped=rng.uniform() < 0.3)]


def _fall(ask: Ask, rng: np.random.Generator, stage: Stage, lane: float, name: str):
    """An object falls, on the floor or on a board."""
    thing = target(ask, rng, stage, f"object{name}")
    x, high = float(rng.uniform(-1.5, 1.5)), float(rng.uniform(1.6, 3.2))
    up = float(rng.uniform(0, 4))
    body = Body(thing=thing, position=(x, lane, high), velocity=(0, 0, up), settles=False)
    if rng.uniform() < 0.5:
        return [body], []
    height = float(rng.uniform(0.2, 0.45))
    size = (float(rng.uniform(0.4, 0.9)), 0.38, height)
    table = _obstacle(rng, stage, f"table{name}", size)
    return [body], [Fixed(thing=table, position=(x, lane, height), damped=True)]


def _off_the_edge(ask: Ask, rng: np.random.Generator, stage: Stage, lane: float, name: str):
    """An object slides or is pushed along a block, and off its end or not."""
    height = float(rng.uniform(0.25, 0.5))
    thing = target(ask, rng, stage, f"object{name}", shape="box" if rng.uniform() < 0.5 else None)
    size = (float(rng.uniform(0.8, 1.6)), 0.4, height)
    block = _obstacle(rng, stage, f"block{name}", size)
    friction = float(rng.uniform(0.05, 0.4)) if rng.uniform() < 0.5 else 0.0
    x = float(rng.uniform(-1.8, -0.6))
    body = Body(
        thing=thing,
        position=(x - 0.5 * size[0], lane, 2 * height + thing.size[2]),
        velocity=(_speed(ask, rng), 0, 0),
        rolls=friction > 0 and thing.shape == "box",
    )
    ground = Fixed(thing=block, position=(x, lane, height), damped=True, friction=friction)
    return [body], [ground]


def _into_a_box(ask: Ask, rng: np.random.Generator, stage: Stage, lane: float, name: str):
    """An object falls into an open box, which may be pulled away."""
    thing = target(ask, rng, stage, f"object{name}", half_height=float(rng.uniform(0.22, 0.27)))
    size = (0.46, 0.42, float(rng.uniform(0.25, 0.55)))
    box = _obstacle(rng, stage, f"box{name}", size)
    box = Thing(**{**vars(box), "kind": "container", "shape": "open_box"})
    x = float(rng.uniform(-1.3, 1.0))
    start, way = rng.uniform(0.4, 0.8) * ask.frames / ask.fps, float(rng.uniform(0.4, 1.2))
    moves = rng.uniform() < 0.5

    def path(time: float) -> float:
        u = min(max((time - start) / 0.8, 0.0), 1.0)
        return x + way * u * u * (3 - 2 * u)

    fixed = Fixed(thing=box, position=(x, lane, size[2]), damped=True, path=path if moves else None)
    body = Body(thing=thing, position=(x, lane, 2.6), settles=False)
    return [body], [fixed]


_EVENTS = (_stand, _slide, _slide, _meet, _bump, _fall, _off_the_edge, _into_a_box)


def _panels(ask: Ask, rng: np.random.Generator) -> list[tuple[Thing, np.ndarray]]:
    """Standing screens, and a curtain that is up once or twice, for one to many frames."""
    found = []
    for number in range(int(rng.choice([0, 1, 1, 2]))):
        half, high = float(rng.uniform(0.25, 0.9)), float(rng.uniform(0.3, 0.7))
        panel = _panel(ask, rng, f"screen{number}", half, high)
        y = -0.75 - 0.12 * number
        found.append((panel, still(ask.frames, (float(rng.uniform(-1.6, 1.6)), y, high))))
    if rng.uniform() < 0.6:
        half, high = float(rng.uniform(0.5, 2.2)), float(rng.uniform(0.5, 1.0))
        panel = _panel(ask, rng, "curtain", half, high)
        pose = still(ask.frames, (float(rng.uniform(-1.2, 1.2)), -1.05, 0.0))
        up, pace = np.zeros(ask.frames), int(rng.integers(2, 5))
        for _ in range(int(rng.integers(1, 3))):
            at, length = int(rng.integers(2, ask.frames - 4)), int(rng.integers(1, 17))
            ramp = np.interp(
                np.arange(ask.frames),
                [at - pace, at, at + length, at + length + pace],
                [0, 1, 1, 0],
            )
            up = np.maximum(up, ramp)
        drops = rng.uniform() < 0.4
        pose[:, 2] = (
            (2 - up) * 3.0 - 3.0 + high if drops else high * (2 * up - 1) - 0.05 * (up == 0)
        )
        found.append((panel, np.round(pose, 4)))
    return found
