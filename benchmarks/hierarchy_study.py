"""Does a slower clock reach farther? Flat and hierarchical planning at equal model calls.

    python -m tubelet.benchmarks.hierarchy_study --preset debug --out runs/hierarchy_debug
    python -m tubelet.benchmarks.hierarchy_study --preset small --out runs/hierarchy
    python -m tubelet.benchmarks.hierarchy_study --preset base --device cuda --out runs/base

In a long maze (PointMazeMedium) and in long pushes (ArmPush), a world model is trained from pixels
with one clock, and a second clock above it by prediction alone, the first left as it is
(:mod:`tubelet.vjepa.hierarchy`). Both then plan to the same far goals with the same number of model
calls per plan: flat, flat with the reach of the hierarchy, hierarchical inside the support of the
training macro-actions (a box of quantiles, or near single ones), and hierarchical without any (the
naive one). Success is told by how far the goal is and by what a plan may spend. Beside these, the
same planners in the true simulator, where no level errs. A training seed names data order and
weights; all arms share its model, and all seeds the problems.

Resumable: the same command goes on where it stopped. Writes ``WORLD/results/*.json`` (results by
method), ``results/*.json`` (tables, for reports) and ``tables.md``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from ..core.io import atomic_write_text
from ..datasets.corpus import index_corpus
from ..envs.collect import CollectConfig, collect
from ..envs.policies import PolicyMix
from ..vjepa import presets
from ..vjepa.action_predictor import ActionPredictorConfig
from ..vjepa.corpus_facts import pixel_stats
from ..vjepa.device import prepare
from ..vjepa.dynamics_config import DynamicsConfig
from ..vjepa.engine import LoopConfig
from ..vjepa.train_recipe import TrainConfig, load_world_model, train_on_trajectories
from .episodes import EpisodeSet
from .hierarchy_arms import (
    ARMS,
    BASELINE,
    BLOCK,
    CANDIDATE,
    ORACLE_ARMS,
    REACH,
    STRIDE,
    WORLDS,
    World,
    distances,
    model_arm,
    oracle_arm,
)
from .hierarchy_sizes import SIZES, Size
from .hierarchy_tables import compute_table, distance_table, prediction_table, seed_table, verdict
from .objective_tables import to_markdown
from .results import Table, save_result
from .suite import Method, episode_set, run_goal_reaching, standard_floors


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Train, plan, and print the tables."""

    preset: Literal["debug", "pilot", "small", "base"] = "small"
    """How much of everything; debug only shows that all of it runs, and pilot what it costs. base,
    for a GPU, is small with a ViT-S and ten times the data; it has not been run yet."""
    out: str = "runs/hierarchy"
    """Folder of everything."""
    worlds: tuple[str, ...] = tuple(WORLDS)
    """Which worlds, by name."""
    arms: tuple[str, ...] = ARMS
    """Which planners of learned models; the flat one is compared with and always among them."""
    problems: int = 0
    """Far goals per world; 0 for the preset's number."""
    calls: tuple[int, ...] = ()
    """Model calls per plan; empty for the preset's."""
    oracle_calls: int = 0
    """The same in the simulator; 0 for the preset's."""
    seeds: int = 0
    """Training seeds; 0 for the preset's number."""
    learned: bool = True
    """Train models and plan with them."""
    oracle: bool = True
    """Plan in the simulator."""
    threads: int = 0
    """Torch threads, and the simulator's; 0 leaves torch's alone and takes one."""
    device: str = "cpu"
    """Where models train and plan, as torch names it; the simulator stays on the CPU."""

    def __post_init__(self) -> None:
        if self.preset not in SIZES:
            raise ConfigError(
                f"preset = {self.preset!r}{did_you_mean(self.preset, SIZES)} ({', '.join(SIZES)})"
            )
        for key, known in {"worlds": tuple(WORLDS), "arms": ARMS}.items():
            given = getattr(self, key)
            if not given or set(given) - set(known):
                raise ConfigError(f"{key} = {given}: name some of {', '.join(map(repr, known))}")
        if BASELINE not in self.arms or CANDIDATE not in self.arms:
            raise ConfigError(f"arms = {self.arms}: must hold {BASELINE!r} and {CANDIDATE!r}")
        if self.problems and self.problems < 3:
            raise ConfigError(f"problems = {self.problems}: at least 3, or 0 for the preset's")
        if not (self.learned or self.oracle):
            raise ConfigError("learned = oracle = false: nothing is left to do")
        if min(self.seeds, self.oracle_calls) < 0 or min(self.calls, default=1) < 1:
            counts = {key: getattr(self, key) for key in ("seeds", "calls", "oracle_calls")}
            raise ConfigError(f"{counts}: must be positive (0 or empty for the preset's)")

    @property
    def size(self) -> Size:
        """The preset, with what was set beside it."""
        given = {key: getattr(self, key) for key in ("problems", "calls", "oracle_calls", "seeds")}
        return replace(SIZES[self.preset], **{key: v for key, v in given.items() if v})


