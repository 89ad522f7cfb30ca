"""iCEM, sample-efficient CEM for real-time planning (Pinneri et al., arXiv:2008.06389)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .cem import CEM, CEMConfig


@dataclass(frozen=True, kw_only=True)
class ICEMConfig(CEMConfig):
    """Settings of :class:`ICEM`."""

    samples: int = 100
    """Candidates of the first iteration."""
    elites: int = 10
    """Candidates the Gaussian is refitted to."""
    momentum_mean: float = 0.1
    """Share of the old mean kept at each refit, in [0, 1)."""
    momentum_std: float = 0.1
    """Share of the old standard deviation kept at each refit, in [0, 1)."""
    noise_beta: float = 2.0
    """Colour of the search noise over the horizon: 0 white, 2 red (smooth actions)."""
    decay: float = 1.25
    """Each iteration has this many times fewer candidates than the one before, but at least twice
    the elites."""
    returns: Literal["mean", "best"] = "best"
    """The final mean, or the cheapest sequence evaluated."""

    def _checks(self) -> dict[str, bool]:
        return super()._checks() | {
            f"decay = {self.decay}: must be 1 or more": 1 <= self.decay < float("inf")
        }

    def counts(self) -> list[int]:
        least = min(2 * self.elites, self.samples)
        return [max(int(self.samples * self.decay**-i), least) for i in range(self.iterations)]

    def offers_mean(self, iteration: int) -> bool:
        return iteration in (0, self.iterations - 1)


class ICEM(CEM):
    """CEM with coloured noise, kept elites, fewer candidates in each iteration, and the mean as a
    candidate of the last (and, as the start, of the first). Returns the cheapest sequence.

    Between plans the best sequence alone is carried over, shifted, by the agent's warm start (the
    paper carries several elites).
    """

    config: ICEMConfig
