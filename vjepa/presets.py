"""Named configs of pretraining, from a CPU demo to ViT-g; world models are in world_presets.

>>> preset("nano").encoder.width
96
>>> preset("nanno")
Traceback (most recent call last):
tubelet.core.errors.ConfigError: unknown preset 'nanno'; did you mean 'nano'? (presets: ...
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from ..datasets.clips import ClipConfig
from .encoder import EncoderConfig
from .engine import LoopConfig
from .objectives.presets import vjepa2
from .optim import OptimConfig, vjepa2_schedule
from .predictor import PredictorConfig
from .pretrain import PretrainConfig
from .world_presets import WORLD_MODELS as WORLD_MODELS
from .world_presets import world_model as world_model

# --- pretraining, small machines --------------------------------------------------------------


def debug() -> PretrainConfig:
    """Seconds on a CPU, for 32-pixel clips: to see that everything runs."""
    return PretrainConfig(
        encoder=EncoderConfig(width=48, depth=1, heads=3, patch=8),
        predictor=PredictorConfig(width=48, depth=1, heads=3),
        optim=OptimConfig(lr=1e-3, clip=1.0),
        loop=LoopConfig(steps=20, log_every=1, report_every=10, save_every=10),
        batch_size=4,
        objective=vjepa2(momentum=(0.99, 0.99)),
    )


def nano() -> PretrainConfig:
    """Minutes on a 2-core CPU, for 64-pixel clips of simulated scenes."""
    return PretrainConfig(
        encoder=EncoderConfig(width=96, depth=4, heads=3, patch=8),
        predictor=PredictorConfig(width=96, depth=3, heads=3),
        optim=OptimConfig(lr=2e-3, start_lr=2e-4, final_lr=2e-4),
        loop=LoopConfig(steps=500, report_every=100, save_every=100),
        batch_size=16,
        # The exponent: the median, which 1 asks for, of a still scene is its background.
        objective=vjepa2(momentum=(0.99, 1.0), exponent=2.0),
    )


# --- pretraining, published sizes -------------------------------------------------------------
# ViT sizes and the V-JEPA 2 schedule: warm-up from 1e-4 to 5.25e-4 over 12,000 of 240,000 steps,
# then constant; weight decay .04; momentum .99925; 24 clips per device (3072 over 128 devices, so
# scale the learning rate down on fewer).


def tiny() -> PretrainConfig:
    """ViT-Ti, 5.6 M parameters: one small GPU, 128-pixel clips."""
    return _published(192, 12, 3, predictor=PredictorConfig(width=192, depth=6, heads=6))


def small() -> PretrainConfig:
    """ViT-S, 21.9 M parameters: one GPU, 128-pixel clips."""
    return _published(384, 12, 6, predictor=PredictorConfig(width=192, depth=6, heads=6))


def base() -> PretrainConfig:
    """ViT-B, 86.2 M parameters."""
    return _published(768, 12, 12)


def large() -> PretrainConfig:
    """ViT-L, 304 M parameters."""
    return _published(1024, 24, 16)


def huge() -> PretrainConfig:
    """ViT-H, 632 M parameters."""
    return _published(1280, 32, 16)


def giant() -> PretrainConfig:
    """ViT-g, 1.01 B parameters."""
    return _published(1408, 40, 22, mlp_ratio=48 / 11)


def _published(
    width: int,
    depth: int,
    heads: int,
    *,
    mlp_ratio: float = 4.0,
    predictor: PredictorConfig | None = None,
) -> PretrainConfig:
    return PretrainConfig(
        encoder=EncoderConfig(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio),
        predictor=predictor or PredictorConfig(width=384, depth=12, heads=12),
        optim=vjepa2_schedule(),
        loop=LoopConfig(
            steps=240_000, log_every=50, report_every=1000, save_every=1000, precision="bf16"
        ),
        batch_size=24,
    )


PRESETS: dict[str, Callable[[], PretrainConfig]] = {
    "debug": debug,
    "nano": nano,
    "tiny": tiny,
    "small": small,
    "base": base,
    "large": large,
    "huge": huge,
    "giant": giant,
}


def preset(name: str) -> PretrainConfig:
    """The pretraining config called ``name``. Raises ConfigError with the nearest name."""
    return _find(PRESETS, name)()


def clips(name: str) -> ClipConfig:
    """The clips that preset ``name`` was made for. Raises ConfigError with the nearest name."""
    _find(PRESETS, name)
    if name == "debug":
        return ClipConfig(frames=4, size=32)
    if name == "nano":
        return ClipConfig(frames=6, frame_step=3, size=64)
    return ClipConfig(frames=16, fps=4, size=128 if name in ("tiny", "small") else 256)


def _find(table: dict[str, Callable], name: str) -> Callable:
    if name not in table:
        hint = did_you_mean(name, table)
        raise ConfigError(f"unknown preset {name!r}{hint} (presets: {', '.join(table)})")
    return table[name]
