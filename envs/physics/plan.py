"""What a quadruplet is asked to be, and what a principle's template answers with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .assets import Thing, object_rgb, object_shape, object_size
from .stage import Stage, drawing_xml, track
from .track import Track, in_context, splice, still

SAME = 0.02
"""Metres (and units of a quaternion) within which two states count as the same: a quarter of a
pixel at 64 pixels. Whether they look the same is decided by bytes."""

Part = tuple[Thing, np.ndarray | None, np.ndarray | None]
"""A thing with its poses [T, 7] in two scenes; None: it is not there."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The cell and the difficulty of one quadruplet.

    Attributes:
        principle, condition: the cell. number: within the cell, from 0: variants take turns.
        frames: T. fps: frames per second. size: pixels. held_out: of the OOD split.
        bridge: L, frames of full occlusion. events: swaps. distractors: further objects.
        moving: does the camera move?
    """

    principle: str
    condition: str
    number: int = 0
    frames: int = 32
    fps: int = 16
    size: int = 64
    held_out: bool = False
    bridge: int = 4
    events: int = 1
    distractors: int = 0
    moving: bool = False

    @property
    def occluded(self) -> bool:
        """Does the event happen behind something?"""
        return self.condition == "occluded"

    def turn(self, *variants: str) -> str:
        """Which of the variants it is this quadruplet's turn to be."""
        return variants[self.number % len(variants)]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A quadruplet before it is drawn.

    Attributes:
        stage, things: the scene. design: splice, factorial or none.
        tracks: splice: "A" and "B"; factorial: "11" and "22"; none: all four by name.
        cuts: frames at which a splice changes tracks. context: factorial: things of the context.
        variant: kind of scene. exact: must the bridge be as long as asked?
        axes: more axes of this quadruplet. penetration: metres.
        surprising: names of surprising tracks (controls).
    """

    stage: Stage
    things: tuple[Thing, ...]
    design: str
    tracks: dict[str, Track]
    variant: str
    cuts: tuple[int, ...] = ()
    context: tuple[str, ...] = ()
    exact: bool = False
    axes: dict[str, Any] = field(default_factory=dict)
    penetration: float = 0.0
    surprising: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The things' names in the order of the tracks."""
        return tuple(thing.name for thing in self.things)

    def all_tracks(self) -> dict[str, Track]:
        """The four videos' tracks: possible ones as simulated, impossible ones recombined."""
        t = self.tracks
        if self.design == "splice":
            a, b = t["A"], t["B"]
            return {"A": a, "B": b, "AB": splice(a, b, self.cuts), "BA": splice(b, a, self.cuts)}
        if self.design == "factorial":
            where = [self.names.index(name) for name in self.context]
            one, two = t["11"], t["22"]
            crossed = {"12": in_context(two, one, where), "21": in_context(one, two, where)}
            return {"11": one, "22": two, **crossed}
        return t

    def mirrored(self) -> Plan:
        """Left and right exchanged."""
        return replace(self, tracks={name: t.mirrored() for name, t in self.tracks.items()})

    def xml(self, *, shadows: bool = False) -> str:
        """The MJCF of the scene for drawing."""
        return drawing_xml(self.stage, self.things, shadows=shadows)


def target(
    ask: Ask,
    rng: np.random.Generator,
    stage: Stage,
    name: str = "target",
    *,
    unlike: Thing | None = None,
    shape: str | None = None,
    half_height: float | None = None,
) -> Thing:
    """An object that the video is about, in contrast to the floor, the sky and ``unlike``."""
    apart = [(stage.floor[0], 30.0), (stage.sky[0], 20.0)]
    if unlike is not None:
        apart.append((unlike.rgb, 25.0))
    shape = shape or object_shape(rng, ask.held_out)
    return Thing(
        name=name,
        kind="object",
        shape=shape,
        size=object_size(rng, shape, half_height),
        rgb=object_rgb(rng, ask.held_out, apart),
        held_out=ask.held_out,
    )


def bystanders(ask: Ask, rng: np.random.Generator, stage: Stage) -> list[tuple[Thing, np.ndarray]]:
    """The distractors: objects that stand in the back, with their poses."""
    places = rng.permutation([-1.3, 0.0, 1.3])[: ask.distractors]
    found = []
    for number, x in enumerate(places):
        thing = target(ask, rng, stage, f"bystander{number}")
        spot = (float(x + rng.uniform(-0.3, 0.3)), float(rng.uniform(1.7, 2.3)), thing.size[2])
        found.append((thing, still(ask.frames, [round(v, 3) for v in spot])))
    return found


def splice_plan(
    ask: Ask,
    stage: Stage,
    parts: list[Part],
    cuts: tuple[int, ...],
    **more: Any,
) -> Plan:
    """A splice of two scenes, from each thing with its poses in A and in B (None: not there)."""
    tracks = {
        name: track(stage, [part[1:][column] for part in parts], ask.frames)
        for column, name in enumerate("AB")
    }
    things = tuple(part[0] for part in parts)
    return Plan(stage=stage, things=things, design="splice", tracks=tracks, cuts=cuts, **more)


def factorial_plan(
    ask: Ask,
    stage: Stage,
    parts: list[Part],
    context: tuple[str, ...],
    **more: Any,
) -> Plan:
    """Two contexts and their outcomes, from each thing with its poses in scenes 1 and 2."""
    tracks = {
        name: track(stage, [part[1:][column] for part in parts], ask.frames)
        for column, name in enumerate(("11", "22"))
    }
    things = tuple(part[0] for part in parts)
    return Plan(
        stage=stage, things=things, design="factorial", tracks=tracks, context=context, **more
    )
