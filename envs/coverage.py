"""What a trajectory set covers: how far a random goal is from anything recorded, and how it acts.

A world model can plan only where its data has been, so this is worth a look before training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..core.errors import DatasetError
from ..core.rng import numpy_generator
from ..datasets.trajectories import TrajectorySet
from .base import GoalEnv

GOALS = 100
BINS = 20
MOST_FRAMES = 20_000


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Facts about one set.

    Attributes:
        episodes, frames: their numbers.
        visited: share of the bins of each feature (20 between the extremes of goals drawn at
            random) that hold a frame, one number per feature.
        nearest_median, nearest_95: distance from a goal drawn at random to the nearest recorded
            frame, median and 95th percentile over 100 goals, in the goals' standard deviations
            (root mean square over features).
        still: share of steps in which no feature moves by a thousandth of its deviation.
        action_std: standard deviation of each action entry. saturated: share of action entries at
            the bounds. persistence: correlation of each action entry with the one a step later, 0
            where it never varies; the mean over entries.
    """

    episodes: int
    frames: int
    visited: tuple[float, ...]
    nearest_median: float
    nearest_95: float
    still: float
    action_std: tuple[float, ...]
    saturated: float
    persistence: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """In words, for a terminal."""
        visited = " ".join(f"{share:.0%}" for share in self.visited[:8])
        deviations = " ".join(f"{std:.2f}" for std in self.action_std)
        return [
            f"a goal drawn at random is {self.nearest_median:.2f} (95 %: {self.nearest_95:.2f}) "
            "deviations from the nearest frame",
            f"features visited: {visited}; still in {self.still:.0%} of steps",
            f"actions: deviation {deviations}, {self.saturated:.0%} at the bounds, correlation "
            f"with the next {self.persistence:.2f}",
        ]


def coverage(trajectories: TrajectorySet, env: GoalEnv, *, seed: int = 0) -> Coverage:
    """Measure a set that was recorded in ``env``.

    Raises:
        DatasetError: the set has no simulator states, or those of another environment.
    """
    rows = trajectories.arrays()
    if "state" not in rows or rows["state"].shape[1] != env.state_dim:
        raise DatasetError(f"{trajectories.root} holds no states of {type(env).__name__}")
    rng = numpy_generator(seed, "coverage")
    last = np.asarray(trajectories.offsets[1:]) - 1
    moves = np.delete(np.arange(len(rows["state"])), last)
    some = np.sort(rng.choice(moves, min(MOST_FRAMES, len(moves)), replace=False))
    here = np.stack([env.features(state) for state in rows["state"][some]])
    after = np.stack([env.features(state) for state in rows["state"][some + 1]])
    goals = _sampled(env, rng, GOALS)
    scale = goals.std(0)
    live = scale > 1e-6
    near = _gaps(goals, here, scale, live)
    action = rows["action"][moves]
    return Coverage(
        episodes=trajectories.num_episodes,
        frames=len(rows["state"]),
        visited=tuple(_visited(goals[:, k], here[:, k]) for k in np.flatnonzero(live)),
        nearest_median=near[0],
        nearest_95=near[1],
        still=float((np.abs(after - here)[:, live] < 1e-3 * scale[live]).all(1).mean()),
        action_std=tuple(action.std(0).astype(float).tolist()),
        saturated=float((np.abs(action) >= 0.999).mean()),
        persistence=_persistence(rows["action"], last),
    )


def _sampled(env: GoalEnv, rng: np.random.Generator, count: int) -> np.ndarray:
    """Features ``[count, F]`` of goals, each in a layout of its own where layouts vary."""
    found = []
    for _ in range(count):
        env.sample_state(rng)
        found.append(env.features(env.sample_goal(rng)))
    return np.stack(found)


def _gaps(
    goals: np.ndarray, frames: np.ndarray, scale: np.ndarray, live: np.ndarray
) -> tuple[float, float]:
    """Median and 95th percentile of the goals' distances to the nearest of ``frames``."""
    from scipy.spatial import KDTree

    unit = scale[live] * np.sqrt(live.sum())
    distance, _ = KDTree(frames[:, live] / unit).query(goals[:, live] / unit)
    return float(np.median(distance)), float(np.quantile(distance, 0.95))


def _visited(goals: np.ndarray, frames: np.ndarray) -> float:
    edges = np.linspace(goals.min(), goals.max(), BINS + 1)
    return float((np.histogram(frames, edges)[0] > 0).mean())


def _persistence(action: np.ndarray, last: np.ndarray) -> float:
    """Mean over entries of the correlation between an action and the next of its episode."""
    first = np.delete(np.arange(len(action)), np.concatenate([last, last - 1]))
    if len(first) < 2:
        return 0.0
    now, then = action[first].astype(float), action[first + 1].astype(float)
    now, then = now - now.mean(0), then - then.mean(0)
    power = np.sqrt((now**2).mean(0) * (then**2).mean(0))
    return float(np.mean(np.where(power > 1e-9, (now * then).mean(0) / np.maximum(power, 1e-9), 0)))
