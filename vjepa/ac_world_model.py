"""V-JEPA 2-AC as a world model (arXiv 2506.09985): a frozen encoder of single frames, imagination.

    frame [H, W, 3] -> repeated to a tubelet -> TubeletEncoder -> layer norm -> [N, D]
    latents, actions, poses -> ActionPredictor -> latents of the next frame

Every frame is encoded alone, so latents know no velocities; poses follow from actions by pose
algebra, and actions between observed frames from their poses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import CheckpointError, ConfigError
from ..core.latent import Latent
from .action_predictor import ActionPredictor
from .causal import Advance, unroll_state
from .encoder import TubeletEncoder
from .formats.checkpoint import Checkpoint
from .pose import compose, difference


class ACWorldModel(nn.Module):
    """Frozen encoder and action-conditioned predictor as planners' ``LatentDynamics``.

    Args:
        encoder: frozen here.
        predictor: of the encoder's latents, layer-normed if it normalises its own predictions.
        advance: the state after ``(state [..., P], action [..., A])``; poses by default.
        between: the action from ``(next state, state)``, inverse to it.
        at_once: candidates imagined and frames encoded at a time: what bounds the memory.

    Attributes:
        action_dim: A.

    Raises:
        ConfigError: an encoder and a predictor that do not fit, or extrinsics, which observations
            do not have.
    """

    def __init__(
        self,
        encoder: TubeletEncoder,
        predictor: ActionPredictor,
        *,
        advance: Advance = compose,
        between: Callable[[Tensor, Tensor], Tensor] = difference,
        at_once: int = 64,
    ):
        super().__init__()
        if encoder.config.width != predictor.latent_dim:
            raise ConfigError(
                f"the predictor is for latents of width {predictor.latent_dim}, the encoder gives "
                f"{encoder.config.width}"
            )
        if predictor.config.use_extrinsics:
            raise ConfigError("predictor.use_extrinsics: observations have none; set it to false")
        if at_once < 1:
            raise ConfigError(f"at_once = {at_once}: must be at least 1")
        self.encoder = encoder.requires_grad_(False).eval()
        self.predictor = predictor
        self.action_dim = predictor.action_dim
        self.at_once = at_once
        self._advance, self._between = advance, between

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        rows, columns = self.predictor.grid
        return rows * self.encoder.config.patch, columns * self.encoder.config.patch

    def train(self, mode: bool = True) -> ACWorldModel:
        """As of any module, but the encoder stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def latents(self, frames: Tensor) -> Tensor:
        """Latents ``[..., N, D]`` of frames uint8 ``[..., H, W, 3]``, each encoded alone."""
        flat = frames.flatten(0, -4)
        still = flat.unsqueeze(1).expand(-1, self.encoder.config.tubelet, -1, -1, -1)
        tokens = torch.cat([self.encoder(part) for part in still.split(self.at_once)])
        if self.predictor.config.normalise:
            tokens = F.layer_norm(tokens, tokens.shape[-1:])
        return tokens.unflatten(0, frames.shape[:-3])

    def encode(self, obs: Mapping[str, Any]) -> Latent:
        """Latents ``[B, T, N, D]`` of ``pixels`` uint8 ``[B, T, H, W, 3]``, with the states.

        Args:
            obs: and ``state`` (or ``proprio``) float ``[B, T, P]``, if the predictor wants it: for
                V-JEPA 2-AC poses (:mod:`.pose`), consecutive model steps apart.

        Raises:
            ConfigError: pixels or states that are missing, or of another type or shape.
        """
        tokens = self.latents(self._pixels(obs, axes=5))
        return Latent(tokens, self._state(obs, tokens.shape[:2]))

    def encode_goal(self, obs: Mapping[str, Any]) -> Latent:
        """The goal's latents ``[B, N, D]`` from one frame ``pixels`` uint8 ``[B, H, W, 3]``.

        A ``state`` (or ``proprio``) ``[B, P]`` beside it comes along.

        Raises:
            ConfigError: as in :meth:`encode`.
        """
        tokens = self.latents(self._pixels(obs, axes=4))
        known = "state" in obs or "proprio" in obs
        return Latent(tokens, self._state(obs, tokens.shape[:1]) if known else None)

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Imagined latents ``[B, S, H, N, D]`` and states ``[B, S, H, P]`` of candidate actions.

        Args:
            context: of :meth:`encode`; the actions between its steps follow from their states.
            actions: float ``[B, S, H, A]``.

        Raises:
            ConfigError: a context of several steps without states.
        """
        tokens, state = context.tokens, context.proprio
        B, S, H, _ = actions.shape
        if state is None:
            if tokens.shape[1] > 1:
                raise ConfigError(
                    f"a context of {tokens.shape[1]} steps without states: the actions between "
                    "them are unknown; give the last step only"
                )
            past = actions.new_zeros(B, 0, self.action_dim)
        else:
            past = self._between(state[:, 1:], state[:, :-1])
        imagined = self.predictor.rollout_candidates(
            tokens, past, actions, state=state, advance=self._advance, at_once=self.at_once
        )
        if state is None:
            return Latent(imagined)
        last = state[:, -1:].repeat_interleave(S, dim=0)
        states = unroll_state(last, actions.flatten(0, 1), self._advance, H + 1)
        return Latent(imagined, states[:, 1:].unflatten(0, (B, S)))

    def _pixels(self, obs: Mapping[str, Any], axes: int) -> Tensor:
        pixels = _tensor(obs["pixels"])
        wanted = (*self.image_size, 3)
        if pixels.dtype != torch.uint8 or pixels.ndim != axes or pixels.shape[-3:] != wanted:
            shape = ", ".join(map(str, ("B, T" if axes == 5 else "B", *wanted)))
            raise ConfigError(
                f"pixels are {str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)}; the "
                f"model wants uint8 [{shape}]"
            )
        return pixels.to(self.encoder.pixel_scale.device)

    def _state(self, obs: Mapping[str, Any], lead: torch.Size) -> Tensor | None:
        width = self.predictor.config.state_dim
        if not width:
            return None
        name = "state" if "state" in obs else "proprio"
        if name not in obs:
            raise ConfigError(
                f"the observation has {sorted(obs)}: this predictor wants 'state' (or 'proprio') "
                f"{[*lead, width]} too"
            )
        state = _tensor(obs[name]).to(self.encoder.pixel_scale.device, torch.float32)
        if tuple(state.shape) != (*lead, width):
            raise ConfigError(f"{name} of shape {list(state.shape)}: expected {[*lead, width]}")
        return state


def load_ac(path: str | os.PathLike[str], *, device: str = "cpu") -> ACWorldModel:
    """The world model in a converted V-JEPA 2-AC checkpoint (our format), frozen, in eval mode.

    Raises:
        CheckpointError: there is none, it is damaged, or it has no action-conditioned predictor.
    """
    checkpoint = Checkpoint.from_pretrained(path)
    if checkpoint.actions is None:
        raise CheckpointError(
            f"{path} has no action-conditioned predictor, only {', '.join(checkpoint.parts())}"
        )
    model = ACWorldModel(checkpoint.encoder, checkpoint.actions)
    return model.requires_grad_(False).eval().to(device)


def ac_losses(
    predictor: ActionPredictor,
    latents: Tensor,
    actions: Tensor,
    states: Tensor | None = None,
    *,
    auto_steps: int = 2,
    extrinsics: Tensor | None = None,
) -> dict[str, Tensor]:
    """V-JEPA 2-AC's training loss: one step from true latents, and a rollout from the first.

        teacher = mean |P(z_1..z_T-1) - (z_2..z_T)|
        rollout = mean |(ẑ_2..ẑ_K+1) - (z_2..z_K+1)|, ẑ_2 = P(z_1), ẑ_3 = P(z_1, ẑ_2), ..., K steps

    As published, ẑ_2 counts in both, and a rollout sees the true states.

    Args:
        predictor: normalises its predictions if the latents are layer-normed.
        latents: ``[B, T, N, D]``. actions: ``[B, T - 1, A]``, between them.
        states: ``[B, T, P]``. extrinsics: ``[B, T, E]``. The last of each is not used.
        auto_steps: K, from 1 to T - 1.

    Returns:
        ``teacher``, ``rollout`` and their sum ``loss``, float scalars.

    Raises:
        ConfigError: impossible ``auto_steps``, or shapes that do not fit.
    """
    steps, K = latents.shape[1] - 1, auto_steps
    if not 1 <= K <= steps:
        raise ConfigError(f"auto_steps = {K}: must be 1 to {steps} for {steps + 1} latents")
    states = None if states is None else states[:, :-1]
    extrinsics = None if extrinsics is None else extrinsics[:, :-1]
    target = latents[:, 1:]
    taught = predictor(latents[:, :-1], actions, states, extrinsics)
    imagined = predictor.rollout(
        latents[:, :1],
        actions[:, :K],
        state=None if states is None else states[:, :K],
        extrinsics=None if extrinsics is None else extrinsics[:, :K],
    )
    terms = {"teacher": F.l1_loss(taught, target), "rollout": F.l1_loss(imagined, target[:, :K])}
    return {**terms, "loss": terms["teacher"] + terms["rollout"]}


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
