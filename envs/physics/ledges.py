"""Support and gravity: a board ends early or goes on, is there or not; things stay up or fall.

Visible: factorial. Occluded: the board shows, a low curtain comes over its end, and the object that
goes along above it stays in sight or drops behind.
"""

from __future__ import annotations

import math

import numpy as np

from .assets import Thing
from .contacts import _obstacle, steady
from .occluders import curtain, extent
from .plan import SAME, Ask, Plan, bystanders, factorial_plan, splice_plan, target
from .simulate import Body, Fixed, Motion, simulate
from .stage import Stage, sample_stage

TOP = 0.9
"""Height of the boards' upper side, in metres."""
THICK = 0.1
"""Half their thickness."""
DEEP = 0.34
"""Half their depth."""
G = 9.81


def support(ask: Ask, rng: np.random.Generator) -> Plan:
    """A block is pushed along a board and comes to rest: on it, or with nothing below."""
    stage = _stage(ask, rng)
    thing = target(ask, rng, stage, shape="box")
    way = float(rng.uniform(1.7, 1.85))
    seconds = float(rng.uniform(0.8, 0.85)) * ask.frames / ask.fps
    friction = way / (0.5 * G * seconds**2)
    start = float(rng.uniform(-1.85, -1.65))
    edge = start + way - float(rng.uniform(0.36, 0.48))
    end = start + way + thing.size[0] + float(rng.uniform(0.25, 0.45))
    body = Body(
        thing=thing,
        position=(start, 0.0, TOP + thing.size[2]),
        velocity=(friction * G * seconds, 0.0, 0.0),
        rolls=True,
    )
    return _on_board(ask, rng, stage, body, edge, end, friction, "push")


def gravity(ask: Ask, rng: np.random.Generator) -> Plan:
    """An object slides along a board that ends or goes on, or drops where a board is or is not."""
    if not ask.occluded and ask.turn("slide", "drop") == "drop":
        return _drop(ask, rng)
    stage = _stage(ask, rng)
    thing = target(ask, rng, stage)
    speed = float(rng.uniform(0.11, 0.13))
    edge = float(rng.uniform(-0.45, -0.15))
    leave = rng.uniform(13, 15) + 0.35 * (ask.frames - 32)
    body = Body(
        thing=thing,
        position=(float(edge + thing.size[0] - speed * leave), 0.0, TOP + thing.size[2]),
        velocity=(speed * ask.fps, 0.0, 0.0),
    )
    return _on_board(ask, rng, stage, body, edge, edge + 6.0, 0.0, "slide")


def _stage(ask: Ask, rng: np.random.Generator) -> Stage:
    return sample_stage(rng, elevation=(7, 10), moving=ask.moving)


def _on_board(
    ask: Ask,
    rng: np.random.Generator,
    stage: Stage,
    body: Body,
    edge: float,
    end: float,
    friction: float,
    variant: str,
) -> Plan:
    """The board that all videos show reaches to ``edge``, its extension to ``end``."""
    base = _board(rng, stage, "board", body.position[0] - 1.5, edge)
    more = Thing(**{**vars(base[0]), "name": "extension", "size": ((end - edge) / 2, DEEP, THICK)})
    whole = Thing(**{**vars(base[0]), "size": (base[0].size[0] + (end - edge) / 2, DEEP, THICK)})
    middle = (base[1][0] + (end - edge) / 2, *base[1][1:])
    tail = ((edge + end) / 2, *base[1][1:])
    kept = _run(ask, body, Fixed(thing=whole, position=middle, damped=True, friction=friction))
    fell = _run(ask, body, Fixed(thing=base[0], position=base[1], damped=True, friction=friction))
    name = body.thing.name
    here = fell.poses["board"]
    tail_pose = np.tile(np.array([*tail, 1.0, 0, 0, 0]), (ask.frames, 1))
    parts = [
        (base[0], here, here),
        (more, tail_pose, None),
        (body.thing, kept.poses[name], fell.poses[name]),
        *_pillar(rng, ask, base),
        *((thing, pose, pose) for thing, pose in bystanders(ask, rng, stage)),
    ]
    sunk = max(kept.penetration, fell.penetration)
    if not ask.occluded:
        return factorial_plan(ask, stage, parts, ("extension",), variant=variant, penetration=sunk)
    apart = np.flatnonzero(np.abs(kept.poses[name] - fell.poses[name]).max(1) > SAME)
    event = int(apart[0]) if len(apart) else ask.frames // 2
    over = steady(extent(stage, [(more, tail_pose)]))
    over = (over[0], np.minimum(over[1], 4.0), over[2])
    panel, pose = curtain(ask, rng, stage, over, [(event - 4, ask.frames)], drops=False)
    parts.append((panel, pose, pose))
    return splice_plan(ask, stage, parts, (event,), variant=variant, penetration=sunk)


