"""From files to trained models: the one place where data sets and models meet.

    videos        -> pretrain_on_videos    -> an encoder        -> load_encoder
    trajectories  -> train_on_trajectories -> a world model     -> load_world_model

Every recipe writes a run folder (:mod:`tubelet.core.run`) and goes on exactly where it stopped.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.errors import CheckpointError, ConfigError, DatasetError, TubeletError
from ..core.io import atomic_write_json, atomic_write_text
from ..core.machine import default_device
from ..core.run import RunDir, read_metrics
from ..datasets.augment import AugmentConfig, augment
from ..datasets.clips import ClipBatches, ClipConfig, clip_batches
from ..datasets.corpus import CorpusIndex, index_corpus
from ..datasets.frame_cache import FrameCache
from ..datasets.trajectories import TrajectorySet
from ..datasets.windows import FramePairs, Observe, WindowBatch, window_batches
from . import dynamics, pretrain
from .checkpoint import find_checkpoint, load_checkpoint, load_config
from .corpus_facts import pixel_stats, write_corpus
from .diagnostics import verdict
from .dynamics import DynamicsConfig, prediction_report, take, train_dynamics
from .encoder import TubeletEncoder
from .latent_cache import LatentCache, cache_latents
from .pretrain import PretrainConfig, PretrainModel
from .world_model import WorldModel

MAY_DIFFER = ("out", "resume", "device", "threads", "cache", "workers")
"""Keys that a resumed run may change: none of them changes the result (on one kind of device)."""

HELD_OUT_BATCHES = 4
STANDARDISE_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class VideoPretrainConfig:
    """Train a V-JEPA encoder on a folder of videos by masked latent prediction."""

    videos: str = ""
    """Folder of videos, or a list file (.txt, .csv) of their paths."""
    out: str = "runs/pretrain"
    """Run folder."""
    resume: bool = False
    """Go on with the run in that folder, exactly."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    """How clips are cut out of the videos. Their seed is train.seed."""
    train: PretrainConfig = field(default_factory=PretrainConfig)
    """Model, masks, optimiser and schedules."""
    augment: bool = True
    """Crop and flip clips at random."""
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    """How."""
    pixel_stats: Literal["imagenet", "corpus"] = "imagenet"
    """Normalise pixels by the encoder's mean and deviation (ImageNet's), or by those of this
    corpus. Scenes with a still background want the corpus's: see the documentation."""
    cache: bool = False
    """Decode all videos once into a memory map in the run folder: same clips, many times faster,
    for corpora that fit on the disk."""
    workers: int = 0
    """Processes that decode ahead; 0 decodes in this one. Same clips."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""

    def __post_init__(self) -> None:
        size = self.augmentation.size if self.augment else None
        side = size or self.clips.size
        self.train.encoder.grid(self.clips.frames, side, side)  # raises naming the nearest size
        if self.clips.seed not in (0, self.train.seed):
            raise ConfigError(f"clips.seed = {self.clips.seed}: clips follow train.seed; set that")


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
    """Run folder of a pretrained encoder, whose architecture then replaces train.model.encoder;
    empty for a fresh one."""
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


def pretrain_on_videos(
    config: VideoPretrainConfig,
    *,
    probe: Callable[[TubeletEncoder], dict[str, float]] | None = None,
) -> PretrainModel:
    """Pretrain an encoder; see :func:`tubelet.vjepa.pretrain.pretrain` for ``probe``.

    Beside what every run folder holds it writes ``corpus.txt`` (how many videos were used, and
    every bad one with its reason), ``corpus.json`` (the same, and the pixel statistics) and
    ``verdict.txt`` (is the encoder healthy or collapsed, and why).

    Raises:
        DatasetError: no usable video, too many bad ones, or a resumed run's corpus has changed.
        ConfigError, TubeletError, CheckpointError: see :class:`RunDir` and :func:`engine.fit`.
    """
    device = prepare(config.device, config.threads)
    index = _indexed(config)
    train, clips = _resolved(config, index)
    with RunDir.create(config.out, config, resume=config.resume, may_differ=MAY_DIFFER) as run:
        write_corpus(run.path, index, train.encoder)
        stream: list[ClipBatches] = []

        def batches(first_step: int) -> Iterator[Any]:
            stream.append(
                clip_batches(
                    index,
                    clips,
                    train.batch_size,
                    start_step=first_step,
                    workers=config.workers,
                    cache=config.cache,
                )
            )
            return stream[-1]

        model = pretrain.pretrain(
            train,
            batches,
            run,
            probe=probe,
            augment=_augmentation(config),
            device=device,
        )
        if stream:
            report = f"{index.report()}\n{stream[-1].report()}\n"
            atomic_write_text(run.path / "corpus.txt", report)
        atomic_write_text(run.path / "verdict.txt", _verdict(run.path, train.encoder.width) + "\n")
    return model


def train_on_trajectories(config: TrainConfig) -> WorldModel:
    """Train a world model; writes ``prediction.json``, its prediction errors on held-out episodes.

    ``over_copy`` and ``shuffled`` in it are defined by
    :func:`tubelet.vjepa.dynamics.prediction_report`. Frames and the tokens of a frozen encoder are
    cached in ``<data>/cache``.

    Raises:
        DatasetError: no or a damaged trajectory set, or episodes that are too short.
        ConfigError: the config does not fit the data, or a frozen encoder without one.
        CheckpointError: ``encoder`` is no pretraining run.
    """
    if not config.data:
        raise ConfigError('data = "": name the folder of a trajectory set')
    device = prepare(config.device, config.threads)
    trajectories = TrajectorySet.open(config.data)
    encoder = load_encoder(config.encoder, device=device) if config.encoder else None
    train = config.train
    if encoder is not None:
        train = replace(train, model=replace(train.model, encoder=encoder.config))
    if train.freeze_encoder and encoder is None:
        raise ConfigError("train.freeze_encoder = true: name a pretraining run as encoder")
    _check_actions(train, trajectories)
    kept, held = split_episodes(trajectories.num_episodes, config.held_out)
    with RunDir.create(config.out, config, resume=config.resume, may_differ=MAY_DIFFER) as run:
        frames = trajectories.cache(train.model.image_size)
        observe, sample = _observations(train, frames, encoder, kept)
        windows = partial(
            window_batches,
            observe,
            trajectories.arrays()["action"],
            frames.offsets,
            horizon=train.horizon,
            block=train.model.action_block,
            batch_size=train.batch_size,
            seed=train.seed,
            stride=train.cache_stride if train.freeze_encoder else 1,
        )
        judged = take(windows(episodes=held, name="held-out"), HELD_OUT_BATCHES)

        def batches(first_step: int) -> Iterator[WindowBatch]:
            return windows(episodes=kept, first_step=first_step)

        model = train_dynamics(
            train,
            batches,
            run,
            encoder=encoder,
            held_out=lambda: judged,
            standardise_on=sample,
            device=device,
        )
        report = prediction_report(model, judged, frozen=train.freeze_encoder)
        facts = {"windows": len(judged) * train.batch_size, "episodes": len(held)}
        atomic_write_json(run.path / "prediction.json", _finite(report) | facts)
    return model


def load_encoder(path: str | os.PathLike[str], *, device: str = "cpu") -> TubeletEncoder:
    """The frozen target encoder of a pretraining run (or one of its checkpoints), in eval mode.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another kind.
    """
    folder = find_checkpoint(path)
    config = _stored(folder, PretrainConfig, "a pretrained encoder")
    model = pretrain.build(config)
    load_checkpoint(folder, model=model)
    return model.output.requires_grad_(False).eval().to(device)


def load_world_model(path: str | os.PathLike[str], *, device: str = "cpu") -> WorldModel:
    """The world model of a training run (or one of its checkpoints), frozen, in eval mode.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another kind.
    """
    folder = find_checkpoint(path)
    model = dynamics.build(_stored(folder, DynamicsConfig, "a world model"))
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


def prepare(device: str, threads: int) -> str:
    """Set torch's threads (0: leave them) and resolve the device name.

    Raises:
        ConfigError: a device that torch does not know or does not see.
    """
    if threads < 0:
        raise ConfigError(f"threads = {threads}: must be 0 (leave them alone) or more")
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        return default_device()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device = {device!r}: {reason}; use auto or cpu") from error
    return device


def _indexed(config: VideoPretrainConfig) -> CorpusIndex:
    """The corpus, before there is a run: hidden, so that a failure leaves the folder as empty."""
    if not config.videos:
        raise ConfigError('videos = "": name a folder of videos or a list file')
    try:
        return index_corpus(
            config.videos,
            cache_path=Path(config.out) / ".corpus.jsonl",
            max_bad_share=config.clips.max_bad_share,
        )
    except OSError as error:
        raise TubeletError(
            f"cannot write the run folder {config.out}: {error.strerror}; "
            "free some space, fix its permissions or name another"
        ) from error


def _resolved(config: VideoPretrainConfig, index: CorpusIndex) -> tuple[PretrainConfig, ClipConfig]:
    train = config.train
    if config.pixel_stats == "corpus":
        mean, std = pixel_stats(index, seed=train.seed)
        train = replace(train, encoder=replace(train.encoder, pixel_mean=mean, pixel_std=std))
    return train, replace(config.clips, seed=train.seed)


def _augmentation(
    config: VideoPretrainConfig,
) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    if not config.augment:
        return None
    return lambda video, generator: augment(video, config.augmentation, generator)


def _verdict(run: Path, width: int) -> str:
    """The verdict on the run's last diagnostics."""
    last = next(line for line in reversed(read_metrics(run)) if "clip_std" in line)
    return verdict({k: math.nan if v is None else v for k, v in last.items()}, width=width)


