"""Pretraining from files: a folder of videos or images in, a run folder with an encoder out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.errors import CheckpointError, ConfigError, TubeletError
from ..core.io import atomic_write_text
from ..core.pace import Pace, peak_flops
from ..core.run import RunDir, read_metrics
from ..datasets.augment import AugmentConfig, augment
from ..datasets.clips import ClipBatches, ClipConfig, clip_batches
from ..datasets.corpus import CorpusIndex, index_corpus
from ..datasets.images import ImageConfig, ImageIndex, image_batches, index_images
from . import parallel, pretrain
from .checkpoint import find_checkpoint, load_checkpoint, stored_config
from .corpus_facts import pixel_stats, write_corpus
from .device import MAY_DIFFER, prepare
from .diagnostics import verdict
from .encoder import TubeletEncoder
from .formats.checkpoint import MANIFEST, Checkpoint
from .motion import MotionConfig
from .motion.batches import Alternating, named
from .pretrain import PretrainConfig, PretrainedEncoder, PretrainModel, with_objective

_LOOP = ("log_every", "save_every", "keep", "background", "shard", "checkpoint_blocks", "compile")
_MAY_DIFFER = (*MAY_DIFFER, *(f"train.loop.{name}" for name in _LOOP))
"""Keys that a resumed run may change: how it is spread, saved and logged, not what is learned."""


@dataclass(frozen=True, kw_only=True)
class PretrainRunConfig:
    """Train an encoder on a folder of videos, or of images, without labels."""

    videos: str = ""
    """Folder of videos, or a list file (.txt, .csv) of their paths."""
    images: str = ""
    """Folder of images, or a list file, instead of videos; clips.size is their side. With
    train.motion: what content is learned from, beside the videos."""
    out: str = "runs/pretrain"
    """Run folder."""
    resume: bool = False
    """Go on with the run in that folder, exactly."""
    start_from: str = ""
    """Run folder whose newest weights and optimiser's moments a new run starts with (a cool-down
    after pretraining); its schedules start anew."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    """How clips are cut out of the videos. Their seed is train.seed."""
    objective: str = ""
    """A published objective (ijepa, vjepa, vjepa2, vjepa2.1, lejepa, levjepa, salt, cjepa) in place
    of train.objective, with the masks, levels and positions that it needs; empty keeps the
    config as it is."""
    teacher: str = ""
    """Run folder of the encoder that is the frozen teacher, for objectives with one (salt)."""
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
        if self.clips.seed not in (0, self.train.seed):
            raise ConfigError(f"clips.seed = {self.clips.seed}: clips follow train.seed; set that")
        if self.train.motion is not None:
            self._check_motion(self.train.motion)
            return
        if self.videos and self.images:
            raise ConfigError(f"videos = {self.videos!r} and images = {self.images!r}: name one")
        train = _with_objective(self)
        size = self.augmentation.size if self.augment else None
        side = size or self.clips.size
        lengths = {1} if self.images else {kind.frames for kind, _ in self.clips.kinds()}
        for frames in sorted(lengths):
            train.encoder.grid(frames, side, side)  # raises naming the nearest size

    def _check_motion(self, motion: MotionConfig) -> None:
        for name in ("objective", "teacher"):
            if value := getattr(self, name):
                raise ConfigError(f"{name} = {value!r}: train.motion has losses of its own")
        if self.images and not self.videos and motion.arm != "content":
            raise ConfigError(
                f"images = {self.images!r} without videos: flow is between two frames; name videos "
                'too, or train on content alone with train.motion.arm = "content"'
            )
        if self.images and self.videos and motion.arm != "both":
            raise ConfigError(
                f"videos = {self.videos!r} and images = {self.images!r}: the arm "
                f'"{motion.arm}" trains on one of them'
            )
        if self.clips.buckets:
            raise ConfigError(f"clips.buckets = {self.clips.buckets}: motion takes one length")
        side = (self.augmentation.size if self.augment else None) or self.clips.size
        motion.check_clips(1 if self.images and not self.videos else self.clips.frames, side)


def pretrain_encoder(
    config: PretrainRunConfig,
    *,
    probe: Callable[[Any], dict[str, float]] | None = None,
) -> PretrainModel:
    """Pretrain an encoder; see :func:`tubelet.vjepa.pretrain.pretrain` for ``probe``.

    Beside what every run folder holds it writes ``corpus.txt`` (how many videos were used, and
    every bad one with its reason), ``corpus.json`` (the same, and the pixel statistics) and
    ``verdict.txt`` (is the encoder healthy or collapsed, and why).

    Raises:
        DatasetError: no usable file, too many bad ones, or a resumed run's corpus has changed.
        ConfigError, TubeletError, CheckpointError: see :class:`RunDir` and :func:`engine.fit`.
    """
    with parallel.process_group(prepare(config.device, config.threads)) as device:
        return _pretrain(config, probe, device)


def _pretrain(
    config: PretrainRunConfig,
    probe: Callable[[Any], dict[str, float]] | None,
    device: str,
) -> PretrainModel:
    index = parallel.in_turn(lambda: _indexed(config, images=not config.videos))
    both = bool(config.videos and config.images)
    images = parallel.in_turn(lambda: _indexed(config, images=True)) if both else index
    teacher = load_encoder(config.teacher, device=device) if config.teacher else None
    start = find_checkpoint(config.start_from) if config.start_from else None
    train, clips = _resolved(config, index, teacher)

    def create() -> RunDir:
        return RunDir.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)

    with parallel.open_run(create, config.out) as run:
        parallel.lead(lambda: write_corpus(run.path, index, train.pyramid_or_encoder))
        if both:
            parallel.lead(
                lambda: write_corpus(run.path / "images", images, train.pyramid_or_encoder)
            )
        stream: list[ClipBatches | Alternating] = []

        def batches(first_step: int) -> Iterator[Any]:
            size = parallel.local_batch(train.batch_size)

            def of(kind: str, step: int) -> ClipBatches:
                source = images if kind == "content" else index
                return parallel.in_turn(  # a cache is made by one process
                    lambda: _batches(config, source, clips, size, step, run.path)
                )

            if both and train.motion is not None:
                made = Alternating(train.motion, train.loop.steps, first_step, of)
            else:
                made = of("all", first_step)
            stream.append(made)
            return made

        def describe(batch: Any) -> str:
            return named(batch, index, images)

        model = pretrain.pretrain(
            train,
            batches,
            run,
            probe=probe,
            augment=_augmentation(config),
            teacher=teacher,
            describe=describe,
            start_from=start,
            device=device,
            pace=_pace(config, train, device),
        )
        width = train.pyramid_or_encoder.width
        parallel.lead(lambda: _write_findings(run.path, index, stream, width))
    return model


def _pace(config: PretrainRunConfig, train: PretrainConfig, device: str) -> Pace:
    """Clips of a step, and its operations where all clips have one shape."""
    from .flops import step_flops

    if config.clips.buckets or train.motion is not None:
        return Pace(samples=train.batch_size)
    side = (config.augmentation.size if config.augment else None) or config.clips.size
    frames = 1 if config.images else config.clips.frames
    peak = None
    if torch.device(device).type == "cuda":
        found = peak_flops(torch.cuda.get_device_name(device), train.loop.precision)
        peak = found and found * parallel.world_size()
    flops = step_flops(train, frames, side, side).total
    return Pace(samples=train.batch_size, flops=flops, peak=peak)


def load_encoder(path: str | os.PathLike[str], *, device: str = "cpu") -> TubeletEncoder:
    """A video transformer to freeze, in eval mode.

    Args:
        path: a pretraining run (or one of its checkpoints), whose target encoder it is; or a folder
            that ``tubelet convert`` or ``save_pretrained`` wrote.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another kind (MC-JEPA's pyramid:
            see :func:`load_features`).
    """
    encoder = load_features(path, device=device)
    if not isinstance(encoder, TubeletEncoder):
        raise CheckpointError(
            f"{path} holds a convolutional pyramid (MC-JEPA), and this wants a video transformer: "
            "probes read it, dynamics and teachers do not"
        )
    return encoder


def load_features(path: str | os.PathLike[str], *, device: str = "cpu") -> PretrainedEncoder:
    """Any encoder of ours, frozen and in eval mode: clips uint8 ``[B, T, H, W, 3]`` to tokens
    ``[B, N, D]``. See :func:`load_encoder`."""
    if (Path(path) / MANIFEST).exists():
        encoder = Checkpoint.from_pretrained(str(path)).encoder
    else:
        folder = find_checkpoint(path)
        config = stored_config(folder, PretrainConfig, "a pretrained encoder")
        model = pretrain.build(config)
        load_checkpoint(folder, model=model)
        encoder = model.output
    return encoder.requires_grad_(False).eval().to(device)


def _indexed(config: PretrainRunConfig, *, images: bool) -> CorpusIndex:
    """The corpus, before there is a run: hidden, so that a failure leaves the folder as empty."""
    if not config.videos and not config.images:
        raise ConfigError('videos = "": name a folder of videos (or images = a folder of images)')
    index = index_images if images else index_corpus
    name = ".images.jsonl" if images and config.videos else ".corpus.jsonl"
    try:
        return index(
            config.images if images else config.videos,
            cache_path=Path(config.out) / name,
            max_bad_share=config.clips.max_bad_share,
        )
    except OSError as error:
        raise TubeletError(
            f"cannot write the run folder {config.out}: {error.strerror}; "
            "free some space, fix its permissions or name another"
        ) from error


def _resolved(
    config: PretrainRunConfig, index: CorpusIndex, teacher: TubeletEncoder | None
) -> tuple[PretrainConfig, ClipConfig]:
    """The training config with the objective's parts, the corpus's pixels, the teacher's shape."""
    train = _with_objective(config)
    if config.pixel_stats == "corpus":
        train = train.with_pixels(*pixel_stats(index, seed=train.seed))
    if teacher is not None:
        width = 0 if teacher.config.width == train.encoder.width else teacher.config.width
        predictor = replace(train.predictor, target_width=width)
        train = replace(train, teacher=teacher.config, predictor=predictor)
    return train, replace(config.clips, seed=train.seed)


