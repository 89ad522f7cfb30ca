"""Can CEM solve the tasks with true dynamics? ``python -m tubelet.benchmarks.oracle_check``.

It plans in the simulator itself, with the settings of ``oracle_search``: a proof of environments,
costs and planners before anything is learned. Goals are anywhere, success counts at the last step
of the environment's budget. Results go to JSON with Wilson intervals, problem by problem; the same
command goes on where it was stopped, and with a larger n adds to what is there.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..envs import make
from .env_checks import Played, Rows, parser, play
from .episodes import draw_far
from .oracle_search import SEARCHES, Oracle, OracleSearch


def check(
    env_id: str,
    n: int,
    *,
    seed: int = 0,
    budget: int | None = None,
    search: OracleSearch | None = None,
    out: Path,
) -> dict[str, Any]:
    """Plan to ``n`` goals anywhere with the simulator as dynamics.

    Args:
        budget: environment steps; the environment's own if None. search: the table's if None.
        out: file of results.

    Returns:
        the row: :func:`.env_checks.summary`, ``env``, ``seed``, ``budget``, ``search`` and
        ``outcomes``.

    Raises:
        ConfigError: no search is known for the environment.
    """
    if search is None and env_id not in SEARCHES:
        raise ConfigError(f"env = {env_id!r}: no search is known; there are {', '.join(SEARCHES)}")
    search = search or SEARCHES[env_id]
    env = make(env_id, render_obs=False)
    steps = env.budget if budget is None else budget
    problems = draw_far(
        env, n, env_id=env_id, seed=seed, budget=steps
    )  # more of them: the same first
    oracle = Oracle(env_id, search)

    def episode(k: int) -> Played:
        return play(
            env,
            problems.start_states[k],
            problems.goal_states[k],
            steps,
            lambda world: oracle.controller(world, number=k, budget=steps),
        )

    settings = asdict(search) | {"kind": type(search.planner).__name__}
    del settings["seconds"]
    return Rows(out).extend(
        {"env": env_id, "seed": seed, "budget": steps, "search": settings}, n, episode
    )


def main(argv: list[str] | None = None) -> int:
    """Check the named environments (all by default), print one line each, write one JSON file."""
    args = parser("oracle_check", __doc__, n=20)
    args.add_argument("--list", action="store_true", help="print the settings, run nothing")
    args = args.parse_args(argv)
    for env_id in args.env or SEARCHES:
        if args.list:
            search = SEARCHES[env_id]
            minutes = search.seconds * args.n / 60
            print(f"{env_id:<27} {args.n} problems: {minutes:.1f} processor minutes; {search}")
        else:
            check(env_id, args.n, seed=args.seed, out=args.out)
    if not args.list:
        print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
