"""The worlds and the planners of the hierarchy study: one clock or two, at equal model calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..envs import make
from ..envs.base import GoalEnv
from ..envs.oracle import SimulatorDynamics
from ..envs.oracle_levels import add_levels
from ..envs.pointmaze import TOLERANCE
from ..planning import (
    CEMConfig,
    HierarchicalConfig,
    LatentDynamics,
    MPCAgent,
    MPCConfig,
    SearchConfig,
    make_planner,
)
from ..vjepa.world_model import WorldModel
from .episodes import EpisodeSet
from .suite import COST, Method, StoredPixels

BLOCK = 3
"""Environment steps per model step, held: so short that the suites' flat horizon, 8 model steps, is
at most 6 cells of the maze, while the farthest goals are farther."""
STRIDE = 4
"""Model steps per macro-action."""
REACH = 4
"""Macro-actions that the higher level looks ahead."""
ITERATIONS = 4


@dataclass(frozen=True, kw_only=True)
class World:
    """An environment whose far goals are far.

    Attributes:
        env_id: which. unit, farness: what a problem's distance is measured in, and how.
        positions: the oracle sees joint positions, in which walls are invisible as they are to a
            picture's distance, instead of coordinates that know the way.
        steps: environment steps per training episode.
    """

    env_id: str
    unit: str
    farness: Callable[[GoalEnv, np.ndarray, np.ndarray], float]
    positions: bool
    steps: int


def geodesic_cells(env: GoalEnv, start: np.ndarray, goal: np.ndarray) -> float:
    """Length of the way through a maze, in cells, from :class:`tubelet.envs.geodesic.Geodesic`
    coordinates (their mean squared difference is .1 per tolerance)."""
    ends = (env.plan_features_in(state, env.position(state)) for state in (start, goal))
    a, b = ends
    return float(np.square(a - b).mean() * TOLERANCE / 0.1)


def object_way(env: GoalEnv, start: np.ndarray, goal: np.ndarray) -> float:
    """Centimetres that the object has to go."""
    return 100 * env.distance(start, goal)["object"]


WORLDS = {
    "maze": World(
        env_id="tubelet/PointMazeMedium-v0",
        unit="cells of way",
        farness=geodesic_cells,
        positions=True,
        steps=150,
    ),
    "push": World(
        env_id="tubelet/ArmPush-v0",
        unit="cm",
        farness=object_way,
        positions=False,
        steps=80,
    ),
}

BASELINE = "flat"
CANDIDATE = "hierarchical"
ARMS = (BASELINE, "flat, far-sighted", CANDIDATE, "hierarchical, neighbours", "hierarchical, naive")
"""Of learned models; all but the supports and the far-sighted flat one are of the oracle too."""
ORACLE_ARMS = ARMS[:3]


def distances(world: World, episodes: EpisodeSet) -> np.ndarray:
    """How far every problem's goal is, float64 ``[n]``, in the world's unit."""
    env = make(world.env_id, render_obs=False)
    pairs = zip(episodes.start_states, episodes.goal_states, strict=True)
    return np.array([world.farness(env, start, goal) for start, goal in pairs])


def search(arm: str, calls: int) -> SearchConfig:
    """The planner of an arm that spends at most ``calls`` model calls per plan, and nearly all."""
    shared: dict[str, Any] = {"iterations": ITERATIONS, "init_std": 1.0, "chunk": 8192}
    own: dict[str, Any] = {**shared, "noise_beta": 1.0, "max_model_calls": calls}
    if arm.startswith("flat"):
        horizon = STRIDE * REACH if "far" in arm else 2 * STRIDE
        return CEMConfig(horizon=horizon, **_samples(calls, horizon), **own)
    support = {"hierarchical, neighbours": "neighbours", "hierarchical, naive": "none"}
    return HierarchicalConfig(
        horizon=STRIDE,
        **_samples(calls // 2, STRIDE),
        macro=CEMConfig(horizon=REACH, returns="best", **_samples(calls // 2, REACH), **shared),
        macro_support=support.get(arm, "quantile"),  # pyright: ignore[reportArgumentType]
        **own,
    )


def _samples(calls: int, horizon: int) -> dict[str, int]:
    samples = max(8, round(calls / (horizon * ITERATIONS)))
    return {"samples": samples, "elites": min(10, samples // 4)}


def model_arm(arm: str, calls: int, model: WorldModel, seed: int) -> Method:
    """A learned model planned with by an arm."""
    return Method(
        name=f"{arm}, {calls} calls",
        agent=StoredPixels(_agent(model, search(arm, calls), seed)),
        seed=seed,
        context_frames=model.config.encoder.tubelet,
        context_stride=model.config.frame_gap,
    )


def oracle_arm(arm: str, calls: int, world: World, *, threads: int) -> Method:
    """The true simulator planned in by an arm: exact models of the price of learned ones. A
    macro-action holds two actions, one after the other; its prediction counts as one call."""
    env = make(world.env_id, render_obs=False)
    dynamics = SimulatorDynamics(
        env, action_block=BLOCK, threads=threads, positions=world.positions
    )
    add_levels(dynamics, (STRIDE,), knots=2, price=1)
    agent = _agent(dynamics, search(arm, calls), 0, execute=2)  # exact: saves time
    return Method(name=f"oracle {arm}, {calls} calls", agent=agent, role="ceiling", privileged=True)


def _agent(
    dynamics: LatentDynamics, config: SearchConfig, seed: int, *, execute: int = 1
) -> MPCAgent:
    mpc = MPCConfig(execute=execute, action_block=BLOCK, hold=True, seed=seed)
    return MPCAgent(dynamics, make_planner(config, dynamics.action_dim // BLOCK, COST), mpc)
