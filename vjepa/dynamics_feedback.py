"""What discriminative feedback judges in a world model: the predicted steps of a window as a set.

    set      the one-step predictions of a window, all tokens of all steps, with their places
    real     the latents that came (constants to the critic, whatever else trains the encoder)
    context  what they were predicted from: each step's tokens, its action, and its time

So the critic of structure asks whether such latents follow each other, and that of coherence
whether they follow from these latents under these actions. See :mod:`.objectives.feedback`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import ConfigError
from .objectives.latents import Latents

if TYPE_CHECKING:
    from .dynamics_config import DynamicsConfig
    from .world_model import WorldModel

EXTRA = 1
"""Numbers beside tokens and actions in a context: the time."""


def check_feedback(config: DynamicsConfig) -> None:
    """Raise ConfigError where feedback cannot be, naming the field."""
    feedback = config.feedback
    if feedback is None:
        return
    if not config.teacher_weight:
        raise ConfigError(
            "teacher_weight = 0: feedback judges one-step predictions; give it a positive weight"
        )
    if feedback.normalise:
        raise ConfigError(
            "feedback.normalise = true: the latents of a world model are not layer-normed, so that "
            "predictions alone would be; set it to false"
        )
    if config.model.futures.on:
        raise ConfigError(
            "feedback judges one prediction, and model.futures makes several: use one of the two"
        )
    if config.model.proprio_dim and config.idm_weight:
        raise ConfigError(
            f"feedback with model.proprio_dim = {config.model.proprio_dim} and idm_weight = "
            f"{config.idm_weight}: their heads read latents of different widths; set one to 0"
        )


def objective_sizes(model: WorldModel, config: DynamicsConfig) -> dict[str, Any]:
    """What the terms must know of the model."""
    if config.feedback is None:
        return {"latent_dim": config.model.latent_dim}
    width = model.latent_dim + config.model.proprio_dim
    parts = (model.encoder, model.head)
    return {
        "latent_dim": width,
        "context_dim": width + model.action_dim + EXTRA,
        "encoder_parameters": sum(p.numel() for part in parts for p in part.parameters()),
    }


def with_sets(known: Latents, z: Tensor, actions: Tensor, grid: tuple[int, int]) -> Latents:
    """``known`` with predictions and targets as sets ``[B, H n, D]``, their places and contexts.

    Args:
        z: ``[B, H + 1, n, D]``, the window's latents. actions: ``[B, H, A]``. grid: of the tokens.
    """
    assert known.pred is not None
    assert known.target is not None
    return replace(
        known,
        pred=tuple(x.flatten(1, 2) for x in known.pred),
        target=tuple(x.flatten(1, 2) for x in known.target),
        context=(step_contexts(z[:, :-1], actions),),
        places=(step_places(actions, grid),),
    )


def step_contexts(z: Tensor, actions: Tensor) -> Tensor:
    """Context tokens ``[B, H n, D + A + 1]`` of latents ``[B, H, n, D]`` and actions ``[B, H,
    A]``; the last number is the time of the step in [0, 1]."""
    steps, tokens = z.shape[1:3]
    time = _times(steps, z)[:, None, None].expand(len(z), steps, tokens, 1)
    moves = actions.to(z)[:, :, None].expand(-1, -1, tokens, -1)
    return torch.cat([z, moves, time], dim=-1).flatten(1, 2)


def step_places(actions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where predicted tokens are, ``[B, H n, 3]`` (time, row, column) in [0, 1]."""
    batch, steps = actions.shape[:2]
    axes = [_times(count, actions) for count in (steps, *grid)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    return places.expand(batch, -1, -1)


def _times(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device, dtype=torch.float32) / max(1, count - 1)
