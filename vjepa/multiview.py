"""Views that agree: LeJEPA (arXiv 2511.08544) on images, LeV-JEPA on video. No predictor, no
teacher.

    z_v = projector(mean of encoder(view v)'s tokens)
    loss = (1 - lambda) mean |z_v - mean of the global views|^2 + lambda mean SIGReg(z_v)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.rng import torch_generator
from ..datasets.views import ViewConfig, make_views
from .blocks import projector
from .diagnostics import embedding_report, pixel_probe
from .encoder import EncoderConfig, TubeletEncoder
from .objectives import Latents, Objective, ObjectiveConfig
from .parallel import WHOLE, Part


@dataclass(frozen=True, kw_only=True)
class MultiviewConfig:
    """Views and the projector that compares them."""

    views: ViewConfig = field(default_factory=ViewConfig)
    """How many views, and how they are cut and coloured."""
    hidden: int = 2048
    """Width of the projector's two hidden layers."""
    width: int = 64
    """Width of the projection, where views agree and SIGReg applies."""

    def __post_init__(self) -> None:
        for name in ("hidden", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"multiview.{name} = {getattr(self, name)}: must be at least 1")


class MultiviewModel(nn.Module):
    """Encoder, projector (an MLP with batch norm) and objective.

    Args:
        encoder, config, objective: configs. seed: of the views and the random directions.
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        config: MultiviewConfig,
        objective: ObjectiveConfig,
        *,
        seed: int = 0,
    ):
        super().__init__()
        self.config, self.seed = config, seed
        self.encoder = TubeletEncoder(encoder)
        self.projector = projector(encoder.width, config.hidden, config.width)
        self.objective = Objective(objective, {"views"}, seed=seed, latent_dim=config.width)

    @property
    def output(self) -> TubeletEncoder:
        """The encoder to keep."""
        return self.encoder

    def latents(self, video: Tensor, step: int, part: Part = WHOLE) -> Latents:
        """Projected views ``[V, B, D]`` of uint8 clips ``[B, T, H, W, 3]``, global ones first.

        With ``part``, ``video`` is that part of the step's batch. A clip's views are drawn from the
        stream of its number in the run, whichever process holds it.
        """
        batch = len(video)
        first = step * part.of * batch + part.rows(batch).start
        drawn = [
            make_views(clip, self.config.views, torch_generator(self.seed, "views", sample))
            for sample, clip in enumerate(video.split(1), start=first)
        ]
        views = [torch.cat(clips) for clips in zip(*drawn, strict=True)]
        pooled: list[Tensor] = []
        for group in _by_size(views):  # views of one size go through the encoder together
            tokens = self.encoder(torch.cat(group))
            pooled += tokens.mean(dim=1).split(batch)
        projected = self.projector(torch.cat(pooled)).unflatten(0, (len(views), batch))
        return Latents(step=step, views=projected, global_views=self.config.views.global_views)

    def losses(self, video: Tensor, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """Every term of the objective, and ``loss``, for uint8 clips ``[B, T, H, W, 3]``: the
        step's batch, or ``part`` of it."""
        return self.objective(self.latents(video, step, part))

    def after_step(self, step: int, steps: int) -> None:
        """Nothing: there is no teacher."""

    def report(self, video: Tensor, step: int) -> dict[str, float]:
        """Diagnostics on one batch: :func:`embedding_report` of the encoder's tokens (and of the
        projected views as predictions), and ``pixel_r2``, a label-free linear probe."""
        tokens = self.encoder(video)
        views = self.latents(video, step).views
        assert views is not None
        return embedding_report(tokens, views) | {"pixel_r2": pixel_probe(tokens, video)}


def _by_size(views: list[Tensor]) -> list[list[Tensor]]:
    """Views in their order, neighbours of one size together."""
    groups: list[list[Tensor]] = []
    for view in views:
        if groups and groups[-1][0].shape == view.shape:
            groups[-1].append(view)
        else:
            groups.append([view])
    return groups
