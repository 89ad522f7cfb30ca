"""Collect interaction episodes in parallel: the same files for any number of workers, resumable.

Every episode has its own random stream and its own files, so which process makes it, and whether a
run was killed and started again, changes nothing in the result. An episode whose process crashes or
hangs is redone by a new process.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from ..core.errors import ConfigError, DatasetError
from ..core.io import atomic_write_json
from ..core.progress import progress
from ..core.rng import numpy_generator
from ..datasets.trajectories import TrajectorySet, TrajectoryWriter
from . import make
from .base import GoalEnv
from .coverage import coverage
from .factors import FactorConfig, Factors, draw_factors
from .policies import PolicyMix, mixed_policy
from .rendering import gl_backend, load_mujoco
from .workers import Fault, run_jobs

COVERAGE_PATH = "meta/coverage.json"
"""Where a set keeps its :class:`.coverage.Coverage`."""


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Record episodes in a MuJoCo environment as H.264 video and trajectories (LeRobot v3 layout).

    The same command again goes on where an interrupted one stopped; with more episodes, it adds
    them.
    """

    env: str = "tubelet/Reacher-v0"
    """Environment id, as tubelet/Reacher-v0 or tubelet/PushT-v0."""
    out: str = "runs/data"
    """Folder of the trajectory set."""
    episodes: int = 600
    """Number of episodes."""
    steps: int = 100
    """Environment steps per episode; an episode has one frame more."""
    image_size: int = 64
    """Height and width of the frames in pixels, even."""
    policy: PolicyMix = field(default_factory=PolicyMix)
    """What acts."""
    seed: int = 0
    """Seed of all starts and actions."""
    camera: str = ""
    """The scene's camera that films; empty for the environment's own."""
    factors: FactorConfig = field(default_factory=FactorConfig)
    """What looks and weighs different in every episode; nothing by default."""
    split: Literal["train", "test"] = "train"
    """Of the random layouts (PointMazeRandom, TwoRoomsRandom) that episodes are drawn with."""
    workers: int = 0
    """Processes; 0 is one per core. Does not change the result."""
    timeout: float = 300.0
    """Seconds an episode may take in one of several processes before it is redone."""
    retries: int = 2
    """How often an episode is redone whose process crashed or hung."""

    def __post_init__(self) -> None:
        for name, least in {"episodes": 1, "steps": 1, "workers": 0, "retries": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if not self.timeout > 0:
            raise ConfigError(f"timeout = {self.timeout}: must be above 0 seconds")


def collect(config: CollectConfig) -> TrajectorySet:
    """Write the episodes of ``config`` that its folder lacks, and return the finished set.

    Raises:
        ConfigError: an unknown environment or an impossible size. DatasetError: the folder holds
            another set, or cannot be written. RenderError: no OpenGL. WorkerError: an episode
            failed again and again.
    """
    env = _env(config)
    gl_backend()  # fail here, once, rather than in every worker
    writer = _writer(config, env)
    finished = writer.finished()
    if max(finished, default=-1) >= config.episodes:
        raise ConfigError(
            f"{config.out} already holds {max(finished) + 1} episodes: ask for at least as many, "
            "or name another folder"
        )
    missing = [index for index in range(config.episodes) if index not in finished]
    try:
        for _ in progress(_play(config, missing), "collect episodes", total=len(missing)):
            pass
        writer.finalize()
        trajectories = TrajectorySet.open(config.out)
        measured = coverage(trajectories, env).to_json()
        atomic_write_json(trajectories.root / COVERAGE_PATH, measured)
    except OSError as error:
        raise DatasetError(f"cannot write {config.out}: {error}") from error
    return trajectories


def run_episode(config: CollectConfig, env: GoalEnv, index: int) -> dict[str, np.ndarray]:
    """Play episode ``index``: the arrays that ``TrajectoryWriter.add_episode`` takes."""
    if config.factors.kinds:
        episode_factors(config, index).apply(env)
    rng = numpy_generator(config.seed, "collect", index)
    observation, info = env.reset(
        options={"state": env.sample_state(rng), "goal_state": env.sample_goal(rng)}
    )
    act = mixed_policy(config.policy, env, config.steps, rng)
    pixels, proprio, states, actions = [], [], [], []
    for t in range(config.steps + 1):
        pixels.append(observation["pixels"])
        proprio.append(observation["proprio"])
        states.append(info["state"])
        if t == config.steps:
            break
        actions.append(np.clip(act(t), -1.0, 1.0).astype(np.float32))
        observation, _, _, _, info = env.step(actions[-1])
    actions.append(np.zeros_like(actions[0]))
    return {
        "pixels": np.stack(pixels),
        "proprio": np.stack(proprio),
        "state": np.stack(states),
        "action": np.stack(actions),
    }


def episode_factors(config: CollectConfig, index: int) -> Factors:
    """How episode ``index`` differs in looks and weights: the same whenever it is asked."""
    return draw_factors(numpy_generator(config.seed, "factors", index), config.factors)


def _writer(config: CollectConfig, env: GoalEnv) -> TrajectoryWriter:
    """The set's writer; what must be equal to go on with a set is in its metadata."""
    return TrajectoryWriter.create(
        config.out,
        fps=env.metadata["render_fps"],
        image_size=config.image_size,
        proprio_dim=env.proprio_dim,
        state_dim=env.state_dim,
        action_dim=env.model.nu,
        metadata={
            "env": config.env,
            "steps": config.steps,
            "seed": config.seed,
            "camera": env.camera,
            "policy": asdict(config.policy),
            "factors": {**asdict(config.factors), "kinds": list(config.factors.kinds)},
            **({} if config.split == "train" else {"split": config.split}),
            "mujoco": load_mujoco().__version__,
        },
        task=f"explore {config.env}",
    )


def _play(config: CollectConfig, episodes: list[int]) -> Iterator[None]:
    """Write the episodes, in this process or in several, yielding after each."""
    workers = min(config.workers or os.cpu_count() or 1, -(-len(episodes) // 8))
    if workers <= 1:
        yield from map(_Recorder(config), episodes)
        return
    yield from run_jobs(
        functools.partial(_Recorder, config),
        episodes,
        workers=workers,
        seconds=config.timeout,
        retries=config.retries,
        on_fault=_tell,
        name=lambda index: f"episode {index} of {config.env}",
    )


def _tell(fault: Fault) -> None:
    print(f"redone after a fault: {fault}", file=sys.stderr)


class _Recorder:
    """One environment and one writer, for all episodes of a process."""

    def __init__(self, config: CollectConfig):
        self._config, self._env = config, _env(config)
        self._writer = _writer(config, self._env)

    def __call__(self, index: int) -> None:
        self._writer.add_episode(index, **run_episode(self._config, self._env, index))


def _env(config: CollectConfig) -> GoalEnv:
    options: dict[str, Any] = {"camera": config.camera} if config.camera else {}
    if config.split != "train":
        options["split"] = config.split
    return make(config.env, image_size=config.image_size, **options)
