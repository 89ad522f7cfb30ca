"""``tubelet plan``: reach image goals with world models, beside floors and the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..benchmarks import suite
from ..benchmarks.origin import check_origin, trained_env
from ..benchmarks.reachable import report, unreachable_goals
from ..benchmarks.tables import leaderboard, print_leaderboard
from ..core.config import load_config
from ..core.errors import ConfigError
from ..core.run import RunDir
from ..datasets.trajectories import TrajectorySet
from ..envs import make
from ..envs.factors import FactorConfig
from ..envs.oracle import SimulatorDynamics
from ..envs.oracle_levels import add_levels
from ..planning import (
    ALL_PLANNERS,
    ActionSupport,
    AdamConfig,
    AmortisedConfig,
    CategoricalConfig,
    CEMConfig,
    HierarchicalConfig,
    HybridConfig,
    ICEMConfig,
    LatentCost,
    LatentDynamics,
    MPCAgent,
    MPCConfig,
    MPPIConfig,
    PGDConfig,
    SearchConfig,
    ShootingConfig,
    action_range,
    make_planner,
    profile,
)
from ..planning.futures import FuturesConfig, across_futures
from ..vjepa.compiled import compile_rollouts
from ..vjepa.device import MAY_DIFFER, prepare
from ..vjepa.recipes import TrainConfig, load_world_model
from ..vjepa.world_model import WorldModel

# Every planner with the horizon and about the model calls of the suite's CEM.
_SHARED: dict[str, Any] = {"horizon": suite.CEM_CONFIG.horizon, "chunk": suite.CEM_CONFIG.chunk}
_WIDE: dict[str, Any] = {**_SHARED, "samples": 64, "iterations": 4, "init_std": 1.0}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure how often world models reach image goals, beside floors and the simulator oracle."""

    model: tuple[str, ...] = ()
    """Run folders of trained world models; their folder names label the rows."""
    env: str = ""
    """Environment id; empty: the one whose trajectories the first model was trained on."""
    kind: Literal["far", "near", "both"] = "far"
    """Goals anywhere in the workspace, or at most near_steps away."""
    episodes: int = 100
    """Problems per kind."""
    budget: int = 50
    """Environment steps per problem."""
    near_steps: int = 25
    """Farthest near goal, in environment steps of a random policy."""
    seed: int = 0
    """Seed of the problems and of the random floors."""
    factors: FactorConfig = field(default_factory=FactorConfig)
    """What looks and weighs different in every problem; nothing by default."""
    split: Literal["train", "test"] = "train"
    """Of the random layouts that problems are drawn with; test: layouts that no data shows."""
    data: str = ""
    """Trajectory set for the replay and retrieval floors and for the support; the first model's own
    if empty."""
    floors: bool = True
    """Evaluate the floors."""
    oracle: bool = True
    """Evaluate the planner with the simulator as its model (by CEM, if it needs gradients)."""
    planner: Literal[
        "cem",
        "icem",
        "mppi",
        "shooting",
        "categorical",
        "adam",
        "pgd",
        "hybrid",
        "amortised",
        "hierarchical",
    ] = "cem"
    """Which planner; its settings are the flags of its name."""
    support: Literal["bounds", "range", "quantile", "density"] = "bounds"
    """Where plans must stay: the planner's own bounds; the range of the training actions; the range
    without its tails; or an ellipsoid that holds most of them."""
    support_tail: float = 0.01
    """Share of the training actions left out: at either end (quantile), in all (density)."""
    profile: bool = False
    """Print where the time of an action goes."""
    compile: bool = False
    """Compile the models' rollouts: about a minute for every new shape, then fewer, larger kernels
    (on CUDA replayed as a graph)."""
    cem: CEMConfig = field(default_factory=lambda: suite.CEM_CONFIG)
    """Cross-entropy method."""
    icem: ICEMConfig = field(
        default_factory=lambda: ICEMConfig(**{**_WIDE, "samples": 96}, elites=10, noise_beta=1.0)
    )
    """Sample-efficient CEM."""
    mppi: MPPIConfig = field(default_factory=lambda: MPPIConfig(**_WIDE, noise_beta=1.0))
    """Model predictive path integral."""
    shooting: ShootingConfig = field(
        default_factory=lambda: ShootingConfig(**_SHARED, samples=256, batch=256)
    )
    """Random shooting."""
    categorical: CategoricalConfig = field(
        default_factory=lambda: CategoricalConfig(
            **_SHARED, levels=(-1.0, -0.5, 0.0, 0.5, 1.0), samples=64, iterations=4, elites=10
        )
    )
    """CEM over discrete actions."""
    adam: AdamConfig = field(
        default_factory=lambda: AdamConfig(**_SHARED, iterations=10, restarts=8, lr=0.3)
    )
    """Adam from several starts."""
    pgd: PGDConfig = field(
        default_factory=lambda: PGDConfig(**_SHARED, iterations=10, restarts=8, lr=1.0)
    )
    """Projected gradient descent from several starts."""
    hybrid: HybridConfig = field(
        default_factory=lambda: HybridConfig(
            **{**_WIDE, "iterations": 2},
            elites=10,
            noise_beta=1.0,
            refine_iterations=10,
            refine_restarts=4,
        )
    )
    """CEM, then Adam."""
    amortised: AmortisedConfig = field(default_factory=lambda: AmortisedConfig(**_SHARED))
    """What the model's head proposes, without search (models of `tubelet amortise`)."""
    hierarchical: HierarchicalConfig = field(
        default_factory=lambda: HierarchicalConfig(**{**_WIDE, "horizon": 4}, elites=10)
    )
    """CEM at every level of a model with levels (`tubelet train --preset hjepa`)."""
    mpc: MPCConfig = field(default_factory=lambda: suite.MPC_CONFIG)
    """Receding horizon; the action block is each model's own."""
    cost: LatentCost = field(default_factory=lambda: suite.COST)
    """What the planner minimises."""
    futures: FuturesConfig = field(default_factory=FuturesConfig)
    """What it makes of several futures, of models that imagine some."""
    films: int = 2
    """Filmed hits, and misses, per model."""
    report: bool = False
    """Also write an HTML report."""
    out: str = "runs/plan"
    """Run folder."""
    resume: bool = False
    """Go on with the run in that folder: what was evaluated is kept."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""

    def __post_init__(self) -> None:
        for name, least in {"episodes": 1, "budget": 1, "near_steps": 1, "films": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if not 0 <= self.support_tail < 0.5:
            raise ConfigError(f"support_tail = {self.support_tail}: must be in [0, 0.5)")

    @property
    def search(self) -> SearchConfig:
        """The settings of the chosen planner."""
        return getattr(self, self.planner)


def run(config: Config) -> int:
    """Evaluate, print one leaderboard per kind of goals, and write results and report."""
    device = prepare(config.device, config.threads)
    models = {Path(path).resolve().name: path for path in config.model}
    if not models or len(models) < len(config.model):
        raise ConfigError(f"model = {config.model}: name run folders of different names")
    loaded = {name: load_world_model(path, device=device) for name, path in models.items()}
    config = replace(config, env=config.env or trained_env(config.model[0]))
    first = next(iter(loaded.values()))
    sizes = {name: model.config.image_size for name, model in loaded.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"the models see images of different sizes {sizes}: evaluate them apart")
    for name, path in models.items():  # before anything else, also if there is no such environment
        check_origin(path, loaded[name], config.env)
    if config.compile:
        for model in loaded.values():
            compile_rollouts(model.predictor)
    methods = _methods(config, loaded)
    may_differ = (*MAY_DIFFER, "report", "profile")
    with RunDir.create(config.out, config, resume=config.resume, may_differ=may_differ) as folder:
        if config.floors:
            methods += suite.standard_floors(
                budget=config.budget,
                action_dim=first.config.action_dim,
                trajectories=_data(config),
                image_size=first.config.image_size,
                seed=config.seed,
            )
            methods.append(_untrained(config, first))
        for kind in ("far", "near") if config.kind == "both" else (config.kind,):
            episodes = suite.episode_set(
                folder.path / f"{kind}.npz",
                config.env,
                kind,
                config.episodes,
                seed=config.seed,
                budget=config.budget,
                near_steps=config.near_steps,
                factors=config.factors,
                split=config.split,
            )
            report(episodes, unreachable_goals(episodes))
            results = suite.run_goal_reaching(
                folder.path,
                methods,
                episodes,
                image_size=first.config.image_size,
                films=config.films,
            )
            print_leaderboard(leaderboard(results, title=f"{config.env}: {kind} goals"))
            if config.profile:
                _print_profile(methods)
    if config.report:
        from ..benchmarks.run_report import build_report

        page = Path(config.out) / "report.html"
        build_report(config.out, title="tubelet plan").write(page)
        print(f"report: {page}")
    print(f"run: {config.out}")
    return 0


def _methods(config: Config, models: dict[str, WorldModel]) -> list[suite.Method]:
    """The rows that plan: models, and the oracle."""
    first = next(iter(models.values()))
    methods = [
        replace(suite.model_method(name, model), agent=_model_agent(config, model))
        for name, model in models.items()
    ]
    if config.oracle:
        search, name = config.search, "simulator oracle"
        if ALL_PLANNERS[config.planner][1].differentiates or config.planner == "amortised":
            search, name = config.cem, f"{name} (CEM)"  # the simulator has no gradient, and no head
        search = replace(search, propose=())
        block = first.config.action_block
        dynamics = SimulatorDynamics(make(config.env, render_obs=False), action_block=block)
        add_levels(dynamics, [level.length for level in first.levels])
        agent = _agent(config, dynamics, block, search)
        methods.append(suite.Method(name=name, agent=agent, role="ceiling", privileged=True))
    return methods


def _untrained(config: Config, model: WorldModel) -> suite.Method:
    """The floor that plans with fresh weights of the same architecture."""
    fresh = suite.fresh_model(model, seed=config.seed)
    floor = suite.model_method("untrained model", fresh, role="floor")
    return replace(floor, agent=_model_agent(config, fresh))


def _model_agent(config: Config, model: WorldModel) -> suite.StoredPixels:
    """Plans with a world model that was trained on video."""
    return suite.StoredPixels(_agent(config, model, model.config.action_block, config.search))


def _agent(config: Config, dynamics: LatentDynamics, block: int, search: SearchConfig) -> MPCAgent:
    """The configured planner in receding horizon over ``dynamics``, where the data allows."""
    mpc = replace(config.mpc, action_block=block)
    width = dynamics.action_dim // (block if mpc.hold else 1)
    search, support = _supported(config, search, width)
    several = isinstance(dynamics, WorldModel) and dynamics.config.futures.on
    ways = config.futures if several else FuturesConfig()
    dynamics, cost = across_futures(dynamics, config.cost, ways)
    return MPCAgent(dynamics, make_planner(search, width, cost, support), mpc)


def _supported(
    config: Config, search: SearchConfig, width: int
) -> tuple[SearchConfig, ActionSupport | None]:
    """The planner's settings, and a density, that keep plans among the training actions."""
    if config.support == "bounds":
        return search, None
    data = _data(config)
    if data is None:
        raise ConfigError(
            f"support = {config.support!r} needs the training actions: name them with --data"
        )
    if isinstance(search, CategoricalConfig):
        raise ConfigError(
            f"support = {config.support!r}: categorical actions are bounded by their levels"
        )
    actions = _blocks(data, width)
    if config.support == "density":
        return search, ActionSupport.fit(actions, 1 - config.support_tail)
    low, high = action_range(actions, config.support_tail if config.support == "quantile" else 0.0)
    return replace(search, low=low, high=high), None


