"""How the arms of :mod:`.video_study` train: one encoder, its masks, its clips and its compute, and
two things to predict of what is hidden.

*latent*: tokens of the encoder's moving average (V-JEPA). *pixels*: the hidden tubelets' own
pixels, each tubelet normalised to zero mean and unit variance (VideoMAE, arXiv 2203.12602; MAE,
2111.06377). Everything else is equal; the pixel arm, which has no teacher to run, takes so many
more steps that both cost the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.io import atomic_path
from ..core.run import RunDir
from ..datasets.clips import ClipBatch, ClipConfig, clip_batches
from ..datasets.corpus import CorpusIndex
from ..vjepa.encoder import EncoderConfig, TubeletEncoder
from ..vjepa.engine import LoopConfig
from ..vjepa.flops import encoder_flops, step_flops
from ..vjepa.masked import MaskingConfig
from ..vjepa.masks import MaskConfig
from ..vjepa.objectives import ObjectiveConfig
from ..vjepa.objectives.presets import vjepa
from ..vjepa.objectives.regress import RegressConfig
from ..vjepa.objectives.targets import TargetConfig
from ..vjepa.optim import OptimConfig
from ..vjepa.positions import Grid
from ..vjepa.predictor import PredictorConfig
from ..vjepa.pretrain import PretrainConfig, pretrain

ARMS = ("latent", "pixels")
"""What is predicted."""


def future_masks() -> MaskingConfig:
    """The second half of the clip is to be predicted from parts of the first (V-JEPA's causal
    multi-block masks, arXiv 2404.08471): what stands still is soon learnt by copying, and what is
    left to learn is what moves."""
    return MaskingConfig(
        short=MaskConfig(blocks=1, scale=0.15, max_temporal_keep=0.5),
        long=MaskConfig(blocks=2, scale=0.3, max_temporal_keep=0.5),
    )


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """The encoder, its clips and its training, which all arms share."""

    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(width=128, depth=4, heads=4, patch=16)
    )
    """The encoder; its pixel statistics are set to the corpus's."""
    predictor: PredictorConfig = field(
        default_factory=lambda: PredictorConfig(width=96, depth=2, heads=4)
    )
    """The predictor; its output is as wide as what it predicts."""
    masks: MaskingConfig = field(default_factory=future_masks)
    """What is hidden: the second half of the clip, and blocks of the first."""
    frames: int = 8
    """Frames of a clip."""
    frame_step: int = 2
    """Frames of the video from one frame of the clip to the next."""
    size: int = 64
    """Side of the clips in pixels."""
    batch: int = 16
    """Clips per step."""
    steps: int = 2000
    """Steps of the latent arm."""
    lr: float = 1e-3
    """Peak learning rate."""
    decay: float = 0.04
    """Weight decay, from the first step to the last."""
    precision: str = "bf16"
    """Of the training; the probes' features are float32."""
    momentum: tuple[float, float] = (0.99, 1.0)
    """Of the moving average, at the first and last step."""
    exponent: float = 2.0
    """Of the error: squared, where the published 1 asks for a median, which is the background."""


class PixelTarget(nn.Module):
    """Stands where a frozen teacher stands, and gives out the tubelets' pixels.

    With the target's layer norm over channels, each tubelet then has zero mean and unit variance.
    """

    def __init__(self, encoder: EncoderConfig):
        super().__init__()
        self._encoder = encoder

    def forward(self, video: Tensor, *, all_levels: bool = False) -> Tensor:
        """Pixels in [0, 1], float32 ``[B, N, frames * patch² * 3]``, of clips uint8
        ``[B, T, H, W, 3]``."""
        return tubelets(video, self._encoder.grid(*video.shape[1:4])).float() / 255


def tubelets(video: Tensor, grid: Grid) -> Tensor:
    """Clips ``[B, T, H, W, 3]`` cut into flat tubelets ``[B, N, frames * patch² * 3]``, in the
    order of tokens."""
    x = video.unflatten(3, (grid.w, -1)).unflatten(2, (grid.h, -1)).unflatten(1, (grid.t, -1))
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(1, 3)


