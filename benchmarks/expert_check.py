"""Do the scripted experts solve their tasks? ``python -m tubelet.benchmarks.expert_check``.

Every environment with an expert plays n episodes, starts and goals drawn apart, each for the
environment's budget of steps; success counts at the last step. Results go to JSON with Wilson
intervals.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..core.io import atomic_write_json
from ..core.machine import command, facts
from ..core.rng import numpy_generator
from ..envs import ENVIRONMENTS, make
from ..envs.base import GoalEnv
from .stats import wilson_interval


def check(env_id: str, n: int, *, seed: int = 0, budget: int | None = None) -> dict[str, Any]:
    """Play ``n`` episodes by the expert of ``env_id``.

    Args:
        budget: steps per episode; the environment's own if None.

    Returns:
        JSON values: ``n``, ``budget``, ``success_at_end`` and ``success_at_any`` (value, low, high:
        95 % Wilson), ``first_success`` (median step over successes), ``solved_at_reset`` (share),
        ``cpu_seconds`` per episode, ``failures`` (their numbers and final distances).

    Raises:
        ConfigError: the environment has no expert.
    """
    env = make(env_id, render_obs=False)
    budget = env.budget if budget is None else budget
    began = time.process_time()
    played = [_episode(env, numpy_generator(seed, "expert", env_id, k), budget) for k in range(n)]
    success = np.array([row["success"] for row in played])
    first = success.argmax(1)[success.any(1)]
    return {
        "env": env_id,
        "n": n,
        "seed": seed,
        "budget": budget,
        "success_at_end": asdict(wilson_interval(int(success[:, -1].sum()), n)),
        "success_at_any": asdict(wilson_interval(int(success.any(1).sum()), n)),
        "solved_at_reset": float(success[:, 0].mean()),
        "first_success": float(np.median(first)) if len(first) else None,
        "cpu_seconds": (time.process_time() - began) / n,
        "failures": [
            {"episode": k, "distance": row["distance"]}
            for k, row in enumerate(played)
            if not row["success"][-1]
        ],
    }


def _episode(env: GoalEnv, rng: np.random.Generator, budget: int) -> dict[str, Any]:
    start, goal = env.sample_state(rng), env.sample_goal(rng)
    _, info = env.reset(options={"state": start, "goal_state": goal})
    act, success = env.expert(rng), [info["success"]]
    for t in range(budget):
        info = env.step(act(t))[4]
        success.append(info["success"])
    return {"success": success, "distance": info["distance"]}


def main(argv: list[str] | None = None) -> int:
    """Check the named environments (all by default), print one line each, write one JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.expert_check", description=__doc__
    )
    parser.add_argument("--env", nargs="+", default=list(ENVIRONMENTS), help="ids (default: all)")
    parser.add_argument("--n", type=int, default=200, help="episodes each (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/expert_check.json"))
    args = parser.parse_args(argv)
    rows = []
    for env_id in args.env:
        try:
            row = check(env_id, args.n, seed=args.seed)
        except ConfigError as error:
            print(f"{env_id:<32} {error}")
            continue
        end = row["success_at_end"]
        print(
            f"{env_id:<32} success@end {end['value']:.1%} [{end['low']:.1%}, {end['high']:.1%}] "
            f"@any {row['success_at_any']['value']:.1%}, first at step {row['first_success']:.0f} "
            f"of {row['budget']}, {row['cpu_seconds']:.2f} s of processor time each"
        )
        rows.append(row)
    value = {"rows": rows, "command": command(), "machine": facts()}
    atomic_write_json(args.out, value)
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
