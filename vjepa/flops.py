"""Floating-point operations of encoders, predictors and training steps, from their configs.

Counted are the matrix products, two operations for each multiply-add, of every layer and of
attention; norms, softmax, GELU, rotations, the loss and the optimiser are left out, as is custom
(PaLM, arXiv 2204.02311, appendix B). A backward pass counts as two forward passes, whatever is
recomputed in it: these are operations that the model needs, not those that an implementation does.

>>> config = EncoderConfig(width=192, depth=12, heads=3)
>>> round(encoder_flops(config, config.grid(16, 224, 224)) / 1e9)    # ViT-Ti, 1568 tokens
41
"""

from __future__ import annotations

from dataclasses import dataclass

from .encoder import EncoderConfig
from .masked import draw
from .positions import Grid
from .predictor import PredictorConfig
from .pretrain import PretrainConfig

_DRAWS = 8  # steps whose masks are drawn to know how many tokens they keep


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Operations of one training step, by part."""

    teacher: float
    """Forward pass of the target encoder; 0 where it is the encoder itself."""
    encoder: float
    """Forward and backward pass of the encoder."""
    predictor: float
    """Forward and backward pass of the predictor, or of the projector of multi-view methods."""

    @property
    def total(self) -> float:
        """Of the whole step."""
        return self.teacher + self.encoder + self.predictor


def block_flops(tokens: int, width: int, mlp_ratio: float = 4.0) -> float:
    """Forward operations of one transformer block on one sample of ``tokens`` tokens."""
    linear = tokens * width * (4 * width + 2 * round(width * mlp_ratio))
    return 2.0 * (linear + 2 * tokens * tokens * width)


def encoder_flops(config: EncoderConfig, grid: Grid, kept: int | None = None) -> float:
    """Forward operations of the encoder on one clip.

    Args:
        grid: the clip's token grid. kept: how many of its tokens are encoded; None: all.
    """
    c, tokens = config, grid.size if kept is None else kept
    frames = 1 if c.image_patches and grid.t == 1 else c.tubelet
    embed = 2.0 * tokens * c.width * 3 * frames * c.patch**2
    return embed + c.depth * block_flops(tokens, c.width, c.mlp_ratio)


def predictor_flops(config: PredictorConfig, latent_dim: int, context: int, target: int) -> float:
    """Forward operations of the masked predictor on one sample.

    Args:
        latent_dim: width of the encoder's tokens. context, target: numbers of tokens.
    """
    c = config
    inner = latent_dim * latent_dim * c.levels if c.levels > 1 else 0
    embed = 2.0 * context * (inner + latent_dim * c.width)
    out = c.levels * (c.target_width or latent_dim)
    read = 2.0 * c.width * out * (target + (context if c.context_head else 0))
    return embed + read + c.depth * block_flops(context + target, c.width, c.mlp_ratio)


def step_flops(config: PretrainConfig, frames: int, height: int, width: int) -> StepFlops:
    """Operations of one step of pretraining on clips of ``frames`` x ``height`` x ``width``.

    Masks are drawn for a few steps to count the tokens they keep.
    """
    if config.by_views:
        return _views(config, frames)
    c, grid = config, config.encoder.grid(frames, height, width)
    batch = c.batch_size
    encoder = predictor = 0.0
    for step in range(_DRAWS):
        for masks in draw(c.masks, grid, batch, seed=c.seed, first_sample=step * batch):
            rows, kept = masks.context.shape
            share = rows / batch  # ragged masks come one by one
            encoder += share * encoder_flops(c.encoder, grid, kept)
            predictor += share * sum(
                predictor_flops(c.predictor, c.encoder.width, kept, ids.shape[1])
                for ids in masks.targets
            )
    teacher = 0.0
    if c.objective.target.kind == "ema":
        teacher = encoder_flops(c.encoder, grid)
    elif c.teacher is not None:
        teacher = encoder_flops(c.teacher, c.teacher.grid(frames, height, width))
    shared = encoder_flops(c.encoder, grid) if c.objective.target.kind == "shared" else 0.0
    if c.objective.target.stop_gradient:
        shared /= 3
    return StepFlops(
        teacher=batch * teacher,
        encoder=3 * batch * (encoder / _DRAWS + shared),
        predictor=3 * batch * predictor / _DRAWS,
    )


def _views(config: PretrainConfig, frames: int) -> StepFlops:
    c, views = config.encoder, config.multiview.views
    sizes = ((views.global_views, views.global_size), (views.local_views, views.local_size))
    encoder = sum(n * encoder_flops(c, c.grid(frames, side, side)) for n, side in sizes if n)
    hidden, out = config.multiview.hidden, config.multiview.width
    projector = 2.0 * (c.width * hidden + hidden * hidden + hidden * out)
    count = views.global_views + views.local_views
    return StepFlops(
        teacher=0.0,
        encoder=3 * config.batch_size * encoder,
        predictor=3 * config.batch_size * count * projector,
    )
