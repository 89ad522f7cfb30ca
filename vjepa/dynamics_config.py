"""The config of dynamics training, and the objective that its weights stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ..core.errors import ConfigError
from .dynamics_feedback import check_feedback
from .engine import LoopConfig
from .hierarchy_config import HierarchyConfig
from .objectives.feedback import FeedbackConfig
from .objectives.futures import LikelihoodConfig, RouterConfig
from .objectives.objective import ObjectiveConfig
from .objectives.regress import MultistepConfig, RegressConfig
from .objectives.sigreg import SigregConfig
from .objectives.targets import TargetConfig
from .objectives.temporal import IdmConfig, TempsimConfig
from .objectives.vicreg import VicregConfig
from .optim import OptimConfig
from .world_model import WorldModelConfig

_PREDICTION = ("teacher_weight", "rollout_weight")
_VECTOR_TERMS = ("sigreg_weight", "std_weight", "cov_weight", "tempsim_weight", "idm_weight")


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Everything that determines the training of a world model, besides the trajectories."""

    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    """Architecture."""
    freeze_encoder: bool = False
    """Keep the given encoder as it is and train on its cached tokens."""
    horizon: int = 5
    """Model steps H of a training window."""
    teacher_weight: float = 1.0
    """Weight of the one-step loss."""
    rollout_weight: float = 1.0
    """Weight of the multi-step loss."""
    loss: Literal["l2", "l1"] = "l2"
    """Mean squared or absolute error, of both."""
    sigreg_weight: float = 0.1
    """Weight of SIGReg (times the batch size, as in LeWM); needs latent = "vector"."""
    sigreg_slices: int = 128
    """Random directions per step."""
    std_weight: float = 0.0
    """Weight of VICReg's variance, per time step; needs latent = "vector", as all that follow."""
    cov_weight: float = 0.0
    """Weight of VICReg's covariance (mean over pairs of channels), per time step."""
    tempsim_weight: float = 0.0
    """Weight of temporal similarity."""
    tempsim: Literal["l2", "straighten"] = "l2"
    """Squared steps between latents, or the angle between one step and the next."""
    idm_weight: float = 0.0
    """Weight of inverse dynamics: a head reads the action from consecutive latents."""
    feedback: FeedbackConfig | None = None
    """Discriminative feedback on one-step predictions (JeDi-JEPA); set its normalise to false."""
    hierarchy: HierarchyConfig = field(default_factory=HierarchyConfig)
    """Slower levels over the same latents; none by default."""
    batch_size: int = 64
    """Windows per step."""
    cache_stride: int = 5
    """Environment steps between cached observations of a frozen encoder; divides the block."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=1e-3,
            start_lr=0.0,
            final_lr=0.0,
            warmup=0.05,
            weight_decay=1e-3,
            final_weight_decay=1e-3,
            clip=1.0,
        )
    )
    """Optimiser and schedules."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Steps, logging and checkpoints."""
    seed: int = 0
    """Seed of the weights, the windows and the directions."""

    def __post_init__(self) -> None:
        for name in ("horizon", "batch_size", "sigreg_slices", "cache_stride"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in (*_PREDICTION, *_VECTOR_TERMS):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 or more, and finite")
        if self.teacher_weight == self.rollout_weight == 0:
            raise ConfigError(
                "teacher_weight = rollout_weight = 0: nothing would train the predictor; "
                "give one of them a positive weight"
            )
        self.hierarchy.check_horizon(self.horizon)
        if self.model.futures.kind == "gaussian" and not self.teacher_weight:
            raise ConfigError(
                "teacher_weight = 0: the spread of model.futures.kind = 'gaussian' is learnt by "
                "the one-step loss; give it a positive weight"
            )
        check_feedback(self)
        if self.model.latent == "tokens" and not self.freeze_encoder:
            raise ConfigError(
                'model.latent = "tokens" with a trained encoder would collapse: nothing keeps the '
                'tokens apart. Use freeze_encoder = true or model.latent = "vector"'
            )
        if self.model.latent == "vector" and self.sigreg_weight == self.std_weight == 0:
            raise ConfigError(
                f"sigreg_weight = {self.sigreg_weight}: a learned vector collapses without it; "
                "give it, or std_weight, a positive value"
            )
        idle = [n for n in _VECTOR_TERMS if n != "sigreg_weight" and getattr(self, n) > 0]
        if self.model.latent == "tokens" and idle:
            raise ConfigError(
                f"{', '.join(idle)}: tokens of a frozen encoder cannot change; "
                'leave them 0 or use model.latent = "vector"'
            )
        if self.model.action_block % self.cache_stride:
            raise ConfigError(
                f"cache_stride = {self.cache_stride} does not divide the action block "
                f"{self.model.action_block}"
            )


def objective(config: DynamicsConfig) -> ObjectiveConfig:
    """The terms that the weights of ``config`` turn on."""
    z = config.model.futures
    c, vector = config, config.model.latent == "vector"
    spread = VicregConfig(
        on="sequence", std=c.std_weight, cov=c.cov_weight, inv=0, cov_norm="pairs"
    )
    sigreg = SigregConfig(on="sequence", weight=c.sigreg_weight, slices=c.sigreg_slices)
    tempsim = TempsimConfig(kind=c.tempsim, weight=c.tempsim_weight)
    return ObjectiveConfig(
        target=TargetConfig(kind="shared"),
        regress=RegressConfig(kind=c.loss, weight=c.teacher_weight)
        if c.teacher_weight and z.kind != "gaussian"
        else None,
        multistep=MultistepConfig(kind=c.loss, weight=c.rollout_weight)
        if c.rollout_weight
        else None,
        sigreg=sigreg if vector and c.sigreg_weight else None,
        vicreg=spread if c.std_weight or c.cov_weight else None,
        tempsim=tempsim if c.tempsim_weight else None,
        idm=IdmConfig(weight=c.idm_weight) if c.idm_weight else None,
        feedback=c.feedback,
        router=RouterConfig(weight=z.router_weight, balance=z.balance) if z.codes else None,
        likelihood=LikelihoodConfig(weight=c.teacher_weight) if z.kind == "gaussian" else None,
    )
