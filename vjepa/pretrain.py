"""Pretraining an encoder on video or images: one config and one loop for every objective.

The objective decides the method: with views (LeJEPA, LeV-JEPA) the model is
:class:`~.multiview.MultiviewModel`; with predictions of hidden tokens (I-JEPA, V-JEPA and the rest)
it is :class:`~.masked.MaskedModel`. MC-JEPA, whose encoder is no transformer and whose losses are
its own, is :class:`~.motion.MotionModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.pace import Pace
from ..core.rng import stream_seed, torch_generator
from ..core.run import RunDir
from .alarms import watched
from .checkpoint import latest_checkpoint, load_checkpoint
from .encoder import EncoderConfig, TubeletEncoder
from .engine import LoopConfig, fit
from .masked import MaskedModel, MaskingConfig
from .motion import MotionConfig, MotionModel, PyramidConfig, PyramidEncoder
from .multiview import MultiviewConfig, MultiviewModel
from .objectives import ObjectiveConfig, preset
from .objectives.presets import vjepa2
from .optim import OptimConfig
from .parallel import Part, local_batch, rank, world_size
from .positions import PositionConfig
from .predictor import PredictorConfig

Triple = tuple[float, float, float]
PretrainModel = MaskedModel | MultiviewModel | MotionModel
PretrainedEncoder = TubeletEncoder | PyramidEncoder


class _Piece(NamedTuple):
    """Part of a step's batch, on the device."""

    video: Tensor
    part: Part


class VideoBatch(Protocol):
    """What the loader hands over: ``video`` uint8 ``[B, T, H, W, 3]``."""

    @property
    def video(self) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that determines a pretraining run, besides the corpus."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Encoder (and teacher)."""
    objective: ObjectiveConfig = field(default_factory=vjepa2)
    """What is learned: terms with weights, and where targets come from."""
    teacher: EncoderConfig | None = None
    """Architecture of the frozen teacher, for objectives with one."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Predictor of masked methods."""
    masks: MaskingConfig = field(default_factory=MaskingConfig)
    """Masks of masked methods."""
    multiview: MultiviewConfig = field(default_factory=MultiviewConfig)
    """Views and projector of multi-view methods."""
    motion: MotionConfig | None = None
    """MC-JEPA, in place of encoder, objective, predictor, masks and multiview."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedules."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Steps, logging and checkpoints."""
    batch_size: int = 24
    """Clips per step, of all processes together."""
    seed: int = 0
    """Seed of the weights, the masks, the views and the clips."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size = {self.batch_size}: must be at least 1")
        if self.motion is not None:
            self.motion.check_run(self.loop, self.batch_size)
            return
        if not self.by_views:
            self._check_masked()
        self._check_accumulation()

    @property
    def pyramid_or_encoder(self) -> EncoderConfig | PyramidConfig:
        """Architecture of the encoder that is trained."""
        return self.encoder if self.motion is None else self.motion.encoder

    def with_pixels(self, mean: Triple, std: Triple) -> PretrainConfig:
        """The same with these pixel statistics."""
        if self.motion is None:
            return replace(self, encoder=replace(self.encoder, pixel_mean=mean, pixel_std=std))
        encoder = replace(self.motion.encoder, pixel_mean=mean, pixel_std=std)
        return replace(self, motion=replace(self.motion, encoder=encoder))

    @property
    def by_views(self) -> bool:
        """Whether the method compares views rather than predicts hidden tokens."""
        return self.objective.views is not None

    def _check_accumulation(self) -> None:
        parts = self.loop.accumulate
        batch_terms = ("centred", "views", "sigreg", "vicreg", "feedback")
        whole = [n for n in batch_terms if getattr(self.objective, n) is not None]
        if parts > 1 and whole:
            raise ConfigError(
                f"loop.accumulate = {parts}: {', '.join(whole)} of the objective compares the "
                "samples of a batch, so that its parts do not add up to it; set it to 1"
            )
        if self.batch_size % parts:
            raise ConfigError(
                f"batch_size = {self.batch_size} does not fall into loop.accumulate = {parts} "
                "equal parts"
            )

    def _check_masked(self) -> None:
        levels = self.objective.target.levels
        if levels not in (1, len(self.encoder.levels)):
            raise ConfigError(
                f"objective.target.levels = {levels}, but the encoder gives out "
                f"{len(self.encoder.levels)} levels (encoder.levels = {self.encoder.levels})"
            )
        if self.predictor.levels != levels:
            raise ConfigError(
                f"predictor.levels = {self.predictor.levels} must be objective.target.levels = "
                f"{levels}"
            )
        if self.objective.context is not None and not self.predictor.context_head:
            raise ConfigError(
                "the objective has a loss on visible tokens: set predictor.context_head = true"
            )
        kinds = 2 if self.masks.style == "video" else 1
        if self.predictor.mask_tokens < kinds:
            raise ConfigError(
                f"predictor.mask_tokens = {self.predictor.mask_tokens}, for {kinds} mask kinds"
            )


def with_objective(config: PretrainConfig, name: str, *, images: bool = False) -> PretrainConfig:
    """``config`` turned to the published objective ``name``, with the parts that it needs: I-JEPA's
    masks and sin-cos positions (JeDi's too, on ``images``), V-JEPA 2.1's levels and context head.

    Raises:
        ConfigError: no such objective (with the nearest name), or one for world models.
    """
    objective = preset(name)
    if objective.multistep or (objective.sigreg and objective.sigreg.on == "sequence"):
        raise ConfigError(
            f"objective {name!r} trains a world model on trajectories: that is `tubelet train`"
        )
    changed = replace(config, objective=objective) if objective.target.levels == 1 else config
    if name in ("ijepa", "cjepa") or (images and name == "jedi"):
        flat = PositionConfig(kind="sincos", axes="wh")
        return replace(
            changed,
            masks=replace(config.masks, style="image"),
            encoder=replace(config.encoder, position=flat, tubelet=1),
            predictor=replace(config.predictor, position=flat),
        )
    if name == "vjepa2.1":
        depth, count = config.encoder.depth, objective.target.levels
        if depth < count:
            raise ConfigError(f"encoder.depth = {depth}: {name} wants at least {count} blocks")
        levels = tuple(round(depth * (i + 1) / count) for i in range(count))
        return replace(
            config,
            objective=objective,
            encoder=replace(config.encoder, levels=levels),
            predictor=replace(config.predictor, levels=count, context_head=True),
        )
    return changed


def build(
    config: PretrainConfig, *, teacher: TubeletEncoder | None = None, device: str = "cpu"
) -> PretrainModel:
    """A model with weights drawn from the seed's own stream; the global generator is untouched.

    Args:
        teacher: the frozen teacher, for objectives with one. Without it a teacher of the config's
            architecture is made whose weights are those of a checkpoint, once that is loaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "weights"))
        if teacher is None and config.teacher is not None:
            teacher = TubeletEncoder(config.teacher).eval()
        if config.motion is not None:
            model: PretrainModel = MotionModel(
                config.motion, steps=config.loop.steps, seed=config.seed
            )
        elif config.by_views:
            model = MultiviewModel(
                config.encoder, config.multiview, config.objective, seed=config.seed
            )
        else:
            model = MaskedModel(
                config.encoder,
                config.predictor,
                config.masks,
                config.objective,
                seed=config.seed,
                teacher=teacher,
            )
    return model.to(device)


