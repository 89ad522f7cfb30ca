"""Is a head that proposes actions worth a search, and does a search that begins there need less?

    python -m tubelet.benchmarks.amortised_study --preset small --out runs/amortised
    python -m tubelet.benchmarks.amortised_study --preset debug --out runs/amortised_debug

In each environment a world model is trained end to end, and a head added to it (`tubelet
amortise`). The same problems are then solved by the head alone, by the cheapest of a few of its
proposals, and by CEM with 1, 2 and 4 iterations that begins where the last plan left off, or at the
cheapest proposal too; all else is equal, also the noise. Beside them floors without a model and, in
`small`, CEM on the simulator.

"Needs fewer iterations" was fixed beforehand: the fewest iterations whose success is not shown to
be worse than that of CEM with the most, by more than five points (lower end of the paired 95 %
interval of the difference).

Resumable: data, models and finished rows are kept below ``--out``. ``--envs reacher`` does one.

Writes ``ENV/results/*.json`` (every row), ``results/*.json`` (tables) and ``tables.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from ..core.io import atomic_write_text
from ..core.rng import numpy_generator
from ..datasets.corpus import index_corpus
from ..datasets.trajectories import TrajectorySet
from ..envs.collect import CollectConfig, collect
from ..envs.policies import PolicyMix
from ..planning import AmortisedConfig, MPCAgent, SearchConfig, make_planner
from ..vjepa.corpus_facts import pixel_stats
from ..vjepa.proposer_recipe import AmortiseConfig, amortise
from ..vjepa.train_recipe import TrainConfig, load_world_model, train_on_trajectories
from ..vjepa.world_model import WorldModel
from ..vjepa.world_presets import end_to_end, end_to_end_encoder
from . import suite
from .episodes import EpisodeSet
from .goal_reaching import GoalReachingResult
from .objective_tables import show, to_markdown
from .results import Table, save_result
from .stats import Estimate, bootstrap_mean, mcnemar_exact, wilson_interval

ENVS = {"reacher": ("tubelet/Reacher-v0", 50), "pointmaze": ("tubelet/PointMaze-v0", 100)}
"""Environment id and environment steps per problem."""
STEPS_TO_GO = (2, 4, 8, 16)
"""For which proposals are asked."""
HURRY = 2
"""Steps to go of a second head alone, added after a first run: asked for the planners' horizon at
every step anew, the head has always time left."""
ITERATIONS = (1, 2, 4)
"""Of CEM."""
MARGIN = 0.05
"""Success may be this much lower and still count as equal."""


@dataclass(frozen=True, kw_only=True)
class AmortisedStudyConfig:
    """Collect, train, plan, and print the tables."""

    preset: Literal["small", "debug"] = "small"
    """small: the study, 200 problems in each environment. debug: all of it runs."""
    out: str = "runs/amortised_study"
    """Folder of everything."""
    envs: tuple[str, ...] = tuple(ENVS)
    """reacher, pointmaze."""
    seed: int = 0
    """Of the models; the problems are the same for all."""
    threads: int = 1
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        if self.preset not in SIZES:
            raise ConfigError(f"preset = {self.preset!r}: choose one of {', '.join(SIZES)}")
        for name in self.envs:
            if name not in ENVS:
                hint = did_you_mean(name, ENVS)
                raise ConfigError(f"envs: no {name!r}{hint}; choose of {', '.join(ENVS)}")
        if not self.envs:
            raise ConfigError(f"envs = (): name some of {', '.join(ENVS)}")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is."""

    episodes: int
    """Episodes of training data."""
    steps: int
    """Training steps of the world model."""
    head_steps: int
    """Training steps of the head."""
    problems: int
    """In each environment."""
    length: int = 100
    """Environment steps of an episode."""
    image_size: int = 64
    """Height and width of frames."""
    samples: int = 64
    """Candidates of CEM in each iteration."""
    budget: int = 0
    """Environment steps per problem; 0: the environment's."""
    ceiling: bool = True
    """CEM on the simulator too."""


SIZES = {
    "small": Size(episodes=600, steps=1500, head_steps=4000, problems=200),
    "debug": Size(
        episodes=6,
        steps=2,
        head_steps=4,
        problems=4,
        length=50,
        image_size=32,
        samples=12,
        budget=10,
        ceiling=False,
    ),
}
"""By preset."""