def _observations(
    train: DynamicsConfig, frames: FrameCache, encoder: TubeletEncoder | None, kept: range
) -> tuple[Observe, Tensor | None]:
    """What windows observe: frames, or cached tokens (with a sample that standardises them)."""
    model = train.model
    pairs = FramePairs(
        frames.frames, frames.offsets, count=model.encoder.tubelet, gap=model.frame_gap
    )
    if not train.freeze_encoder:
        return pairs, None
    assert encoder is not None
    manifest = frames.path.with_suffix(".json").read_bytes()
    cache: LatentCache = cache_latents(
        encoder,
        pairs,
        frames.path.parent,
        stride=train.cache_stride,
        source=f"{frames.path.name} {hashlib.sha256(manifest).hexdigest()}",
    )
    rows = int(cache.offsets[kept.stop])
    sample = cache.tokens[: rows : max(1, rows // STANDARDISE_ROWS)]
    return cache, torch.from_numpy(np.array(sample))


def _check_actions(train: DynamicsConfig, trajectories: TrajectorySet) -> None:
    width = trajectories.arrays()["action"].shape[1]
    if width != train.model.action_dim:
        raise ConfigError(
            f"train.model.action_dim = {train.model.action_dim}, but the actions in "
            f"{trajectories.root} have width {width}: set it to {width}"
        )


def _stored(folder: Path, cls: type, wanted: str) -> Any:
    """The config in a checkpoint. Raises CheckpointError where it is of another kind."""
    try:
        return load_config(folder, cls)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder} is no checkpoint of {wanted} known here: {error}"
        ) from error


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: v if math.isfinite(v) else None for name, v in values.items()}
