"""Masked latent prediction: what I-JEPA, V-JEPA 1, 2, 2.1, C-JEPA and SALT have in common.

    context = encoder(visible tokens)
    predicted = predictor(context, places of the hidden tokens)
    target = LN(teacher(whole clip)), at the hidden tokens

Which masks, which teacher and which loss is data: :class:`MaskingConfig` and the objective.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .diagnostics import embedding_report, pixel_probe
from .encoder import EncoderConfig, TubeletEncoder
from .mask_images import ImageMaskConfig, sample_image_masks
from .masks import (
    MaskConfig,
    context_distance,
    long_range,
    sample_masks,
    sample_packed_masks,
    short_range,
)
from .objectives import Latents, Objective, ObjectiveConfig, Target
from .parallel import WHOLE, Part
from .positions import Grid
from .predictor import MaskedJob, MaskedPredictor, PredictorConfig


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Which tokens are hidden."""

    style: Literal["video", "image"] = "video"
    """V-JEPA's two mask kinds, short and long, each with its own context and mask token; or
    I-JEPA's several target blocks predicted one by one from one context."""
    short: MaskConfig = field(default_factory=short_range)
    """First kind of the video style."""
    long: MaskConfig = field(default_factory=long_range)
    """Second kind of the video style."""
    image: ImageMaskConfig = field(default_factory=ImageMaskConfig)
    """The image style."""

    @property
    def ragged(self) -> bool:
        """Whether samples keep the lengths that were drawn. Each is then a set of its own, and the
        loss is the mean over samples of the mean over a sample's tokens."""
        return self.style == "video" and "ragged" in (self.short.equalise, self.long.equalise)


class Selection(NamedTuple):
    """One context and the token sets to predict from it."""

    context: Tensor
    """int64 ``[B, K]``."""
    targets: tuple[Tensor, ...]
    """int64 ``[B, M_j]`` each."""
    mask_index: int
    """Mask token that stands in for the targets."""
    sample: int | None = None
    """Of ragged masks: the one sample of the batch that this is for (B is 1); None: all B."""

    def rows(self, rows: slice) -> Selection | None:
        """Its share in these samples of the batch, which become the first ones; None: no share."""
        if self.sample is None:
            return self._replace(
                context=self.context[rows], targets=tuple(ids[rows] for ids in self.targets)
            )
        inside = rows.start <= self.sample < rows.stop
        return self._replace(sample=self.sample - rows.start) if inside else None


def draw(
    config: MaskingConfig, grid: Grid, batch: int, *, seed: int, first_sample: int
) -> list[Selection]:
    """The masks of samples ``first_sample …``; a function of its arguments alone."""
    where = {"seed": seed, "first_sample": first_sample}
    if config.style == "image":
        masks = sample_image_masks(config.image, grid, batch, name="image", **where)
        return [Selection(masks.context, tuple(masks.targets), 0)]
    kinds = list(enumerate((("short", config.short), ("long", config.long))))
    if config.ragged:
        drawn = [
            (i, sample_packed_masks(kind, grid, batch, name=name, **where))
            for i, (name, kind) in kinds
        ]
        return [
            Selection(context[None], (target[None],), i, n)
            for i, masks in drawn
            for n, (context, target) in enumerate(
                zip(masks.context.split(), masks.target.split(), strict=True)
            )
        ]
    same = [(i, sample_masks(kind, grid, batch, name=name, **where)) for i, (name, kind) in kinds]
    return [Selection(masks.context, (masks.target,), i) for i, masks in same]


