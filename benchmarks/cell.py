"""One job of a benchmark suite, in a process of its own: collect, pretrain, train, or play.

    python -m tubelet.benchmarks.cell '{"suite": "suite.yaml", "do": "train", "env": "reacher", …}'

Folders below the run: ``data/ENV``, ``pretrain/ENV/MODEL/SEED``, ``train/ENV/MODEL/SEED``,
``episodes/ENV-KIND.npz`` and ``results/``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.io import atomic_write_json, atomic_write_text
from ..datasets.corpus import index_corpus
from ..datasets.trajectories import TrajectorySet
from ..envs import make
from ..envs.collect import collect
from ..vjepa.corpus_facts import pixel_stats
from ..vjepa.device import prepare
from ..vjepa.pretrain_recipe import pretrain_encoder
from ..vjepa.train_recipe import load_world_model, split_episodes, train_on_trajectories
from . import suite
from .diagnose import diagnose
from .episodes import EpisodeSet
from .grid import EnvEntry, ModelEntry, Suite, load_suite


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a job is told; see :func:`tubelet.benchmarks.grid.suite_jobs`."""

    suite: str
    out: str
    do: str
    env: str
    model: str = ""
    planner: str = ""
    seed: int = 0
    device: str = "auto"
    threads: int = 0

    @property
    def folder(self) -> Path:
        return Path(self.out)

    def data(self) -> str:
        return str(self.folder / "data" / self.env)

    def run(self, what: str) -> str:
        return str(self.folder / what / self.env / self.model / str(self.seed))


def run_cell(cell: Cell) -> None:
    """Do the job. Raises what the verbs raise."""
    plan = load_suite(cell.suite)
    entry = plan.envs[cell.env]
    if cell.do == "collect":
        collect(replace(entry.collect, env=entry.env, out=cell.data()))
    elif cell.do == "episodes":
        for kind in entry.kinds:
            _episodes(cell, plan, entry, kind)
    elif cell.do == "pretrain":
        _pretrain(cell, plan.models[cell.model])
    elif cell.do == "train":
        _train(cell, plan.models[cell.model], entry)
    elif cell.do == "diagnose":
        _diagnose(cell, plan, entry)
    else:
        methods = {"floors": _floors, "oracle": _oracle, "plan": _plan}[cell.do](cell, plan, entry)
        for kind in entry.kinds:
            suite.run_goal_reaching(
                cell.folder,
                methods,
                _episodes(cell, plan, entry, kind),
                image_size=entry.collect.image_size,
                films=0 if cell.do == "floors" else 2,
            )


def _training_videos(cell: Cell, model: ModelEntry) -> Path:
    """A list of the episodes' videos without those that training holds out."""
    data = TrajectorySet.open(cell.data())
    kept, _ = split_episodes(data.num_episodes, model.train.held_out)
    path = cell.folder / "videos" / f"{cell.env}.{cell.model}.{cell.seed}.txt"
    names = [str(data.video_path(episode).resolve()) for episode in kept]
    atomic_write_text(path, "\n".join(names) + "\n")
    return path


def _pretrain(cell: Cell, model: ModelEntry) -> None:
    assert model.pretrain is not None
    config = replace(
        model.pretrain,
        videos=str(_training_videos(cell, model)),
        out=cell.run("pretrain"),
        resume=True,
        threads=cell.threads,
        device=cell.device,
        train=replace(model.pretrain.train, seed=cell.seed),
    )
    pretrain_encoder(config)


def _train(cell: Cell, model: ModelEntry, entry: EnvEntry) -> None:
    """Actions are as wide, and frames as large, as the environment's data; an encoder that is
    trained here normalises pixels by the statistics of its training videos."""
    width = TrajectorySet.open(cell.data()).arrays()["action"].shape[1]
    shape: dict[str, Any] = {"action_dim": width, "image_size": entry.collect.image_size}
    if not model.train.train.freeze_encoder:
        mean, std = pixel_stats(index_corpus(_training_videos(cell, model), progress=False))
        encoder = model.train.train.model.encoder
        shape["encoder"] = replace(encoder, pixel_mean=mean, pixel_std=std)
    config = replace(
        model.train,
        data=cell.data(),
        out=cell.run("train"),
        resume=True,
        encoder=cell.run("pretrain") if model.pretrain is not None else model.train.encoder,
        threads=cell.threads,
        device=cell.device,
        train=replace(
            model.train.train, seed=cell.seed, model=replace(model.train.train.model, **shape)
        ),
    )
    train_on_trajectories(config)


def _diagnose(cell: Cell, plan: Suite, entry: EnvEntry) -> None:
    model = load_world_model(cell.run("train"), device=prepare(cell.device, cell.threads))
    found = diagnose(
        model,
        TrajectorySet.open(cell.data()),
        make(entry.env, render_obs=False).unwrapped,
        entry.cost,
        held_out=plan.models[cell.model].train.held_out,
        horizon=plan.models[cell.model].train.train.horizon,
    )
    where = {"env": cell.env, "model": cell.model, "seed": cell.seed}
    path = cell.folder / "diagnoses" / f"{cell.env}.{cell.model}.{cell.seed}.json"
    atomic_write_json(path, where | {"cells": found.cells()})


def _plan(cell: Cell, plan: Suite, entry: EnvEntry) -> list[suite.Method]:
    device = prepare(cell.device, cell.threads)
    model = load_world_model(cell.run("train"), device=device)
    return [
        suite.model_method(
            f"{cell.model}, {cell.planner}",
            model,
            seed=cell.seed,
            search=plan.planners[cell.planner],
            mpc=entry.mpc,
            cost=entry.cost,
        )
    ]


def _oracle(cell: Cell, plan: Suite, entry: EnvEntry) -> list[suite.Method]:
    from ..envs.oracle import SimulatorDynamics
    from ..envs.oracle_levels import add_levels

    env = make(entry.env, render_obs=False)
    dynamics = SimulatorDynamics(env, action_block=entry.action_block, threads=cell.threads or 2)
    add_levels(dynamics, max((m.lengths for m in plan.models.values()), default=()))
    mpc = replace(entry.mpc, action_block=entry.action_block)
    search = plan.planners[cell.planner]
    agent = suite.planning_agent(dynamics, search=search, mpc=mpc, cost=entry.cost)
    name = f"simulator oracle, {cell.planner}"
    return [suite.Method(name=name, agent=agent, role="ceiling", privileged=True)]


def _floors(cell: Cell, plan: Suite, entry: EnvEntry) -> list[suite.Method]:
    data = TrajectorySet.open(cell.data())
    return suite.standard_floors(
        budget=_budget(entry),
        action_dim=int(np.prod(data.arrays()["action"].shape[1:])),
        trajectories=data,
        image_size=entry.collect.image_size,
        seed=plan.problems_seed,
    )


def _budget(entry: EnvEntry) -> int:
    return entry.budget or make(entry.env, render_obs=False).budget


def _episodes(cell: Cell, plan: Suite, entry: EnvEntry, kind: suite.Kind) -> EpisodeSet:
    """The problems of an environment; the job ``episodes`` draws them."""
    return suite.episode_set(
        cell.folder / "episodes" / f"{cell.env}-{kind}.npz",
        entry.env,
        kind,
        entry.episodes,
        seed=plan.problems_seed,
        budget=_budget(entry),
        near_steps=entry.near_steps,
        factors=entry.factors,
        split=entry.split,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cell given as JSON."""
    (text,) = sys.argv[1:] if argv is None else argv
    run_cell(Cell(**json.loads(text)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