def _with_objective(config: PretrainRunConfig) -> PretrainConfig:
    """The training config, turned to the objective that is named."""
    if not config.objective:
        return config.train
    return with_objective(config.train, config.objective, images=bool(config.images))


def _batches(
    config: PretrainRunConfig,
    index: CorpusIndex,
    clips: ClipConfig,
    batch_size: int,
    first_step: int,
    run: Path,
) -> ClipBatches:
    """The batches of steps ``first_step``, … of videos or images."""
    if not isinstance(index, ImageIndex):
        return clip_batches(
            index,
            clips,
            batch_size,
            start_step=first_step,
            rank=parallel.rank(),
            world_size=parallel.world_size(),
            workers=config.workers,
            cache=config.cache,
        )
    images = ImageConfig(size=clips.size, seed=clips.seed, max_bad_share=clips.max_bad_share)
    return image_batches(
        index,
        images,
        batch_size,
        start_step=first_step,
        rank=parallel.rank(),
        world_size=parallel.world_size(),
        workers=config.workers,
        cache=run / "cache" if config.cache else None,
    )


def _augmentation(
    config: PretrainRunConfig,
) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    if not config.augment:
        return None
    return lambda video, generator: augment(video, config.augmentation, generator)


def _write_findings(
    run: Path, index: CorpusIndex, stream: list[ClipBatches | Alternating], width: int
) -> None:
    """``corpus.txt`` (unless nothing was left to train) and ``verdict.txt``."""
    if stream:
        atomic_write_text(run / "corpus.txt", f"{index.report()}\n{stream[-1].report()}\n")
    last = next(line for line in reversed(read_metrics(run)) if "clip_std" in line)
    text = verdict({k: math.nan if v is None else v for k, v in last.items()}, width=width)
    atomic_write_text(run / "verdict.txt", text + "\n")
