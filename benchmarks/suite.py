"""The goal-reaching suite: models, floors and the ceiling on one episode set, results on disk.

    episodes = episode_set("runs/x/far.npz", env_id, "far", 100, seed=0, budget=50)
    methods = [model_method("mine", model), *standard_floors(trajectories, budget=50, model=model),
               oracle_method(env_id, action_block=5)]
    run_goal_reaching("runs/x", methods, episodes, image_size=64)

All methods that look at pixels see them as a video file gives them back, since that is what the
models were trained on and what the memory of the retrieval floor holds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..core.errors import ConfigError
from ..core.progress import progress
from ..core.rng import stream_seed
from ..datasets.trajectories import TrajectorySet
from ..datasets.video_writer import as_stored
from ..envs import make
from ..envs.factors import FactorConfig
from ..envs.oracle import SimulatorDynamics
from ..planning import (
    CEMConfig,
    Cost,
    LatentCost,
    LatentDynamics,
    MPCAgent,
    MPCConfig,
    SearchConfig,
    make_planner,
)
from ..vjepa.hierarchy import copy_levels
from ..vjepa.world_model import WorldModel
from .episodes import EpisodeSet, draw_far, draw_near
from .floors import Retrieval, coloured_random, no_action, replay, uniform_random
from .goal_reaching import Agent, GoalReachingResult, evaluate
from .results import load_results, save_result

# What every model and the oracle plan with, unless told otherwise.
# A wide, time-correlated search reaches the far side; the saturating cost lets it: without, every
# step of the way around the arm's circle, where latent distance first rises, speaks against going.
CEM_CONFIG = CEMConfig(
    horizon=8, samples=64, iterations=4, elites=10, init_std=1.0, noise_beta=1.0, chunk=8192
)
MPC_CONFIG = MPCConfig(execute=1, hold=True)
COST = LatentCost(kind="l2", steps="sum", saturation=0.3)

NO_FACTORS = FactorConfig()

Kind = Literal["far", "near"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """A row of the table: an agent and how it is shown the world.

    Attributes:
        name: row label; seeds of one method share it. role: ``model``, ``floor`` or ``ceiling``.
        seed: of the training, or None. privileged: sees the simulator's state.
        context_frames, context_stride: frames it sees, and environment steps between them.
    """

    name: str
    agent: Agent
    role: str = "model"
    seed: int | None = None
    privileged: bool = False
    context_frames: int = 1
    context_stride: int = 1


class StoredPixels:
    """An agent that sees every image, live and goal, as a video file would give it back.

    See :func:`tubelet.datasets.video_writer.as_stored`.
    """

    def __init__(self, agent: Agent):
        self.agent = agent

    @property
    def records(self) -> Any:
        """The wrapped agent's planning records; an AttributeError where it keeps none."""
        return self.agent.records  # type: ignore[attr-defined]

    def reset(self, goal_obs: dict[str, np.ndarray], *, problems: Sequence[int]) -> None:
        self.agent.reset(_stored(goal_obs), problems=problems)

    def act(self, obs: dict[str, np.ndarray]) -> Any:
        return self.agent.act(_stored(obs))


def planning_agent(
    dynamics: LatentDynamics,
    *,
    search: SearchConfig = CEM_CONFIG,
    mpc: MPCConfig = MPC_CONFIG,
    cost: Cost = COST,
) -> MPCAgent:
    """The planner that ``search`` is the config of, in receding horizon over ``dynamics``;
    ``mpc.action_block`` must be the dynamics'."""
    width = dynamics.action_dim // (mpc.action_block if mpc.hold else 1)
    return MPCAgent(dynamics, make_planner(search, width, cost), mpc)


def model_agent(
    model: WorldModel,
    *,
    search: SearchConfig = CEM_CONFIG,
    mpc: MPCConfig = MPC_CONFIG,
    cost: Cost = COST,
) -> StoredPixels:
    """The agent of a world model trained on video. The action block is the model's."""
    mpc = replace(mpc, action_block=model.config.action_block)
    return StoredPixels(planning_agent(model, search=search, mpc=mpc, cost=cost))


def model_method(
    name: str,
    model: WorldModel,
    *,
    role: str = "model",
    seed: int | None = None,
    search: SearchConfig = CEM_CONFIG,
    mpc: MPCConfig = MPC_CONFIG,
    cost: Cost = COST,
) -> Method:
    """A world model as a row, shown the frames that it was trained to see."""
    return Method(
        name=name,
        agent=model_agent(model, search=search, mpc=mpc, cost=cost),
        role=role,
        seed=seed,
        context_frames=model.config.encoder.tubelet,
        context_stride=model.config.frame_gap,
    )


def oracle_method(
    env_id: str,
    *,
    action_block: int,
    threads: int = 2,
    search: SearchConfig = CEM_CONFIG,
    mpc: MPCConfig = MPC_CONFIG,
    cost: Cost = COST,
) -> Method:
    """The ceiling: the same planner with the simulator as its model, in ``threads`` threads."""
    env = make(env_id, render_obs=False)
    dynamics = SimulatorDynamics(env, action_block=action_block, threads=threads)
    mpc = replace(mpc, action_block=action_block)
    agent = planning_agent(dynamics, search=search, mpc=mpc, cost=cost)
    return Method(name="simulator oracle", agent=agent, role="ceiling", privileged=True)


