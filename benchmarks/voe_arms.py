"""The arms of :mod:`.voe_study`: one base, and others that differ from it in one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError
from ..datasets.clips import ClipConfig
from ..vjepa.encoder import EncoderConfig
from ..vjepa.engine import LoopConfig
from ..vjepa.masked import MaskingConfig
from ..vjepa.objectives.presets import vjepa2
from ..vjepa.optim import OptimConfig
from ..vjepa.predictor import PredictorConfig
from ..vjepa.pretrain import PretrainConfig
from ..vjepa.pretrain_recipe import PretrainRunConfig
from .video_arms import future_masks
from .voe.settings import ScoreConfig
from .voe.windows import WindowConfig

SKIP = 2
"""Frames of the video per frame that is seen: 8 frames/s of 16."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An encoder, its training and its windows."""

    width: int = 96
    """Of the encoder, and of the predictor."""
    depth: int = 4
    """Blocks of the encoder; the predictor has half as many."""
    patch: int = 8
    """Pixels along a patch."""
    size: int = 64
    """Side of frames in pixels, in training and scoring."""
    frames: int = 16
    """Frames of a training clip, every second of the video."""
    window: int = 16
    """Frames of a scored window, context and future together."""
    share: float = 1.0
    """Of the training videos."""
    future: bool = False
    """Hide the later half of each clip and blocks of the first, not blocks through all frames."""
    steps: int = 3000
    """Training steps."""
    batch: int = 16
    """Clips per step."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share = {self.share}: must be above 0 and at most 1")
        if self.window % 2 or self.window < 6:
            raise ConfigError(f"window = {self.window}: even, and at least 6")

    @property
    def trained_as(self) -> str:
        """A name for what was trained: equal for arms that differ in their windows alone."""
        masks = "-future" if self.future else ""
        return (
            f"w{self.width}d{self.depth}p{self.patch}-{self.frames}x{self.size}"
            f"-{round(100 * self.share)}{masks}"
        )


ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "window 8": {"window": 8},
    "window 24": {"window": 24},
    "long clips": {"frames": 24, "window": 24},
    "coarse": {"size": 32},
    "half data": {"share": 0.5},
    "narrow": {"width": 48},
    "future masks": {"future": True},
    "future masks, window 8": {"future": True, "window": 8},
    "future masks, window 24": {"future": True, "window": 24},
    "future masks, coarse": {"future": True, "size": 32},
    "future masks, narrow": {"future": True, "width": 48},
    "future masks, half data": {"future": True, "share": 0.5},
}
"""What each arm changes. Windows alone: no training of its own. The arms after "future masks"
change one thing more, for where the base is at chance there is nothing to lose."""


def train_config(arm: Arm, videos: str, out: str, *, seed: int, threads: int) -> PretrainRunConfig:
    """How an arm is pretrained: V-JEPA 2's objective, with pixels normalised by the corpus's."""
    heads = max(1, arm.width // 32)
    masks = future_masks() if arm.future else MaskingConfig()
    return PretrainRunConfig(
        videos=videos,
        out=out,
        resume=True,
        clips=ClipConfig(frames=arm.frames, frame_step=SKIP, size=arm.size),
        augment=False,  # crops would cut off what is to be expected
        pixel_stats="corpus",
        threads=threads,
        device="cpu",
        train=PretrainConfig(
            encoder=EncoderConfig(width=arm.width, depth=arm.depth, heads=heads, patch=arm.patch),
            predictor=PredictorConfig(width=arm.width, depth=max(1, arm.depth // 2), heads=heads),
            masks=masks,
            objective=vjepa2(momentum=(0.99, 1.0), exponent=2.0),
            optim=OptimConfig(lr=2e-3, start_lr=2e-4, final_lr=2e-4),
            loop=LoopConfig(
                steps=arm.steps,
                precision="bf16",
                report_every=max(1, arm.steps // 10),
                save_every=max(1, arm.steps // 10),
            ),
            batch_size=arm.batch,
            seed=seed,
        ),
    )


def score_config(
    arm: Arm, *, data: str, model: str, out: str, untrained: int, threads: int
) -> ScoreConfig:
    """How an arm is scored: contexts of one to three quarters of the window, chosen on val."""
    contexts = sorted({2 * round(arm.window * part / 8) for part in (1, 2, 3)})
    return ScoreConfig(
        data=data,
        model=model,
        kind="masked",
        out=out,
        resume=True,
        windows=WindowConfig(window=arm.window, contexts=tuple(contexts), skip=SKIP),
        choose="val",
        size=arm.size,
        untrained=untrained,
        threads=threads,
        device="cpu",
    )
