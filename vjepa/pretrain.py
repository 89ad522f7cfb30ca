"""V-JEPA pretraining: predict the latents of masked tubelets from the visible ones.

    loss = mean over mask kinds of mean |predictor(context) - LN(target encoder(clip))|^p / p

The target encoder is an exponential moving average of the context encoder and sees the whole clip;
its tokens are layer-normed without affine. arXiv 2404.08471 equation 1; V-JEPA 2 appendix A.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.rng import stream_seed, torch_generator
from ..core.run import RunDir
from .diagnostics import embedding_report, pixel_probe
from .encoder import EncoderConfig, TubeletEncoder
from .engine import LoopConfig, fit
from .masks import MaskConfig, long_range, sample_masks, short_range
from .optim import OptimConfig, ema_momentum, ema_update
from .predictor import MaskedPredictor, PredictorConfig


class VideoBatch(Protocol):
    """What the loader hands over: ``video`` uint8 ``[B, T, H, W, 3]``."""

    @property
    def video(self) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that determines a pretraining run, besides the corpus."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Context and target encoder."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Masked predictor."""
    short: MaskConfig = field(default_factory=short_range)
    """First mask kind."""
    long: MaskConfig = field(default_factory=long_range)
    """Second mask kind."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedules."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Steps, logging and checkpoints."""
    batch_size: int = 24
    """Clips per step."""
    ema: tuple[float, float] = (0.99925, 0.99925)
    """Momentum of the target encoder at the first and last step."""
    loss_exponent: float = 1.0
    """p of the loss mean |z - h|^p / p: 1 as published. On scenes that are mostly still background
    the median prediction that p = 1 rewards is the background itself; 2 asks for the mean."""
    seed: int = 0
    """Seed of the weights, the masks and the clips."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size = {self.batch_size}: must be at least 1")
        if self.loss_exponent < 1:
            raise ConfigError(f"loss_exponent = {self.loss_exponent}: must be at least 1")
        if not all(0 <= m <= 1 for m in self.ema):
            raise ConfigError(f"ema = {self.ema}: momenta lie in [0, 1]")
        if self.predictor.mask_tokens < 2:
            raise ConfigError("predictor.mask_tokens = 1: there are two mask kinds; use 2")


class PretrainModel(nn.Module):
    """Context encoder, its moving average (the target encoder) and the masked predictor."""

    def __init__(self, config: PretrainConfig):
        super().__init__()
        self.encoder = TubeletEncoder(config.encoder)
        self.predictor = MaskedPredictor(config.predictor, latent_dim=config.encoder.width)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    @torch.no_grad()
    def targets(self, video: Tensor) -> Tensor:
        """Layer-normed target tokens ``[B, N, D]`` of whole clips."""
        tokens = self.target(video)
        return F.layer_norm(tokens, tokens.shape[-1:])


def build(config: PretrainConfig, *, device: str = "cpu") -> PretrainModel:
    """A model with weights drawn from the seed's own stream; the global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "weights"))
        return PretrainModel(config).to(device)


def masked_losses(
    model: PretrainModel, config: PretrainConfig, video: Tensor, step: int
) -> dict[str, Tensor]:
    """The terms of one step: ``short``, ``long`` and their mean ``loss``.

    The target encoder runs once; the context encoder once per mask kind, on its kept tubelets only.
    """
    grid = config.encoder.grid(*video.shape[1:4])
    targets = model.targets(video)
    terms: dict[str, Tensor] = {}
    for index, (name, kind) in enumerate((("short", config.short), ("long", config.long))):
        masks = sample_masks(
            kind, grid, len(video), seed=config.seed, name=name, first_sample=step * len(video)
        )
        context_ids, target_ids = masks.context.to(video.device), masks.target.to(video.device)
        context = model.encoder(video, keep=context_ids)
        predicted = model.predictor(context, context_ids, target_ids, grid, index)
        wanted = targets.gather(1, target_ids.unsqueeze(-1).expand(-1, -1, targets.shape[-1]))
        p = config.loss_exponent
        terms[name] = (predicted - wanted).abs().pow(p).mean() / p
    terms["loss"] = (terms["short"] + terms["long"]) / 2
    return terms


def pretrain(
    config: PretrainConfig,
    batches: Callable[[int], Iterable[VideoBatch]],
    run: RunDir,
    *,
    probe: Callable[[TubeletEncoder], dict[str, float]] | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    device: str = "cpu",
) -> PretrainModel:
    """Train (or go on training) a V-JEPA encoder; see :func:`tubelet.vjepa.engine.fit`.

    Args:
        config: the run. batches: ``batches(first_step)`` iterates over clips of ``batch_size``.
        run: an open run folder; the newest checkpoint in it is resumed.
        probe: an online probe of the target encoder with labels, run at every report.
        augment: applied to the uint8 clips on the device, with the step's own generator.

    Returns:
        the trained model; ``model.target`` is the encoder to freeze.
    """
    model = build(config, device=device)

    def prepare(batch: VideoBatch, step: int) -> Tensor:
        video = batch.video.to(device)
        if augment is None:
            return video
        return augment(video, torch_generator(config.seed, "augment", step))

    def losses(batch: VideoBatch, step: int) -> dict[str, Tensor]:
        return masked_losses(model, config, prepare(batch, step), step)

    def after_step(step: int) -> None:
        ema_update(model.target, model.encoder, ema_momentum(*config.ema, step, config.loop.steps))

    def report(batch: VideoBatch, step: int) -> dict[str, float]:
        video = batch.video.to(device)
        return collapse_report(model, config, video, step) | (probe(model.target) if probe else {})

    fit(
        model,
        run,
        config,
        loop=config.loop,
        optim=config.optim,
        batches=batches,
        losses=losses,
        after_step=after_step,
        report=report,
        device=device,
        description="V-JEPA",
    )
    return model


def collapse_report(
    model: PretrainModel, config: PretrainConfig, video: Tensor, step: int
) -> dict[str, float]:
    """Diagnostics of targets and predictions on one batch, and how much predicting beats a mean.

    Besides :func:`embedding_report`: ``pixel_r2`` (a label-free linear probe) and
    ``loss_over_mean``: short-range loss over that of predicting each token's batch mean; under 1
    the context is being used.
    """
    grid = config.encoder.grid(*video.shape[1:4])
    targets = model.targets(video)
    masks = sample_masks(
        config.short, grid, len(video), seed=config.seed, name="report", first_sample=step
    )
    context_ids, target_ids = masks.context.to(video.device), masks.target.to(video.device)
    context = model.encoder(video, keep=context_ids)
    predicted = model.predictor(context, context_ids, target_ids, grid, 0)
    index = target_ids.unsqueeze(-1).expand(-1, -1, targets.shape[-1])
    wanted = targets.gather(1, index)
    mean = targets.mean(0, keepdim=True).expand_as(targets).gather(1, index)
    error, baseline = (predicted - wanted).abs().mean(), (mean - wanted).abs().mean()
    return embedding_report(wanted, predicted) | {
        "pixel_r2": pixel_probe(targets, video),
        "loss_over_mean": (error / baseline.clamp_min(1e-9)).item(),
    }
