"""The cross-entropy method over action sequences, batched over problems and candidates.

Rubinstein's CEM with a diagonal Gaussian, as used by latent-space planners (DINO-WM,
arXiv:2411.04983), plus the mean as a candidate, kept elites and warm start. Momenta and
``min_std`` slow its cooling; :class:`~.vjepa2_ac.VJEPA2ACPlanner` is V-JEPA 2-AC's own variant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .gaussian import GaussianConfig, GaussianSearch


@dataclass(frozen=True, kw_only=True)
class CEMConfig(GaussianConfig):
    """Settings of :class:`CEM`."""

    keep_elites: float = 0.3
    """Share of the elites that compete again in the next iteration, in [0, 1]. Their cost is known,
    so they cost no model calls."""


class CEM(GaussianSearch):
    """Cross-entropy method: the Gaussian is refitted to the elites, all weighing alike.

    See :class:`CEMConfig` for every knob and :meth:`Search.plan` for what a plan tells, to which
    this adds ``std_per_iteration`` float32 ``[B, I]`` (searched with, mean over H and A).
    """

    def _weights(self, cost: Tensor, valid: bool) -> Tensor | None:
        if valid:
            return None
        weight = torch.isfinite(cost).float()
        return weight / weight.sum(1, keepdim=True)
