"""Collect interaction episodes in parallel: the same files for any number of workers, resumable.

Every episode has its own random stream and its own files, so which process makes it, and whether a
run was killed and started again, changes nothing in the result.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np

from ..core.errors import ConfigError, DatasetError
from ..core.progress import progress
from ..core.rng import numpy_generator
from ..datasets.trajectories import TrajectorySet, TrajectoryWriter
from . import make
from .base import GoalEnv
from .policies import PolicyMix, mixed_policy
from .rendering import gl_backend, load_mujoco


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Record episodes in a MuJoCo environment as H.264 video and trajectories (LeRobot v3 layout).

    The same command again goes on where an interrupted one stopped; with more episodes, it adds
    them.
    """

    env: str = "tubelet/Reacher-v0"
    """Environment id: tubelet/Reacher-v0 or tubelet/PointMaze-v0."""
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
    workers: int = 0
    """Processes; 0 is one per core. Does not change the result."""

    def __post_init__(self) -> None:
        for name, least in {"episodes": 1, "steps": 1, "workers": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {least}")


def collect(config: CollectConfig) -> TrajectorySet:
    """Write the episodes of ``config`` that its folder lacks, and return the finished set.

    Raises:
        ConfigError: an unknown environment or an impossible size. DatasetError: the folder holds
            another set, or cannot be written. RenderError: no OpenGL.
    """
    env = make(config.env, image_size=config.image_size)
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
        with _pool(config, missing) as results:
            for _ in progress(results, "collect episodes", total=len(missing)):
                pass
        writer.finalize()
    except OSError as error:
        raise DatasetError(f"cannot write {config.out}: {error}") from error
    return TrajectorySet.open(config.out)


def run_episode(config: CollectConfig, env: GoalEnv, index: int) -> dict[str, np.ndarray]:
    """Play episode ``index``: the arrays that ``TrajectoryWriter.add_episode`` takes."""
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
            "policy": asdict(config.policy),
            "mujoco": load_mujoco().__version__,
        },
        task=f"explore {config.env}",
    )


@contextmanager
def _pool(config: CollectConfig, episodes: list[int]) -> Iterator[Iterable[None]]:
    """Results of :func:`_write_episode` as they come, from this process or from several."""
    workers = min(config.workers or os.cpu_count() or 1, -(-len(episodes) // 8))
    job = functools.partial(_write_episode, config)
    if workers <= 1:
        yield map(job, episodes)
        return
    context = multiprocessing.get_context("spawn")  # OpenGL must not cross a fork
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)  # this process answers it, and ends the others
    with context.Pool(workers, initializer=signal.signal, initargs=ignore_ctrl_c) as pool:
        yield pool.imap_unordered(job, episodes, chunksize=4)


def _write_episode(config: CollectConfig, index: int) -> None:
    env, writer = _tools(config)
    writer.add_episode(index, **run_episode(config, env, index))


@functools.lru_cache(maxsize=1)
def _tools(config: CollectConfig) -> tuple[GoalEnv, TrajectoryWriter]:
    """One environment and one writer per process."""
    env = make(config.env, image_size=config.image_size)
    return env, _writer(config, env)
