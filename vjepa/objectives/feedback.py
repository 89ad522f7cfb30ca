"""Discriminative feedback: predictions are judged against the law of the targets (JeDi-JEPA).

The only source is a press description without paper, code or numbers. This is a reading of it: an
internal module, used in training alone, judges predicted embeddings *after* they are made, for
structure (are they a set that targets could be?) and coherence (do they fit this context?), and its
gradient reaches encoder and predictor through the predictions only.

    u = N(prediction), z = target, c = context (constant), u~ = u + noise
    critic     L_D = softplus(-D(c, z~)) + softplus(D(c, u~)) [and of mismatched (c_i, z_j)] + R1
    feedback   L_F = softplus(-D(c, u~)),  added with the factor alpha
    alpha      rho |dL_pred / d prediction| / |dL_F / d prediction|: feedback is a fixed fraction

It is no guard against collapse: at z = u = constant every part of it is stationary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...core.rng import torch_generator
from .critic import PairEnergy, SetCritic, critic_loss, slope_penalty
from .latents import Latents, check_pairs, given
from .term import Sizes, Term, TermConfig, refuse_single
from .two_sample import ecf_distance

Kind = Literal["moments", "structure", "coherence", "both", "energy"]

LARGEST_FACTOR = 100.0
"""Of alpha."""
CRITIC_GROUP = {"lr": 5e-4, "betas": (0.0, 0.99), "weight_decay": 0.0}
"""How critics are optimised, whatever the model's schedule says."""


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig(TermConfig):
    """Discriminative feedback; ``weight`` and ``warmup`` are of the feedback, not of the critic."""

    kind: Kind = "both"
    """Who judges: "moments", a two-sample statistic without a critic; a critic of "structure"
    (predicted sets), of "coherence" (sets with their context) or "both"; or an "energy" of pairs
    trained to tell which target belongs to which context."""
    ratio: float = 0.1
    """rho: norm of the feedback's gradient at the predictions over that of the prediction's; 0
    trains the critic and feeds nothing back."""
    width: int = 0
    """Of the critics, which may have a tenth of the encoder's parameters at most; 0: the widest of
    64, 32, … that has."""
    noise: tuple[float, float] = (0.12, 0.02)
    """Deviation of the noise on judged sets, at the first step and from ``noise_steps`` on."""
    noise_steps: int = 1000
    """See noise."""
    slope: float = 1.0
    """gamma, weight of the penalty on the critic's slope at real sets (R1)."""
    slope_every: int = 8
    """Steps between penalties (each so many times as heavy)."""
    frozen: bool = False
    """Leave the critic at its random start: a control."""
    normalise: bool = True
    """Layer-norm predictions before they are judged, as targets are: else length tells them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"width": 0, "noise_steps": 1, "slope_every": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"feedback.{name} = {getattr(self, name)}: at least {least}")
        for name in ("ratio", "slope"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"feedback.{name} = {getattr(self, name)}: 0 or more, finite")
        if min(self.noise) < 0:
            raise ConfigError(f"feedback.noise = {self.noise}: must not be negative")

    def weight_at(self, step: int) -> float:
        """1: the term weighs its feedback itself, so that the critic trains from the start."""
        return 1.0

    def fed_back(self, step: int) -> float:
        """Weight of the feedback at training step ``step``."""
        return super().weight_at(step)

    def noise_at(self, step: int) -> float:
        """Deviation of the noise at training step ``step``."""
        first, last = self.noise
        return first + (last - first) * min(1.0, step / self.noise_steps)


class Critics(nn.ModuleDict):
    """Critics by name.

    Attributes:
        own_group: how the optimiser treats their parameters (:func:`.optim.make_optimizer`).
    """

    own_group: ClassVar[dict[str, Any]] = CRITIC_GROUP

    def __init__(self, critics: Iterable[tuple[str, nn.Module]]):
        super().__init__(dict(critics))


class Judged(NamedTuple):
    """One group (mask kind) of sets, as critics see it; only ``pred`` may have a gradient."""

    pred: Tensor
    """Normalised, ``[B, M, D]``."""
    target: Tensor
    places: Tensor
    context: Tensor


class Feedback(Term):
    """The term. Its value is alpha times L_F; its gradient also trains the critic, on constants.

    alpha follows from ``prediction_gradient``, that of the prediction's loss at every group of
    predictions. Without (no gradients are wanted) the value is 0, and L_F is logged.
    """

    def __init__(self, config: FeedbackConfig, sizes: Sizes):
        super().__init__()
        self.config, self.seed = config, sizes.seed
        needs = {"pred", "target"}
        self.critics = nn.ModuleDict()
        if config.kind != "moments":
            needs |= {"context", "places"}
            if sizes.latent_dim is None:
                raise ConfigError("feedback: latent_dim = None: the critic must know the width D")
            self.critics = _fitting(config, sizes)
            self.critics.requires_grad_(not config.frozen)
        self.needs = frozenset(needs)

    def forward(
        self, latents: Latents, prediction_gradient: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The term's value and logs; ConfigError for a batch of one or sets that do not match."""
        pred = given(latents.pred)
        check_pairs(pred, given(latents.target), "feedback")
        refuse_single(len(pred[0]), "feedback")
        leaves = [p.detach().requires_grad_() for p in pred]
        with torch.enable_grad():
            feedback = self._feedback(list(self._judged(latents, leaves)), latents.step)
        logs = {"feedback": feedback.detach()}
        if prediction_gradient is None or not torch.is_grad_enabled():
            return torch.zeros_like(feedback), logs
        pulls = torch.autograd.grad(feedback, leaves)
        factor = self._factor(prediction_gradient, pulls)
        logs |= {"factor": factor, "at_limit": (factor >= LARGEST_FACTOR).float()}
        weight = factor * self.config.fed_back(latents.step)
        # The gradient at the predictions is known: no second pass through the critic.
        pull = torch.stack([(p * g).sum() for p, g in zip(pred, pulls, strict=True)]).sum() * weight
        value = pull - pull.detach() + (weight * feedback).detach()
        if self.critics and not self.config.frozen:
            loss, found = self._train(list(self._judged(latents, leaves)), latents.step)
            value = value + loss - loss.detach()
            logs |= found | {"critic": loss.detach()}
        return value, logs

    def score(self, latents: Latents, *, of: Literal["pred", "target"] = "pred") -> Tensor:
        """Mean logits ``[B]`` of the critics: low where sets look wrong, or do not fit a context.

        ``of`` says which are judged: predictions, or targets, which need no predictions beside them
        (for surprise: is this what can come?).
        """
        with torch.no_grad():
            sets = list(self._judged(latents, list(given(getattr(latents, of)))))
            found = [
                c(s.pred, s.places, s.context).diagonal()
                if isinstance(c, PairEnergy)
                else c(s.pred, s.places, _seen(c, s))
                for c in self.critics.values()
                for s in sets
            ]
        if not found:
            raise ConfigError('feedback.kind = "moments" has no critic to score with')
        return torch.stack(found).mean(dim=0)

    def _judged(self, latents: Latents, pred: list[Tensor]) -> Iterator[Judged]:
        target, empty = given(latents.target), pred[0].new_zeros(0)
        for k, p in enumerate(pred):
            u = F.layer_norm(p, p.shape[-1:]) if self.config.normalise else p
            places = given(latents.places)[k] if self.critics else empty
            context = given(latents.context)[k].detach() if self.critics else empty
            yield Judged(u, target[k].detach(), places, context)

    def _feedback(self, sets: list[Judged], step: int) -> Tensor:
        """L_F, a scalar; the critics' parameters are read only."""
        if not self.critics:
            generator = torch_generator(self.seed, "feedback", step)
            return torch.stack(
                [
                    ecf_distance(s.pred.flatten(0, 1), s.target.flatten(0, 1), generator=generator)
                    for s in sets
                ]
            ).mean()
        losses = []
        noise = self._noise(step, "judged")
        for critic in self.critics.values():
            for s in sets:
                u = noise(s.pred)
                if isinstance(critic, PairEnergy):
                    losses.append(-critic(u, s.places, s.context).diagonal().mean())
                else:
                    losses.append(F.softplus(-critic(u, s.places, _seen(critic, s))).mean())
        return torch.stack(losses).mean()

    def _train(self, sets: list[Judged], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """L_D on constants, and how often the critics are right."""
        losses, right = [], []
        noise = self._noise(step, "critic")
        for critic in self.critics.values():
            for s in sets:
                u, z = noise(s.pred.detach()), noise(s.target)
                if isinstance(critic, PairEnergy):
                    scores = critic(z, s.places, s.context)
                    wanted = torch.arange(len(scores), device=scores.device)
                    losses.append(F.cross_entropy(scores, wanted))
                    right.append((scores.argmax(dim=1) == wanted).float().mean())
                    continue
                real = critic(z, s.places, _seen(critic, s))
                fakes = [critic(u, s.places, _seen(critic, s))]
                if critic.context is not None:  # pyright: ignore[reportAttributeAccessIssue]
                    fakes.append(critic(z.roll(1, dims=0), s.places.roll(1, dims=0), s.context))
                losses.append(critic_loss(real, fakes))
                hits = [(real > 0).float().mean(), (fakes[0] < 0).float().mean()]
                right.append(torch.stack(hits).mean())
                if self.config.slope and step % self.config.slope_every == 0:
                    assert isinstance(critic, SetCritic)
                    penalty = slope_penalty(critic, z, s.places, _seen(critic, s))
                    losses[-1] = losses[-1] + self.config.slope * self.config.slope_every * penalty
        return torch.stack(losses).mean(), {"accuracy": torch.stack(right).mean().detach()}

    def _factor(self, wanted: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> Tensor:
        """alpha: makes the feedback's gradient ``ratio`` times the prediction's."""
        top, bottom = (torch.stack([g.square().sum() for g in gs]).sum() for gs in (wanted, found))
        return (self.config.ratio * top.sqrt() / (bottom.sqrt() + 1e-12)).clamp_max(LARGEST_FACTOR)

    def _noise(self, step: int, name: str) -> _Noise:
        return _Noise(
            self.config.noise_at(step), torch_generator(self.seed, "feedback", name, step)
        )


class _Noise:
    """Adds Gaussian noise."""

    def __init__(self, deviation: float, generator: torch.Generator):
        self._deviation, self._generator = deviation, generator

    def __call__(self, x: Tensor) -> Tensor:
        if not self._deviation:
            return x
        return x + self._deviation * torch.randn(x.shape, generator=self._generator).to(x)


def _fitting(config: FeedbackConfig, sizes: Sizes) -> Critics:
    """Critics of the width asked for, if small beside the encoder, or of the widest that is."""
    most = sizes.encoder_parameters
    if most is None:
        if config.width:
            return Critics(_critics(config.kind, config.width, sizes))
        raise ConfigError("feedback.width = 0 follows the encoder's size, which is not known here")
    for width in (config.width,) if config.width else (64, 32, 16, 8, 4):
        critics = Critics(_critics(config.kind, width, sizes))
        count = sum(p.numel() for p in critics.parameters())
        if count <= most / 10:
            return critics
    raise ConfigError(
        f"feedback.width = {config.width}: critics of {count} parameters, where a tenth of the "
        f"encoder's are {most // 10}: choose a smaller width or a larger encoder"
    )


def _critics(kind: Kind, width: int, sizes: Sizes) -> Iterator[tuple[str, nn.Module]]:
    dim = sizes.latent_dim or 0
    context = sizes.context_dim or dim
    if kind in ("structure", "both"):
        yield "structure", SetCritic(dim, width)
    if kind in ("coherence", "both"):
        yield "coherence", SetCritic(dim, width, context_dim=context)
    if kind == "energy":
        yield "energy", PairEnergy(dim, width, context_dim=context)


def _seen(critic: nn.Module, s: Judged) -> Tensor | None:
    return s.context if getattr(critic, "context", None) is not None else None
