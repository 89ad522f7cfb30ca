"""Named configs of world models: ours for a CPU, and the published recipes in kind.

The published ones keep what defines a recipe (what is trained, on which loss, how actions enter,
how far it rolls out) and take the encoder they are given. What they differ in is one config
(:class:`DynamicsConfig`), so that any mixture can be trained.

| preset | encoder | latent | actions enter by | loss |
|---|---|---|---|---|
| lewm | trained | vector | AdaLN | one step + SIGReg |
| pldm | trained | vector | AdaLN | rollout + variance, covariance, slowness, inverse dynamics |
| dino-wm | frozen | tokens | concatenation | one step |
| vjepa2-ac | frozen | tokens | tokens | one step + two-step rollout, L1 |
| jedi | trained | vector | AdaLN | one step + rollout + SIGReg + discriminative feedback |
| lewm_z | trained | vector | AdaLN | lewm, by the nearest of eight futures + router |
| hjepa | frozen | its model's | macro-actions by AdaLN | one step + rollout, L1, slower clock |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from .action_config import vjepa2_ac as vjepa2_ac_predictor
from .action_predictor import ActionPredictorConfig
from .debug_presets import DEBUG_MODELS
from .dynamics import DynamicsConfig
from .encoder import EncoderConfig
from .engine import LoopConfig
from .futures_config import FuturesConfig
from .hierarchy_config import HierarchyConfig
from .objectives.feedback import FeedbackConfig
from .optim import OptimConfig
from .proposer import ProposerConfig
from .world_model import WorldModelConfig


def vjepa_vector(encoder: EncoderConfig) -> DynamicsConfig:
    """One learned vector per observation on a frozen encoder's cached tokens (with SIGReg)."""
    return DynamicsConfig(
        model=_vector_model(encoder),
        freeze_encoder=True,
        sigreg_weight=0.5,
        optim=_dynamics_optim(),
        loop=LoopConfig(steps=2000, report_every=500, save_every=200),
    )


def vjepa_tokens(encoder: EncoderConfig) -> DynamicsConfig:
    """A frozen encoder's standardised tokens themselves, averaged over 2 x 2 neighbours."""
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=encoder,
            latent="tokens",
            pool=2,
            predictor=ActionPredictorConfig(width=128, depth=4, heads=4),
        ),
        freeze_encoder=True,
        horizon=3,
        batch_size=32,
        loop=LoopConfig(steps=3000, report_every=500, save_every=1000),
    )


def end_to_end(encoder: EncoderConfig) -> DynamicsConfig:
    """Encoder and dynamics trained together from pixels: prediction and SIGReg (as LeWM)."""
    return DynamicsConfig(
        model=_vector_model(encoder),
        batch_size=48,
        sigreg_weight=0.5,
        optim=_dynamics_optim(),
        loop=LoopConfig(steps=1200, report_every=300, save_every=200),
    )


def end_to_end_encoder() -> EncoderConfig:
    """The encoder of the end-to-end recipe on a CPU: few tokens, so many steps."""
    return EncoderConfig(width=128, depth=2, heads=4, patch=16)


def _vector_model(encoder: EncoderConfig) -> WorldModelConfig:
    return WorldModelConfig(
        encoder=encoder,
        latent="vector",
        latent_dim=32,
        predictor=ActionPredictorConfig(width=160, depth=2, heads=4),
    )


def _dynamics_optim() -> OptimConfig:
    return OptimConfig(
        lr=1e-3,
        start_lr=0.0,
        final_lr=0.0,
        warmup=0.05,
        weight_decay=1e-3,
        final_weight_decay=1e-3,
        betas=(0.9, 0.98),
        clip=1.0,
    )


def lewm(encoder: EncoderConfig) -> DynamicsConfig:
    """LeWM (arXiv 2603.19312): next latent by teacher forcing, SIGReg, nothing else.

    Windows of four observations, five environment steps apart. The published encoder is a ViT-Ti
    whose class token is projected; here all tokens are.
    """
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=encoder,
            latent="vector",
            latent_dim=192,
            head_width=2048,
            predictor=ActionPredictorConfig(width=192, depth=6, heads=6),
        ),
        horizon=3,
        rollout_weight=0.0,
        sigreg_weight=0.1,
        sigreg_slices=1024,
        batch_size=128,
        optim=_adamw(5e-5, 1e-3),
        loop=LoopConfig(steps=10000, report_every=1000, save_every=1000),
    )


def pldm(encoder: EncoderConfig) -> DynamicsConfig:
    """PLDM (arXiv 2502.14819): rollouts, and no collapse by variance, covariance, slowness and
    inverse dynamics. Weights as in the public two-room recipe (arXiv 2602.03604: 16, 8, 12, 1)."""
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=encoder,
            latent="vector",
            latent_dim=192,
            head_width=512,
            predictor=ActionPredictorConfig(width=192, depth=2, heads=6),
        ),
        horizon=8,
        teacher_weight=0.0,
        rollout_weight=1.0,
        sigreg_weight=0.0,
        std_weight=16.0,
        cov_weight=8.0,
        tempsim_weight=12.0,
        idm_weight=1.0,
        batch_size=128,
        optim=_adamw(1e-3, 1e-5),
        loop=LoopConfig(steps=5000, report_every=500, save_every=500),
    )


