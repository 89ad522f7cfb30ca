"""How much faster windows are scored together than one window and context at a time.

    python -m tubelet.benchmarks.voe.speed
    python -m tubelet.benchmarks.voe.speed --data runs/voe_study/set

Both ways score the same videos with the same model, in turns; it prints how many times less
processor time the shared way takes, and by how much the losses differ. Of noise: a recombined
quadruplet, most of whose windows straddle the cut, and four videos that have nothing in common.
``--data`` adds quadruplets of a generated set, evenly spaced in it, with the published windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ...core.errors import DatasetError
from ...core.rng import numpy_generator
from ...datasets.voe.frames import ArrayFrames
from ...datasets.voe.record import VoeVideo
from ...datasets.voe.registry import open_voe
from ...vjepa.encoder import EncoderConfig
from ...vjepa.objectives.targets import TargetConfig
from ...vjepa.predictor import PredictorConfig
from ..timing import interleaved, ratio_of_medians
from .masked import MaskedScorer, untrained
from .surprise import group_losses
from .windows import WindowConfig, sampled, starts


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """What is timed."""

    frames: int = 34
    """Frames of a video: 10 windows of 16, a window every 2."""
    size: int = 64
    """Side in pixels."""
    width: int = 96
    """Width of the encoder."""
    depth: int = 4
    """Its blocks."""
    windows: WindowConfig = field(default_factory=lambda: WindowConfig(skip=1))
    """Windows and contexts."""
    repeats: int = 3
    """Rounds, after one untimed."""
    data: str = ""
    """A generated set; empty: noise alone."""
    groups: int = 6
    """Quadruplets of it."""


def one_by_one(
    videos: Sequence[VoeVideo], scorer: MaskedScorer, config: WindowConfig
) -> np.ndarray:
    """Losses ``[videos, contexts, windows, steps]``, each window and context on its own."""
    rows = []
    with torch.inference_mode():
        for video in videos:
            frames = scorer.observe(video, sampled(video, config))
            first = starts(len(frames), config)
            rows.append(
                [
                    [scorer(frames[None, s : s + config.window], [c])[0, 0, 0] for s in first]
                    for c in config.contexts
                ]
            )
    return np.array([[[x.mean((-1, -2)).numpy() for x in c] for c in video] for video in rows])


def quadruplet(config: SpeedConfig, *, recombined: bool) -> list[VoeVideo]:
    """Four videos of noise: two, and their recombinations; or four that share nothing."""
    rng = numpy_generator(0, "voe", "speed")
    shape = (4, config.frames, config.size, config.size, 3)
    clips = list(rng.integers(0, 256, shape, np.uint8))
    cut = config.frames // 2
    if recombined:
        a, b = clips[:2]
        clips[2:] = [np.concatenate([a[:cut], b[cut:]]), np.concatenate([b[:cut], a[cut:]])]
    return [
        VoeVideo(name=str(n), group="0", frames=ArrayFrames(clip)) for n, clip in enumerate(clips)
    ]


def from_set(folder: str, count: int) -> list[list[VoeVideo]]:
    """``count`` quadruplets of a generated set, evenly spaced.

    Raises:
        DatasetError: there are fewer, or no set.
    """
    groups = [videos for videos in open_voe(folder, "auto").groups().values() if len(videos) == 4]
    if not 0 < count <= len(groups):
        raise DatasetError(f"{folder} has {len(groups)} quadruplets, {count} are asked for")
    return [groups[int(n)] for n in np.linspace(0, len(groups) - 1, count)]


def compare(
    name: str,
    groups: Sequence[Sequence[VoeVideo]],
    scorer: MaskedScorer,
    windows: WindowConfig,
    repeats: int,
) -> str:
    """Time both ways; a line of what came out."""
    last: dict[str, list[np.ndarray]] = {}

    def apart() -> None:
        last["apart"] = [one_by_one(videos, scorer, windows) for videos in groups]

    def together() -> None:
        last["together"] = [group_losses(videos, scorer, windows).losses[0] for videos in groups]

    timed = interleaved({"apart": apart, "together": together}, repeats)
    ratio = ratio_of_medians(timed["rounds"]["apart"], timed["rounds"]["together"])
    differ = max(
        float(np.nanmax(np.abs(a - b)))
        for a, b in zip(last["apart"], last["together"], strict=True)
    )
    return (
        f"{name}: {timed['cpu']['apart']:.2f} s apart, {timed['cpu']['together']:.2f} s "
        f"together: {ratio.value:.2f} times [{ratio.low:.2f}, {ratio.high:.2f}] less processor "
        f"time, {repeats} rounds; losses differ by at most {differ:.1e}"
    )


def main(config: SpeedConfig) -> None:
    """Time both ways on all kinds of quadruplets and print a line for each."""
    encoder = EncoderConfig(width=config.width, depth=config.depth, heads=3, patch=8)
    predictor = PredictorConfig(width=config.width // 2, depth=config.depth // 2, heads=3)
    parts = untrained(encoder, predictor, TargetConfig(norm="layer"), 0, "cpu")
    scorer = MaskedScorer(parts, baselines=False)
    for name, recombined in (("recombined", True), ("distinct", False)):
        noise = [quadruplet(config, recombined=recombined)]
        print(compare(name, noise, scorer, config.windows, config.repeats))
    if config.data:
        found = from_set(config.data, config.groups)
        print(compare("generated set", found, scorer, WindowConfig(), config.repeats))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(SpeedConfig, description=__doc__))
