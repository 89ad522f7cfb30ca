"""World models from files: a trajectory set in, a run folder with a world model out."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError, DatasetError
from ..core.io import atomic_write_json
from ..core.run import RunDir
from ..datasets.frame_cache import FrameCache
from ..datasets.trajectories import TrajectorySet
from ..datasets.windows import FramePairs, Observe, WindowBatch, window_batches
from . import dynamics, parallel
from .checkpoint import find_checkpoint, load_checkpoint, stored_config
from .device import MAY_DIFFER, prepare
from .dynamics import DynamicsConfig, latent_report, prediction_report, take, train_dynamics
from .encoder import TubeletEncoder
from .hierarchy_recipe import LatentReader, first_level, known, sample_chunks, train_levels
from .latent_cache import LatentCache, cache_latents
from .pretrain_recipe import load_encoder
from .world_model import WorldModel

HELD_OUT_BATCHES = 4
STANDARDISE_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an action-conditioned world model on collected trajectories."""

    data: str = ""
    """Folder of a trajectory set, as ``tubelet collect`` writes."""
    out: str = "runs/train"
    """Run folder."""
    resume: bool = False
    """Go on with the run in that folder, exactly."""
    encoder: str = ""
    """Run folder of a pretrained encoder, or a folder that ``tubelet convert`` wrote; its
    architecture then replaces train.model.encoder. Empty for a fresh one."""
    level1: str = ""
    """Run folder of a trained world model, which stays as it is, for the levels of train.hierarchy
    to be trained above; its architecture then replaces train.model."""
    train: DynamicsConfig = field(default_factory=DynamicsConfig)
    """Model, losses, optimiser and schedules."""
    held_out: float = 0.1
    """Share of the episodes, the last ones, that is kept for judging predictions."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out = {self.held_out}: a share of the episodes, in (0, 1)")
        if self.level1 and not self.on_frozen_level:
            raise ConfigError(
                f"level1 = {self.level1!r} is for levels above it: set train.hierarchy.strides, "
                'and train.hierarchy.first = "frozen"'
            )

    @property
    def on_frozen_level(self) -> bool:
        """Whether only levels above a trained world model are trained."""
        return bool(self.train.hierarchy.strides) and self.train.hierarchy.first == "frozen"


def train_on_trajectories(config: TrainConfig) -> WorldModel:
    """Train a world model; writes ``prediction.json``, its prediction errors on held-out episodes.

    ``over_copy`` and ``shuffled`` in it are defined by
    :func:`tubelet.vjepa.dynamics.prediction_report`. Frames and the tokens of a frozen encoder are
    cached in ``<data>/cache``.

    Under ``torchrun`` every process takes an equal part of each batch (:mod:`.parallel`).

    Raises:
        DatasetError: no or a damaged trajectory set, or episodes that are too short.
        ConfigError: the config does not fit the data, a frozen encoder without one, or several
            processes for what one has to train.
        CheckpointError: ``encoder`` is no pretraining run.
    """
    if not config.data:
        raise ConfigError('data = "": name the folder of a trajectory set')
    with parallel.process_group(prepare(config.device, config.threads)) as device:
        return _train(config, device)


def _train(config: TrainConfig, device: str) -> WorldModel:
    check_spread(config.train)
    trajectories = TrajectorySet.open(config.data)
    encoder = load_encoder(config.encoder, device=device) if config.encoder else None
    train, below = config.train, None
    if config.on_frozen_level:
        if not config.level1:
            raise ConfigError(
                'level1 = "": name the run folder of a trained world model, or set '
                'train.hierarchy.first = "joint"'
            )
        train, below = first_level(config.level1, train, device=device)
    elif encoder is not None:
        train = replace(train, model=replace(train.model, encoder=encoder.config))
    if train.freeze_encoder and encoder is None and below is None:
        raise ConfigError("train.freeze_encoder = true: name a pretraining run as encoder")
    _check_widths(train, trajectories)
    kept, held = split_episodes(trajectories.num_episodes, config.held_out)

    def create() -> RunDir:
        return RunDir.create(config.out, config, resume=config.resume, may_differ=MAY_DIFFER)

    with parallel.open_run(create, config.out) as run:
        frames = parallel.in_turn(lambda: trajectories.cache(train.model.image_size))
        observe, sample = parallel.in_turn(
            lambda: _observations(train, frames, encoder, kept, below)
        )
        felt = trajectories.arrays()["proprio"] if train.model.proprio_dim else None
        windows = partial(
            window_batches,
            observe,
            trajectories.arrays()["action"],
            frames.offsets,
            horizon=train.horizon,
            block=train.model.action_block,
            seed=train.seed,
            stride=1 if isinstance(observe, FramePairs) else train.cache_stride,
            proprio=felt,
        )
        whole = windows(episodes=held, name="held-out", batch_size=train.batch_size)
        judged = take(whole, HELD_OUT_BATCHES)

        def batches(first_step: int) -> Iterator[WindowBatch]:
            return windows(
                episodes=kept,
                first_step=first_step,
                batch_size=parallel.local_batch(train.batch_size),
                rank=parallel.rank(),
                world_size=parallel.world_size(),
            )

        chunks = _chunks(train, trajectories, frames.offsets, kept)
        if below is not None:
            model = train_levels(
                train,
                batches,
                run,
                model=below,
                chunks=chunks,
                held_out=lambda: judged,
                device=device,
            )
            report = latent_report(model, known(model, judged))
        else:
            model = train_dynamics(
                train,
                batches,
                run,
                encoder=encoder,
                held_out=lambda: judged,
                standardise_on=sample,
                standardise_proprio_on=_of_episodes(felt, frames.offsets, kept),
                chunks=chunks,
                device=device,
            )
            report = prediction_report(model, judged, frozen=train.freeze_encoder)
        facts = {"windows": len(judged) * train.batch_size, "episodes": len(held)}
        parallel.lead(
            lambda: atomic_write_json(run.path / "prediction.json", _finite(report) | facts)
        )
    return model


def check_spread(train: DynamicsConfig) -> None:
    """Refuse several processes for what only one trains: parts that draw once per step for a whole
    batch, or that call parts of a split model.

    Raises:
        ConfigError: names them.
    """
    if parallel.world_size() == 1:
        return
    alone = {
        "loop.shard": train.loop.shard,
        "model.futures": train.model.futures.on,
        "model.proposer": train.model.proposer is not None,
        "hierarchy": bool(train.hierarchy.strides),
        "feedback": train.feedback is not None,
    }
    if found := [f"train.{name}" for name, used in alone.items() if used]:
        raise ConfigError(
            f"{', '.join(found)}: trained in one process only, and torchrun started "
            f"{parallel.world_size()}; start it without torchrun, or leave "
            f"{'it' if len(found) == 1 else 'them'} out"
        )


def load_world_model(path: str | os.PathLike[str], *, device: str = "cpu") -> WorldModel:
    """The world model of a training run (or one of its checkpoints), frozen, in eval mode.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another kind.
    """
    folder = find_checkpoint(path)
    model = dynamics.build(stored_config(folder, DynamicsConfig, "a world model"))
    load_checkpoint(folder, model=model)
    return model.requires_grad_(False).eval().to(device)


def split_episodes(count: int, held_out: float) -> tuple[range, range]:
    """Episodes to train on and, at the end, those held out: at least one of each.

    Raises:
        DatasetError: fewer than two episodes.
    """
    if count < 2:
        raise DatasetError(f"{count} episodes cannot be split; collect at least 2")
    first = min(max(1, count - round(held_out * count)), count - 1)
    return range(first), range(first, count)


def _observations(
    train: DynamicsConfig,
    frames: FrameCache,
    encoder: TubeletEncoder | None,
    kept: range,
    below: WorldModel | None,
) -> tuple[Observe, Tensor | None]:
    """What windows observe: frames, cached tokens (with a sample that standardises them), or cached
    latents of the world model ``below``."""
    model = train.model
    pairs = FramePairs(
        frames.frames, frames.offsets, count=model.encoder.tubelet, gap=model.frame_gap
    )
    if below is None and not train.freeze_encoder:
        return pairs, None
    reader = encoder if below is None else LatentReader(below).eval()
    assert reader is not None
    manifest = frames.path.with_suffix(".json").read_bytes()
    cache: LatentCache = cache_latents(
        reader,
        pairs,
        frames.path.parent,
        stride=train.cache_stride,
        source=f"{frames.path.name} {hashlib.sha256(manifest).hexdigest()}",
    )
    if below is not None:
        return cache, None
    rows = int(cache.offsets[kept.stop])
    sample = cache.tokens[: rows : max(1, rows // STANDARDISE_ROWS)]
    return cache, torch.from_numpy(np.array(sample))


def _chunks(
    train: DynamicsConfig, trajectories: TrajectorySet, offsets: np.ndarray, kept: range
) -> list[Tensor]:
    """Training chunks for each level of the hierarchy."""
    return [
        sample_chunks(
            trajectories.arrays()["action"],
            offsets,
            kept,
            length=length,
            block=train.model.action_block,
            count=train.hierarchy.buffer,
            seed=train.seed,
        )
        for length in train.hierarchy.lengths
    ]


def _check_widths(train: DynamicsConfig, trajectories: TrajectorySet) -> None:
    felt = trajectories.arrays()["proprio"].shape[1]
    if train.model.proprio_dim not in (0, felt):
        raise ConfigError(
            f"train.model.proprio_dim = {train.model.proprio_dim}, but the proprioception in "
            f"{trajectories.root} has width {felt}: set it to {felt}, or to 0 to ignore it"
        )
    width = trajectories.arrays()["action"].shape[1]
    if width != train.model.action_dim:
        raise ConfigError(
            f"train.model.action_dim = {train.model.action_dim}, but the actions in "
            f"{trajectories.root} have width {width}: set it to {width}"
        )


def _of_episodes(felt: np.ndarray | None, offsets: np.ndarray, kept: range) -> Tensor | None:
    """The rows of the first episodes, those of ``kept``."""
    return None if felt is None else torch.from_numpy(np.array(felt[: offsets[kept.stop]]))


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: v if math.isfinite(v) else None for name, v in values.items()}