def run_study(config: StudyConfig) -> list[Table]:
    """Do all that is not done yet; the tables, which are also written.

    Raises:
        ConfigError: ``out`` holds runs of other settings.
    """
    config = replace(config, device=prepare(config.device, config.threads))
    out, tables, said = Path(config.out), [], []
    for name in config.worlds:
        tables += _world(config, name, out / name, said)
    for number, table in enumerate(tables):
        save_result(out, table, name=f"hierarchy-{number}")
    text = "\n".join([*map(to_markdown, tables), *said])
    atomic_write_text(out / "tables.md", text + "\n")
    return tables


def _world(config: StudyConfig, name: str, folder: Path, said: list[str]) -> list[Table]:
    """All of one world; ``said`` gets its verdicts."""
    tables = _learned(config, name, folder, said) if config.learned else []
    return [*tables, _oracle(config, name, folder, said)] if config.oracle else tables


def _learned(config: StudyConfig, name: str, folder: Path, said: list[str]) -> list[Table]:
    """Train a model per seed and plan with it."""
    world, size = WORLDS[name], config.size
    collect(
        CollectConfig(
            env=world.env_id,
            out=str(folder / "data"),
            episodes=size.episodes,
            steps=world.steps,
            image_size=size.image_size,
            policy=PolicyMix(expert=1.0),
            workers=config.threads or 1,
        )
    )
    runs = [_train(config, size, folder, seed) for seed in range(size.seeds)]
    reports = [json.loads((run / "prediction.json").read_text()) for run in runs]
    found = {
        arm: {calls: [] for calls in size.calls} for arm in config.arms
    }  # arm -> calls -> result per seed
    episodes = _episodes(folder, world, size.problems, size)
    floors = standard_floors(budget=episodes.budget, action_dim=_width(world))
    played = run_goal_reaching(folder, floors, episodes, image_size=size.image_size)
    for seed, run in enumerate(runs):
        model = load_world_model(run, device=config.device)
        for arm in config.arms:
            for calls in size.calls:
                method = model_arm(arm, calls, model, seed)
                found[arm][calls] += run_goal_reaching(
                    folder, [method], episodes, image_size=size.image_size
                )
    far, most = distances(world, episodes), size.calls[-1]
    main = {arm: by_calls[most] for arm, by_calls in found.items()}
    title = f"{name}, learned model"
    tables = [
        distance_table(
            f"{title}, {most} model calls per plan",
            main,
            far,
            unit=world.unit,
            baseline=BASELINE,
            floors=played,
        ),
        compute_table(f"{title}, against compute", found, far),
        prediction_table(f"{title}, prediction", reports),
    ]
    if size.seeds > 1:
        tables.append(seed_table(f"{title}, by training seed", main, far, baseline=BASELINE))
    said.append(f"{title}: {verdict(main[CANDIDATE], main[BASELINE], far)}")
    return tables


