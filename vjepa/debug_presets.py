"""World models of every kind that train in seconds on a CPU: to see that everything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .action_predictor import ActionPredictorConfig
from .dynamics import DynamicsConfig
from .encoder import EncoderConfig
from .engine import LoopConfig
from .futures_config import FuturesConfig
from .hierarchy_config import HierarchyConfig
from .objectives.feedback import FeedbackConfig
from .proposer import ProposerConfig
from .world_model import WorldModelConfig


def smallest(encoder: EncoderConfig) -> DynamicsConfig:
    """The smallest world model of vectors."""
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=encoder,
            latent="vector",
            latent_dim=16,
            head_width=32,
            predictor=ActionPredictorConfig(width=32, depth=1, heads=2),
        ),
        horizon=2,
        sigreg_slices=32,
        batch_size=8,
        loop=LoopConfig(steps=20, log_every=1, report_every=10, save_every=10),
    )


def z_debug(encoder: EncoderConfig) -> DynamicsConfig:
    """As lewm_z: several futures."""
    base = smallest(encoder)
    return replace(base, model=replace(base.model, futures=FuturesConfig(count=3, width=16)))


def jedi_debug(encoder: EncoderConfig) -> DynamicsConfig:
    """As jedi: discriminative feedback."""
    return replace(smallest(encoder), feedback=FeedbackConfig(normalise=False))


def amortised_debug(encoder: EncoderConfig) -> DynamicsConfig:
    """As amortised: a head that proposes actions."""
    base = smallest(encoder)
    return replace(base, model=replace(base.model, proposer=ProposerConfig(width=16, depth=1)))


def hjepa_debug(encoder: EncoderConfig) -> DynamicsConfig:
    """As hjepa, but both levels are trained together, in one command."""
    predictor = ActionPredictorConfig(width=32, depth=1, heads=2)
    levels = HierarchyConfig(strides=(2,), first="joint", encoder_width=16, predictor=predictor)
    return replace(smallest(encoder), hierarchy=levels, horizon=4)


DEBUG_MODELS: dict[str, Callable[[EncoderConfig], DynamicsConfig]] = {
    "z_debug": z_debug,
    "jedi_debug": jedi_debug,
    "amortised_debug": amortised_debug,
    "hjepa_debug": hjepa_debug,
}
"""By name, as presets of :mod:`.world_presets`."""