class MaskedModel(nn.Module):
    """Context encoder, teacher, masked predictor, and the objective that trains them.

    Args:
        encoder, predictor, masking, objective: configs; that they fit each other is checked by
            :class:`tubelet.vjepa.pretrain.PretrainConfig`.
        seed: of masks (and of the objective's random directions).
        teacher: the frozen teacher, for objectives with one (SALT).
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        predictor: PredictorConfig,
        masking: MaskingConfig,
        objective: ObjectiveConfig,
        *,
        seed: int = 0,
        teacher: TubeletEncoder | None = None,
    ):
        super().__init__()
        self.masking, self.seed = masking, seed
        self.encoder = TubeletEncoder(encoder)
        self.predictor = MaskedPredictor(predictor, latent_dim=encoder.width)
        self.target = Target(objective.target, self.encoder, teacher)
        self.levels = objective.target.levels > 1
        provides = {"pred", "target", "context", "places"}
        if predictor.context_head:
            provides |= {"context_pred", "context_target", "context_distance"}
        width = objective.target.levels * (predictor.target_width or encoder.width)
        self.objective = Objective(
            objective,
            provides,
            seed=seed,
            latent_dim=width,
            context_dim=objective.target.levels * encoder.width,
            encoder_parameters=sum(p.numel() for p in self.encoder.parameters()),
        )

    @property
    def output(self) -> TubeletEncoder:
        """The encoder to keep: the moving average where there is one, else the trained one."""
        averaged = self.target.config.kind == "ema" and self.target.teacher is not None
        chosen = self.target.teacher if averaged else self.encoder
        assert isinstance(chosen, TubeletEncoder)
        return chosen

    def targets(self, video: Tensor) -> Tensor:
        """Normalised target tokens ``[B, N, levels * D]`` of whole clips."""
        return self.target(self.encoder, video, all_levels=self.levels)

    def latents(self, video: Tensor, step: int, part: Part = WHOLE) -> Latents:
        """Predictions and targets of one step; the masks are those of ``step``.

        With ``part``, ``video`` is that part of the step's batch, and its masks are its rows of the
        masks of the whole batch, whose lengths are equal. The teacher runs once, the encoder once
        on all contexts packed together, and so does the predictor.
        """
        grid = self.encoder.grid(video)
        batch, rows = len(video) * part.of, part.rows(len(video))
        whole = draw(self.masking, grid, batch, seed=self.seed, first_sample=step * batch)
        parts = (selection.rows(rows) for selection in whole)
        return self.predict(video, grid, [s for s in parts if s is not None], step)

    def predict(
        self, video: Tensor, grid: Grid, selections: list[Selection], step: int = 0
    ) -> Latents:
        """As :meth:`latents`, for masks that were drawn already."""
        wanted = self.targets(video)
        keeps = [s.context.to(video.device) for s in selections]
        samples = [s.sample for s in selections]
        contexts = self.encoder.packed(video, keeps, samples, all_levels=self.levels)
        jobs = [
            MaskedJob(context, keep, ids.to(video.device), s.mask_index)
            for s, keep, context in zip(selections, keeps, contexts, strict=True)
            for ids in s.targets
        ]
        clips = [
            wanted if s.sample is None else wanted[s.sample : s.sample + 1]
            for s in selections
            for _ in s.targets
        ]
        out = self.predictor.packed(jobs, grid, image=video.shape[1] == 1)
        latents = Latents(
            step=step,
            pred=tuple(target for target, _ in out),
            target=tuple(_at(x, job.target_ids) for x, job in zip(clips, jobs, strict=True)),
        )
        if "places" in self.objective.needs:
            latents = replace(
                latents,
                context=tuple(job.context for job in jobs),
                places=tuple(token_places(job.target_ids, grid) for job in jobs),
            )
        if not self.predictor.config.context_head:
            return latents
        return replace(
            latents,
            context_pred=tuple(context for _, context in out if context is not None),
            context_target=tuple(
                _at(x, job.context_ids) for x, job in zip(clips, jobs, strict=True)
            ),
            context_distance=tuple(
                context_distance(job.context_ids, job.target_ids, grid) for job in jobs
            ),
        )

    def losses(self, video: Tensor, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """Every term of the objective, and ``loss``, for uint8 clips ``[B, T, H, W, 3]``: the
        step's batch, or ``part`` of it."""
        return self.objective(self.latents(video, step, part))

    def after_step(self, step: int, steps: int) -> None:
        """Move the teacher, after the optimiser's step."""
        self.target.update(self.encoder, step, steps)

    def report(self, video: Tensor, step: int) -> dict[str, float]:
        """Diagnostics of targets and predictions on one batch, and of what context is worth.

        Besides :func:`embedding_report`: ``pixel_r2`` (a label-free linear probe) and
        ``loss_over_mean``: absolute error of the first kind's predictions over that of predicting
        each token's batch mean; under 1 the context is being used.
        """
        grid = self.encoder.grid(video)
        drawn = draw(self.masking, grid, len(video), seed=self.seed, first_sample=step)
        first = [s._replace(targets=s.targets[:1]) for s in drawn if s.mask_index == 0]
        latents = self.predict(video, grid, first)
        assert latents.pred is not None
        assert latents.target is not None
        predicted, wanted = torch.cat(latents.pred, dim=1), torch.cat(latents.target, dim=1)
        targets = self.targets(video)
        mean = targets.mean(0, keepdim=True)
        ids = [s.targets[0].to(video.device) for s in first]
        guess = torch.cat([_at(mean.expand(len(i), -1, -1), i) for i in ids], dim=1)
        baseline = (guess - wanted).abs().mean()
        error = (predicted - wanted).abs().mean()
        return embedding_report(wanted, predicted) | {
            "pixel_r2": pixel_probe(targets, video),
            "loss_over_mean": (error / baseline.clamp_min(1e-9)).item(),
        }


def token_places(ids: Tensor, grid: Grid) -> Tensor:
    """Where tokens ``[B, M]`` are: ``[B, M, 3]`` (time, row, column) in [0, 1]."""
    axes = (ids // (grid.h * grid.w), ids // grid.w % grid.h, ids % grid.w)
    return torch.stack([x / max(1, n - 1) for x, n in zip(axes, grid, strict=True)], dim=-1)


def _at(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens ``[B, M, D]`` of ``tokens [B, N, D]`` at ``ids [B, M]``."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