def dino_wm(encoder: EncoderConfig) -> DynamicsConfig:
    """DINO-WM (arXiv 2411.04983) on the features of the given frozen encoder: all tokens, actions
    concatenated to each, the next frame's tokens by teacher forcing."""
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=encoder,
            latent="tokens",
            predictor=ActionPredictorConfig(
                width=384, depth=6, heads=16, mlp_ratio=16 / 3, conditioning="concat"
            ),
        ),
        freeze_encoder=True,
        horizon=3,
        rollout_weight=0.0,
        batch_size=32,
        optim=_adamw(5e-4, 1e-6),
        loop=LoopConfig(steps=10000, report_every=1000, save_every=1000),
    )


def vjepa2_ac(encoder: EncoderConfig) -> DynamicsConfig:
    """V-JEPA 2-AC (arXiv 2506.09985) in kind: a frozen encoder's tokens, actions as tokens of a
    block-causal transformer, absolute errors of one step and of a rollout of two.

    The published predictor is 24 layers of 1,024 (``tubelet convert`` reads its weights; it wants
    poses and camera extrinsics, which windows of trajectories do not hold): here 6 of 384.
    """
    published = vjepa2_ac_predictor()
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=encoder,
            latent="tokens",
            predictor=ActionPredictorConfig(
                width=384,
                depth=6,
                heads=16,
                conditioning=published.conditioning,
                action_encoder=published.action_encoder,
                place=published.place,
                residual=published.residual,
            ),
        ),
        freeze_encoder=True,
        horizon=2,
        loss="l1",
        batch_size=32,
        optim=_adamw(4.25e-4, 0.04),
        loop=LoopConfig(steps=10000, report_every=1000, save_every=1000),
    )


def hjepa(encoder: EncoderConfig) -> DynamicsConfig:
    """H-JEPA (LeCun 2022; HWM, arXiv 2604.03208): a slower level of four model steps above a
    trained world model of any kind (``tubelet train --level1 RUN``), by prediction alone.

    The level below stays as it is unless ``hierarchy.first`` says joint; then it is end_to_end's.
    """
    return replace(
        end_to_end(encoder),
        hierarchy=HierarchyConfig(strides=(4,)),
        horizon=12,
        batch_size=128,
        loop=LoopConfig(steps=3000, report_every=500, save_every=500),
    )


def lewm_z(encoder: EncoderConfig) -> DynamicsConfig:
    """LeWM with a latent variable of eight codes: several futures of one context and action
    (:mod:`.futures`), for worlds that are not decided by what is seen and done."""
    base = lewm(encoder)
    return replace(base, model=replace(base.model, futures=FuturesConfig(count=8)))


def jedi(encoder: EncoderConfig) -> DynamicsConfig:
    """JeDi-JEPA as a world model: :func:`end_to_end` with discriminative feedback on its one-step
    predictions. A reading of a press text; see :mod:`.objectives.feedback`."""
    return replace(end_to_end(encoder), feedback=FeedbackConfig(normalise=False))


def amortised(encoder: EncoderConfig) -> DynamicsConfig:
    """:func:`end_to_end` with a head that proposes actions, trained beside it (``tubelet amortise``
    adds one to a trained model)."""
    joint = end_to_end(encoder)
    return replace(joint, model=replace(joint.model, proposer=ProposerConfig()))


def _adamw(lr: float, decay: float) -> OptimConfig:
    return OptimConfig(
        lr=lr,
        start_lr=0.0,
        final_lr=0.0,
        warmup=0.01,
        weight_decay=decay,
        final_weight_decay=decay,
        clip=1.0,
    )


WORLD_MODELS: dict[str, Callable[[EncoderConfig], DynamicsConfig]] = {
    "vjepa_vector": vjepa_vector,
    "vjepa_tokens": vjepa_tokens,
    "end_to_end": end_to_end,
    "lewm": lewm,
    "pldm": pldm,
    "dino-wm": dino_wm,
    "vjepa2-ac": vjepa2_ac,
    "jedi": jedi,
    "amortised": amortised,
    "lewm_z": lewm_z,
    "hjepa": hjepa,
    **DEBUG_MODELS,
}


def world_model(name: str, encoder: EncoderConfig) -> DynamicsConfig:
    """The world-model config called ``name``. Raises ConfigError with the nearest name."""
    if name not in WORLD_MODELS:
        hint = did_you_mean(name, WORLD_MODELS)
        raise ConfigError(f"unknown preset {name!r}{hint} (presets: {', '.join(WORLD_MODELS)})")
    return WORLD_MODELS[name](encoder)