def pretrain(
    config: PretrainConfig,
    batches: Callable[[int], Iterable[VideoBatch]],
    run: RunDir,
    *,
    probe: Callable[[Any], dict[str, float]] | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    teacher: TubeletEncoder | None = None,
    describe: Callable[[VideoBatch], str] = lambda batch: "",
    start_from: Path | None = None,
    device: str = "cpu",
    pace: Pace | None = None,
) -> PretrainModel:
    """Train (or go on training) an encoder; see :func:`tubelet.vjepa.engine.fit`.

    Args:
        config: the run. batches: ``batches(first_step)`` iterates over this process's clips:
            ``batch_size``, or its equal part of them.
        run: an open run folder; the newest checkpoint in it is resumed.
        probe: an online probe of the encoder with labels, run at every report: by process 0, and
            with ``loop.shard`` by all alike.
        augment: applied to uint8 clips ``[1, T, H, W, 3]`` one by one on the device, each with the
            generator of its number in the run.
        teacher: the frozen teacher, for objectives with one.
        describe: names a batch in errors. start_from: a checkpoint whose weights and optimiser's
            moments a new run starts with.

    Raises:
        ConfigError: processes that do not divide the batch.

    Returns:
        the trained model; ``model.output`` is the encoder to freeze.
    """
    model = build(config, teacher=teacher, device=device)
    laid_out = round(config.optim.stretch * config.loop.steps)

    if local_batch(config.batch_size) % config.loop.accumulate:
        raise ConfigError(
            f"{local_batch(config.batch_size)} clips per process do not fall into loop.accumulate "
            f"= {config.loop.accumulate} equal parts"
        )

    def split(batch: VideoBatch, parts: int) -> list[_Piece]:
        pieces = batch.video.to(device).chunk(parts)
        first, of = rank() * parts, world_size() * parts
        return [_Piece(piece, Part(first + i, of)) for i, piece in enumerate(pieces)]

    def losses(piece: _Piece, step: int) -> dict[str, Tensor]:
        video, part = piece
        if augment is not None:
            first = step * part.of * len(video) + part.rows(len(video)).start
            video = torch.cat(
                [
                    augment(clip, torch_generator(config.seed, "augment", sample))
                    for sample, clip in enumerate(video.split(1), start=first)
                ]
            )
        return model.losses(video, step, part)

    def report(batch: VideoBatch, step: int) -> dict[str, float]:
        values = model.report(batch.video.to(device), step)
        return values | (probe(model.output) if probe else {})

    fit(
        model,
        watched(run, config.objective.feedback),
        config,
        loop=config.loop,
        optim=config.optim,
        batches=batches,
        losses=losses,
        after_step=lambda step: model.after_step(step, laid_out),
        report=report,
        split=split,
        describe=describe,
        start_from=start_from,
        device=device,
        description="pretrain",
        pace=pace,
    )
    return _whole(model, config, run, device) if config.loop.shard else model


def _whole(model: PretrainModel, config: PretrainConfig, run: RunDir, device: str) -> PretrainModel:
    """A sharded model's last checkpoint as a model that needs no other process."""
    checkpoint = latest_checkpoint(run.path)
    if world_size() == 1 or checkpoint is None:
        return model
    loaded = build(config, device=device)
    load_checkpoint(checkpoint, model=loaded)
    return loaded.eval()
