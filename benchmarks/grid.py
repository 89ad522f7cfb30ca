"""A benchmark suite in one file: environments x models x planners x seeds, as jobs.

    name: core
    seeds: [0]
    envs:
      reacher: {env: tubelet/Reacher-v0, budget: 50, collect: {episodes: 600}}
    models:
      lewm: {preset: end_to_end, train: {train: {loop: {steps: 4000}}}}
    planners:
      cem: {samples: 128}
      icem: {kind: icem}

Each environment is collected once; each model is trained in it once per seed (with ``pretrain``, on
an encoder trained on its videos before); each planner plans with each model, and with the simulator
for the ceiling. Floors are played once per environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..core.config import did_you_mean, from_table
from ..core.errors import ConfigError
from ..core.io import atomic_write_text
from ..envs.collect import CollectConfig
from ..envs.factors import FactorConfig
from ..planning import HierarchicalConfig, LatentCost, MPCConfig
from ..planning.planners import ALL_PLANNERS
from ..planning.search import SearchConfig
from ..vjepa import presets
from ..vjepa.pretrain_recipe import PretrainRunConfig
from ..vjepa.train_recipe import TrainConfig
from . import suite
from .jobs import Job

Kind = Literal["far", "near"]


@dataclass(frozen=True, kw_only=True)
class EnvEntry:
    """An environment of a suite."""

    env: str
    """Environment id."""
    budget: int = 0
    """Environment steps per problem; 0 for the environment's own."""
    kinds: tuple[Kind, ...] = ("far",)
    """Goals anywhere, or at most near_steps of a random policy away."""
    near_steps: int = 25
    """See kinds."""
    episodes: int = 200
    """Problems per kind."""
    factors: FactorConfig = field(default_factory=FactorConfig)
    """What looks and weighs different in every problem; the data's own are collect.factors."""
    split: Literal["train", "test"] = "train"
    """Of the problems' random layouts; the data's own is collect.split."""
    action_block: int = 5
    """Environment steps per model step of the simulator oracle; models have their own."""
    collect: CollectConfig = field(default_factory=CollectConfig)
    """Training data; its env and out are set here."""
    cost: LatentCost = field(default_factory=lambda: suite.COST)
    """What planners minimise."""
    mpc: MPCConfig = field(default_factory=lambda: suite.MPC_CONFIG)
    """Receding horizon; the action block is each model's own."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A world model of a suite, trained anew in every environment and for every seed."""

    train: TrainConfig
    pretrain: PretrainRunConfig | None = None
    envs: tuple[str, ...] = ()
    """Only in these; empty: all."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Model steps per step of its higher levels, if it has some."""
        return self.train.train.hierarchy.lengths


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a suite file says."""

    name: str
    seeds: tuple[int, ...]
    problems_seed: int
    envs: Mapping[str, EnvEntry]
    models: Mapping[str, ModelEntry]
    planners: Mapping[str, SearchConfig]
    oracle: bool
    floors: bool


_KEYS = ("name", "seeds", "problems_seed", "envs", "models", "planners", "oracle", "floors")


def built_in() -> dict[str, Path]:
    """The suites that come with tubelet, by name."""
    folder = Path(__file__).parent / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """The suite of a file, or a built-in one by name.

    Raises:
        ConfigError: no such file or name, no YAML, PyYAML missing, unknown keys or values that the
            verbs' configs refuse (naming the place in the file).
    """
    known = built_in()
    path = known.get(str(name), Path(name))
    if not path.exists():
        hint = did_you_mean(str(name), known)
        raise ConfigError(
            f"suite {str(name)!r}: no such file, nor a built-in suite{hint} ({', '.join(known)})"
        )
    return parse_suite(_read(path), source=str(path))


def parse_suite(table: Any, *, source: str = "suite") -> Suite:
    """The suite in nested tables. Raises as :func:`load_suite`."""
    if not isinstance(table, dict):
        raise ConfigError(f"{source}: must hold the keys {', '.join(_KEYS)}")
    for key in table:
        if key not in _KEYS:
            raise ConfigError(f"{source}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
    parts = {key: table.get(key) or {} for key in ("envs", "models", "planners")}
    if not parts["envs"] or not parts["planners"]:
        raise ConfigError(f"{source}: needs at least one entry under envs and under planners")
    envs = {
        str(k): from_table(EnvEntry, v, source=f"{source}: envs.{k}")
        for k, v in parts["envs"].items()
    }
    models = {str(k): _model(v, f"{source}: models.{k}") for k, v in parts["models"].items()}
    for name, model in models.items():
        if unknown := [env for env in model.envs if env not in envs]:
            raise ConfigError(f"{source}: models.{name}.envs = {unknown}: not under envs")
    planners = {
        str(k): _planner(v, f"{source}: planners.{k}") for k, v in parts["planners"].items()
    }
    for name, planner in planners.items():
        flat = [key for key, model in models.items() if not model.lengths]
        if isinstance(planner, HierarchicalConfig) and (flat or not models):
            raise ConfigError(
                f"{source}: planners.{name} is hierarchical: it needs models with levels, and "
                f"{', '.join(flat) or 'there is none'} (models) has none (hierarchy.strides)"
            )
    seeds = tuple(table.get("seeds", (0,)))
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise ConfigError(f"{source}: seeds = {list(seeds)}: a list of whole numbers")
    return Suite(
        name=str(table.get("name", "suite")),
        seeds=seeds,
        problems_seed=int(table.get("problems_seed", 0)),
        envs=envs,
        models=models,
        planners=planners,
        oracle=bool(table.get("oracle", True)),
        floors=bool(table.get("floors", True)),
    )


def _read(path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(
            "suite files are YAML, and PyYAML is not installed: pip install 'tubelet[yaml]'"
        ) from error
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error


def _model(table: Any, source: str) -> ModelEntry:
    table = dict(table or {})
    if unknown := sorted(set(table) - {"preset", "encoder_preset", "train", "pretrain", "envs"}):
        raise ConfigError(f"{source}: unknown keys {unknown}")
    encoder = presets.preset(table.get("encoder_preset", "nano"))
    world = presets.world_model(table.get("preset", "end_to_end"), encoder.encoder)
    train = from_table(
        TrainConfig, table.get("train") or {}, base=TrainConfig(train=world), source=source
    )
    pretrain = None
    if "pretrain" in table:
        base = PretrainRunConfig(train=encoder)
        pretrain = from_table(
            PretrainRunConfig, table["pretrain"] or {}, base=base, source=f"{source}.pretrain"
        )
    elif train.train.freeze_encoder and not train.encoder:
        raise ConfigError(f"{source}: freezes its encoder: add pretrain, or train.encoder = PATH")
    return ModelEntry(train=train, pretrain=pretrain, envs=tuple(table.get("envs", ())))


def _planner(table: Any, source: str) -> SearchConfig:
    table = dict(table or {})
    kind = table.pop("kind", "cem")
    if kind not in ALL_PLANNERS:
        raise ConfigError(
            f"{source}.kind = {kind!r}{did_you_mean(str(kind), ALL_PLANNERS)} "
            f"({', '.join(ALL_PLANNERS)})"
        )
    base = suite.CEM_CONFIG if kind == "cem" else None
    return from_table(ALL_PLANNERS[kind][0], table, base=base, source=source)


# --- jobs -------------------------------------------------------------------------------------


def suite_jobs(suite_: Suite, source: str, out: Path, *, device: str, threads: int) -> list[Job]:
    """The jobs of a suite; each is one call of :mod:`tubelet.benchmarks.cell`.

    Args:
        source: the suite's name or file, which every job reads again (a copy of it lies in
            ``out``, so that a changed file does not mix with old results). out: run folder.
        device, threads: of each job.
    """
    jobs: list[Job] = []

    def add(name: str, needs: tuple[str, ...], **what: Any) -> str:
        request = {"suite": source, "out": str(out), "device": device, "threads": threads, **what}
        command = (sys.executable, "-m", "tubelet.benchmarks.cell", json.dumps(request))
        jobs.append(Job(name=name, command=command, needs=needs))
        return name

    for env in suite_.envs:
        problems = add(f"episodes/{env}", (), do="episodes", env=env)
        if suite_.oracle:
            for planner, config in suite_.planners.items():
                if _differentiates(config):
                    continue  # the simulator has no gradient
                needs = (problems,)
                add(f"oracle/{env}/{planner}", needs, do="oracle", env=env, planner=planner)
        data = add(f"collect/{env}", (), do="collect", env=env)
        if suite_.floors:
            add(f"floors/{env}", (problems, data), do="floors", env=env)
        for name, model in suite_.models.items():
            if model.envs and env not in model.envs:
                continue
            for seed in suite_.seeds:
                where = {"env": env, "model": name, "seed": seed}
                before = data
                if model.pretrain is not None:
                    before = add(f"pretrain/{env}/{name}/{seed}", (data,), do="pretrain", **where)
                trained = add(f"train/{env}/{name}/{seed}", (before,), do="train", **where)
                add(f"diagnose/{env}/{name}/{seed}", (trained,), do="diagnose", **where)
                for planner in suite_.planners:
                    add(
                        f"plan/{env}/{name}/{seed}/{planner}",
                        (problems, trained),
                        do="plan",
                        planner=planner,
                        **where,
                    )
    return jobs


def _differentiates(config: SearchConfig) -> bool:
    return any(
        type(config) is kind and planner.differentiates for kind, planner in ALL_PLANNERS.values()
    )


def keep_suite(source: str, out: Path) -> str:
    """Copy the suite's file into the run folder and return the copy's path.

    Raises:
        ConfigError: the folder holds results of another suite (a file that has changed since).
    """
    path = built_in().get(source, Path(source))
    text, copy = path.read_text(encoding="utf-8"), out / "suite.yaml"
    if copy.exists() and copy.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{out} holds results of another suite ({copy} differs from {path}): name another "
            "folder, or run the one that is there"
        )
    atomic_write_text(copy, text)
    return str(copy)
