"""Possible and impossible continuations of moving shapes: they vanish, change colour, or jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..datasets.synthetic.moving_shapes import CLASSES, Look, Scene, draw_scene, paint
from ..datasets.synthetic.nuisances import Nuisances, disturbed
from ..datasets.video_writer import as_stored

EVENTS = ("vanish", "colour", "jump")
"""What happens, in turn."""


def happen(scene: Scene, event: str) -> Scene:
    """The scene from the event on: without shapes, in the opposite colour, or half a frame off
    along both axes."""
    if event == "vanish":
        return replace(scene, places=np.zeros((0, 2)), radii=np.zeros(0))
    if event == "colour":
        count = len(CLASSES["colour"])
        other = (scene.labels["colour"] + count // 2) % count
        return replace(scene, labels={**scene.labels, "colour": other})
    half = np.array([scene.height, scene.width]) / 2
    return replace(scene, places=(scene.places + half) % (2 * half))


def event_clips(
    count: int,
    *,
    frames: Sequence[int],
    at: int,
    size: int,
    look: Look,
    nuisances: Nuisances,
    hold: tuple[str, ...],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Possible and impossible clips, uint8 ``[count, T, H, W, 3]`` each, equal up to the event.

    Args:
        frames: times of the clip's frames. at: number of the first frame after the event.
        seed: of the scenes; one that no training or probe had.
    """
    possible, impossible = [], []
    for number in range(count):
        scene = draw_scene(seed, number, height=size, width=size, hold=hold, look=look)
        after = happen(scene, EVENTS[number % len(EVENTS)])
        for out, later in ((possible, scene), (impossible, after)):
            clip = []
            for place, time in enumerate(frames):
                now = later if place >= at else scene
                whose = {"seed": seed, "number": number, "time": int(time)}
                clip.append(disturbed(paint(now, time), now, nuisances, **whose))
            out.append(np.stack(clip))
    return as_stored(np.stack(possible)), as_stored(np.stack(impossible))
