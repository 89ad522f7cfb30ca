"""Moving shapes: scenes whose every factor is known, drawn independently, and their frames.

Some shapes of one kind and colour move together over a textured ground, seen by a camera that may
pan, sometimes behind bars. The world is a torus: what leaves on one side comes back on the other,
so that speed and direction never change and a video may be as long as one likes. Shapes of every
kind have the same area, and never touch: their number and kind cannot be read off the brightness.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...core.rng import numpy_generator

SPEEDS = (0.01, 0.02, 0.03, 0.04)
"""Of the shapes over the ground, in frame heights per frame, before :class:`Look` changes them."""
PAN = 0.015
"""Speed of a camera that moves, likewise."""
BARS = (0.0, 0.25, 0.5)
"""Share of the frame behind bars, by class of occlusion."""
CLASSES: dict[str, tuple[str, ...]] = {
    "direction": ("0", "45", "90", "135", "180", "225", "270", "315"),  # degrees, 90 is up
    "speed": tuple(map(str, SPEEDS)),
    "shape": ("disc", "square", "triangle", "cross"),
    "colour": ("red", "yellow", "green", "cyan", "blue", "magenta"),
    "count": ("1", "2", "3", "4"),
    "occlusion": ("none", "some", "much"),
    "camera": ("still", "right", "up", "left", "down"),
}
"""Each factor's classes; a video's label is a position in this list."""
_REACH = 1.6  # how far a shape extends at most, in radii of the disc of the same area
_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Look:
    """What all scenes of a corpus have in common, and what makes them harder or easier."""

    radius: tuple[float, float] = (0.07, 0.1)
    """Range of the shapes' radii (of discs of their area), in frame heights; at most 0.12."""
    pace: float = 1.0
    """What the speeds of the shapes are multiplied by."""
    texture: float = 1.0
    """Contrast of the ground's texture: 0 is a plain ground."""

    def __post_init__(self) -> None:
        low, high = self.radius
        if not 0 < low <= high <= 0.12:
            raise ConfigError(
                f"look.radius = {self.radius}: a range within 0 and 0.12, so that four shapes find "
                "room without touching"
            )
        if not 0 < self.pace <= 10:
            raise ConfigError(f"look.pace = {self.pace}: must lie in (0, 10]")
        if not 0 <= self.texture <= 4:
            raise ConfigError(f"look.texture = {self.texture}: must lie in [0, 4]")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One scene.

    Attributes:
        height, width: pixels. labels: factor -> class number. places: float64 ``[N, 2]``, (y, x)
        of the shapes in the first frame, pixels. radii: float64 ``[N]``, pixels. velocity:
        float64 ``[2]``, (y, x) of the shapes over the ground, pixels per frame, y downwards.
        camera: float64 ``[2]``, the same of the camera. waves: float64 ``[K, 5]``, the ground's:
        cycles along y and x, phase, height, tint. bars: how many pixels the bars are moved.
        texture: contrast of the ground.
    """

    height: int
    width: int
    labels: dict[str, int]
    places: np.ndarray
    radii: np.ndarray
    velocity: np.ndarray
    camera: np.ndarray
    waves: np.ndarray
    bars: float
    texture: float = 1.0


def draw_scene(
    seed: int,
    number: int,
    *,
    height: int,
    width: int,
    hold: tuple[str, ...] = (),
    look: Look = Look(),
) -> Scene:
    """Scene ``number`` of the stream ``seed``, a function of its arguments alone.

    Every factor is uniform over its classes and independent of the others; those named in ``hold``
    take their first class in every scene.

    Raises:
        DatasetError: the frame is so narrow that the shapes do not fit without touching.
    """
    rng = numpy_generator(seed, "moving-shapes", number)
    drawn = {name: int(rng.integers(len(classes))) for name, classes in CLASSES.items()}
    labels = {name: 0 if name in hold else value for name, value in drawn.items()}
    radii = rng.uniform(*look.radius, labels["count"] + 1) * height
    angle = math.radians(float(CLASSES["direction"][labels["direction"]]))
    speed = look.pace * SPEEDS[labels["speed"]] * height
    pan = labels["camera"]
    turn = (pan - 1) * math.pi / 2
    waves = np.column_stack(
        [
            rng.integers(-4, 5, (6, 2)),
            rng.uniform(0, 2 * math.pi, 6),
            rng.uniform(0.3, 1, 6),
            rng.uniform(-1, 1, 6),
        ]
    )
    return Scene(
        height=height,
        width=width,
        labels=labels,
        places=_places(rng, radii, height, width),
        radii=radii,
        velocity=speed * np.array([-math.sin(angle), math.cos(angle)]),
        camera=(PAN * height if pan else 0) * np.array([-math.sin(turn), math.cos(turn)]),
        waves=waves,
        bars=float(rng.uniform(0, width)),
        texture=look.texture,
    )


def paint(scene: Scene, time: float) -> np.ndarray:
    """The frame at ``time`` (in frames): uint8 ``[height, width, 3]``."""
    image = _ground(scene, time)
    cover = shapes_cover(scene, time)[..., None]
    image += cover * (_colour(scene.labels["colour"]) - image)
    bars = bars_cover(scene)[:, None]
    image += bars * (np.array([35.0, 30.0, 30.0]) - image)
    return np.rint(image).astype(np.uint8)


def hidden_share(scene: Scene, frames: int) -> float:
    """The share of the shapes' area that is behind bars, over ``frames`` frames, in [0, 1]."""
    if not scene.labels["occlusion"]:
        return 0.0
    behind = bars_cover(scene)
    covers = np.stack([shapes_cover(scene, time).sum(axis=0) for time in range(frames)])
    return float((covers @ behind).sum() / covers.sum())


