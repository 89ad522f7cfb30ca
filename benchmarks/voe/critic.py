"""Surprise of a model with a critic: prediction error, and how little what came looks right to it.

    surprise = error + beta * (-D(context, what came))

D is the critic of discriminative feedback (JeDi-JEPA), kept with the model it was trained beside.
It judges what came, not what was predicted: predictions are the same for two videos with one
beginning, however they end. It judges the future of a window as one set, so that its share is the
same at every token of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...core.errors import CheckpointError, ConfigError
from ...vjepa import pretrain
from ...vjepa.checkpoint import find_checkpoint, load_checkpoint, load_config
from ...vjepa.dynamics_feedback import step_contexts, step_places
from ...vjepa.masked import MaskedModel, token_places
from ...vjepa.objectives import Latents
from ...vjepa.objectives.feedback import Feedback
from ...vjepa.objectives.targets import normalise
from ...vjepa.pretrain import PretrainConfig
from ...vjepa.train_recipe import load_world_model
from ...vjepa.world_model import WorldModel
from .dynamics import DynamicsScorer, StepConfig
from .masked import MaskedParts, MaskedScorer, dense_split
from .models import is_world, masked_parts, of_world_model
from .settings import Distance
from .surprise import Scorer

NAME = "model + critic"


class CriticMasked(MaskedScorer):
    """A masked predictor's error and its critic's view of the future's tokens.

    Args:
        parts: the model. feedback: the term whose critics judge. beta: their weight.
    """

    def __init__(
        self,
        parts: MaskedParts,
        feedback: Feedback,
        beta: float,
        name: str = NAME,
        *,
        distance: Distance = "l1",
    ):
        super().__init__(parts, name, distance=distance, baselines=False)
        self._feedback, self._beta = feedback, beta

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        losses = super().__call__(windows, contexts, actions)
        return losses - self._beta * self.verdicts(windows, contexts)[None, ..., None, None, None]

    def verdicts(self, windows: np.ndarray, contexts: Sequence[int]) -> Tensor:
        """The critics' mean logits ``[B, contexts]``: high where the future looks right."""
        parts = self.parts
        video = torch.from_numpy(windows).to(parts.encoder.pixel_scale.device)
        grid, levels = parts.encoder.grid(video), parts.norm.levels > 1
        splits = [dense_split(grid, self._steps(c)) for c in contexts]
        keeps = [c.to(video.device).expand(len(video), -1) for c, _ in splits]
        wanted = normalise(parts.target(video, all_levels=levels), parts.norm).float()
        seen = parts.encoder.packed(video, keeps, all_levels=levels)
        found = []
        for context, (_, future) in zip(seen, splits, strict=True):
            ids = future.to(video.device).expand(len(video), -1)
            known = Latents(
                target=(wanted[:, grid.size - ids.shape[1] :],),
                context=(context.float(),),
                places=(token_places(ids, grid),),
            )
            found.append(self._feedback.score(known, of="target"))
        return torch.stack(found, dim=1)


class CriticDynamics(DynamicsScorer):
    """A world model's error and its critic's view of the latents that came.

    Args: as :class:`.dynamics.DynamicsScorer`; the critics are those of ``model``.
    """

    def __init__(
        self,
        model: WorldModel,
        feedback: Feedback,
        beta: float,
        steps: StepConfig,
        name: str = NAME,
        *,
        distance: Distance = "l1",
    ):
        super().__init__(model, steps, name, distance=distance, baselines=False)
        self._model, self._feedback, self._beta = model, feedback, beta

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        losses = super().__call__(windows, contexts, actions)
        found = self.verdicts(windows, contexts, actions).to(losses.device)
        return losses - self._beta * found[None, ..., None, None, None]

    def verdicts(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        """The critics' mean logits ``[B, contexts]``: high where what came looks right."""
        video, found = torch.from_numpy(windows), []
        for context in contexts:
            ends = self._ends(context, video.shape[1])
            came = [self._encode(video, end) for end in (context - 1, *ends)]
            z = torch.stack(came, dim=1)  # [B, steps + 1, n, d]
            moves = self._actions(actions, context, len(ends), len(video)).to(z)
            known = Latents(
                target=(z[:, 1:].flatten(1, 2),),
                context=(step_contexts(z[:, :-1], moves),),
                places=(step_places(moves, self._model.predictor.grid),),  # pyright: ignore
            )
            found.append(self._feedback.score(known, of="target"))
        return torch.stack(found, dim=1)


def critic_scorer(
    path: str,
    beta: float,
    *,
    distance: Distance = "l1",
    mask_index: int = 0,
    steps: StepConfig | None = None,
    device: str = "cpu",
) -> Scorer:
    """The scorer of a run of `tubelet pretrain` or `tubelet train` with feedback.

    Args:
        beta: weight of the critic. steps: actions and horizon, of world models.

    Raises:
        CheckpointError: no run of ours, or one without a critic.
        ConfigError: a model whose critic sees more than videos show (proprioception).
    """
    if is_world(path):
        model = load_world_model(path, device=device)
        if model.config.proprio_dim:
            raise ConfigError(
                f"critic = {beta}: the critic of {path} judges proprioception, which videos lack"
            )
        wanted = of_world_model(model, steps or StepConfig())
        return CriticDynamics(model, _critics(model, path), beta, wanted, distance=distance)
    folder = find_checkpoint(path)
    whole = pretrain.build(load_config(folder, PretrainConfig))
    if not isinstance(whole, MaskedModel):
        raise CheckpointError(f"{path} has no masked predictor, and so no critic of predictions")
    load_checkpoint(folder, model=whole)
    whole.requires_grad_(False).eval().to(device)
    parts = masked_parts(path, mask_index=mask_index, device=device)
    return CriticMasked(parts, _critics(whole, path), beta, distance=distance)


def _critics(model: torch.nn.Module, path: str) -> Feedback:
    terms = dict(model.get_submodule("objective.terms").named_children())
    feedback = terms.get("feedback")
    if not isinstance(feedback, Feedback) or not feedback.critics:
        raise CheckpointError(
            f"{path} was trained without a critic: score it with critic = 0, or train with the "
            'objective jedi (feedback.kind other than "moments")'
        )
    return feedback
