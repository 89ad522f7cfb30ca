"""Terms of a latent variable z: which code will win, and the likelihood under a Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import ConfigError
from .latents import Latents, check_pairs, given
from .term import Sizes, Term, TermConfig


@dataclass(frozen=True, kw_only=True)
class RouterConfig(TermConfig):
    """A router learns which code comes nearest to what happened."""

    balance: float = 0.01
    """Weight of KL(mean of the router's probabilities over the batch || uniform)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.balance < math.inf:
            raise ConfigError(f"balance = {self.balance}: must be 0 or more, and finite")


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig(TermConfig):
    """Targets are likely under a diagonal Gaussian around predictions."""


class Router(Term):
    """Cross-entropy of ``router`` on ``winner``, and ``balance`` times a KL to even use.

    The mean over steps of -log p(winner), as in arXiv 2607.05238. The KL acts on the router alone;
    a large weight makes its probabilities wrong where codes are not equally frequent.

    Logs ``nll`` (the cross-entropy), ``accuracy`` (the favourite wins) and ``used`` (effective
    number of codes among the batch's winners, the exponential of their entropy).
    """

    needs = frozenset({"router", "winner"})

    def __init__(self, config: RouterConfig, sizes: Sizes):
        super().__init__()
        self.config = config

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        logits, winner = given(latents.router), given(latents.winner)
        if logits.shape[:-1] != winner.shape:
            raise ConfigError(
                f"router: logits of shape {list(logits.shape)} for winners of shape "
                f"{list(winner.shape)}; they must be [..., K] and [...]"
            )
        flat, true = logits.flatten(0, -2), winner.flatten()
        nll = F.cross_entropy(flat, true)
        mean = flat.softmax(dim=-1).mean(dim=0)
        uneven = torch.special.xlogy(mean, mean).sum() + math.log(flat.shape[-1])
        share = torch.bincount(true, minlength=flat.shape[-1]).to(mean) / len(true)
        logs = {
            "nll": nll.detach(),
            "accuracy": (flat.argmax(dim=-1) == true).to(mean).mean(),
            "used": (-torch.special.xlogy(share, share).sum()).exp(),
        }
        return nll + self.config.balance * uneven, logs


class Likelihood(Term):
    """Mean over elements of -log N(target; pred, exp(log_std)²), without the constant.

    That is ((target - pred) / std)² / 2 + log std. Logs ``std``, the mean deviation.
    """

    needs = frozenset({"pred", "target", "log_std"})

    def __init__(self, config: LikelihoodConfig, sizes: Sizes):
        super().__init__()

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        pred, target = given(latents.pred), given(latents.target)
        spread = given(latents.log_std)
        check_pairs(pred, target, "likelihood")
        check_pairs(pred, spread, "spread of the likelihood")
        parts = [
            (((h - p) * (-s).exp()).square() / 2 + s).mean()
            for p, h, s in zip(pred, target, spread, strict=True)
        ]
        deviation = torch.stack([s.detach().exp().mean() for s in spread]).mean()
        return torch.stack(parts).mean(), {"std": deviation}
