"""An objective: a weighted sum of terms over :class:`Latents`, and where its targets come from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from .centred import Centred, CentredConfig
from .feedback import Feedback, FeedbackConfig
from .futures import Likelihood, LikelihoodConfig, Router, RouterConfig
from .latents import FIELDS, Latents
from .regress import (
    ContextConfig,
    ContextRegress,
    Multistep,
    MultistepConfig,
    Regress,
    RegressConfig,
    Views,
    ViewsConfig,
)
from .sigreg import Sigreg, SigregConfig
from .targets import TargetConfig
from .temporal import IdmConfig, InverseDynamics, TemporalSimilarity, TempsimConfig
from .term import Sizes, Term, TermConfig
from .vicreg import Vicreg, VicregConfig


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Terms (a missing one is off) and the target provider; all of it is data, and TOML."""

    target: TargetConfig = field(default_factory=TargetConfig)
    """Where targets come from; the driver makes them."""
    regress: RegressConfig | None = None
    """Predictions of masked tokens, or of the next step."""
    centred: CentredConfig | None = None
    """Predictions of masked tokens, as distributions over channels."""
    context: ContextConfig | None = None
    """Predictions of visible tokens."""
    views: ViewsConfig | None = None
    """Views agree with the mean of the global ones."""
    multistep: MultistepConfig | None = None
    """Rollouts of several steps."""
    sigreg: SigregConfig | None = None
    """Embeddings are isotropic Gaussian."""
    vicreg: VicregConfig | None = None
    """Embeddings are spread and uncorrelated."""
    tempsim: TempsimConfig | None = None
    """Latents change slowly, or straight."""
    idm: IdmConfig | None = None
    """Actions can be read from latents."""
    router: RouterConfig | None = None
    """Which code of a latent variable comes nearest can be told beforehand."""
    likelihood: LikelihoodConfig | None = None
    """Targets are likely under a Gaussian around predictions."""
    feedback: FeedbackConfig | None = None
    """Predictions are judged against the law of the targets."""

    def __post_init__(self) -> None:
        if not self.terms():
            raise ConfigError(f"an objective without terms: set at least one of {', '.join(TERMS)}")
        if self.feedback is not None and self.regress is None:
            raise ConfigError("objective.feedback judges predictions: it needs objective.regress")

    def terms(self) -> dict[str, TermConfig]:
        """The terms that are on, by name."""
        found = {name: getattr(self, name) for name in TERMS}
        return {name: config for name, config in found.items() if config is not None}


TERMS: dict[str, type[Term]] = {
    "regress": Regress,
    "centred": Centred,
    "context": ContextRegress,
    "views": Views,
    "multistep": Multistep,
    "sigreg": Sigreg,
    "vicreg": Vicreg,
    "tempsim": TemporalSimilarity,
    "idm": InverseDynamics,
    "router": Router,
    "likelihood": Likelihood,
    "feedback": Feedback,  # last: its weight follows from the gradient of what is before it
}


class Objective(nn.Module):
    """The terms of a config, ready to read the fields that the driver provides.

    Attributes:
        needs: the fields of :class:`Latents` that the terms read; a driver need not compute others.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        provides: Collection[str],
        *,
        seed: int = 0,
        latent_dim: int | None = None,
        action_dim: int | None = None,
        context_dim: int | None = None,
        encoder_parameters: int | None = None,
    ):
        """
        Args:
            provides: names of the fields of Latents that the driver fills at every step.
            seed: of the directions of SIGReg. latent_dim, action_dim: D and A, for heads.
            context_dim: width of context tokens, where it is not D. encoder_parameters: how many
                it has, for critics that may only be so large.

        Raises:
            ConfigError: a term needs a field that is not provided (all such are named), or there
                is no such field.
        """
        super().__init__()
        if unknown := sorted(set(provides) - FIELDS):
            raise ConfigError(f"provides {unknown}: Latents has only {sorted(FIELDS)}")
        self.config = config
        sizes = Sizes(
            seed=seed,
            latent_dim=latent_dim,
            action_dim=action_dim,
            context_dim=context_dim,
            encoder_parameters=encoder_parameters,
        )
        self.terms = nn.ModuleDict()
        missing = []
        for name, term_config in config.terms().items():
            term = TERMS[name](term_config, sizes)  # pyright: ignore[reportCallIssue]
            self.terms[name] = term
            if lacking := sorted(term.needs - set(provides)):
                missing.append(f"{name} needs {', '.join(lacking)}")
        if missing:
            raise ConfigError(
                f"{'; '.join(missing)}; here the latents hold {', '.join(sorted(provides))}. "
                "Leave the term out or train with a method that provides the field"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Fields of Latents that some term reads."""
        return frozenset().union(*(term.needs for term in self._terms().values()))

    def forward(self, latents: Latents) -> dict[str, Tensor]:
        """Each term (unweighted), what it logs as ``term_name``, and ``loss``, the weighted sum.

        Computed in float32 (or float64), also under autocast.
        """
        latents = latents.full_precision()
        out: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name, term in self._terms().items():
            with torch.autocast(latents.device_type, enabled=False):
                if isinstance(term, Feedback):
                    value, logs = term(latents, _gradient(total, latents))
                else:
                    value, logs = term(latents)
            part = self.config.terms()[name].weight_at(latents.step) * value
            total = part if total is None else total + part
            out[name] = value
            out |= {f"{name}_{key}": log for key, log in logs.items()}
        assert total is not None  # a config has a term
        return out | {"loss": total}

    def _terms(self) -> dict[str, Term]:
        return dict(self.terms.items())  # pyright: ignore[reportReturnType]


def _gradient(total: Tensor | None, latents: Latents) -> tuple[Tensor, ...] | None:
    """Of the loss so far, at the predictions; None where there are no gradients."""
    if total is None or latents.pred is None or not total.requires_grad:
        return None
    return torch.autograd.grad(total, latents.pred, retain_graph=True)
