"""What a term of an objective is: a weight with a schedule, and a scalar of the latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from ...core.errors import ConfigError
from .latents import Latents


@dataclass(frozen=True, kw_only=True)
class TermConfig:
    """Weight of a term; each term adds its own fields."""

    weight: float = 1.0
    """Weight in the total."""
    warmup: tuple[int, int] = (0, 0)
    """The weight is 0 up to the first step, grows linearly, and is full from the second on."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"weight = {self.weight}: must be 0 or more, and finite")
        if not 0 <= self.warmup[0] <= self.warmup[1]:
            raise ConfigError(f"warmup = {self.warmup}: needs 0 <= first step <= last step")

    def weight_at(self, step: int) -> float:
        """The weight at training step ``step``."""
        first, last = self.warmup
        if step >= last:
            return self.weight
        return self.weight * (step - first) / (last - first) if step > first else 0.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a term must know of the model when it is built."""

    seed: int = 0
    """Seed of the directions of SIGReg."""
    latent_dim: int | None = None
    """D."""
    action_dim: int | None = None
    """A."""
    context_dim: int | None = None
    """Width of context tokens, where it is not D."""
    encoder_parameters: int | None = None
    """How many parameters the encoder has."""


class Term(nn.Module):
    """A scalar of :class:`Latents`; some terms own parameters, which are trained with the model.

    Attributes:
        needs: the fields of Latents that it reads.
    """

    needs: frozenset[str]

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (a scalar, unweighted) and scalars to log (detached)."""
        raise NotImplementedError


def refuse_single(count: int, what: str) -> None:
    """Raise ConfigError when a statistic of ``count`` samples says nothing."""
    if count < 2:
        raise ConfigError(
            f"{what} of a batch of {count}: a batch statistic needs 2 samples at least, and tens "
            "to mean something; raise the batch size"
        )
