"""Pairs of frames whose flow is known at every pixel, to the last digit: for training and judging.

*textures*: one pattern under an affine map. *sprites*: shapes with patterns of their own, each on
its own way over a pattern that moves too; what they hide in the second frame is marked. A pattern
is a formula, not a picture, so that nothing is interpolated: both frames are exact.

>>> pair = draw_flow_pair(FlowPairConfig(kind="sprites", size=32), number=5)
>>> pair.first.shape, pair.flow.shape, pair.visible.dtype, sorted(pair.labels)
((32, 32, 3), (32, 32, 2), dtype('bool'), ['colour', 'count', 'shape'])
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...core.rng import numpy_generator
from .moving_shapes import CLASSES, shape_distance

LABELS = ("shape", "colour", "count")
"""Factors of sprites; their classes are those of :data:`.moving_shapes.CLASSES`."""
WAVES = 12
"""Of a pattern."""
SHORTEST = 6.0
"""Shortest wave of a pattern in pixels."""
_RADIUS = (0.07, 0.105)  # of a disc of a sprite's area, in frame heights
_REACH = 1.6  # how far a shape extends at most, in radii of the disc of the same area
_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class FlowPairConfig:
    """What :func:`draw_flow_pair` draws."""

    kind: Literal["textures", "sprites"] = "textures"
    """One pattern under an affine map, or shapes that move over a moving pattern."""
    size: int = 64
    """Height and width in pixels."""
    longest: float = 4.0
    """No flow is longer than this, in pixels."""
    affine: float = 0.5
    """Share of the textures that turn, stretch and shear; the others are shifted."""
    seed: int = 0
    """Names the stream of pairs."""

    def __post_init__(self) -> None:
        wrong = []
        if self.kind not in ("textures", "sprites"):
            wrong.append(f"kind={self.kind!r} must be textures or sprites")
        if self.size < 16:
            wrong.append(f"size={self.size} must be at least 16")
        if not 0 < self.longest < self.size / 2:
            wrong.append(f"longest={self.longest} must be above 0 and below half the size")
        if not 0 <= self.affine <= 1:
            wrong.append(f"affine={self.affine} is not a share between 0 and 1")
        if wrong:
            raise ConfigError("flow pairs: " + "; ".join(wrong))


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowPair:
    """Two frames and what happened between them.

    Attributes:
        first, second: uint8 ``[H, W, 3]``. flow: float32 ``[H, W, 2]``, (x, y) in pixels, y
        downwards: what is at p in the first frame is at p + flow(p) in the second. visible: bool
        ``[H, W]``, where it is seen there: inside the frame, and behind nothing. labels: class
        numbers of :data:`LABELS`, of sprites.
    """

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    visible: np.ndarray
    labels: dict[str, int]


class FlowSet(NamedTuple):
    """Many pairs: uint8 ``[M, H, W, 3]`` twice, float32 ``[M, H, W, 2]``, bool ``[M, H, W]``, and
    int64 ``[M]`` by label."""

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    visible: np.ndarray
    labels: dict[str, np.ndarray]


def draw_flow_pair(config: FlowPairConfig, number: int) -> FlowPair:
    """Pair ``number`` of the stream; a function of its arguments alone."""
    rng = numpy_generator(config.seed, "flow-pairs", config.kind, number)
    draw = _textures if config.kind == "textures" else _sprites
    layers, labels = draw(rng, config)
    size = config.size
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    first, top = _paint(layers, y, x, at=0)
    second, _ = _paint(layers, y, x, at=1)
    there = [layer.forward(y, x) for layer in layers]
    moved = np.stack(there)  # [L, 2, H, W]
    end_y, end_x = np.take_along_axis(moved, top[None, None], axis=0)[0]
    seen = (end_y >= 0) & (end_y <= size - 1) & (end_x >= 0) & (end_x <= size - 1)
    return FlowPair(
        first=first,
        second=second,
        flow=np.stack([end_x - x, end_y - y], axis=-1).astype(np.float32),
        visible=seen & (_top(layers, end_y, end_x, at=1) == top),
        labels=labels,
    )


def draw_flow_set(config: FlowPairConfig, count: int, *, start: int = 0) -> FlowSet:
    """Pairs ``start …`` of the stream, ``count`` of them.

    Raises:
        ConfigError: none are asked for.
    """
    if count < 1:
        raise ConfigError(f"flow pairs: count={count} must be at least 1")
    pairs = [draw_flow_pair(config, number) for number in range(start, start + count)]
    names = pairs[0].labels
    return FlowSet(
        *(np.stack([getattr(p, name) for p in pairs]) for name in FlowSet._fields[:4]),
        labels={name: np.array([p.labels[name] for p in pairs], np.int64) for name in names},
    )


class _Pattern(NamedTuple):
    """Colours at every place of a plane: waves in random directions, and two colours that they
    blend."""

    waves: np.ndarray  # [K, 3]: radians per pixel along y and x, phase
    colours: np.ndarray  # [2, 3] in 0..255

    def __call__(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """float64 ``[N, 3]`` of places ``[N]``."""
        ky, kx, phase = (column[:, None] for column in self.waves.T)
        height = np.cos(ky * y + kx * x + phase).sum(0) / math.sqrt(len(self.waves) / 2)
        share = (0.5 + 0.5 * np.tanh(1.5 * height))[..., None]
        return (1 - share) * self.colours[0] + share * self.colours[1]


class _Layer(NamedTuple):
    """Something flat that moves: ``place -> matrix (place - centre) + centre + shift``, (y, x)."""

    pattern: _Pattern
    matrix: np.ndarray  # [2, 2]
    shift: np.ndarray  # [2]
    centre: np.ndarray  # [2]
    shape: str  # "" for all of the plane
    radius: float

    def forward(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Where what is at (y, x) in the first frame is in the second: ``[2, H, W]``."""
        return self._map(self.matrix, y, x, before=0.0, after=self.shift)

    def backward(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Where what is at (y, x) in the second frame was in the first: ``[2, H, W]``."""
        return self._map(np.linalg.inv(self.matrix), y, x, before=self.shift, after=0.0)

    def _map(self, matrix: np.ndarray, y: np.ndarray, x: np.ndarray, before, after) -> np.ndarray:
        place = np.stack([y, x]) - (self.centre + before)[:, None, None]
        return np.einsum("ij,jhw->ihw", matrix, place) + (self.centre + after)[:, None, None]

    def covers(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whether it is at (y, x) of the first frame: bool ``[H, W]``."""
        if not self.shape:
            return np.ones(y.shape, bool)
        return shape_distance(self.shape, y - self.centre[0], x - self.centre[1], self.radius) < 0


def _textures(
    rng: np.random.Generator, config: FlowPairConfig
) -> tuple[list[_Layer], dict[str, int]]:
    """One layer under a shift, or an affine map, of at most ``longest`` pixels anywhere."""
    pattern, centre = _pattern(rng, _any_colours(rng)), np.full(2, (config.size - 1) / 2)
    matrix, reach = np.eye(2), config.longest
    if rng.uniform() < config.affine:
        change = rng.normal(size=(2, 2))
        corner = math.sqrt(2) * centre[0]  # the farthest pixel's distance from the centre
        reach /= 2
        matrix += change / np.linalg.norm(change, 2) * rng.uniform(0, reach) / corner
    return [_Layer(pattern, matrix, _shift(rng, reach), centre, "", 0.0)], {}


def _sprites(
    rng: np.random.Generator, config: FlowPairConfig
) -> tuple[list[_Layer], dict[str, int]]:
    """The ground, and shapes of one kind and colour that touch nothing in the first frame."""
    labels = {name: int(rng.integers(len(CLASSES[name]))) for name in LABELS}
    grey = rng.uniform(60, 190, 2)[:, None] + rng.uniform(-15, 15, (2, 3))
    middle = np.full(2, (config.size - 1) / 2)
    shift = _shift(rng, config.longest / 2)
    layers = [_Layer(_pattern(rng, grey), np.eye(2), shift, middle, "", 0.0)]
    hue = labels["colour"] / len(CLASSES["colour"])
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.9, 0.95))
    radii = rng.uniform(*_RADIUS, labels["count"] + 1) * config.size
    for place, radius in zip(_places(rng, radii, config.size), radii, strict=True):
        pattern = _pattern(rng, np.stack([colour, 0.45 * colour]))
        shape = CLASSES["shape"][labels["shape"]]
        layers.append(_Layer(pattern, np.eye(2), _shift(rng, config.longest), place, shape, radius))
    return layers, labels