def shapes_cover(scene: Scene, time: float) -> np.ndarray:
    """How much of each pixel the shapes cover, bars aside: float64 ``[height, width]`` in 0..1."""
    size = np.array([scene.height, scene.width])
    cover = np.zeros((scene.height, scene.width))
    kind = CLASSES["shape"][scene.labels["shape"]]
    places = scene.places + time * (scene.velocity - scene.camera)
    for place, radius in zip(places, scene.radii, strict=True):
        y, x = (
            (np.arange(length) + 0.5 - middle + length / 2) % length - length / 2
            for length, middle in zip(size, place, strict=True)
        )
        cover += np.clip(0.5 - shape_distance(kind, y[:, None], x, radius), 0, 1)
    return cover


def bars_cover(scene: Scene) -> np.ndarray:
    """How much of each column of pixels is behind bars: float64 ``[width]`` in 0..1."""
    share = BARS[scene.labels["occlusion"]]
    if not share:
        return np.zeros(scene.width)
    period = scene.width / 3
    place = (np.arange(scene.width) + 0.5 + scene.bars) % period
    edge = np.minimum(place, share * period - place)
    return np.clip(edge + 0.5, 0, 1)


def shape_distance(kind: str, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Roughly the distance in pixels to the edge of a shape with the area of a disc of this radius,
    negative inside."""
    if kind == "disc":
        return np.hypot(y, x) - radius
    if kind == "square":
        return np.maximum(abs(y), abs(x)) - radius * math.sqrt(math.pi) / 2
    if kind == "triangle":
        inner = radius * math.sqrt(math.pi / 27**0.5)  # area 3 sqrt(3) inner^2
        return np.maximum(y, math.sqrt(3) / 2 * abs(x) - y / 2) - inner
    arm = radius * math.sqrt(math.pi / 20)  # five squares of side 2 arm
    across = np.maximum(abs(y) - arm, abs(x) - 3 * arm)
    return np.minimum(across, np.maximum(abs(y) - 3 * arm, abs(x) - arm))


def _places(rng: np.random.Generator, radii: np.ndarray, height: int, width: int) -> np.ndarray:
    """Centres at which no two shapes touch, also around the edges: float64 ``[N, 2]``."""
    size = np.array([height, width])
    for _ in range(_TRIES):
        places = rng.uniform(0, size, (len(radii), 2))
        gaps = places[:, None] - places
        gaps = np.linalg.norm((gaps + size / 2) % size - size / 2, axis=-1)
        room = _REACH * (radii[:, None] + radii)
        if (gaps + np.diag(np.full(len(radii), np.inf)) > room).all():
            return places
    raise DatasetError(
        f"{len(radii)} shapes do not fit into {height}x{width} pixels without touching: "
        "make the frames wider than half their height"
    )


def _ground(scene: Scene, time: float) -> np.ndarray:
    """The textured ground: float64 ``[height, width, 3]``, a sum of waves that fit the torus."""
    turns = 2j * math.pi * time * scene.camera / np.array([scene.height, scene.width])
    light = np.zeros((scene.height, scene.width, 2))
    for ky, kx, phase, height, tint in scene.waves:
        down = np.exp(2j * math.pi * ky * np.arange(scene.height) / scene.height + ky * turns[0])
        along = np.exp(2j * math.pi * kx * np.arange(scene.width) / scene.width + kx * turns[1])
        wave = height * (down[:, None] * (along * np.exp(1j * phase))).real
        light += wave[..., None] * np.array([1.0, 0.3 * tint])
    contrast = 16 * scene.texture
    level = 110 + contrast * light[..., :1]
    return np.clip(level + contrast * light[..., 1:] * np.array([1.0, 0.0, -1.0]), 0, 255)


def _colour(label: int) -> np.ndarray:
    hue = label / len(CLASSES["colour"])
    return 255 * np.array(colorsys.hsv_to_rgb(hue, 0.9, 0.95))
