"""Controls: what surprises though it is legal, and a violation that has no legal twin.

A model that flags controls reacts to change, not to physics. The gap ("pair") is reported apart: an
object passes behind two screens and is not seen between them.
"""

from __future__ import annotations

import numpy as np

from .assets import Thing
from .contacts import _obstacle, steady
from .occluders import curtain, extent
from .plan import Ask, Part, Plan, target
from .simulate import Body, Fixed, simulate
from .stage import sample_stage, track
from .track import Track, still

CONTROLS = ("light", "late", "fast", "stopped")
"""The lights change; an object comes in late; is fast; is stopped by a thin, visible post."""

Poses = np.ndarray | None


def control(ask: Ask, rng: np.random.Generator) -> Plan:
    """Four possible videos: two plain ones (with and without a thing in the back), and both again
    with the event ``ask.principle``."""
    stage = sample_stage(rng, moving=ask.moving)
    thing = target(ask, rng, stage)
    back = target(ask, rng, stage, "bystander0")
    post = _obstacle(rng, stage, "post", (0.05, 0.3, 0.4))
    spot = (float(rng.uniform(-1.2, 1.2)), 2.0, back.size[2])
    plain, event, stop = _motions(ask, rng, thing, post)
    when = ask.frames // 2 + int(rng.integers(-3, 4))
    things = (thing, back, post)
    tracks = {}
    for letter, behind in (("A", still(ask.frames, spot)), ("B", None)):
        tracks[f"plain {letter}"] = track(stage, [plain, behind, None], ask.frames)
        tracks[f"event {letter}"] = track(stage, [event, behind, stop], ask.frames)
        if ask.principle == "light":
            bright = np.where(np.arange(ask.frames) < when, 1.0, 0.6)
            old = tracks[f"event {letter}"]
            tracks[f"event {letter}"] = Track(old.pose, old.present, old.camera, bright)
    return Plan(
        stage=stage,
        things=things,
        design="none",
        tracks=tracks,
        variant=ask.principle,
        surprising=("event A", "event B"),
    )


def _motions(
    ask: Ask, rng: np.random.Generator, thing: Thing, post: Thing
) -> tuple[Poses, Poses, Poses]:
    """Poses of the target in plain and in surprising videos, and of the post in the latter."""
    height, middle = thing.size[2], ask.frames / 2
    if ask.principle == "light":
        stands = still(ask.frames, (float(rng.uniform(-0.6, 0.6)), 0.0, height))
        return stands, stands, None
    speed = float(rng.uniform(0.11, 0.14))
    slow = _slide(ask, thing, -speed * middle, speed)
    if ask.principle == "late":  # out of sight until it comes in, past the middle of the video
        late = _slide(ask, thing, -2.9 - speed * (middle - 4), speed)
        return None, late, None
    if ask.principle == "fast":
        return slow, _slide(ask, thing, -3 * speed * middle, 3 * speed), None
    fixed = Fixed(thing=post, position=(0.1, 0.0, post.size[2]), damped=True)
    body = _body(ask, thing, -speed * middle, speed)
    motion = simulate([body], [fixed], frames=ask.frames, fps=ask.fps)
    return slow, motion.poses[thing.name], motion.poses["post"]


def gap_pair(ask: Ask, rng: np.random.Generator) -> Plan:
    """Behind two screens, seen between them or not; then the same with another object, the other
    way round."""
    stage = sample_stage(rng, moving=False)
    thing = target(ask, rng, stage)
    speed = float(rng.uniform(0.13, 0.15))
    middle = ask.frames / 2
    poses = [_slide(ask, thing, -way * speed * middle, way * speed) for way in (1, -1)]
    half = float(rng.uniform(0.48, 0.55))
    parts: list[Part] = [(thing, poses[0], poses[1])]
    seen_between = np.abs(poses[0][:, 0]) < 1.0
    for number, x in enumerate((-1.0, 1.0)):
        stands = still(ask.frames, (x, 0.0, thing.size[2]))
        over = steady(extent(stage, [(Thing(**{**vars(thing), "size": (0.2, 0.2, 0.4)}), stands)]))
        wide = (over[0] - half + 0.2, over[1] + half - 0.2, over[2])
        panel, pose = curtain(ask, rng, stage, wide, [(2, ask.frames)], drops=False)
        panel = Thing(**{**vars(panel), "name": f"screen{number}"})
        parts.append(
            (panel, np.tile(pose[-1], (ask.frames, 1)), np.tile(pose[-1], (ask.frames, 1)))
        )
    things = tuple(part[0] for part in parts)
    tracks = {}
    for column, name in enumerate("12"):
        whole = track(stage, [part[1:][column] for part in parts], ask.frames)
        present = whole.present.copy()
        present[seen_between, 0] = False
        tracks[name] = whole
        tracks[f"{name}x"] = Track(whole.pose, present, whole.camera, whole.light)
    return Plan(stage=stage, things=things, design="none", tracks=tracks, variant="gap")


def _slide(ask: Ask, thing: Thing, start: float, speed: float) -> np.ndarray:
    motion = simulate([_body(ask, thing, start, speed)], [], frames=ask.frames, fps=ask.fps)
    return motion.poses[thing.name]


def _body(ask: Ask, thing: Thing, start: float, speed: float) -> Body:
    where = (start, 0.0, thing.size[2])
    return Body(thing=thing, position=where, velocity=(speed * ask.fps, 0.0, 0.0))
