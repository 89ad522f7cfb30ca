"""How each objective of :mod:`.objective_study` trains: one small encoder, equally many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..core.run import RunDir
from ..datasets.augment import AugmentConfig, augment
from ..datasets.clips import ClipBatch, ClipConfig, clip_batches
from ..datasets.corpus import index_corpus
from ..datasets.images import ImageConfig, image_batches, image_crop, index_images
from ..datasets.views import ViewConfig
from ..vjepa.encoder import EncoderConfig, TubeletEncoder
from ..vjepa.engine import LoopConfig
from ..vjepa.multiview import MultiviewConfig
from ..vjepa.optim import OptimConfig
from ..vjepa.predictor import PredictorConfig
from ..vjepa.pretrain import PretrainConfig, pretrain, with_objective

FRAMES = 8
"""Of a clip of video."""
MOMENTUM = (0.99, 1.0)
"""Of moving averages, at the first and last step: the published ones hardly move in short runs."""
SLICES = 256
"""SIGReg's random directions."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One objective on one kind of data.

    Attributes:
        kind: what it trains on. batch: clips per step. crop: random resized crops, of objectives
            that predict hidden tokens. views: of objectives that compare views.
    """

    kind: Literal["images", "videos"]
    batch: int
    crop: AugmentConfig | None = None
    views: ViewConfig | None = None


# Two local views fewer than published, for time. Videos are never mirrored: left would be right.
ARMS = {
    "ijepa": Arm(kind="images", batch=64, crop=image_crop()),
    "lejepa": Arm(kind="images", batch=64, views=ViewConfig(local_views=4)),
    "cjepa": Arm(kind="images", batch=64, crop=image_crop()),
    "vjepa": Arm(kind="videos", batch=16, crop=AugmentConfig(flip=0)),
    "levjepa": Arm(kind="videos", batch=16, views=ViewConfig(local_views=2, flip=0)),
}
"""By objective."""


def train_arm(objective: str, data: Path, out: Path, steps: int, seed: int) -> TubeletEncoder:
    """Train ``objective`` on the images or videos in ``data``, or go on with the run in ``out``.

    Returns the encoder to probe, in eval mode.
    """
    arm = ARMS[objective]
    source = _source(arm.kind, data, arm.batch, seed)
    config = arm_config(objective, next(source(0)).video, steps, seed)
    crop = arm.crop

    def cropped(video: Tensor, generator: torch.Generator) -> Tensor:
        return video if crop is None else augment(video, crop, generator)

    with RunDir.create(out, config, resume=True) as run:
        encoder = pretrain(config, source, run, augment=cropped).output.eval()
    assert isinstance(encoder, TubeletEncoder)
    return encoder


def arm_config(objective: str, sample: Tensor, steps: int, seed: int) -> PretrainConfig:
    """The run of one objective; pixels are normalised by the uint8 clips ``sample``."""
    arm = ARMS[objective]
    pixels = sample.flatten(0, -2).float() / 255
    encoder = EncoderConfig(
        width=96,
        depth=4,
        heads=3,
        patch=8,
        tubelet=1 if arm.kind == "images" else 2,
        pixel_mean=_triple(pixels.mean(0)),
        pixel_std=_triple(pixels.std(0)),
    )
    base = PretrainConfig(
        encoder=encoder,
        predictor=PredictorConfig(width=96, depth=3, heads=3),
        optim=OptimConfig(lr=1e-3, start_lr=1e-4, final_lr=1e-5),
        loop=LoopConfig(steps=steps, log_every=20, report_every=steps, save_every=steps),
        multiview=MultiviewConfig(views=arm.views or ViewConfig(), hidden=512),
        batch_size=arm.batch,
        seed=seed,
    )
    config = with_objective(base, objective)
    goal = config.objective
    if goal.target.kind == "ema":
        goal = replace(goal, target=replace(goal.target, momentum=MOMENTUM))
    if goal.sigreg is not None:
        goal = replace(goal, sigreg=replace(goal.sigreg, slices=SLICES))
    return replace(config, objective=goal)


def _source(kind: str, data: Path, batch: int, seed: int) -> Callable[[int], Iterator[ClipBatch]]:
    """``batches(first_step)`` of a folder, which is decoded once into a memory map beside it."""
    cache = data.with_suffix(".cache")
    if kind == "images":
        pictures, still = index_images(data, progress=False), ImageConfig(seed=seed)
        return lambda first: image_batches(pictures, still, batch, start_step=first, cache=cache)
    films, moving = index_corpus(data, progress=False), ClipConfig(frames=FRAMES, seed=seed)
    return lambda first: clip_batches(films, moving, batch, start_step=first, cache=cache)


def _triple(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue
