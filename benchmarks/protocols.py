"""How far does the protocol alone move the number? One model, many protocols, one table.

    python -m tubelet.benchmarks.protocols --run runs/joint --out runs/protocols --preset full

Papers that plan with latent world models report success under different rules: one open-loop plan
or replanning, success at the end or at any time, goals some steps ahead in the data or anywhere.
The same trained model is planned with under each of them, by the same search, with the same starts
for all offsets. Results are kept set by set; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.config import load_config
from ..core.errors import ConfigError
from ..planning import CEMConfig
from ..vjepa.device import prepare
from ..vjepa.train_recipe import TrainConfig, load_world_model, split_episodes
from ..vjepa.world_model import WorldModel
from . import suite
from .episodes import EpisodeSet, draw_far, draw_offsets
from .floors import coloured_random
from .goal_reaching import GoalReachingResult
from .origin import check_origin, trained_env, training_data
from .results import Table, save_result
from .stats import wilson_interval
from .tables import percent

OFFSETS = (25, 50, 75)
"""Steps from the start to a goal in the same trajectory."""
ANYWHERE = "anywhere"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How much is played. Attributes: n: problems per goal set. search: the planner's settings."""

    n: int
    search: CEMConfig


PRESETS = {
    "debug": Preset(
        n=4, search=replace(suite.CEM_CONFIG, horizon=2, samples=8, iterations=1, elites=3)
    ),
    "quick": Preset(n=50, search=suite.CEM_CONFIG),
    "full": Preset(n=200, search=suite.CEM_CONFIG),
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to plan and to judge.

    Attributes:
        name: row label. execute: model steps carried out per plan; 0: all of them.
        budget: environment steps per step of the offset; 0: exactly one plan.
    """

    name: str
    execute: int
    budget: float


PROTOCOLS = (
    Protocol(name="one plan, open loop", execute=0, budget=0),
    Protocol(name="replanned after every plan", execute=0, budget=2),
    Protocol(name="replanned after every block", execute=1, budget=1),
    Protocol(name="replanned after every block, twice the steps", execute=1, budget=2),
)


def goal_sets(
    run: Path, env_id: str, n: int, *, seed: int, offsets: tuple[int, ...] = OFFSETS
) -> dict[str, EpisodeSet]:
    """Problems by name: goals ahead in held-out trajectories, and goals anywhere.

    Their budgets are those of the offsets; anywhere counts as the largest.

    Raises:
        ConfigError: the training data of ``run`` is gone.
    """
    data = training_data(run)
    if data is None:
        raise ConfigError(f"{run}: its training data is gone, and goals come from it")
    held_out = split_episodes(
        data.num_episodes, load_config(TrainConfig, run / "config.toml").held_out
    )[1]
    env = suite.make(env_id, render_obs=False)
    sets = draw_offsets(
        env,
        data,
        n,
        env_id=env_id,
        seed=seed,
        budget=lambda offset: offset,
        offsets=offsets,
        episodes=held_out,
    )
    named = {f"{offset} steps ahead": episodes for offset, episodes in sets.items()}
    return named | {ANYWHERE: draw_far(env, n, env_id=env_id, seed=seed, budget=max(offsets))}


def methods_of(
    model: WorldModel, protocol: Protocol, search: CEMConfig, *, budget: int, seed: int
) -> list[suite.Method]:
    """The model under a protocol, and coloured noise under the same."""
    mpc = replace(suite.MPC_CONFIG, execute=protocol.execute or search.horizon)
    width = model.config.action_dim
    noise = coloured_random(budget, width, seed=seed)
    return [
        suite.model_method("model", model, search=search, mpc=mpc),
        suite.Method(name="coloured noise", agent=noise, role="floor"),
    ]


def play(
    run: Path,
    out: Path,
    *,
    preset: Preset,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    offsets: tuple[int, ...] = OFFSETS,
) -> Table:
    """Play every protocol on every goal set and save results and table below ``out``.

    Raises:
        ConfigError: the run's data is gone or is not of one environment.
    """
    model = load_world_model(run, device=prepare(device, threads))
    env_id = trained_env(run)
    check_origin(run, model, env_id)
    one_plan = preset.search.horizon * model.config.action_block
    rows, found = [], []
    for goals, episodes in goal_sets(run, env_id, preset.n, seed=seed, offsets=offsets).items():
        for protocol in PROTOCOLS:
            budget = round(protocol.budget * episodes.budget) or one_plan
            results = suite.run_goal_reaching(
                out / goals.replace(" ", "_") / protocol.name.replace(" ", "_").replace(",", ""),
                methods_of(model, protocol, preset.search, budget=budget, seed=seed),
                replace(episodes, budget=budget),
                image_size=model.config.image_size,
            )
            rows.append([goals, protocol.name, budget, preset.n, *_cells(results)])
            found += [
                (share, f"{goals}, {protocol.name}, at {when}")
                for when, share in zip(("the end", "any time"), _shares(results[0]), strict=True)
            ]
    table = Table(
        title=f"One model, several protocols: {env_id}",
        columns=["goals", "planning", "steps", "n", "@end", "@any", "noise @end", "noise @any"],
        rows=rows,
        note=_note(found, one_plan, seed),
    )
    save_result(out, table, name="protocols")
    return table


def _shares(result: GoalReachingResult) -> tuple[float, float]:
    return float(result.at_end.mean()), float(result.at_any.mean())


def _cells(results: list[GoalReachingResult]) -> list[str]:
    return [
        percent(wilson_interval(int(solved.sum()), len(result)))
        for result in results
        for solved in (result.at_end, result.at_any)
    ]


def _note(found: list[tuple[float, str]], one_plan: int, seed: int) -> str:
    (least, where_least), (most, where_most) = min(found), max(found)
    return (
        f"The same weights and the same search: from {least:.0%} ({where_least}) to {most:.0%} "
        f"({where_most}). Shares with 95 % Wilson intervals; starts and goals of held-out "
        f"episodes, seed {seed}, none solved at the start; offsets share their starts. A plan "
        f"covers {one_plan} steps. Noise: pink noise under the same rules."
    )


def main(argv: list[str] | None = None) -> int:
    """Play, print the table, and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.protocols",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of tubelet train")
    parser.add_argument("--out", type=Path, default=Path("runs/protocols"))
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="how much is played")
    parser.add_argument("--seed", type=int, default=0, help="of the problems")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args(argv)
    table = play(
        args.run,
        args.out,
        preset=PRESETS[args.preset],
        seed=args.seed,
        device=args.device,
        threads=args.threads,
    )
    widths = [max(len(str(row[k])) for row in [table.columns, *table.rows]) for k in range(8)]
    for row in [table.columns, *table.rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)))
    print(table.note)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
