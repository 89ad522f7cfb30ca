"""The one record that encoders hand to planners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Latent:
    """Latent tokens, with proprioception beside them when the model uses it.

    Attributes:
        tokens: float ``[..., N, D]``: N tokens of width D per time step. Leading axes are
            ``[B, T]`` for an encoded context, ``[B]`` for a goal, ``[B, S, H]`` for imagined
            trajectories of S candidates over horizon H.
        proprio: float ``[..., P]`` with the same leading axes, or None.
    """

    tokens: Tensor
    proprio: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Latent:
        """Apply ``function`` to each tensor (indexing or moving leading axes, say)."""
        proprio = None if self.proprio is None else function(self.proprio)
        return Latent(function(self.tokens), proprio)
