"""Is a latent variable worth it where the mean future is wrong? A forked world, and planning in it.

    python -m tubelet.benchmarks.futures_study --preset small --out runs/futures
    python -m tubelet.benchmarks.futures_study --preset debug --out runs/futures_debug

One small predictor is trained on walks in :mod:`.fork_world`, in the arms of :mod:`.futures_arms`:
deterministic, with a Gaussian, with K codes, and with K codes that see nothing or the context of
another walk. Their futures of plans through the gate are scored beside the true branches
(:mod:`.futures_metrics`), and planners use them to reach goals on the other side. The world itself
plans too, knowing both branches (the ceiling) or their mean (what a perfect deterministic model
would know), and random actions are the floor. A seed names weights, walks, problems and coins, and
all arms face the same ones, so that differences are paired.

Resumable: finished arms and seeds are kept below ``--out``, unfinished training goes on from its
checkpoint.

Writes ``scores/*.json``, ``results/*.json`` (tables, for reports), ``tables.md`` and, of the first
codes, ``futures.png``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..core.rng import numpy_generator
from ..planning import CEM, CEMConfig, LatentCost, LatentDynamics, MPCAgent, MPCConfig
from ..planning.futures import FuturesConfig, How, across_futures
from ..planning.protocol import Cost
from . import fork_world
from .fork_world import BUDGET, Oracle, advance, branches, lift, lower, problems, reached, sunk
from .futures_arms import ARMS, ArmConfig, ForkModel, Plan, train_arm
from .futures_metrics import score_futures
from .futures_pictures import Bank, futures_picture, nearest_frames, save_picture
from .futures_tables import study_tables
from .objective_tables import to_markdown
from .results import Table
from .study import check_parts, plain, run_parts, write_tables

KINDS = ("wind", "calm")
"""In wind the gate throws, in calm it lets through."""
CEILINGS: dict[str, Plan] = {
    "oracle": ("expected", "hold"),
    "oracle of the mean": ("likely", "likely"),
}
"""The world itself, and how it plans."""
FLOOR = "random actions"
AHEAD = 3
"""Steps after which futures are scored."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is."""

    problems: int
    """In wind, of each seed; half as many in calm."""
    cases: int
    """Plans through the gate whose futures are scored, of each kind and seed."""
    futures: int = 4
    """Futures that are drawn of each plan, for scores and in planning."""
    training: ArmConfig = field(default_factory=ArmConfig)
    """Of every arm."""
    planner: CEMConfig = field(
        default_factory=lambda: CEMConfig(
            horizon=8, samples=32, iterations=3, elites=6, init_std=1.0, noise_beta=1.0, chunk=4096
        )
    )
    """Of everyone."""
    execute: int = 2
    """Steps of a plan that are carried out before the next; divides the budget."""


SIZES = {
    "small": Size(problems=70, cases=200),
    "debug": Size(
        problems=3,
        cases=10,
        training=ArmConfig(steps=6, batch=8, width=12, depth=1),
        planner=CEMConfig(horizon=3, samples=6, iterations=1, elites=2),
    ),
}
"""By preset."""


@dataclass(frozen=True, kw_only=True)
class FuturesStudyConfig:
    """Train every arm with every seed, score its futures, plan with it, and print the tables."""

    preset: Literal["small", "debug"] = "small"
    """small: the study. debug: all of it runs, nothing is learnt."""
    out: str = "runs/futures"
    """Folder of everything."""
    arms: tuple[str, ...] = (*CEILINGS, FLOOR, *ARMS)
    """What to train, score and plan with."""
    seeds: int = 3
    """How many seeds."""
    seeds_from: int = 0
    """The first of them."""
    threads: int = 1
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        check_parts(
            self.preset, SIZES, self.arms, (*CEILINGS, FLOOR, *ARMS), self.seeds, self.seeds_from
        )


def run_futures_study(config: FuturesStudyConfig) -> list[Table]:
    """Do all of ``config`` that is not done yet; the tables of everything in the folder.

    Raises:
        ConfigError: ``out`` holds scores of other settings.
    """
    out, size = Path(config.out), SIZES[config.preset]
    if config.threads:
        torch.set_num_threads(config.threads)
    seeds = range(config.seeds_from, config.seeds_from + config.seeds)
    scores = run_parts(
        out, config.arms, seeds, plain(size), lambda name, seed: judge(name, size, out, seed)
    )
    tables = study_tables(scores)
    write_tables(out, "futures-study", tables)
    return tables


