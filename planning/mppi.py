"""Model predictive path integral control (Williams et al., arXiv:1707.02342).

Every candidate weighs ``exp(-(cost - least cost) / temperature)``: a low temperature follows the
cheapest, a high one averages all. Dividing by the temperature is what makes it one; published
latent planners that multiply by it (with .005) average their candidates almost evenly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .gaussian import GaussianConfig, GaussianSearch


@dataclass(frozen=True, kw_only=True)
class MPPIConfig(GaussianConfig):
    """Settings of :class:`MPPI`."""

    least_elites: ClassVar[int] = 0

    elites: int = 0
    """The cheapest candidates that are weighed; 0: all (TD-MPC2: 64 of 512)."""
    temperature: float = 0.1
    """In units of the cost, or relative to its spread."""
    relative: bool = True
    """Multiply the temperature by the standard deviation of the weighed candidates' costs, so that
    it does not depend on the scale of the cost."""
    adapt_std: bool = True
    """Refit the standard deviation too, as TD-MPC2 does (arXiv:2310.16828). False keeps init_std,
    the classic algorithm: it explores for ever and does not settle on the optimum."""

    @property
    def weighed(self) -> int:
        return self.elites or self.samples

    def _checks(self) -> dict[str, bool]:
        fine = 0 < self.temperature < float("inf")
        return super()._checks() | {f"temperature = {self.temperature}: must be above 0": fine}


class MPPI(GaussianSearch):
    """Weighted averages of all candidates; see :class:`MPPIConfig`.

    Adds ``effective_samples`` float32 ``[B, I]`` to the diagnostics: one over the sum of squared
    weights, 1 where a single candidate decides.
    """

    config: MPPIConfig

    def _notes(self, weights: list[Tensor]) -> dict[str, Any]:
        effective = [1 / weight.square().sum(1) for weight in weights]
        return {"effective_samples": torch.stack(effective, 1).cpu()}

    def _weights(self, cost: Tensor, valid: bool) -> Tensor:
        finite = torch.isfinite(cost)
        above = torch.where(finite, cost - cost[:, :1], 0.0)
        temperature = torch.full_like(cost[:, :1], self.config.temperature)
        if self.config.relative:
            count = finite.sum(1, keepdim=True)
            mean = above.sum(1, keepdim=True) / count
            spread = torch.where(finite, above - mean, 0.0).square().sum(1, keepdim=True) / count
            temperature = temperature * spread.sqrt().clamp_min(1e-12)
        return torch.where(finite, -above / temperature, -torch.inf).softmax(1)