def arm_config(name: str, arm: ArmConfig, seed: int) -> PretrainConfig:
    """The run of one arm; the pixel arm's steps cost what the latent arm's do.

    Raises ConfigError for another name.
    """
    if name not in ARMS:
        raise ConfigError(f"arm {name!r}: choose {' or '.join(ARMS)}")
    objective, predictor = vjepa(momentum=arm.momentum, exponent=arm.exponent), arm.predictor
    if name == "pixels":
        pixels = 3 * arm.encoder.tubelet * arm.encoder.patch**2
        predictor = replace(predictor, target_width=pixels)
        objective = ObjectiveConfig(
            target=TargetConfig(kind="frozen", norm="layer"),
            regress=RegressConfig(kind="lp", exponent=2.0),
        )
    config = PretrainConfig(
        encoder=arm.encoder,
        predictor=predictor,
        masks=arm.masks,
        objective=objective,
        optim=OptimConfig(
            lr=arm.lr,
            start_lr=arm.lr / 10,
            final_lr=arm.lr / 20,
            weight_decay=arm.decay,
            final_weight_decay=arm.decay,
        ),
        batch_size=arm.batch,
        seed=seed,
    )
    steps = arm.steps
    if name == "pixels":
        whole = step_cost(arm_config("latent", arm, seed), arm) * arm.steps
        steps = round(whole / step_cost(config, arm))
    loop = LoopConfig(
        steps=steps,
        log_every=20,
        report_every=max(1, steps // 8),
        save_every=steps,
        precision=arm.precision,
    )
    return replace(config, loop=loop)


def step_cost(config: PretrainConfig, arm: ArmConfig) -> float:
    """Operations of one training step."""
    return step_flops(config, arm.frames, arm.size, arm.size).total


def encode_cost(arm: ArmConfig) -> float:
    """Operations of encoding one clip."""
    return encoder_flops(arm.encoder, arm.encoder.grid(arm.frames, arm.size, arm.size))


def snapshots(config: PretrainConfig) -> list[int]:
    """After how many steps the encoder is kept: about an eighth, a quarter, half and all of them,
    where the loop looks at the model anyway."""
    every, steps = config.loop.report_every, config.loop.steps
    return sorted({min(every * part + 1, steps) for part in (1, 2, 4)} | {steps})


def clip_config(arm: ArmConfig, seed: int) -> ClipConfig:
    """The clips that an arm sees."""
    return ClipConfig(frames=arm.frames, frame_step=arm.frame_step, size=arm.size, seed=seed)


def train_arm(
    name: str,
    arm: ArmConfig,
    films: CorpusIndex,
    cache: Path,
    out: Path,
    seed: int,
) -> None:
    """Train one arm with one seed, or go on with the run in ``out``; the encoder after each of
    :func:`snapshots` is kept there.

    Args:
        films: the videos. cache: folder of their decoded frames.
    """
    config = arm_config(name, arm, seed)
    keep = snapshots(config)
    teacher = PixelTarget(arm.encoder) if name == "pixels" else None
    clips, reached = clip_config(arm, seed), [0]

    def batches(first: int) -> Iterator[ClipBatch]:
        source = clip_batches(films, clips, arm.batch, start_step=first, cache=cache)
        for step, batch in enumerate(source, start=first):
            reached[0] = step + 1
            yield batch

    def write(encoder: TubeletEncoder) -> dict[str, float]:
        if reached[0] in keep:
            path = encoder_path(out, reached[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                save_file(encoder.state_dict(), temporary)
        return {}

    with RunDir.create(out, config, resume=True) as run:
        # The type says encoder; any module that maps clips to targets is one here.
        pretrain(config, batches, run, probe=write, teacher=cast(TubeletEncoder | None, teacher))


def encoder_path(out: Path, steps: int) -> Path:
    """Where the encoder after ``steps`` steps is kept."""
    return out / "encoders" / f"{steps:06d}.safetensors"


def load_snapshot(arm: ArmConfig, out: Path, steps: int) -> TubeletEncoder:
    """A kept encoder, frozen and in eval mode."""
    encoder = TubeletEncoder(arm.encoder)
    encoder.load_state_dict(load_file(encoder_path(out, steps)))
    return encoder.requires_grad_(False).eval()
