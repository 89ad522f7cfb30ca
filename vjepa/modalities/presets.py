"""Point-JEPA, S-JEPA and LeJEPA on their tokens by name, in published size (where there is one) and
small.

>>> preset("pointjepa").encoder.width
384
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...core.config import did_you_mean
from ...core.errors import ConfigError
from ..engine import LoopConfig
from ..objectives import presets as objectives
from ..objectives.centred import CentredConfig
from ..optim import OptimConfig
from .model import TokenTrainConfig, flat_predictor
from .points import PointsConfig
from .rigid import RigidConfig
from .skeletons import SkeletonsConfig
from .tokens import TokenTransformerConfig
from .views import TokenViewsConfig


def pointjepa() -> TokenTrainConfig:
    """Point-JEPA (arXiv 2404.16432) at its published size: a GPU and ShapeNet55.

    Published: 500 epochs of 41,952 clouds in batches of 512 (82 steps each), AdamW at 1e-3 with
    decay .05. The warm-up is our choice.
    """
    return TokenTrainConfig(
        encoder=TokenTransformerConfig(width=384, depth=12, heads=6, places_every_block=True),
        predictor=flat_predictor(192, 6, 6),
        objective=objectives.pointjepa(),
        optim=OptimConfig(
            lr=1e-3, start_lr=1e-5, warmup=0.06, weight_decay=0.05, final_weight_decay=0.05
        ),
        loop=LoopConfig(steps=41_000, log_every=50, report_every=1000, save_every=1000),
        batch_size=512,
    )


def sjepa() -> TokenTrainConfig:
    """S-JEPA (ECCV 2024) for NTU RGB+D: 25 joints, 120 frames, 90 % hidden, 5 predictor blocks.

    Width, depth, optimiser and batch size were not available: those of MAMP's transformer
    (arXiv 2308.07092: width 256, 8 blocks, 8 heads) stand in.
    """
    return TokenTrainConfig(
        points=None,
        skeletons=SkeletonsConfig(),
        encoder=TokenTransformerConfig(width=256, depth=8, heads=8),
        predictor=flat_predictor(256, 5, 8),
        objective=objectives.sjepa(),
        averaged="all",
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, final_weight_decay=0.05),
        loop=LoopConfig(steps=100_000, log_every=50, report_every=1000, save_every=1000),
        batch_size=128,
    )


def pointjepa_small() -> TokenTrainConfig:
    """Minutes on a CPU, for generated shapes."""
    return TokenTrainConfig(
        points=PointsConfig(
            points=512, centres=32, neighbours=16, hidden=(32, 64), place_hidden=64
        ),
        encoder=TokenTransformerConfig(width=64, depth=3, heads=4, places_every_block=True),
        predictor=flat_predictor(32, 2, 2),
        objective=objectives.pointjepa(momentum=(0.99, 1.0)),
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, final_weight_decay=0.05, clip=3.0),
        loop=LoopConfig(steps=600, log_every=10, report_every=200, save_every=100),
        batch_size=32,
    )


def sjepa_small() -> TokenTrainConfig:
    """Minutes on a CPU, for generated stick figures.

    The context sees what the targets see: in a pilot (one seed, 500 steps) the probe of an encoder
    that had been shown turned and mirrored contexts was no better than before training.

    DINO's temperatures are for logits between unit vectors, which deviate by about 1/16; those of
    layer-normed tokens deviate by 1, so that the same sharpness is at ten times and more.
    """
    centred = CentredConfig(student_temperature=1.0, teacher_temperature=0.4)
    return TokenTrainConfig(
        points=None,
        skeletons=SkeletonsConfig(frames=32, joints=16, rigid=None),
        encoder=TokenTransformerConfig(width=64, depth=3, heads=4),
        predictor=flat_predictor(32, 2, 2),
        objective=replace(objectives.sjepa(momentum=(0.99, 1.0)), centred=centred),
        averaged="all",
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, final_weight_decay=0.05, clip=3.0),
        loop=LoopConfig(steps=600, log_every=10, report_every=200, save_every=100),
        batch_size=32,
    )


def pointjepa_debug() -> TokenTrainConfig:
    """Seconds on a CPU: to see that everything runs."""
    return TokenTrainConfig(
        points=PointsConfig(points=64, centres=16, neighbours=8, hidden=(16, 32), place_hidden=16),
        encoder=TokenTransformerConfig(width=24, depth=2, heads=2, places_every_block=True),
        predictor=flat_predictor(24, 1, 2),
        objective=objectives.pointjepa(momentum=(0.99, 1.0)),
        optim=OptimConfig(lr=1e-3, clip=3.0),
        loop=LoopConfig(steps=12, log_every=1, report_every=6, save_every=4),
        batch_size=8,
    )


def sjepa_debug() -> TokenTrainConfig:
    """Seconds on a CPU: to see that everything runs."""
    return TokenTrainConfig(
        points=None,
        skeletons=SkeletonsConfig(frames=16, joints=16),
        encoder=TokenTransformerConfig(width=24, depth=2, heads=2),
        predictor=flat_predictor(24, 1, 2),
        objective=objectives.sjepa(momentum=(0.99, 1.0)),
        averaged="all",
        optim=OptimConfig(lr=1e-3, clip=3.0),
        loop=LoopConfig(steps=12, log_every=1, report_every=6, save_every=4),
        batch_size=8,
    )


def lejepa_points_small() -> TokenTrainConfig:
    """LeJEPA on the tokens of :func:`pointjepa_small`; no such study is published. Minutes on a
    CPU."""
    return _lejepa(pointjepa_small(), steps=200, batch_size=64, log_every=10)


def lejepa_skeletons_small() -> TokenTrainConfig:
    """LeJEPA on the tokens of :func:`sjepa_small`, turned, moved and mirrored; likewise."""
    tokens = sjepa_small()
    assert tokens.skeletons is not None
    moved = replace(tokens, skeletons=replace(tokens.skeletons, rigid=RigidConfig()))
    return _lejepa(moved, steps=200, batch_size=64, log_every=10)


def lejepa_points_debug() -> TokenTrainConfig:
    """Seconds on a CPU: to see that everything runs."""
    return _lejepa(pointjepa_debug(), steps=12, batch_size=8, log_every=1)


def lejepa_skeletons_debug() -> TokenTrainConfig:
    """Seconds on a CPU: to see that everything runs."""
    return _lejepa(sjepa_debug(), steps=12, batch_size=8, log_every=1)


def _lejepa(
    tokens: TokenTrainConfig, *, steps: int, batch_size: int, log_every: int
) -> TokenTrainConfig:
    """Encoder and tokens of ``tokens``, trained by views that agree."""
    loop = replace(tokens.loop, steps=steps, log_every=log_every)
    objective = objectives.lejepa(slices=256)
    views = TokenViewsConfig()
    return replace(tokens, views=views, objective=objective, loop=loop, batch_size=batch_size)


PRESETS: dict[str, Callable[[], TokenTrainConfig]] = {
    "pointjepa": pointjepa,
    "pointjepa-small": pointjepa_small,
    "pointjepa-debug": pointjepa_debug,
    "sjepa": sjepa,
    "sjepa-small": sjepa_small,
    "sjepa-debug": sjepa_debug,
    "lejepa-points-small": lejepa_points_small,
    "lejepa-points-debug": lejepa_points_debug,
    "lejepa-skeletons-small": lejepa_skeletons_small,
    "lejepa-skeletons-debug": lejepa_skeletons_debug,
}


def preset(name: str) -> TokenTrainConfig:
    """The config called ``name``. Raises ConfigError with the nearest name."""
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise ConfigError(f"unknown preset {name!r}{hint} (presets: {', '.join(PRESETS)})")
    return PRESETS[name]()