def standard_floors(
    *,
    budget: int,
    action_dim: int,
    trajectories: TrajectorySet | None = None,
    image_size: int = 64,
    untrained: WorldModel | None = None,
    search: SearchConfig = CEM_CONFIG,
    mpc: MPCConfig = MPC_CONFIG,
    cost: Cost = COST,
    seed: int = 0,
) -> list[Method]:
    """Everything a model must stand above.

    Args:
        budget: environment steps per problem. action_dim: the environment's action width.
        trajectories: the training data, for the replay and retrieval floors. image_size: frames'
            height and width. untrained: a world model whose architecture, with fresh weights, is
            planned with by the same ``search``, ``mpc`` and ``cost``.
    """
    agents: dict[str, Agent] = {
        "no action": no_action(budget, action_dim),
        "random actions": uniform_random(budget, action_dim, seed=seed),
        "coloured noise": coloured_random(budget, action_dim, seed=seed),
    }
    if trajectories is not None:
        frames = trajectories.cache(image_size)
        actions = trajectories.arrays()["action"]
        agents["replay of the data"] = replay(actions, frames.offsets, budget, seed=seed)
        memory = Retrieval(frames.frames, actions, frames.offsets, window=budget)
        agents["retrieval from the data"] = StoredPixels(memory)
    floors = [Method(name=name, agent=agent, role="floor") for name, agent in agents.items()]
    if untrained is not None:
        fresh = fresh_model(untrained, seed=seed)
        kwargs: dict[str, Any] = {"search": search, "mpc": mpc, "cost": cost}
        floors.append(model_method("untrained model", fresh, role="floor", **kwargs))
    return floors


def fresh_model(model: WorldModel, *, seed: int) -> WorldModel:
    """An untrained world model of the same architecture on the same device, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "untrained"))
        fresh = WorldModel(model.config)
        copy_levels(model, fresh)
    return fresh.requires_grad_(False).eval().to(next(model.parameters()).device)


def episode_set(
    path: str | os.PathLike[str],
    env_id: str,
    kind: Kind,
    count: int,
    *,
    seed: int,
    budget: int,
    near_steps: int = 25,
    factors: FactorConfig = NO_FACTORS,
    split: str = "train",
) -> EpisodeSet:
    """The episode set saved at ``path``, drawn and saved first where there is none.

    Args:
        kind: ``far`` (anywhere) or ``near`` (at most ``near_steps`` environment steps away).
        factors: what looks and weighs different in every problem. split: of random layouts,
            "train" or "test".

    Raises:
        ConfigError: the file holds another set than asked for. DatasetError: it is damaged.
    """
    if not Path(path).exists():
        env = make(env_id, render_obs=False, **({} if split == "train" else {"split": split}))
        what: dict[str, Any] = {"env_id": env_id, "seed": seed, "budget": budget}
        what |= {"factors": factors}
        if kind == "far":
            drawn = draw_far(env, count, **what)
        else:
            drawn = draw_near(env, count, **what, steps=near_steps)
        drawn.save(path)
    episodes = EpisodeSet.load(path, env_id=env_id)
    varied = (tuple(sorted(factors.kinds)), factors.split if factors.kinds else "train")
    wanted = (kind, count, seed, budget, split, *varied)
    found = (
        *(episodes.kind, len(episodes), episodes.seed, episodes.budget, episodes.split),
        *(tuple(sorted(episodes.factors)), episodes.factor_split),
    )
    if found != wanted:
        raise ConfigError(
            f"{path} holds (kind, episodes, seed, budget, split, factors, their split) = {found}, "
            f"not {wanted}; remove it or name another folder"
        )
    return episodes


def run_goal_reaching(
    run: str | os.PathLike[str],
    methods: Sequence[Method],
    episodes: EpisodeSet,
    *,
    image_size: int = 64,
    films: int = 0,
    batch_size: int = 100,
) -> list[GoalReachingResult]:
    """Evaluate every method on ``episodes`` and save each result as it comes.

    Methods whose result for these episodes is already in the run folder are not run again.

    Args:
        run: folder; results go to ``results/`` below it. image_size: frames' height and width.
        films: film this many hits and as many misses of each model and ceiling.
        batch_size: problems side by side.

    Returns:
        results in the order of ``methods``.
    """
    done = {
        (s.value.name, s.value.seed): s.value
        for s in load_results(run)
        if isinstance(s.value, GoalReachingResult) and s.value.episodes_sha256 == episodes.sha256
    }
    keys = [(method.name, method.seed) for method in methods]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"two methods share a name and a seed: {sorted(map(str, keys))}")
    todo = [method for method in methods if (method.name, method.seed) not in done]
    for method in progress(todo, f"reach {episodes.kind} goals"):
        result = evaluate(
            lambda: make(episodes.env_id, image_size=image_size, render_obs=False),
            method.agent,
            episodes,
            name=method.name,
            role=method.role,
            seed=method.seed,
            privileged=method.privileged,
            context_frames=method.context_frames,
            context_stride=method.context_stride,
            batch_size=batch_size,
            record_each=0 if method.role == "floor" else films,
        )
        save_result(run, result)
        done[method.name, method.seed] = result
    return [done[key] for key in keys]


def _stored(obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**obs, "pixels": as_stored(obs["pixels"])}
