"""Where and how far to push a T so that it comes to a wanted pose: plans one push after another.

The T is so strongly damped that a push moves it as if forces were velocities. A disc that does not
slip then determines the T's motion by two linear equations, and a few hundred pushes (place on the
outline, direction, length) can be tried at once. The expert takes the best, walks the disc there
around the T, pushes, looks where the T really is, and plans again.
"""

from __future__ import annotations

from collections import deque

import numpy as np

DISC = 0.015
"""Radius of the disc, metres."""
TABLE = 0.256
"""Half the table's width, metres."""
FULL_STEP = 0.04
"""Way of the disc in one step at full speed, metres."""
PUSH_STEP = 0.02
"""Way of the disc in one step while it pushes, metres."""
GYRATION = 0.00966 / 5.0
"""Damping of rotation over damping of translation, square metres."""
BOXES = np.array([(0.0, 0.0257143, 0.06, 0.015), (0.0, -0.0342857, 0.015, 0.045)])
"""The T's bars in its own frame: x, y of the middle, half width, half height (metres)."""
SLOPES = np.tan(np.deg2rad([-35.0, -20.0, -8.0, 0.0, 8.0, 20.0, 35.0]))
"""Directions of pushes, as slopes against the outline's normal (friction 1 holds up to 45°)."""
STAND_OFF = 0.006
"""The disc starts a push this far from the outline, and keeps this far away when it walks."""
TRACE_STEP, TRACE_LENGTH = 0.004, 40
"""Pushes are traced in steps of 4 mm, up to 160 mm."""
GOOD_PLACE, GOOD_ANGLE = 0.005, np.deg2rad(5.0)
"""The T counts as being there within 5 mm and 5 degrees."""
PATIENCE = 30
"""Steps after which another push is chosen if the disc has not come to the beginning of one."""
GRID = 48


class PushExpert:
    """Brings the T, then the disc, to ``goal`` (disc x, y, T x, y, angle: metres, radians).

    Args:
        play: pushes at random places half of the time, drawn from this generator.

    Attributes:
        done: whether disc and T are at the goal.
    """

    def __init__(self, goal: np.ndarray, *, play: np.random.Generator | None = None):
        self._play = play
        self.retarget(goal)

    def retarget(self, goal: np.ndarray) -> None:
        """Forget the plan and head for another goal."""
        self._goal = np.asarray(goal, float)
        self._start: np.ndarray | None = None  # where the present push begins
        self._push: deque[np.ndarray] = deque()
        self._chosen, self._walked = -1, 0
        self._barred: list[int] = []  # pushes whose beginning was not reached
        self.done = False

    def act(self, position: np.ndarray) -> np.ndarray:
        """The action float64 ``[2]`` at ``position`` ``[5]``."""
        disc, block = position[:2], position[2:]
        if self._start is None and not self._push:
            self._plan(disc, block)
        if self._start is not None and np.linalg.norm(self._start - disc) < 0.004:
            self._start, self._barred = None, []
        if self._start is not None:
            self._walked += 1
            if self._walked > PATIENCE:
                self._barred.append(self._chosen)
                self._plan(disc, block)
        if self._start is not None:
            return _towards(disc, _next_stop(disc, self._start, block), FULL_STEP)
        if self._push:
            return _towards(disc, self._push.popleft(), FULL_STEP)
        gap = float(np.linalg.norm(disc - self._goal[:2]))
        self.done = self._there(block) and gap < 0.01
        return _towards(disc, _next_stop(disc, self._goal[:2], block), FULL_STEP)

    def _there(self, block: np.ndarray) -> bool:
        gap = block - self._goal[2:]
        turn = (gap[2] + np.pi) % (2 * np.pi) - np.pi
        return bool(np.linalg.norm(gap[:2]) < GOOD_PLACE and abs(turn) < GOOD_ANGLE)

    def _plan(self, disc: np.ndarray, block: np.ndarray) -> None:
        """Choose the next push, or none if the T is where it should be or nothing helps."""
        self._start, self._walked = None, 0
        self._push.clear()
        if self._there(block):
            return
        places, slopes, normals = _candidates()
        poses = _trace(block, places, slopes, normals)  # [C, L + 1, 3]
        starts = _to_world(block, places - normals * (DISC + STAND_OFF))
        way = _way_lengths(disc, starts, block)
        way[self._barred] = np.inf
        cost = (
            _pose_cost(poses, self._goal[2:])
            + 0.3 * way[:, None]
            + 0.002 * np.arange(poses.shape[1])
        )
        if self._play is not None and self._play.uniform() < 0.5:
            free = np.flatnonzero(np.isfinite(way) & np.isfinite(poses[:, 1, 0]))
            if not len(free):
                return
            best = int(self._play.choice(free))
            holds = int(np.isfinite(poses[best, :, 0]).sum()) - 1  # until the disc would slip
            length = min(holds, int(self._play.integers(3, 25)))
        else:
            best, length = np.unravel_index(int(np.argmin(cost)), cost.shape)
            if length == 0 or not np.isfinite(cost[best, length]):
                return
        self._chosen, self._start = int(best), starts[best]
        self._push = _push_targets(block, poses[best], places[best], normals[best], int(length))