def _oracle(config: StudyConfig, name: str, folder: Path, said: list[str]) -> Table:
    """The same planners in the true simulator."""
    world, size = WORLDS[name], config.size
    episodes = _episodes(folder, world, min(size.oracle_problems, size.problems), size)
    calls, far = size.oracle_calls, distances(world, episodes)
    results = {}
    for arm in ORACLE_ARMS:
        method: Method = oracle_arm(arm, calls, world, threads=config.threads or 1)
        results[arm] = run_goal_reaching(folder, [method], episodes, image_size=size.image_size)
    told = verdict(results[CANDIDATE], results[BASELINE], far)
    title = f"{name}, true simulator"
    said.append(f"{title}: {told}")
    return distance_table(
        f"{title}, {calls} model calls per plan",
        results,
        far,
        unit=world.unit,
        baseline=BASELINE,
    )


def _train(config: StudyConfig, size: Size, folder: Path, seed: int) -> Path:
    """Level 1, then level 2 above it; the run folder of both."""
    mean, std = pixel_stats(index_corpus(folder / "data" / "videos", progress=False))
    encoder = replace(size.encoder, pixel_mean=mean, pixel_std=std)
    first = presets.world_model("end_to_end", encoder)
    model = replace(first.model, image_size=size.image_size, action_block=BLOCK)
    model = replace(model, action_dim=_width(WORLDS[folder.name]))
    first = replace(first, model=model, seed=seed, cache_stride=BLOCK, loop=_loop(size.first_steps))
    levels = replace(presets.world_model("hjepa", encoder), seed=seed)
    levels = replace(
        levels,
        model=model,
        hierarchy=replace(levels.hierarchy, strides=(STRIDE,)),
        cache_stride=BLOCK,
        horizon=STRIDE * min(REACH, (WORLDS[folder.name].steps - 1) // (STRIDE * BLOCK)),
        loop=_loop(size.level_steps),
    )
    if config.preset == "debug":
        tiny = ActionPredictorConfig(width=32, depth=1, heads=2)
        first = replace(first, batch_size=4, model=replace(first.model, predictor=tiny))
        hierarchy = replace(levels.hierarchy, predictor=tiny)
        levels = replace(levels, batch_size=4, hierarchy=hierarchy)
    below, above = (folder / f"{what}-{seed}" for what in ("level1", "levels"))
    _trained(config, folder, below, first)
    _trained(config, folder, above, levels, level1=str(below))
    return above


def _trained(
    config: StudyConfig, folder: Path, out: Path, train: DynamicsConfig, level1: str = ""
) -> None:
    """Train, unless that was done."""
    if (out / "prediction.json").exists():
        return
    settings = TrainConfig(
        data=str(folder / "data"),
        out=str(out),
        resume=True,
        level1=level1,
        train=train,
        threads=config.threads,
        device=config.device,
    )
    train_on_trajectories(settings)


def _loop(steps: int) -> LoopConfig:
    return LoopConfig(steps=steps, report_every=max(1, steps // 4), save_every=min(steps, 200))


def _episodes(folder: Path, world: World, count: int, size: Size) -> EpisodeSet:
    """The far goals, drawn once; fewer of them are a set of their own."""
    from ..envs import make

    budget = size.budget or make(world.env_id, render_obs=False).budget
    path = folder / f"far-{count}.npz"
    return episode_set(path, world.env_id, "far", count, seed=0, budget=budget)


def _width(world: World) -> int:
    from ..envs import make

    return int(make(world.env_id, render_obs=False).model.nu)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    import tyro

    config = tyro.cli(StudyConfig, args=argv, description=__doc__)
    for table in run_study(config):
        print(to_markdown(table))
    text = (Path(config.out) / "tables.md").read_text(encoding="utf-8")
    print("\n".join(line for line in text.splitlines() if "planner:" in line))
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main())
