"""Amortise planning with a trained world model: add a head that proposes actions, from files.

The world model stays as it is. Its latents of every observation are computed once, as those that it
plans from and as those of goals (the frame at rest), and the head learns from pairs of moments of
one episode which actions led from the first to the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.config import load_config
from ..core.errors import ConfigError, DatasetError
from ..core.io import atomic_write_json
from ..core.progress import progress
from ..core.rng import numpy_generator, stream_seed
from ..core.run import RunDir
from ..datasets.trajectories import TrajectorySet
from ..datasets.windows import FramePairs
from . import dynamics
from .checkpoint import find_checkpoint, load_checkpoint, stored_config
from .device import MAY_DIFFER, prepare
from .dynamics_config import DynamicsConfig
from .engine import LoopConfig, fit
from .optim import OptimConfig
from .proposer import ProposerConfig, proposal_loss
from .train_recipe import TrainConfig, split_episodes
from .world_model import WorldModel, flat_state

ENCODE_BATCH = 256
JUDGED = 2048
"""Held-out pairs of each distance that are judged."""


@dataclass(frozen=True, kw_only=True)
class AmortiseConfig:
    """Train a head that proposes actions for a trained world model, which stays as it is."""

    model: str = ""
    """Run folder of a trained world model."""
    data: str = ""
    """Folder of a trajectory set; empty: the one that the model was trained on."""
    out: str = "runs/amortise"
    """Run folder; its checkpoints hold the world model and the head."""
    resume: bool = False
    """Go on with the run in that folder, exactly."""
    proposer: ProposerConfig = field(default_factory=ProposerConfig)
    """The head."""
    goals: Literal["still", "seen"] = "still"
    """A goal's latent is that of its frame at rest, as planners encode goals, or that of the moment
    as it was, with its velocity."""
    stride: int = 5
    """Environment steps between the moments that are used; divides the model's action block."""
    batch_size: int = 256
    """Pairs of moments per step."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-3,
            start_lr=0.0,
            final_lr=0.0,
            warmup=0.05,
            weight_decay=1e-3,
            final_weight_decay=1e-3,
            clip=1.0,
        )
    )
    """Optimiser and schedules."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=4000, report_every=1000, save_every=1000)
    )
    """Steps, logging and checkpoints."""
    held_out: float = 0.1
    """Share of the episodes, the last ones, that is kept for judging proposals."""
    seed: int = 0
    """Seed of the head's weights and of the pairs."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""

    def __post_init__(self) -> None:
        for name in ("stride", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out = {self.held_out}: a share of the episodes, in (0, 1)")


class Pairs(NamedTuple):
    """Moments and their goals."""

    state: Tensor
    """float ``[M, S]``."""
    goal: Tensor
    """float ``[M, G]``."""
    actions: Tensor
    """float ``[M, chunk, A]``; those from ``steps`` on are no part of the way."""
    steps: Tensor
    """int64 ``[M]``, model steps between the two."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """The latents of a trajectory set, and the actions between them.

    Attributes:
        states: float32 ``[R, S]``, goals: ``[R, G]``, of every ``stride``-th step of all episodes.
        offsets: int64 ``[E + 1]``, rows of each episode. actions: float32 ``[total, a]``, rows of
            which are ``starts [E + 1]``. block: environment steps per model step.
    """

    states: Tensor
    goals: Tensor
    offsets: np.ndarray
    actions: np.ndarray
    starts: np.ndarray
    stride: int
    block: int

    def pairs(self, episode: np.ndarray, step: np.ndarray, ahead: np.ndarray, chunk: int) -> Pairs:
        """Pairs of a moment and one ``ahead`` model steps later.

        Args:
            episode, step: int64 ``[M]``, environment steps, multiples of the stride.
        """
        row = self.offsets[episode] + step // self.stride
        goal = row + ahead * self.block // self.stride
        last = self.starts[episode + 1] - 1
        rows = self.starts[episode] + step
        rows = np.minimum(rows[:, None] + np.arange(chunk * self.block), last[:, None])
        actions = self.actions[rows].reshape(len(row), chunk, -1).astype(np.float32)
        return Pairs(
            self.states[torch.from_numpy(row)],
            self.goals[torch.from_numpy(goal)],
            torch.from_numpy(actions),
            torch.from_numpy(ahead),
        )


def pair_batches(
    moments: Moments,
    *,
    episodes: Sequence[int],
    chunk: int,
    reach: int,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    ahead: int = 0,
    name: str = "pairs",
) -> Iterator[Pairs]:
    """Endless batches of pairs; batch s is a function of ``(seed, name, s)`` alone.

    Args:
        episodes: those to draw from; their moments are equally likely. reach: the largest distance
            in model steps, uniform below it as far as the episode goes. ahead: fixes it; 0: not.

    Raises:
        DatasetError: no episode is as long.
    """
    lengths = np.diff(moments.starts)
    numbers = np.asarray(episodes, np.int64)
    counts = (lengths[numbers] - 1 - max(ahead, 1) * moments.block) // moments.stride + 1
    numbers, counts = numbers[counts > 0], counts[counts > 0]
    if not len(numbers):
        raise DatasetError(
            f"no episode has the {max(ahead, 1) * moments.block + 1} frames of a moment and a goal "
            f"{max(ahead, 1)} model steps later; the longest has {int(lengths.max(initial=0))}"
        )
    step = first_step
    while True:
        rng = numpy_generator(seed, name, step)
        chosen = rng.choice(len(numbers), batch_size, p=counts / counts.sum())
        episode = numbers[chosen]
        start = rng.integers(0, counts[chosen]) * moments.stride
        most = np.minimum((lengths[episode] - 1 - start) // moments.block, reach)
        far = rng.integers(1, most + 1) if not ahead else np.full(batch_size, ahead)
        yield moments.pairs(episode, start, far, chunk)
        step += 1


def amortise(config: AmortiseConfig) -> WorldModel:
    """Train the head; writes ``proposals.json``, its error on held-out episodes over that of the
    mean action, by steps to go (under 1: it knows better).

    The run's checkpoints are those of a world model (:func:`.recipes.load_world_model`) with a
    head. Latents are computed anew when a run is resumed.

    Raises:
        DatasetError: no or a damaged trajectory set, or episodes that are too short.
        ConfigError: the config does not fit the model or the data.
        CheckpointError: ``model`` is no world model.
    """
    if not config.model:
        raise ConfigError('model = "": name the run folder of a trained world model')
    device = prepare(config.device, config.threads)
    whole = with_proposer(config.model, config.proposer, seed=config.seed).to(device)
    stored = stored_config(find_checkpoint(config.model), DynamicsConfig, "a world model")
    stored = replace(stored, model=whole.config)
    trajectories = TrajectorySet.open(_data(config))
    if whole.config.action_block % config.stride:
        raise ConfigError(
            f"stride = {config.stride} does not divide the model's action block "
            f"{whole.config.action_block}"
        )
    kept, held = split_episodes(trajectories.num_episodes, config.held_out)
    with RunDir.create(config.out, config, resume=config.resume, may_differ=MAY_DIFFER) as run:
        moments = encode_moments(whole, trajectories, config.stride, config.goals)
        head, c = whole.proposer, config.proposer
        assert head is not None

        def batches(first_step: int) -> Iterator[Pairs]:
            return pair_batches(
                moments,
                episodes=kept,
                chunk=c.chunk,
                reach=c.reach,
                batch_size=config.batch_size,
                seed=config.seed,
                first_step=first_step,
            )

        def losses(batch: Pairs, step: int) -> dict[str, Tensor]:
            pairs = Pairs(*(x.to(device) for x in batch))
            found = head(pairs.state, pairs.goal, pairs.steps)
            return {"loss": proposal_loss(found, pairs.actions, pairs.steps)}

        def report(batch: Pairs, step: int) -> dict[str, float]:
            judged = judge_proposals(whole, moments, held, seed=config.seed)
            return {f"val/error_{ahead}": value for ahead, value in judged.items()}

        fit(
            whole,
            run,
            stored,
            loop=config.loop,
            optim=config.optim,
            batches=batches,
            losses=losses,
            report=report,
            device=device,
            description="amortise",
        )
        whole.requires_grad_(False).eval()
        errors = judge_proposals(whole, moments, held, seed=config.seed)
        facts = {"episodes": len(held), "error_over_mean": {str(k): v for k, v in errors.items()}}
        atomic_write_json(run.path / "proposals.json", facts)
    return whole


def with_proposer(path: str, proposer: ProposerConfig, *, seed: int) -> WorldModel:
    """The world model of a run with a fresh head, which alone takes gradients.

    A head that the model had is replaced. Raises CheckpointError as ``load_world_model``.
    """
    folder = find_checkpoint(path)
    config = stored_config(folder, DynamicsConfig, "a world model")
    source = dynamics.build(config)
    load_checkpoint(folder, model=source)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "proposer"))
        model = dynamics.build(replace(config, model=replace(config.model, proposer=proposer)))
        assert model.proposer is not None
        for part in model.proposer.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()  # pyright: ignore[reportCallIssue]
    known = {k: v for k, v in source.state_dict().items() if not k.startswith("proposer.")}
    missing, unexpected = model.load_state_dict(known, strict=False)
    assert not unexpected
    assert all(key.startswith("proposer.") for key in missing)
    model.requires_grad_(False)
    model.proposer.requires_grad_(True)
    return model


@torch.inference_mode()
def encode_moments(
    model: WorldModel, trajectories: TrajectorySet, stride: int, goals: Literal["still", "seen"]
) -> Moments:
    """Latents of every ``stride``-th step, as planners would see them."""
    c, device = model.config, model.token_mean.device
    training, _ = model.training, model.eval()
    frames = trajectories.cache(c.image_size)
    arrays, count = trajectories.arrays(), c.encoder.tubelet
    moving = FramePairs(frames.frames, frames.offsets, count=count, gap=c.frame_gap)
    still = FramePairs(frames.frames, frames.offsets, count=count, gap=0)
    felt = torch.from_numpy(np.asarray(arrays["proprio"])) if c.proprio_dim else None
    lengths = np.diff(frames.offsets)
    offsets = np.concatenate([[0], np.cumsum((lengths - 1) // stride + 1)])
    episode = np.repeat(np.arange(len(lengths)), np.diff(offsets))
    step = (np.arange(offsets[-1]) - offsets[episode]) * stride
    parts: list[tuple[Tensor, Tensor]] = []
    for first in progress(range(0, len(episode), ENCODE_BATCH), "encode"):
        rows = slice(first, first + ENCODE_BATCH)
        where = episode[rows], step[rows, None]
        z = model.project(model.tokens(moving(*where)[:, 0].to(device)))
        felt_now = None
        if felt is not None:
            felt_now = felt[frames.offsets[episode[rows]] + step[rows]].to(device)
        state = flat_state(model.part(model.join(z, felt_now)))
        goal = z.flatten(1)
        if goals == "still":
            goal = model.project(model.tokens(still(*where)[:, 0].to(device))).flatten(1)
        parts.append((state.float().cpu(), goal.float().cpu()))
    model.train(training)
    states, targets = (torch.cat(part).clone() for part in zip(*parts, strict=True))
    return Moments(
        states=states,
        goals=targets,
        offsets=offsets,
        actions=np.asarray(arrays["action"]),
        starts=frames.offsets,
        stride=stride,
        block=c.action_block,
    )


@torch.no_grad()
def judge_proposals(
    model: WorldModel, moments: Moments, episodes: Sequence[int], *, seed: int
) -> dict[int, float]:
    """Squared error of the first proposed step over that of the mean action, by steps to go (1, 2,
    4, … as far as the episodes reach)."""
    head = model.proposer
    assert head is not None
    longest = int(np.diff(moments.starts)[np.asarray(episodes)].max() - 1) // moments.block
    found, device = {}, model.token_mean.device
    for ahead in (2**i for i in range(12)):
        if ahead > min(longest, head.config.reach):
            break
        pairs = next(
            pair_batches(
                moments,
                episodes=episodes,
                chunk=head.config.chunk,
                reach=head.config.reach,
                batch_size=JUDGED,
                seed=seed,
                ahead=ahead,
                name="held-out pairs",
            )
        )
        state, goal, actions, steps = (x.to(device) for x in pairs)
        first, truth = head(state, goal, steps)[:, 0], actions[:, 0]
        around = (truth - truth.mean(0)).square().mean()
        found[ahead] = float((first - truth).square().mean() / around.clamp_min(1e-12))
    return found


def _data(config: AmortiseConfig) -> str:
    """The folder that is named, or that the model was trained on."""
    if config.data:
        return config.data
    trained = Path(config.model) / "config.toml"
    if not trained.exists():
        raise ConfigError(f'data = "": {config.model} does not say what it was trained on; name it')
    return load_config(TrainConfig, trained).data
