"""Terms on latents over time: actions must be readable from them, and paths be smooth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from .latents import Latents, given
from .term import Sizes, Term, TermConfig, refuse_single


@dataclass(frozen=True, kw_only=True)
class IdmConfig(TermConfig):
    """Inverse dynamics: a small head reads the action from two consecutive latents."""

    width: int = 256
    """Hidden width of the head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise ConfigError(f"width = {self.width}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TempsimConfig(TermConfig):
    """Consecutive latents close (l2), or consecutive displacements parallel (straighten)."""

    kind: Literal["l2", "straighten"] = "l2"
    """Mean squared step, or 1 - cos of the angle between one step and the next."""


class InverseDynamics(Term):
    """Mean squared error of ``head(z_t, z_t+1)`` against the action between them.

    What the agent controls must be in the latent, whatever else moves (Sobal et al.,
    arXiv 2211.10831; PLDM, arXiv 2502.14819). Tokens are averaged to one vector per step.

    Attributes:
        head: 2 D -> width -> A, trained with the model.
    """

    needs = frozenset({"sequence", "actions"})

    def __init__(self, config: IdmConfig, sizes: Sizes):
        super().__init__()
        if sizes.latent_dim is None or sizes.action_dim is None:
            raise ConfigError(
                f"idm: latent_dim = {sizes.latent_dim}, action_dim = {sizes.action_dim}: its head "
                "needs both when the objective is built"
            )
        self.head = nn.Sequential(
            nn.Linear(2 * sizes.latent_dim, config.width),
            nn.GELU(),
            nn.Linear(config.width, sizes.action_dim),
        )

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        z, actions = given(latents.sequence), given(latents.actions)
        z = z.flatten(2, -2).mean(dim=2) if z.ndim > 3 else z
        if actions.shape[:2] != (len(z), z.shape[1] - 1):
            raise ConfigError(
                f"idm: {list(actions.shape)} actions do not lie between the {z.shape[1]} latents "
                f"of {len(z)} windows; they must be [{len(z)}, {z.shape[1] - 1}, A]"
            )
        guess = self.head(torch.cat([z[:, :-1], z[:, 1:]], dim=-1))
        return (guess - actions).square().mean(), {}


class TemporalSimilarity(Term):
    """Mean squared step of ``sequence`` (eb_jepa), or 1 - cos between consecutive steps.

    Straightening (arXiv 2603.12231) makes distances in latent space useful to gradient planners.
    """

    needs = frozenset({"sequence"})

    def __init__(self, config: TempsimConfig, sizes: Sizes):
        super().__init__()
        self.config = config

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        step = given(latents.sequence).diff(dim=1)
        if self.config.kind == "l2":
            refuse_single(step.shape[1] + 1, "temporal similarity")
            return step.square().mean(), {}
        refuse_single(step.shape[1], "straightening")
        return (1 - F.cosine_similarity(step[:, :-1], step[:, 1:], dim=-1)).mean(), {}