def clearance(point: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Distance from points ``[..., 2]`` to the outline of the T at ``block`` ``[3]`` (x, y, angle),
    negative inside; metres."""
    local = _to_block(block, point)[..., None, :]
    outside = np.abs(local - BOXES[:, :2]) - BOXES[:, 2:]
    far = np.linalg.norm(np.maximum(outside, 0.0), axis=-1)
    return (far + np.minimum(outside.max(-1), 0.0)).min(-1)


def _rotation(angle: np.ndarray) -> np.ndarray:
    """Matrices ``[..., 2, 2]``."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def _to_world(block: np.ndarray, local: np.ndarray) -> np.ndarray:
    return local @ _rotation(block[2]).T + block[:2]


def _to_block(block: np.ndarray, point: np.ndarray) -> np.ndarray:
    return (point - block[:2]) @ _rotation(block[2])


def _candidates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pushes in the T's frame: places on the outline ``[C, 2]``, slopes ``[C]``, and normals
    into the T ``[C, 2]``."""
    places, normals = _outline()
    count = len(SLOPES)
    return places.repeat(count, 0), np.tile(SLOPES, len(places)), normals.repeat(count, 0)


def _outline(spacing: float = 0.008) -> tuple[np.ndarray, np.ndarray]:
    """Points along the outline of the T, corners left out, and normals into the T."""
    places, normals = [], []
    for box in BOXES:
        for axis in (0, 1):
            half = box[2 + axis] - 0.004
            steps = np.linspace(-half, half, int(2 * half / spacing) + 1)
            for side in (-1.0, 1.0):
                place = np.zeros((len(steps), 2))
                place[:, axis] = box[axis] + steps
                place[:, 1 - axis] = box[1 - axis] + side * box[3 - axis]
                normal = np.zeros(2)
                normal[1 - axis] = -side
                places.append(place)
                normals.append(np.tile(normal, (len(steps), 1)))
    place, normal = np.concatenate(places), np.concatenate(normals)
    disc = place - normal * (DISC + 0.001)
    back = place - normal * (DISC + STAND_OFF)
    free = clearance(disc, np.zeros(3)) >= DISC  # not where the two bars meet
    free &= clearance(back, np.zeros(3)) >= DISC + 0.8 * STAND_OFF
    return place[free], normal[free]


def _trace(
    block: np.ndarray, places: np.ndarray, slopes: np.ndarray, normals: np.ndarray
) -> np.ndarray:
    """Poses ``[C, TRACE_LENGTH + 1, 3]`` of the T along every push, 4 mm of the disc's way apart.

    With damping d of translation and d g of rotation (g = GYRATION), a force f at place c moves the
    T by v = f / d, w = (c x f) / (d g); the disc sticks where v + w x c equals its own velocity u.
    The disc pushes in a constant direction of the world.
    """
    sideways = np.stack([-normals[:, 1], normals[:, 0]], -1)
    direction = normals + slopes[:, None] * sideways
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    world = direction @ _rotation(block[2]).T
    poses = np.empty((len(places), TRACE_LENGTH + 1, 3))
    poses[:, 0] = block
    for k in range(TRACE_LENGTH):
        turn = _rotation(poses[:, k, 2])
        u = np.einsum("cji,cj->ci", turn, world)  # in the T's frame
        force = _sticking_force(places, u)
        along = np.einsum("ci,ci->c", force, normals)
        across = np.abs(np.einsum("ci,ci->c", force, sideways))
        holds = (along > 0) & (across <= 0.95 * along)
        spin = (places[:, 0] * force[:, 1] - places[:, 1] * force[:, 0]) / GYRATION
        move = np.einsum("cij,cj->ci", turn, force)
        step = np.concatenate([move, spin[:, None]], axis=1) * TRACE_STEP
        poses[:, k + 1] = np.where(holds[:, None], poses[:, k] + step, np.nan)
    return poses


def _sticking_force(place: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The force over d ``[C, 2]`` with which a disc of velocity ``u`` sticks to ``place``: solves
    f + (c x f) / g * (-c_y, c_x) = u."""
    x, y = place[:, 0], place[:, 1]
    a, b, c = 1 + y * y / GYRATION, -x * y / GYRATION, 1 + x * x / GYRATION
    determinant = a * c - b * b
    return (
        np.stack([c * u[:, 0] - b * u[:, 1], a * u[:, 1] - b * u[:, 0]], -1) / determinant[:, None]
    )


def _pose_cost(poses: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """How far poses ``[..., 3]`` are from ``goal``: 1 at 20 mm or at 20 degrees; inf off the table
    or where the disc would slip."""
    gap = poses - goal
    turn = (gap[..., 2] + np.pi) % (2 * np.pi) - np.pi
    cost = np.hypot(np.linalg.norm(gap[..., :2], axis=-1) / 0.02, turn / np.deg2rad(20.0))
    inside = np.abs(poses[..., :2]).max(-1) <= TABLE - 0.075
    return np.where(inside & np.isfinite(cost), cost, np.inf)


def _push_targets(
    block: np.ndarray, poses: np.ndarray, place: np.ndarray, normal: np.ndarray, length: int
) -> deque[np.ndarray]:
    """Where the disc should be after each step of the push, the last a little way back."""
    centre = place - normal * DISC
    track = np.stack([_to_world(pose, centre) for pose in poses[: length + 1]])
    every = max(1, round(PUSH_STEP / TRACE_STEP))
    stops = [track[k] for k in range(every, length, every)]
    back = track[length] - 0.012 * (
        _to_world(poses[length], place + normal) - _to_world(poses[length], place)
    )
    return deque([track[0], *stops, track[length], track[length], back])


def _towards(disc: np.ndarray, target: np.ndarray, full: float) -> np.ndarray:
    """The action that goes to ``target`` in one step, or at full speed towards it."""
    gap = (target - disc) / full
    return gap / max(1.0, float(np.abs(gap).max()))


def _next_stop(disc: np.ndarray, target: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The farthest point of the way around the T to which the disc can go in a straight line."""
    if _clear(disc, target, block):
        return target
    nodes, lengths, before = _ways(disc, block)
    node = _nearest_node(nodes, lengths, target)
    way = [target, nodes[node]]
    while before[node] >= 0:
        node = before[node]
        way.append(nodes[node])
    for stop in way:
        if np.linalg.norm(stop - disc) > 0.003 and _clear(disc, stop, block):
            return stop
    away = disc - block[:2]  # in a tight corner: leave the T first
    return disc + 0.02 * away / max(1e-6, float(np.linalg.norm(away)))


def _clear(disc: np.ndarray, stop: np.ndarray, block: np.ndarray) -> bool:
    """Whether the straight way stays clear of the T (or does not come nearer than it begins)."""
    points = np.linspace(disc, stop, 2 + int(np.linalg.norm(stop - disc) / 0.004))
    gaps = clearance(points, block)
    margin = DISC + (0.4 * STAND_OFF if len(points) > 10 else 0.001)
    return bool(gaps.min() >= min(margin, float(gaps[0]) + 1e-6))


def _way_lengths(disc: np.ndarray, starts: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Metres from the disc around the T to each of ``starts`` ``[C, 2]``; inf: none."""
    nodes, lengths, _ = _ways(disc, block)
    gaps = np.linalg.norm(starts[:, None] - nodes, axis=-1)
    near = gaps.argmin(1)
    fits = (np.abs(starts).max(1) <= TABLE - DISC - 0.002) & (gaps.min(1) < 0.02)
    return np.where(fits, lengths[near], np.inf)


def _nearest_node(nodes: np.ndarray, lengths: np.ndarray, target: np.ndarray) -> int:
    gaps = np.linalg.norm(nodes - target, axis=1)
    return int(np.argmin(np.where(np.isfinite(lengths), gaps, np.inf)))


def _ways(disc: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A lattice of places that are clear of the T ``[n, 2]``, the length of the way from the disc
    to each, and the node before it on that way."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    steps = np.linspace(DISC - TABLE + 0.002, TABLE - DISC - 0.002, GRID)
    x, y = np.meshgrid(steps, steps, indexing="ij")
    free = clearance(np.stack([x, y], -1), block) >= DISC + 0.5 * STAND_OFF
    number = np.full((GRID, GRID), -1)
    number[free] = np.arange(free.sum())
    nodes = np.stack([x[free], y[free]], -1)
    pairs = [
        (number[:-1], number[1:], 1.0),
        (number[:, :-1], number[:, 1:], 1.0),
        (number[:-1, :-1], number[1:, 1:], np.sqrt(2)),
        (number[:-1, 1:], number[1:, :-1], np.sqrt(2)),
    ]
    rows, columns, lengths = [], [], []
    for a, b, length in pairs:
        both = (a >= 0) & (b >= 0)
        rows.append(a[both])
        columns.append(b[both])
        lengths.append(np.full(both.sum(), length * (steps[1] - steps[0])))
    graph = csr_array(
        (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(nodes), len(nodes)),
    )
    source = int(np.linalg.norm(nodes - disc, axis=1).argmin())
    length, before = dijkstra(graph, directed=False, indices=source, return_predecessors=True)
    return nodes, length, before
