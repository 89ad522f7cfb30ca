"""Where a maze is open: cells, ways between them, and random layouts with a held-out part."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from ..core.errors import ConfigError

MEDIUM = (
    "########",
    "#..##..#",
    "#..#...#",
    "##...###",
    "#..#...#",
    "#.#..#.#",
    "#...#..#",
    "########",
)
"""D4RL's medium maze, row by row from the top; '.' is free. Cell centres are one apart."""

SIDE = 4
"""Random layouts have this many cells along each side."""
SPLITS = ("train", "test")

# The walls that may stand inside a random layout, by the centre of each: between (i, j) and
# (i + 1, j) first ("upright"), then between (i, j) and (i, j + 1).
_STEPS = np.arange(SIDE) - (SIDE - 1) / 2
_LINES = np.arange(1, SIDE) - SIDE / 2
EDGES = np.array(
    [(x, y) for x in _LINES for y in _STEPS] + [(x, y) for x in _STEPS for y in _LINES]
)
"""float64 [24, 2]: centres of all possible inner walls; the first half stands upright."""
UPRIGHT = np.arange(len(EDGES)) < len(EDGES) // 2


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells and which of them meet.

    Attributes:
        centres: float64 ``[n, 2]``. meets: bool ``[n, n]``, symmetric.
    """

    centres: np.ndarray
    meets: np.ndarray

    def nearest(self, place: np.ndarray) -> int:
        """The number of the cell whose centre is nearest."""
        return int(np.argmin(np.linalg.norm(self.centres - place, axis=1)))

    def waypoint(self, place: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Where to head now to come to ``target``: itself, or the next cell's centre."""
        here, there = self.nearest(place), self.nearest(target)
        return target if here == there else self.centres[self._next[there, here]]

    @functools.cached_property
    def _next(self) -> np.ndarray:
        """int ``[n, n]``: entry (there, here) is the cell after ``here`` on the way."""
        from scipy.sparse.csgraph import shortest_path

        return shortest_path(self.meets.astype(float), unweighted=True, return_predecessors=True)[1]


def block_cells(rows: tuple[str, ...]) -> Cells:
    """The free cells of a map whose walls are whole cells, centred on the origin."""
    free = np.array([[letter == "." for letter in row] for row in rows])
    row, column = np.nonzero(free)
    half = (np.array(free.shape) - 1) / 2
    centres = np.stack([column - half[1], half[0] - row], axis=1)
    gaps = np.abs(centres[:, None] - centres).sum(-1)
    return Cells(centres, np.isclose(gaps, 1.0))


def slab_cells(closed: tuple[int, ...]) -> Cells:
    """The cells of a random layout, whose ``closed`` edges are thin walls."""
    centres = np.array([(x, y) for x in _STEPS for y in _STEPS])
    meets = np.isclose(np.abs(centres[:, None] - centres).sum(-1), 1.0)
    for edge in closed:
        a, b = np.flatnonzero(np.isclose(np.abs(centres - EDGES[edge]).sum(-1), 0.5))
        meets[a, b] = meets[b, a] = False
    return Cells(centres, meets)


def random_layout(rng: np.random.Generator, split: str) -> tuple[int, ...]:
    """The closed edges of a maze in which exactly one way joins any two cells.

    Uniform over all such mazes of the split (Wilson 1996, loop-erased random walks).
    """
    while True:
        closed = _spanning_tree_walls(rng)
        if layout_split(closed) == split:
            return closed


def layout_split(closed: tuple[int, ...]) -> str:
    """ "test" for a fifth of all layouts, picked by their SHA-256, "train" for the others."""
    digest = hashlib.sha256(bytes(sorted(closed))).digest()
    return "test" if digest[0] < 256 / 5 else "train"


def check_split(split: str) -> str:
    """The split, or ConfigError."""
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: choose {' or '.join(SPLITS)}")
    return split


def lattice_links(
    cells: Cells, side: int, per_cell: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``free``, ``right`` and ``up`` of :class:`.geodesic.Geodesic` for a ``side`` x ``side`` maze
    with ``per_cell`` lattice points along a cell."""
    number = np.full((side, side), -1)
    where = np.round(cells.centres + (side - 1) / 2).astype(int)
    number[where[:, 0], where[:, 1]] = np.arange(len(where))
    fine = number.repeat(per_cell, 0).repeat(per_cell, 1)
    same_or_meet = cells.meets | np.eye(len(cells.centres), dtype=bool)

    def joined(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a >= 0) & (b >= 0) & same_or_meet[a, b]

    return fine >= 0, joined(fine[:-1], fine[1:]), joined(fine[:, :-1], fine[:, 1:])


def _spanning_tree_walls(rng: np.random.Generator) -> tuple[int, ...]:
    count = SIDE * SIDE
    leads = _neighbours()
    in_tree = np.zeros(count, bool)
    in_tree[rng.integers(count)] = True
    opened: set[int] = set()
    for start in range(count):
        exits: dict[int, tuple[int, int]] = {}
        cell = start
        while not in_tree[cell]:  # the last exit of each visited cell erases the loops
            exits[cell] = leads[cell][rng.integers(len(leads[cell]))]
            cell = exits[cell][0]
        cell = start
        while not in_tree[cell]:
            in_tree[cell] = True
            following, edge = exits[cell]
            opened.add(edge)
            cell = following
    return tuple(sorted(set(range(len(EDGES))) - opened))


@functools.cache
def _neighbours() -> list[list[tuple[int, int]]]:
    """For every cell, (neighbour, edge between them)."""
    centres = slab_cells(()).centres
    leads: list[list[tuple[int, int]]] = [[] for _ in centres]
    for edge, place in enumerate(EDGES):
        a, b = np.flatnonzero(np.isclose(np.abs(centres - place).sum(-1), 0.5)).tolist()
        leads[a].append((b, edge))
        leads[b].append((a, edge))
    return leads
