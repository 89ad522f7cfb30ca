"""Can the planner solve the arm tasks with true dynamics?

``python -m tubelet.benchmarks.arm_oracle`` is :mod:`.oracle_check` with a search made for contacts,
whose simulation costs a hundred times that of the mazes: a shorter horizon, fewer candidates. Every
task's result is written as soon as it is there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..core.io import atomic_write_json
from ..core.machine import facts
from ..envs import ENVIRONMENTS
from ..planning import CEMConfig
from .oracle_check import check

# The best candidate and not the mean: of this few, the mean errs by centimetres at the goal.
CEM_CONFIG = CEMConfig(
    horizon=5,
    samples=32,
    iterations=5,
    elites=5,
    init_std=1.0,
    noise_beta=1.0,
    returns="best",
    chunk=8192,
)
ARMS = [env_id for env_id in ENVIRONMENTS if env_id.startswith("tubelet/Arm")]


def main(argv: list[str] | None = None) -> int:
    """Check the named arm tasks (all by default), print one line each, write one JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.arm_oracle", description=__doc__
    )
    parser.add_argument("--env", nargs="+", default=ARMS, help="ids (default: all arm tasks)")
    parser.add_argument("--n", type=int, default=20, help="problems each (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/arm_oracle.json"))
    args = parser.parse_args(argv)
    rows = []
    for env_id in args.env:
        row = check(env_id, args.n, seed=args.seed, cem=CEM_CONFIG)
        end = row["success_at_end"]
        print(
            f"{env_id:<24} success@end {end['value']:.1%} [{end['low']:.1%}, {end['high']:.1%}] "
            f"@any {row['success_at_any']['value']:.1%} in {row['budget']} steps, "
            f"{row['cpu_seconds']:.1f} s of processor time each",
            flush=True,
        )
        rows.append(row)
        value = {"rows": rows, "command": " ".join(sys.argv), "machine": facts()}
        atomic_write_json(args.out, value)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
