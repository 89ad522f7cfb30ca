"""Goals that no method can reach, found before anybody is blamed for missing them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..core.rng import numpy_generator
from ..envs import make
from ..envs.base import GoalEnv
from ..envs.rendering import load_mujoco
from .episodes import EpisodeSet

SETTLE = 20
"""Environment steps without action after which a goal must still be one."""
SAMPLES = 64
"""Goals drawn to see where goals lie."""


def why_unreachable(env: GoalEnv, start: np.ndarray, goal: np.ndarray) -> str:
    """The first thing that speaks against reaching ``goal`` from ``start``; empty if nothing does.

    A goal counts as out of reach if a joint is beyond its limits, if its layout is not the start's,
    or if it does not last: left alone for 20 steps, the world is no longer at it (things that
    overlap are pushed apart, things in the air fall).
    """
    return _beyond_limits(env, goal) or _other_layout(env, start, goal) or _fleeting(env, goal)


def unreachable_goals(episodes: EpisodeSet) -> dict[int, str]:
    """Problem number to reason, for the goals of a set that cannot be reached, or lie outside
    everywhere that the environment itself draws goals (by more than a tenth of that range)."""
    env = make(episodes.env_id, render_obs=False)
    if not isinstance(env, GoalEnv):
        return {}
    low, high, names = _goal_range(env)
    found: dict[int, str] = {}
    for k, (start, goal) in enumerate(
        zip(episodes.start_states, episodes.goal_states, strict=True)
    ):
        factors = episodes.factors_of(k)
        if factors is not None:
            factors.apply(env)
        place = env.position(goal)
        outside = np.flatnonzero((place < low) | (place > high))
        reason = why_unreachable(env, start, goal)
        if not reason and len(outside):
            i = int(outside[0])
            reason = (
                f"{names[i]} at {place[i]:.3g} is outside where goals are drawn, "
                f"{low[i]:.3g} to {high[i]:.3g}"
            )
        if reason:
            found[k] = reason
    return found


def report(episodes: EpisodeSet, found: dict[int, str], *, most: int = 5) -> None:
    """Say on the terminal which goals are out of reach."""
    if not found:
        return
    some = "; ".join(f"{k}: {reason}" for k, reason in list(found.items())[:most])
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    print(
        f"{len(found)} of {len(episodes)} goals are out of reach and will count as missed "
        f"({some}{more})",
        file=sys.stderr,
    )


def _beyond_limits(env: GoalEnv, goal: np.ndarray) -> str:
    place, model = env.position(goal), env.model
    for joint in np.flatnonzero(model.jnt_limited).tolist():
        value, (low, high) = place[model.jnt_qposadr[joint]], model.jnt_range[joint]
        slack = 0.02 * (high - low)  # limits are soft
        if not low - slack <= value <= high + slack:
            name = model.joint(joint).name
            return f"joint {name!r} at {value:.3g} is beyond its limits, {low:.3g} to {high:.3g}"
    return ""


def _other_layout(env: GoalEnv, start: np.ndarray, goal: np.ndarray) -> str:
    if not env.model.nmocap:
        return ""
    same = np.allclose(env.layout_of(start)[0], env.layout_of(goal)[0])
    return "" if same else "its walls stand elsewhere than those of the start"


def _fleeting(env: GoalEnv, goal: np.ndarray) -> str:
    env.set_state(goal)
    rest = np.zeros(env.model.nu, np.float32)
    for _ in range(SETTLE):
        env.step(rest)
    state = env.get_state()
    if env.success(state, goal):
        return ""
    gaps = ", ".join(f"{name} {gap:.3g}" for name, gap in env.distance(state, goal).items())
    return f"it does not last: after {SETTLE} steps without action it is off by {gaps}"


def _goal_range(env: GoalEnv) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Between which joint positions goals lie (endless where a joint turns freely), and names."""
    rng = numpy_generator(0, "where goals lie")
    drawn = []
    for _ in range(SAMPLES):
        env.sample_state(rng)
        drawn.append(env.position(env.sample_goal(rng)))
    low, high = np.min(drawn, 0), np.max(drawn, 0)
    margin = 0.1 * (high - low) + 0.01
    low, high = low - margin, high + margin
    hinge, model = int(load_mujoco().mjtJoint.mjJNT_HINGE), env.model
    names: list[Any] = [""] * model.nq
    for joint in range(model.njnt):
        first = int(model.jnt_qposadr[joint])
        until = int(model.jnt_qposadr[joint + 1]) if joint + 1 < model.njnt else model.nq
        for part in range(first, until):
            names[part] = model.joint(joint).name + (f"[{part - first}]" * (until - first > 1))
        if int(model.jnt_type[joint]) == hinge and not model.jnt_limited[joint]:
            low[first], high[first] = -np.inf, np.inf
    return low, high, names
