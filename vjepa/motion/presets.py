"""Named runs of MC-JEPA, from seconds to the published encoder's size.

>>> motion_preset("mcjepa").motion.encoder.width
96
"""

from __future__ import annotations

from collections.abc import Callable

from ...core.config import did_you_mean
from ...core.errors import ConfigError
from ...datasets.clips import ClipConfig
from ...datasets.views import ViewConfig
from ..engine import LoopConfig
from ..optim import OptimConfig
from ..pretrain import PretrainConfig
from .flow_head import FlowHeadConfig
from .model import MotionConfig
from .pyramid import PyramidConfig


def debug() -> PretrainConfig:
    """Seconds on a CPU, for 32-pixel clips: to see that everything runs."""
    return PretrainConfig(
        motion=MotionConfig(
            encoder=PyramidConfig(widths=(8, 12, 16), depths=(1, 1, 1), kernel=3),
            head=FlowHeadConfig(width=8, depth=1, radius=2),
            views=ViewConfig(global_views=2, local_views=0, global_size=32),
            expander=32,
        ),
        optim=OptimConfig(lr=1e-3, clip=1.0),
        loop=LoopConfig(steps=10, log_every=1, report_every=5, save_every=5),
        batch_size=4,
    )


def small() -> PretrainConfig:
    """About an hour on a 2-core CPU, for 64-pixel clips."""
    return PretrainConfig(
        motion=MotionConfig(),
        optim=OptimConfig(lr=3e-3, start_lr=3e-4, final_lr=3e-5, clip=1.0),
        loop=LoopConfig(steps=3000, log_every=15, report_every=300, save_every=300),
        batch_size=32,
    )


def tiny() -> PretrainConfig:
    """ConvNeXt-T's widths and depths below a level of half the image's side, for 256-pixel clips on
    a GPU; the expander (published: 8192) as narrow as the batch asks for. Never run here."""
    return PretrainConfig(
        motion=MotionConfig(
            encoder=PyramidConfig(widths=(48, 96, 192, 384, 768), depths=(1, 3, 3, 9, 3)),
            head=FlowHeadConfig(width=96, depth=3, radius=4),
            views=ViewConfig(global_views=2, local_views=0, global_size=224),
            expander=1024,
        ),
        optim=OptimConfig(lr=3e-4, start_lr=0.0, clip=1.0),
        loop=LoopConfig(
            steps=100_000, log_every=51, report_every=1000, save_every=1000, precision="bf16"
        ),
        batch_size=256,
    )


MOTION_PRESETS: dict[str, Callable[[], PretrainConfig]] = {
    "mcjepa": small,
    "mcjepa-debug": debug,
    "mcjepa-tiny": tiny,
}

_CLIPS = {
    "mcjepa": ClipConfig(frames=2, size=64),
    "mcjepa-debug": ClipConfig(frames=3, size=32),
    "mcjepa-tiny": ClipConfig(frames=2, size=256),
}


def motion_preset(name: str) -> PretrainConfig:
    """The run called ``name``. Raises ConfigError with the nearest name."""
    if name not in MOTION_PRESETS:
        hint = did_you_mean(name, MOTION_PRESETS)
        raise ConfigError(f"unknown preset {name!r}{hint} (presets: {', '.join(MOTION_PRESETS)})")
    return MOTION_PRESETS[name]()


def motion_clips(name: str) -> ClipConfig:
    """The clips that preset ``name`` was made for. Raises ConfigError with the nearest name."""
    motion_preset(name)
    return _CLIPS[name]