def _blocks(data: TrajectorySet, width: int) -> torch.Tensor:
    """The training actions as ``[M, width]``: single ones, or whole blocks of consecutive ones."""
    actions = torch.from_numpy(data.arrays()["action"]).float()
    block = width // actions.shape[1]
    if block == 1:
        return actions
    episodes = actions.split(data.lengths.tolist())
    return torch.cat([e[: len(e) // block * block].reshape(-1, width) for e in episodes])


def _print_profile(methods: Sequence[suite.Method]) -> None:
    """One line per row that planned: milliseconds of each part of an action, and its share."""
    for method in methods:
        agent = method.agent.agent if isinstance(method.agent, suite.StoredPixels) else method.agent
        if not isinstance(agent, MPCAgent):
            continue
        parts = profile(agent.records, agent.actions_per_call)
        if not parts:
            print(f"profile of {method.name}: nothing new was planned")
            continue
        total = sum(parts.values())
        shares = ", ".join(
            f"{name} {1e3 * s:.3g} ms ({s / total:.0%})" for name, s in parts.items() if s
        )
        print(f"profile of {method.name}: {1e3 * total:.3g} ms per action: {shares}")


def _data(config: Config) -> TrajectorySet | None:
    """The trajectories of the floors: those named, or those the first model was trained on."""
    if config.data:
        return TrajectorySet.open(config.data)
    trained = Path(config.model[0]) / "config.toml"
    if not trained.exists():
        return None
    return TrajectorySet.open(load_config(TrainConfig, trained).data)
