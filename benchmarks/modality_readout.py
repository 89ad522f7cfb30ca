"""What studies of point clouds and skeletons read from an encoder: features, facts of collapse."""

from __future__ import annotations

import numpy as np
import torch

from ..vjepa.diagnostics import channel_std, rankme
from ..vjepa.modalities.model import TokenModel, TokenTrainConfig, build
from ..vjepa.modalities.tokens import TokenEncoder, encode
from ..vjepa.modalities.views import TokenViewsModel
from ..vjepa.objectives import Latents
from ..vjepa.objectives.centred import CentredConfig, centred_cross_entropy


def features(encoder: TokenEncoder, samples: torch.Tensor) -> np.ndarray:
    """Mean and largest over the tokens, side by side: float32 ``[M, 2 D]``."""
    tokens = encode(encoder, samples)
    return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1).numpy()


@torch.no_grad()
def untrained(config: TokenTrainConfig, samples: np.ndarray, *, batch: int = 64) -> TokenEncoder:
    """The encoder that training began with, its batch norms set to statistics of the training
    ``samples`` (at most 20 batches): else it would be blamed for the scale of its activations."""
    encoder = build(config).output
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None  # the mean over batches
    if norms:
        encoder.train()
        for start in range(0, min(len(samples), 20 * batch), batch):
            some = torch.from_numpy(samples[start : start + batch])
            encoder.tokenizer(config.modality.still(some))
    return encoder.eval()


@torch.no_grad()
def collapse_facts(model: TokenModel | TokenViewsModel, samples: torch.Tensor) -> dict[str, float]:
    """What :func:`collapse_verdict` asks for, of prepared samples.

    Rank and median deviation are of the layer-normed mean tokens. The error is the squared one of
    the predictions; for a centred cross-entropy, what it exceeds the entropy of its targets by; for
    views, of each view to their mean.
    """
    model.eval()
    pred, target = _pairs(model.latents(samples, 0, 0))
    error = (pred - target).square().mean()
    centred = model.objective.config.centred
    if isinstance(centred, CentredConfig):
        centre = model.objective.terms["centred"].centre
        loss, entropy = centred_cross_entropy(pred, target, centre, centred)  # pyright: ignore
        error = loss - entropy
    tokens = torch.nn.functional.layer_norm(model.output(samples), (model.output.width,))
    means = tokens.mean(dim=1)
    return {
        "error": error.item(),
        "variance": target.flatten(0, 1).var(dim=0).mean().item(),
        "rank": rankme(means),
        "std": channel_std(means)[1],
    }


def _pairs(latents: Latents) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and targets, or views and their mean: ``[B, M, D]`` each."""
    if latents.views is not None:
        views = latents.views.transpose(0, 1)
        return views, views.mean(dim=1, keepdim=True).expand_as(views)
    assert latents.pred is not None
    assert latents.target is not None
    return torch.cat(latents.pred, dim=1), torch.cat(latents.target, dim=1)
