"""Do the scripted experts solve their tasks? ``python -m tubelet.benchmarks.expert_check``.

Every environment with an expert plays n episodes, starts and goals drawn apart, each for the
environment's budget of steps; success counts at the last step. Results go to JSON with Wilson
intervals, episode by episode; the same command with a larger n goes on from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.rng import numpy_generator
from ..envs import ENVIRONMENTS, make
from .env_checks import Played, Rows, parser, play


def check(
    env_id: str, n: int, *, seed: int = 0, budget: int | None = None, out: Path
) -> dict[str, Any]:
    """Play ``n`` episodes by the expert of ``env_id``.

    Args:
        budget: steps per episode; the environment's own if None. out: file of results.

    Returns:
        the row: :func:`.env_checks.summary`, ``env``, ``seed``, ``budget`` and ``outcomes``.

    Raises:
        ConfigError: the environment has no expert.
    """
    env = make(env_id, render_obs=False)
    env.reset(seed=0)
    env.expert(numpy_generator(seed, "expert", env_id, 0))  # or an error before anything is written
    steps = env.budget if budget is None else budget

    def episode(k: int) -> Played:
        rng = numpy_generator(seed, "expert", env_id, k)
        start, goal = env.sample_state(rng), env.sample_goal(rng)
        return play(env, start, goal, steps, lambda world: world.expert(rng))

    return Rows(out).extend({"env": env_id, "seed": seed, "budget": steps}, n, episode)


def main(argv: list[str] | None = None) -> int:
    """Check the named environments (all by default), print one line each, write one JSON file."""
    args = parser("expert_check", __doc__, n=200).parse_args(argv)
    for env_id in args.env or ENVIRONMENTS:
        try:
            check(env_id, args.n, seed=args.seed, out=args.out)
        except ConfigError as error:
            print(f"{env_id:<27} {error}")
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