def judge(name: str, size: Size, out: Path, seed: int) -> dict[str, Any]:
    """Scores of futures, outcomes of plans, and seconds of processor time of one arm and seed."""
    started = time.process_time()
    plans: tuple[Plan, ...] = ()
    dynamics: Any = None
    if name in ARMS:
        arm, folder = ARMS[name], out / "runs" / f"{name.replace(' ', '-')}-{seed}"
        model = train_arm(name, size.training, folder, seed)
        dynamics, plans = ForkModel(model, blind=arm.context == "none"), arm.plans
        if name == "codes" and not (out / "futures.png").exists():
            save_picture(out / "futures.png", picture(dynamics))
    elif name in CEILINGS:
        dynamics, plans = Oracle(mean=name != "oracle"), (CEILINGS[name],)
    trained = time.process_time()
    scores = {kind: score(dynamics, kind, size, seed) for kind in KINDS} if name in ARMS else {}
    outcomes: dict[str, Any] = {}
    for rule, how in plans:
        ways = FuturesConfig(judge=rule, how=how, count=size.futures)
        cost = LatentCost(steps="sum", saturation=0.3)
        model_cost = across_futures(dynamics, cost, ways)
        outcomes[rule] = {kind: drive(*model_cost, kind, size, seed) for kind in KINDS}
    if name == FLOOR:
        outcomes["none"] = {kind: wander(kind, size, seed) for kind in KINDS}
    return {
        "futures": scores,
        "plans": outcomes,
        "train_seconds": trained - started,
        "test_seconds": time.process_time() - trained,
    }


def gate_cases(kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """States ``[count, 3]`` before the gate and plans float32 ``[count, AHEAD, 2]`` that lead
    through it; in wind all of them fork."""
    rng = numpy_generator(seed, "fork cases")
    states, plans = [], []
    while len(states) < count:
        side = rng.choice([-1.0, 1.0])
        state = np.array([side * rng.uniform(0.05, 0.6), rng.uniform(-0.4, 0.4), 1.0])
        plan = rng.uniform((-1.0, -0.5), (-0.6, 0.5), (AHEAD, 2)) * (side, 1.0)
        if branches(state[None], plan[None])[1][0, 1] > 0:
            states.append(state)
            plans.append(plan)
    found = np.stack(states)
    found[:, 2] = float(kind == "wind")
    return found, np.stack(plans).astype(np.float32)


def score(dynamics: ForkModel, kind: str, size: Size, seed: int) -> dict[str, float]:
    """Means over cases of the scores of futures, after ``AHEAD`` steps."""
    states, plans = gate_cases(kind, size.cases, seed)
    truth, chance = branches(states, plans.astype(float))
    with torch.inference_mode():
        found, weights = dynamics.rollout_futures(
            dynamics.encode({"state": states[:, None]}),
            torch.from_numpy(plans)[:, None],
            how="sample",
            count=size.futures,
        )
    places = lower(found.tokens[:, 0, :, -1, 0])[..., :2]
    scores = score_futures(
        places,
        weights[:, 0].double().numpy(),
        truth[:, :, -1, :2],
        chance,
        radius=fork_world.TOLERANCE,
    )
    return {name: float(values.mean()) for name, values in asdict(scores).items()}


def drive(
    dynamics: LatentDynamics, cost: Cost, kind: str, size: Size, seed: int
) -> dict[str, list[bool]]:
    """Which problems end at their goal, and which in a pit, in receding horizon."""
    state, goal, coins = _problems(kind, size, seed)
    agent = MPCAgent(
        dynamics, CEM(size.planner, 2, cost), MPCConfig(execute=size.execute, seed=seed)
    )
    agent.reset({"state": goal})
    for _ in range(BUDGET // size.execute):
        for action in agent.act({"state": state[:, None]}).astype(float).swapaxes(0, 1):
            state = advance(state, action, coins)
    return {"reached": reached(state, goal).tolist(), "sunk": sunk(state).tolist()}


def wander(kind: str, size: Size, seed: int) -> dict[str, list[bool]]:
    """The same under uniformly random actions."""
    state, goal, coins = _problems(kind, size, seed)
    rng = numpy_generator(seed, "fork floor", kind)
    for _ in range(BUDGET):
        state = advance(state, rng.uniform(-1, 1, (len(state), 2)), coins)
    return {"reached": reached(state, goal).tolist(), "sunk": sunk(state).tolist()}


def _problems(kind: str, size: Size, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    windy = kind == "wind"
    return problems(seed, size.problems if windy else -(-size.problems // 2), windy)


def picture(dynamics: ForkModel, *, count: int = 4) -> np.ndarray:
    """Imagined futures of a plan through the gate in wind, as the nearest of 4,000 true frames."""
    rng = numpy_generator(0, "fork bank")
    x, y = rng.uniform(-1.2, 1.2, 4000), rng.uniform(-0.9, 0.9, 4000)
    y[:200] = rng.choice([-fork_world.PIT, fork_world.PIT], 200)
    x[:200] = rng.choice([-fork_world.LIP, fork_world.LIP], 200)
    bank = np.stack([x, y, np.ones(4000)], axis=-1)
    start = np.array([[-0.6, 0.1, 1.0]])
    plan = torch.tensor([1.0, 0.0]).expand(1, 1, 5, 2)
    how: How = "sample"
    with torch.inference_mode():
        context = dynamics.encode({"state": start[:, None]})
        found, weights = dynamics.rollout_futures(context, plan, how=how, count=count)
    frames = Bank(frames=fork_world.draw(bank), latents=lift(bank)[:, None])
    shown = nearest_frames(frames, found.tokens[0, 0])
    return futures_picture(fork_world.draw(start[0]), shown.frames, weights[0, 0].numpy(), scale=2)


if __name__ == "__main__":
    import tyro

    for table in run_futures_study(tyro.cli(FuturesStudyConfig, description=__doc__)):
        print(to_markdown(table))
