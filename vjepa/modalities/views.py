"""LeJEPA (arXiv 2511.08544) over tokens of any modality: views agree. No predictor, no teacher.

    view v = the sample drawn, turned (and moved) anew, and a run of its tokens
    z_v = projector(mean of encoder(view v)'s tokens)
    loss = (1 - lambda) mean |z_v - mean of the views|^2 + lambda mean SIGReg(z_v)

Tokens have an order: of a point cloud's, a run is a region; of a skeleton's, a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...core.rng import numpy_generator, stream_seed
from ..blocks import projector
from ..diagnostics import embedding_report
from ..objectives import Latents, Objective, ObjectiveConfig
from .tokens import Modality, TokenEncoder, TokenTransformerConfig, fresh


@dataclass(frozen=True, kw_only=True)
class TokenViewsConfig:
    """Views of a sample, and the projector that compares them."""

    count: int = 2
    """V, views of each sample."""
    keep: tuple[float, float] = (0.5, 1.0)
    """Range of a view's length as a share of the tokens; the same for a step's batch."""
    hidden: int = 256
    """Width of the projector's two hidden layers."""
    width: int = 32
    """Width of the projection, where views agree and SIGReg applies."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"views.count = {self.count}: views can agree from 2 on")
        if not 0 < self.keep[0] <= self.keep[1] <= 1:
            raise ConfigError(f"views.keep = {self.keep}: needs 0 < low <= high <= 1")
        for name in ("hidden", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"views.{name} = {getattr(self, name)}: must be at least 1")


class TokenViewsModel(nn.Module):
    """Encoder, projector (an MLP with batch norm) and objective.

    Args:
        modality, encoder: of the tokens. config, objective: of the views.
        seed: of the views and the directions of SIGReg.
    """

    def __init__(
        self,
        modality: Modality,
        encoder: TokenTransformerConfig,
        config: TokenViewsConfig,
        objective: ObjectiveConfig,
        *,
        seed: int = 0,
    ):
        super().__init__()
        self.modality, self.config, self.seed = modality, config, seed
        self.encoder = fresh(modality, encoder)
        self.projector = projector(encoder.width, config.hidden, config.width)
        self.objective = Objective(objective, {"views"}, seed=seed, latent_dim=config.width)

    @property
    def output(self) -> TokenEncoder:
        """The encoder to keep."""
        return self.encoder

    def latents(self, x: Tensor, step: int, first_sample: int) -> Latents:
        """Projected views ``[V, B, width]`` of stored samples ``x``, of which the first is number
        ``first_sample`` of the run."""
        pooled = []
        for number in range(self.config.count):
            seed = stream_seed(self.seed, "token-views", number)
            drawn = self.modality.prepare(x, seed=seed, first_sample=first_sample)
            seen = self.modality.view(drawn, seed=seed, first_sample=first_sample)
            keep = self._run(number, step).to(x.device).expand(len(x), -1)
            pooled.append(self.encoder(seen, keep).mean(dim=1))
        views = self.projector(torch.cat(pooled)).unflatten(0, (self.config.count, len(x)))
        return Latents(step=step, views=views, global_views=self.config.count)

    def losses(self, x: Tensor, step: int, first_sample: int) -> dict[str, Tensor]:
        """Every term of the objective, and ``loss``, of stored samples."""
        return self.objective(self.latents(x, step, first_sample))

    def after_step(self, step: int, steps: int) -> None:
        """Nothing: there is no teacher."""

    def report(self, x: Tensor, step: int) -> dict[str, float]:
        """Diagnostics on one batch of stored samples: :func:`embedding_report` of the encoder's
        tokens, and of the projected views as predictions; ``clip_std`` is of the samples' mean
        tokens, since the place of a patch differs from cloud to cloud."""
        tokens = self.encoder(self.modality.still(x)).float()
        views = self.latents(x, step, step).views
        assert views is not None
        spread = tokens.mean(dim=1).std(dim=0).mean().item() if len(x) > 1 else 0.0
        return embedding_report(tokens, views) | {"clip_std": spread}

    def _run(self, view: int, step: int) -> Tensor:
        """Token numbers int64 ``[K]`` that view number ``view`` sees at ``step``."""
        count = self.encoder.tokenizer.count
        draw = numpy_generator(self.seed, "view-runs", step, view)
        length = max(1, round(count * draw.uniform(*self.config.keep)))
        start = int(draw.integers(0, count - length + 1))
        return torch.arange(start, start + length)
