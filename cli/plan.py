"""``tubelet plan``: reach image goals with world models, beside floors and the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..benchmarks import suite
from ..benchmarks.tables import leaderboard, print_leaderboard
from ..core.config import load_config
from ..core.errors import ConfigError
from ..core.run import RunDir
from ..datasets.trajectories import TrajectorySet
from ..envs import make
from ..planning import CEMConfig, LatentCost, MPCConfig
from ..vjepa.device import MAY_DIFFER, prepare
from ..vjepa.recipes import TrainConfig, load_world_model


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure how often world models reach image goals, beside floors and the simulator oracle."""

    model: tuple[str, ...] = ()
    """Run folders of trained world models; their folder names label the rows."""
    env: str = "tubelet/Reacher-v0"
    """Environment id."""
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
    data: str = ""
    """Trajectory set for the replay and retrieval floors; the first model's own if empty."""
    floors: bool = True
    """Evaluate the floors."""
    oracle: bool = True
    """Evaluate the planner with the simulator as its model."""
    cem: CEMConfig = field(default_factory=lambda: suite.CEM_CONFIG)
    """Planner."""
    mpc: MPCConfig = field(default_factory=lambda: suite.MPC_CONFIG)
    """Receding horizon; the action block is each model's own."""
    cost: LatentCost = field(default_factory=lambda: suite.COST)
    """What the planner minimises."""
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


def run(config: Config) -> int:
    """Evaluate, print one leaderboard per kind of goals, and write results and report."""
    device = prepare(config.device, config.threads)
    models = {Path(path).resolve().name: path for path in config.model}
    if not models or len(models) < len(config.model):
        raise ConfigError(f"model = {config.model}: name run folders of different names")
    loaded = {name: load_world_model(path, device=device) for name, path in models.items()}
    first = next(iter(loaded.values()))
    sizes = {name: model.config.image_size for name, model in loaded.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"the models see images of different sizes {sizes}: evaluate them apart")
    make(config.env, render_obs=False)  # an unknown environment is an error before anything else
    plan = {"cem": config.cem, "mpc": config.mpc, "cost": config.cost}
    may_differ = (*MAY_DIFFER, "report")
    with RunDir.create(config.out, config, resume=config.resume, may_differ=may_differ) as folder:
        methods = [suite.model_method(name, model, **plan) for name, model in loaded.items()]
        if config.oracle:
            block = first.config.action_block
            methods.append(suite.oracle_method(config.env, action_block=block, **plan))
        if config.floors:
            methods += suite.standard_floors(
                budget=config.budget,
                action_dim=first.config.action_dim,
                trajectories=_data(config),
                image_size=first.config.image_size,
                untrained=first,
                seed=config.seed,
                **plan,
            )
        for kind in ("far", "near") if config.kind == "both" else (config.kind,):
            episodes = suite.episode_set(
                folder.path / f"{kind}.npz",
                config.env,
                kind,
                config.episodes,
                seed=config.seed,
                budget=config.budget,
                near_steps=config.near_steps,
            )
            results = suite.run_goal_reaching(
                folder.path,
                methods,
                episodes,
                image_size=first.config.image_size,
                films=config.films,
            )
            print_leaderboard(leaderboard(results, title=f"{config.env}: {kind} goals"))
    if config.report:
        from ..benchmarks.run_report import build_report

        page = Path(config.out) / "report.html"
        build_report(config.out, title="tubelet plan").write(page)
        print(f"report: {page}")
    print(f"run: {config.out}")
    return 0


def _data(config: Config) -> TrajectorySet | None:
    """The trajectories of the floors: those named, or those the first model was trained on."""
    if config.data:
        return TrajectorySet.open(config.data)
    trained = Path(config.model[0]) / "config.toml"
    if not trained.exists():
        return None
    return TrajectorySet.open(load_config(TrainConfig, trained).data)