def run_amortised_study(config: AmortisedStudyConfig) -> list[Table]:
    """Do all of ``config`` that is not done yet; the tables of its environments.

    Raises:
        ConfigError, DatasetError: ``out`` holds data or results of other settings.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    tables = []
    for name in config.envs:
        results = _environment(config, name)
        made = [level_table(name, results), difference_table(name, results)]
        for number, table in enumerate(made):
            save_result(config.out, table, name=f"amortised-{name}-{number}")
        tables += made
    atomic_write_text(Path(config.out) / "tables.md", "\n".join(map(to_markdown, tables)))
    return tables


def searches(size: Size) -> dict[str, SearchConfig]:
    """The planners that are compared, by row."""
    horizon = suite.CEM_CONFIG.horizon
    chunk = suite.CEM_CONFIG.chunk
    rows: dict[str, SearchConfig] = {
        "head alone": AmortisedConfig(
            horizon=horizon, chunk=chunk, propose=(horizon,), choose="proposal"
        ),
        "cheapest proposal": AmortisedConfig(horizon=horizon, chunk=chunk, propose=STEPS_TO_GO),
    }
    rows[f"head alone, {HURRY} steps to go"] = replace(rows["head alone"], propose=(HURRY,))
    elites = min(suite.CEM_CONFIG.elites, size.samples // 2)
    for count in ITERATIONS:
        cold = replace(
            suite.CEM_CONFIG, iterations=count, samples=size.samples, elites=elites, propose=()
        )
        rows[cold_row(count)] = cold
        rows[warm_row(count)] = replace(cold, propose=STEPS_TO_GO)
    return rows


def cold_row(iterations: int) -> str:
    """The row of CEM without proposals."""
    return f"CEM, {iterations} iterations"


def warm_row(iterations: int) -> str:
    """The row of CEM that begins at the cheapest proposal."""
    return f"CEM from proposals, {iterations} iterations"


def _environment(config: AmortisedStudyConfig, name: str) -> list[GoalReachingResult]:
    """Data, world model, head and all rows of one environment."""
    size, out = SIZES[config.preset], Path(config.out) / name
    env, steps = ENVS[name]
    budget = size.budget or steps
    data = collect(
        CollectConfig(
            env=env,
            out=str(out / "data"),
            episodes=size.episodes,
            steps=size.length,
            image_size=size.image_size,
            policy=PolicyMix(expert=1.0),
            workers=1,
        )
    )
    model = trained(data, out, size, config.seed)
    methods = [_method(row, search, model) for row, search in searches(size).items()]
    methods += suite.standard_floors(
        budget=budget,
        action_dim=model.config.action_dim,
        trajectories=data,
        image_size=size.image_size,
    )
    if size.ceiling:
        block = model.config.action_block
        methods.append(suite.oracle_method(env, action_block=block, threads=1))
    episodes = episode_set(out, env, size, budget)
    return suite.run_goal_reaching(out, methods, episodes, image_size=size.image_size)


def episode_set(out: Path, env: str, size: Size, budget: int) -> EpisodeSet:
    """The problems: goals anywhere, of a seed that no training has."""
    return suite.episode_set(out / "far.npz", env, "far", size.problems, seed=1, budget=budget)


def trained(data: TrajectorySet, out: Path, size: Size, seed: int) -> WorldModel:
    """The world model with its head; trained, or gone on with, or loaded if it is there."""
    world, head = out / f"world-{seed}", out / f"head-{seed}"
    if not (head / "proposals.json").exists():
        if not (world / "prediction.json").exists():
            mean, std = pixel_stats(index_corpus(data.root, progress=False))
            encoder = replace(end_to_end_encoder(), pixel_mean=mean, pixel_std=std)
            train = end_to_end(encoder)
            width = data.arrays()["action"].shape[1]
            every = max(1, size.steps // 3)
            train = replace(
                train,
                model=replace(train.model, image_size=size.image_size, action_dim=width),
                loop=replace(train.loop, steps=size.steps, report_every=every),
                seed=seed,
            )
            train_on_trajectories(
                TrainConfig(
                    data=str(data.root), out=str(world), resume=True, train=train, device="cpu"
                )
            )
        base = AmortiseConfig(model=str(world), out=str(head), resume=True, device="cpu")
        loop = replace(base.loop, steps=size.head_steps, report_every=size.head_steps)
        amortise(replace(base, loop=loop, data=str(data.root), stride=1, seed=seed))
    return load_world_model(head)


def _method(name: str, search: SearchConfig, model: WorldModel) -> suite.Method:
    mpc = replace(suite.MPC_CONFIG, action_block=model.config.action_block)
    width = model.action_dim // (mpc.action_block if mpc.hold else 1)
    agent = MPCAgent(model, make_planner(search, width, suite.COST), mpc)
    return suite.Method(
        name=name,
        agent=suite.StoredPixels(agent),
        context_frames=model.config.encoder.tubelet,
        context_stride=model.config.frame_gap,
    )


# --- tables -----------------------------------------------------------------------------------


def level_table(env: str, results: Sequence[GoalReachingResult]) -> Table:
    """Success, model calls and time of every row."""
    rows = []
    by_name = {result.name: result for result in results}
    for result in results:
        end, some = (wilson_interval(int(x.sum()), len(x)) for x in (result.at_end, result.at_any))
        calls = "–" if result.model_calls is None else f"{result.model_calls:.1f}"
        twin = by_name.get(result.name.replace(" from proposals", ""))
        test = "–"
        if twin is not None and twin is not result:
            found = mcnemar_exact(result.at_end, twin.at_end)
            test = f"+{found.only_first} −{found.only_second}, p = {found.p:.3g}"
        seconds = f"{1e3 * result.seconds:.2f}"
        rows.append([result.name, result.role, show(end), show(some), calls, seconds, test])
    first = results[0]
    return Table(
        title=f"Amortised planning, {env}: success at the end",
        columns=[
            "planner",
            "role",
            "at the end",
            "at any time",
            "model calls per action",
            "ms per action",
            "against the same CEM without proposals",
        ],
        rows=rows,
        note=f"{len(first)} problems with goals anywhere, {first.budget} environment steps each, "
        f"{first.solved_at_reset:.0%} solved at reset; 95 % Wilson intervals. One world model with "
        "one head. The last column: problems that only this row solved, and only the other; exact "
        "McNemar test. Wall-clock time per environment action of one problem, problems side by "
        "side, on a shared machine.",
    )


def difference_table(env: str, results: Sequence[GoalReachingResult]) -> Table:
    """Success against that of CEM with the most iterations, paired by problem."""
    by_name = {result.name: result for result in results}
    reference = by_name[cold_row(max(ITERATIONS))]
    rows = []
    for result in results:
        if result.role == "model" and result is not reference:
            gap = difference(result, reference)
            enough = "yes" if gap.low >= -MARGIN else "no"
            rows.append([f"{result.name} − {reference.name}", show(gap, sign=True), enough])
    return Table(
        title=f"Amortised planning, {env}: differences",
        columns=["difference", "success at the end", f"not worse by more than {MARGIN:.0%}"],
        rows=rows,
        note=f"Paired by problem, bootstrap over problems, 95 %. {verdict(results)}",
    )


def difference(one: GoalReachingResult, other: GoalReachingResult) -> Estimate:
    """Of success at the end, with its interval over problems."""
    gaps = one.at_end.astype(float) - other.at_end.astype(float)
    if not gaps.any():
        return Estimate(0.0, 0.0, 0.0)
    return bootstrap_mean(gaps, generator=numpy_generator(0, "amortised-study", one.name))


def verdict(results: Sequence[GoalReachingResult]) -> str:
    """How many iterations are enough, with and without proposals."""
    by_name = {result.name: result for result in results}
    reference = by_name[cold_row(max(ITERATIONS))]
    found = {}
    for word, row in (("without", cold_row), ("with", warm_row)):
        enough = [n for n in ITERATIONS if difference(by_name[row(n)], reference).low >= -MARGIN]
        found[word] = min(enough) if enough else None
    said = ", ".join(
        f"{word} proposals {n if n is not None else f'more than {max(ITERATIONS)}'}"
        for word, n in found.items()
    )
    cold, warm = (np.inf if found[w] is None else found[w] for w in ("without", "with"))
    word = "fewer" if warm < cold else "more" if warm > cold else "as many"
    return (
        f"Iterations that are enough for the success of {max(ITERATIONS)}: {said}; beginning at "
        f"proposals needs {word}."
    )


if __name__ == "__main__":
    import tyro

    for table in run_amortised_study(tyro.cli(AmortisedStudyConfig, description=__doc__)):
        print(to_markdown(table))
