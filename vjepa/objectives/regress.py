"""Terms that pull predictions to targets: masked tokens, visible tokens, views, rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ...core.errors import ConfigError
from .latents import Latents, check_pairs, given
from .term import Sizes, Term, TermConfig

Kind = Literal["l1", "l2", "smooth_l1", "lp", "cosine"]


@dataclass(frozen=True, kw_only=True)
class RegressConfig(TermConfig):
    """Distance of predictions from targets, and its conventions."""

    kind: Kind = "l1"
    """Mean over elements of |e| (l1), e² (l2, without a half), |e|^p / p (lp, V-JEPA),
    min(e² / (2 beta), |e| - beta / 2) (smooth_l1, I-JEPA); or the mean over vectors of 1 - cos."""
    beta: float = 1.0
    """Where smooth_l1 turns from square to linear."""
    exponent: float = 1.0
    """p of lp."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < math.inf:
            raise ConfigError(f"beta = {self.beta}: must be positive and finite")
        if not 1 <= self.exponent < math.inf:
            raise ConfigError(f"exponent = {self.exponent}: must be at least 1, and finite")


@dataclass(frozen=True, kw_only=True)
class MultistepConfig(RegressConfig):
    """The same distance for predictions of 1, 2, … K steps ahead."""

    kind: Kind = "l2"
    """See RegressConfig."""
    weights: tuple[float, ...] = ()
    """Relative weight of each depth, normalised to sum 1; empty: all the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights and (min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf):
            raise ConfigError(f"weights = {self.weights}: must not be negative, with a finite sum")


@dataclass(frozen=True, kw_only=True)
class ContextConfig(TermConfig):
    """V-JEPA 2.1's dense loss on visible tokens."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(TermConfig):
    """LeJEPA's agreement of views."""


def distance(pred: Tensor, target: Tensor, config: RegressConfig) -> Tensor:
    """The distance of :class:`RegressConfig` between tensors of one shape ``[..., D]``: scalar."""
    if config.kind == "cosine":
        return (1 - F.cosine_similarity(pred, target, dim=-1)).mean()
    if config.kind == "smooth_l1":
        return F.smooth_l1_loss(pred, target, beta=config.beta)
    error = pred - target
    if config.kind == "l1":
        return error.abs().mean()
    if config.kind == "l2":
        return error.square().mean()
    return error.abs().pow(config.exponent).mean() / config.exponent


class Regress(Term):
    """Mean over groups (mask kinds) of the mean distance of ``pred`` from ``target``.

    V-JEPA, arXiv 2404.08471 equation 1; I-JEPA, arXiv 2301.08243. Logs every group's own mean when
    there are several.
    """

    needs = frozenset({"pred", "target"})

    def __init__(self, config: RegressConfig, sizes: Sizes):
        super().__init__()
        self.config = config

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        pred, target = given(latents.pred), given(latents.target)
        check_pairs(pred, target, "regress")
        groups = [distance(p, h, self.config) for p, h in zip(pred, target, strict=True)]
        return mean(groups), _by_group(groups)


class ContextRegress(Term):
    """Mean over groups of the mean of |context_pred - context_target| / sqrt(distance).

    V-JEPA 2.1, arXiv 2603.14482: tokens next to a masked one count fully, far ones less. The mean
    is over all elements; weights are not normalised.
    """

    needs = frozenset({"context_pred", "context_target", "context_distance"})

    def __init__(self, config: ContextConfig, sizes: Sizes):
        super().__init__()

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        pred, target = given(latents.context_pred), given(latents.context_target)
        check_pairs(pred, target, "context")
        near = given(latents.context_distance)
        check_pairs(tuple(p[..., 0] for p in pred), near, "context distances")
        groups = [
            ((p - h).abs() * d.to(p.dtype).rsqrt().unsqueeze(-1)).mean()
            for p, h, d in zip(pred, target, near, strict=True)
        ]
        return mean(groups), _by_group(groups)


class Views(Term):
    """Mean squared distance of every view from the mean of the global views.

    LeJEPA, arXiv 2511.08544: no predictor, no stop-gradient. Mean over views, batch and channels.
    """

    needs = frozenset({"views"})

    def __init__(self, config: ViewsConfig, sizes: Sizes):
        super().__init__()

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        views, count = given(latents.views), latents.global_views
        if not 1 <= count <= len(views):
            raise ConfigError(
                f"global_views = {count} of {len(views)} views: the term needs at least one, and "
                "no more than there are"
            )
        return (views[:count].mean(dim=0) - views).square().mean(), {}


class Multistep(Term):
    """Weighted mean over depths k of the distance of ``rollout[:, k]`` from its target.

    Logs the first and last depth.
    """

    needs = frozenset({"rollout", "rollout_target"})

    def __init__(self, config: MultistepConfig, sizes: Sizes):
        super().__init__()
        self.config = config

    def forward(self, latents: Latents) -> tuple[Tensor, dict[str, Tensor]]:
        pred, target = given(latents.rollout), given(latents.rollout_target)
        check_pairs((pred,), (target,), "multistep")
        weights, depth = self.config.weights, pred.shape[1]
        if not weights:
            return distance(pred, target, self.config), {}
        if len(weights) != depth:
            raise ConfigError(
                f"weights = {weights}: {len(weights)} weights for a rollout of {depth} steps"
            )
        steps = [distance(pred[:, k], target[:, k], self.config) for k in range(depth)]
        total = sum(w * step for w, step in zip(weights, steps, strict=True)) / sum(weights)
        return total, {"first": steps[0].detach(), "last": steps[-1].detach()}  # pyright: ignore[reportReturnType]


def mean(values: list[Tensor]) -> Tensor:
    """Mean of scalars."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values)


def _by_group(groups: list[Tensor]) -> dict[str, Tensor]:
    """Logged values: of mask kinds or target blocks, not of every sample of ragged masks."""
    if len(groups) > 8:
        return {}
    return {str(k): x.detach() for k, x in enumerate(groups)} if len(groups) > 1 else {}
