"""Can CEM solve the tasks with true dynamics? ``python -m tubelet.benchmarks.oracle_check``.

It plans in the simulator itself, in the coordinates of each environment's ``plan_features``: the
ceiling of every world model, and a test of those coordinates. Results go to JSON with Wilson
intervals.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..core.io import atomic_write_json
from ..core.machine import command, facts
from ..envs import ENVIRONMENTS, make
from ..planning import CEMConfig, MPCConfig
from .episodes import draw_far
from .goal_reaching import evaluate
from .stats import wilson_interval
from .suite import CEM_CONFIG, oracle_method


def check(
    env_id: str,
    n: int,
    *,
    seed: int = 0,
    budget: int | None = None,
    cem: CEMConfig = CEM_CONFIG,
    action_block: int = 5,
) -> dict[str, Any]:
    """Plan to ``n`` goals anywhere with the simulator as dynamics.

    Args:
        budget: environment steps; the environment's own if None. action_block: environment steps
            for which a planned action is held.

    Returns:
        JSON values: the settings, ``success_at_end`` and ``success_at_any`` (value, low, high: 95 %
        Wilson), ``final_distance`` (name to one number per problem), ``cpu_seconds`` per problem.
    """
    env = make(env_id, render_obs=False)
    budget = env.budget if budget is None else budget
    episodes = draw_far(env, n, env_id=env_id, seed=seed, budget=budget)
    mpc = MPCConfig(execute=1, hold=True)
    method = oracle_method(env_id, action_block=action_block, threads=1, cem=cem, mpc=mpc)
    began = time.process_time()
    result = evaluate(
        lambda: make(env_id, render_obs=False, image_size=16),
        method.agent,
        episodes,
        name=method.name,
        role="ceiling",
        privileged=True,
    )
    return {
        "env": env_id,
        "n": n,
        "seed": seed,
        "budget": budget,
        "action_block": action_block,
        "cem": asdict(cem),
        "success_at_end": asdict(wilson_interval(int(result.at_end.sum()), n)),
        "success_at_any": asdict(wilson_interval(int(result.at_any.sum()), n)),
        "final_distance": {k: np.round(v[:, -1], 4).tolist() for k, v in result.distance.items()},
        "cpu_seconds": (time.process_time() - began) / n,
    }


def main(argv: list[str] | None = None) -> int:
    """Check the named environments (all by default), print one line each, write one JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.oracle_check", description=__doc__
    )
    parser.add_argument("--env", nargs="+", default=list(ENVIRONMENTS), help="ids (default: all)")
    parser.add_argument("--n", type=int, default=20, help="problems each (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/oracle_check.json"))
    args = parser.parse_args(argv)
    rows = []
    for env_id in args.env:
        row = check(env_id, args.n, seed=args.seed)
        end = row["success_at_end"]
        print(
            f"{env_id:<32} success@end {end['value']:.1%} [{end['low']:.1%}, {end['high']:.1%}] "
            f"@any {row['success_at_any']['value']:.1%} in {row['budget']} steps, "
            f"{row['cpu_seconds']:.1f} s of processor time each",
            flush=True,
        )
        rows.append(row)
    value = {"rows": rows, "command": command(), "machine": facts()}
    atomic_write_json(args.out, value)
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