def _run(ask: Ask, body: Body, board: Fixed) -> Motion:
    return simulate([body], [board], frames=ask.frames, fps=ask.fps, grip=0.6 if body.rolls else 0)


def _board(
    rng: np.random.Generator, stage: Stage, name: str, left: float, right: float
) -> tuple[Thing, tuple[float, float, float]]:
    thing = _obstacle(rng, stage, name, (round((right - left) / 2, 4), DEEP, THICK))
    return thing, (round((left + right) / 2, 4), 0.0, TOP - THICK)


def _pillar(
    rng: np.random.Generator, ask: Ask, board: tuple[Thing, tuple[float, float, float]]
) -> list[tuple[Thing, np.ndarray, np.ndarray]]:
    """What the board rests on, well left of its edge."""
    height = (TOP - 2 * THICK) / 2
    thing = Thing(
        name="pillar",
        kind="support",
        shape="box",
        size=(0.15, 0.28, height),
        rgb=board[0].rgb,
    )
    x = board[1][0] + board[0].size[0] - float(rng.uniform(0.75, 0.95))
    pose = np.tile(np.array([round(x, 3), 0.0, height, 1, 0, 0, 0]), (ask.frames, 1))
    return [(thing, pose, pose)]


def _drop(ask: Ask, rng: np.random.Generator) -> Plan:
    """An object comes from above: a board catches it, or it goes on to the floor."""
    stage = _stage(ask, rng)
    thing = target(ask, rng, stage)
    x = float(rng.uniform(-0.5, 0.5))
    board = _obstacle(rng, stage, "board", (float(rng.uniform(0.5, 0.65)), DEEP, THICK))
    column = Thing(
        name="column",
        kind="support",
        shape="box",
        size=(0.12, 0.12, TOP / 2 + 0.1),
        rgb=board.rgb,
    )
    land = (rng.uniform(13, 15) + 0.35 * (ask.frames - 32)) / ask.fps
    rest = TOP + thing.size[2]
    high = 3.4  # out of sight; thrown up from there, so that it lands in time
    fall = math.sqrt(2 * (high - rest) / G)
    up = 0.5 * G * (land - fall) if land > fall else 0.0
    body = Body(thing=thing, position=(x, 0.0, high), velocity=(0, 0, up), settles=False)
    caught = _run(ask, body, Fixed(thing=board, position=(x, 0.0, TOP - THICK), damped=True))
    free = simulate([body], [], frames=ask.frames, fps=ask.fps)
    name = thing.name
    stands = np.tile(np.array([x, DEEP + 0.12, column.size[2], 1, 0, 0, 0]), (ask.frames, 1))
    parts = [
        (board, caught.poses["board"], None),
        (column, stands, stands),
        (thing, caught.poses[name], free.poses[name]),
        *((item, pose, pose) for item, pose in bystanders(ask, rng, stage)),
    ]
    sunk = max(caught.penetration, free.penetration)
    return factorial_plan(ask, stage, parts, ("board",), variant="drop", penetration=sunk)