def _paint(
    layers: list[_Layer], y: np.ndarray, x: np.ndarray, *, at: int
) -> tuple[np.ndarray, np.ndarray]:
    """The frame uint8 ``[H, W, 3]`` and the number of the layer on top ``[H, W]``."""
    image, top = np.zeros((*y.shape, 3)), _top(layers, y, x, at=at)
    for number, layer in enumerate(layers):
        mine = top == number
        if mine.any():
            y0, x0 = layer.backward(y, x) if at else (y, x)
            image[mine] = layer.pattern(y0[mine], x0[mine])
    return np.rint(image.clip(0, 255)).astype(np.uint8), top


def _top(layers: list[_Layer], y: np.ndarray, x: np.ndarray, *, at: int) -> np.ndarray:
    """The number of the layer on top at (y, x): int64 ``[H, W]``. Later layers are above."""
    top = np.zeros(y.shape, np.int64)
    for number, layer in enumerate(layers):
        y0, x0 = layer.backward(y, x) if at else (y, x)
        top[layer.covers(y0, x0)] = number
    return top


def _pattern(rng: np.random.Generator, colours: np.ndarray) -> _Pattern:
    angle = rng.uniform(0, 2 * math.pi, WAVES)
    length = SHORTEST * np.exp(rng.uniform(0, math.log(6), WAVES))  # up to six times the shortest
    phase = rng.uniform(0, 2 * math.pi, WAVES)
    turn = 2 * math.pi / length
    return _Pattern(np.column_stack([turn * np.sin(angle), turn * np.cos(angle), phase]), colours)


def _any_colours(rng: np.random.Generator) -> np.ndarray:
    """Two colours, one dark and one bright: ``[2, 3]``."""
    return np.stack([rng.uniform(10, 110, 3), rng.uniform(130, 245, 3)])


def _shift(rng: np.random.Generator, longest: float) -> np.ndarray:
    """(y, x), uniform in a disc."""
    angle, length = rng.uniform(0, 2 * math.pi), longest * math.sqrt(rng.uniform())
    return length * np.array([math.sin(angle), math.cos(angle)])


def _places(rng: np.random.Generator, radii: np.ndarray, size: int) -> np.ndarray:
    """Centres inside the frame at which no two shapes touch: float64 ``[N, 2]``."""
    room = _REACH * (radii[:, None] + radii)
    for _ in range(_TRIES):
        places = rng.uniform(radii[:, None], size - 1 - radii[:, None], (len(radii), 2))
        gaps = np.linalg.norm(places[:, None] - places, axis=-1)
        if (gaps + np.diag(np.full(len(radii), np.inf)) > room).all():
            return places
    raise DatasetError(f"{len(radii)} sprites found no room in {size} pixels")  # not at any size
