"""The latent variable z of a world model: what is left open by context and action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..core.errors import ConfigError

How = Literal["sample", "likely", "hold"]
"""How z is chosen in a rollout; see :meth:`tubelet.vjepa.futures.FuturePredictor.imagine`."""


@dataclass(frozen=True, kw_only=True)
class FuturesConfig:
    """What z is, and how it is learnt (:mod:`.futures`). The default is no z at all."""

    kind: Literal["discrete", "gaussian"] = "discrete"
    """One of a few codes, or noise as wide as the latent, of a learnt spread."""
    count: int = 1
    """Codes K of a discrete z; 1 is the deterministic predictor."""
    width: int = 128
    """Hidden width of the router (p(z | latent, action)), or of the spread."""
    router_weight: float = 1.0
    """Weight of the router's loss."""
    balance: float = 0.01
    """Weight, in the router's loss, of KL(router's mean over the batch || uniform)."""
    relax: float = 0.05
    """Share of the predictions that train a random code in place of the nearest: codes that never
    win would stay as they were born. 0 is winner-take-all to the letter."""

    def __post_init__(self) -> None:
        if self.kind not in ("discrete", "gaussian"):
            raise ConfigError(f"futures.kind = {self.kind!r}: choose discrete or gaussian")
        for name in ("count", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"futures.{name} = {getattr(self, name)}: must be at least 1")
        if self.kind == "gaussian" and self.count > 1:
            raise ConfigError(
                f"futures.count = {self.count}: a Gaussian z has no codes; leave it 1, or use "
                'kind = "discrete"'
            )
        for name in ("router_weight", "balance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"futures.{name} = {getattr(self, name)}: must be 0 or more, and finite"
                )
        if not 0 <= self.relax < 1:
            raise ConfigError(f"futures.relax = {self.relax}: a share, in [0, 1)")

    @property
    def codes(self) -> int:
        """K of a discrete z; 0 without one."""
        return self.count if self.kind == "discrete" and self.count > 1 else 0

    @property
    def on(self) -> bool:
        """Whether there is a z."""
        return self.kind == "gaussian" or self.codes > 0
