"""Masked latent prediction of tokens of any modality.

context = encoder(visible tokens of the context's view)
predicted = predictor(context, places of the hidden tokens)
target = teacher(all tokens), at the hidden ones
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...core.rng import stream_seed
from ..diagnostics import embedding_report
from ..engine import LoopConfig
from ..objectives import Latents, Objective, ObjectiveConfig, Target
from ..objectives.presets import pointjepa
from ..optim import OptimConfig
from ..positions import Grid, PositionConfig
from ..predictor import MaskedJob, MaskedPredictor, PredictorConfig
from .points import PointsConfig
from .skeletons import SkeletonsConfig
from .tokens import Modality, TokenEncoder, TokenTransformer, TokenTransformerConfig, at, fresh
from .views import TokenViewsConfig, TokenViewsModel

AVERAGED = ("transformer", "all")


def flat_predictor(width: int, depth: int, heads: int) -> PredictorConfig:
    """A predictor for tokens that lie on no grid: one mask token, places from outside."""
    position = PositionConfig(kind="sincos")  # not used: places take its place
    return PredictorConfig(width=width, depth=depth, heads=heads, mask_tokens=1, position=position)


@dataclass(frozen=True, kw_only=True)
class TokenTrainConfig:
    """Everything that determines a pretraining run on point clouds or skeletons, but the data."""

    points: PointsConfig | None = field(default_factory=PointsConfig)
    """Point clouds as tokens; or:"""
    skeletons: SkeletonsConfig | None = None
    """Skeletons as tokens (then points = "none")."""
    encoder: TokenTransformerConfig = field(default_factory=TokenTransformerConfig)
    """Transformer (and teacher)."""
    predictor: PredictorConfig = field(default_factory=lambda: flat_predictor(192, 6, 6))
    """Predictor of hidden tokens; its positions are those of the modality."""
    views: TokenViewsConfig | None = None
    """Views that agree (LeJEPA) in place of hidden tokens: no predictor, no teacher, no masks."""
    objective: ObjectiveConfig = field(default_factory=pointjepa)
    """What is learned: terms with weights, and where targets come from."""
    averaged: str = "transformer"
    """What the teacher has of its own: "transformer" shares tokenizer and position embedding with
    the trained encoder (Point-JEPA); "all" averages these too (S-JEPA)."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedules."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Steps, logging and checkpoints."""
    batch_size: int = 512
    """Samples per step, of all processes together."""
    seed: int = 0
    """Seed of the weights, the masks, the views and the order of samples."""

    def __post_init__(self) -> None:
        if (self.points is None) == (self.skeletons is None):
            raise ConfigError(
                'name one of train.points and train.skeletons, and set the other to "none"'
            )
        if self.averaged not in AVERAGED:
            raise ConfigError(f'averaged = "{self.averaged}": choose {" or ".join(AVERAGED)}')
        if self.averaged == "transformer" and self.skeletons is not None and self.skeletons.rigid:
            raise ConfigError(
                'averaged = "transformer" shares tokens between context and targets, but '
                'skeletons.rigid gives the context a view of its own: set averaged = "all"'
            )
        if self.views is not None and self.objective.target.kind != "shared":
            raise ConfigError(
                f'objective.target.kind = "{self.objective.target.kind}" with views: views have no '
                'teacher; set it to "shared"'
            )
        if self.objective.target.kind == "frozen":
            raise ConfigError('objective.target.kind = "frozen": no teacher can be named here')
        if self.objective.target.levels != 1 or self.predictor.levels != 1:
            raise ConfigError("levels: tokens of points and skeletons have one level")
        if self.predictor.context_head:
            raise ConfigError("predictor.context_head = true: only hidden tokens are predicted")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size = {self.batch_size}: must be at least 1")

    @property
    def modality(self) -> Modality:
        """The one that is set."""
        chosen = self.points or self.skeletons
        assert chosen is not None
        return chosen


class TokenModel(nn.Module):
    """Encoder, teacher, predictor and objective over the tokens of ``config``'s modality."""

    def __init__(self, config: TokenTrainConfig):
        super().__init__()
        self.modality, self.seed = config.modality, config.seed
        self.encoder = fresh(config.modality, config.encoder)
        width = config.encoder.width
        self.predictor = MaskedPredictor(config.predictor, latent_dim=width)
        self.predictor_place = self.encoder.tokenizer.place_embedding(config.predictor.width)
        self.whole = config.averaged == "all"
        self.target = Target(
            config.objective.target, self.encoder if self.whole else self.encoder.transformer
        )
        self.objective = Objective(
            config.objective, {"pred", "target"}, seed=config.seed, latent_dim=width
        )

    @property
    def output(self) -> TokenEncoder:
        """The encoder to keep: with the teacher's weights where it has its own."""
        teacher = self.target.teacher
        if isinstance(teacher, TokenEncoder):
            return teacher
        if isinstance(teacher, TokenTransformer):
            return TokenEncoder(self.encoder.tokenizer, self.encoder.place, teacher)
        return self.encoder

    def latents(self, x: Tensor, step: int, first_sample: int) -> Latents:
        """Predictions and targets of prepared samples ``x``, of which the first is number
        ``first_sample`` of the run."""
        drawn = self.modality.draw(x, seed=self.seed, step=step, first_sample=first_sample)
        view = self.modality.view(x, seed=self.seed, first_sample=first_sample)
        tokens = self.encoder.embed(view)
        if self.whole:
            wanted = self.target(self.encoder, x)
        else:
            wanted = self.target(self.encoder.transformer, tokens.content, tokens.embedding)
        places = self.predictor_place(tokens.places)
        jobs = []
        for selection in drawn:
            keep = selection.context.to(x.device)
            context = self.encoder.read(tokens, keep)
            for ids in selection.targets:
                hidden = ids.to(x.device)
                where = (at(places, keep), at(places, hidden))
                jobs.append(MaskedJob(context, keep, hidden, selection.mask_index, where))
        line = Grid(1, 1, self.encoder.tokenizer.count)
        out = self.predictor.packed(jobs, line)
        return Latents(
            step=step,
            pred=tuple(predicted for predicted, _ in out),
            target=tuple(at(wanted, job.target_ids) for job in jobs),
        )

    def losses(self, x: Tensor, step: int, first_sample: int) -> dict[str, Tensor]:
        """Every term of the objective, and ``loss``, of stored samples."""
        x = self.modality.prepare(x, seed=self.seed, first_sample=first_sample)
        return self.objective(self.latents(x, step, first_sample))

    def after_step(self, step: int, steps: int) -> None:
        """Move the teacher, after the optimiser's step."""
        self.target.update(self.encoder if self.whole else self.encoder.transformer, step, steps)

    def report(self, x: Tensor, step: int) -> dict[str, float]:
        """Diagnostics of targets and predictions on one batch of stored samples.

        As :func:`embedding_report` of layer-normed tokens, but for ``clip_std``: it is of the
        samples' mean tokens, since the place of a patch differs from cloud to cloud, and would
        vary where nothing else does. ``loss_over_mean``: absolute error of the predictions over
        that of predicting the mean target; under 1 the context is being used.
        """
        x = self.modality.still(x)
        latents = self.latents(x, step, step)
        assert latents.pred is not None
        assert latents.target is not None
        pred, target = torch.cat(latents.pred, dim=1), torch.cat(latents.target, dim=1)
        tokens = _normed(self.output(x))
        baseline = (target.mean(dim=(0, 1)) - target).abs().mean()
        return embedding_report(tokens, _normed(pred)) | {
            "clip_std": tokens.mean(dim=1).std(dim=0).mean().item() if len(x) > 1 else 0.0,
            "loss_over_mean": ((pred - target).abs().mean() / baseline.clamp_min(1e-9)).item(),
        }


def build(config: TokenTrainConfig, *, device: str = "cpu") -> TokenModel | TokenViewsModel:
    """A model with weights drawn from the seed's own stream; the global generator is untouched.

    Encoders of one seed begin alike, with and without views.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "weights"))
        if config.views is None:
            return TokenModel(config).to(device)
        shape = (config.modality, config.encoder, config.views, config.objective)
        return TokenViewsModel(*shape, seed=config.seed).to(device)


def _normed(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens.float(), tokens.shape[-1:])
