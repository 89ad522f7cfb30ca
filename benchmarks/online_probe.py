"""Is the encoder getting better? Two cheap probes of a few labelled clips, while it trains.

    probe = online_probe(OnlineProbeConfig(data="labels.csv"), clips)
    probe(encoder)    # {"probe/linear": 0.41, "probe/knn": 0.38, "probe/chance": 0.25}

The loss of a V-JEPA says little about its features; these say something, and by steps. The clips
are read once and cut into a half that teaches and a half that is scored, so that the numbers of one
run compare with each other. Nothing is tuned: for numbers to report there is `tubelet evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError, DatasetError, VideoDecodeError
from ..core.rng import numpy_generator
from ..datasets.clips import ClipConfig, clip_frames, num_starts
from ..datasets.decode import open_video
from ..datasets.image_file import read_image
from ..datasets.images import IMAGE_EXTENSIONS
from ..datasets.synthetic.make import load_factors
from ..vjepa.encoder import TubeletEncoder
from .frozen.labelled import read_labelled

PENALTY = 1e-2
"""Of the linear probe, relative to the number of clips that teach; features have unit variance."""
NEIGHBOURS = 20
TEMPERATURE = 0.07


@dataclass(frozen=True, kw_only=True)
class OnlineProbeConfig:
    """A linear and a nearest-neighbour probe of labelled clips at every report."""

    data: str = ""
    """A list of ``path label`` lines, a folder with a folder per class, or a corpus of moving
    shapes. Empty: no probe."""
    factors: tuple[str, ...] = ("direction", "speed", "shape", "count")
    """What to read of moving shapes; other data have one label."""
    limit: int = 400
    """Clips at most: one from the middle of each file, drawn from the files."""
    batch: int = 32
    """Clips encoded at a time."""
    seed: int = 0
    """Of the draw and of the halves."""

    def __post_init__(self) -> None:
        for name, least in {"limit": 4, "batch": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"probe.{name} = {getattr(self, name)}: must be at least {least}")
        if not self.factors:
            raise ConfigError("probe.factors = (): name at least one")


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeClips:
    """Clips with labels.

    Attributes:
        video: uint8 ``[M, T, H, W, 3]``. labels: int64 ``[M]`` by name ("" where there is one).
        bad: path -> reason of each file that was left out.
    """

    video: Tensor
    labels: dict[str, Tensor]
    bad: dict[str, str]


def online_probe(
    config: OnlineProbeConfig, clips: ClipConfig
) -> Callable[[TubeletEncoder], dict[str, float]]:
    """A probe in the form that :func:`tubelet.vjepa.pretrain.pretrain` takes.

    Args:
        clips: frames, step or rate, and size of the clips: those of the run.

    Returns:
        ``probe(encoder)``: accuracies ``probe/linear`` and ``probe/knn`` on the half that is scored
        and ``probe/chance``, that of its most frequent class; with factors ``probe/<factor>/…``.

    Raises:
        ConfigError: no such factor. DatasetError: no labels, or hardly a file that can be read.
    """
    shown = read_probe_clips(config, clips)
    order = numpy_generator(config.seed, "online-probe", "halves").permutation(len(shown.video))
    teach, scored = torch.from_numpy(order).chunk(2)

    def probe(encoder: TubeletEncoder) -> dict[str, float]:
        x = mean_tokens(encoder, shown.video, config.batch)
        found = {}
        for name, labels in shown.labels.items():
            prefix = f"probe/{name}/" if name else "probe/"
            scores = probe_scores(x[teach], labels[teach], x[scored], labels[scored])
            found |= {prefix + key: value for key, value in scores.items()}
        return found

    return probe


def probe_scores(x: Tensor, y: Tensor, x_new: Tensor, y_new: Tensor) -> dict[str, float]:
    """Accuracy on ``x_new [R, D]``, ``y_new [R]`` of readouts of ``x [M, D]``, ``y [M]``.

    ``linear``: ridge regression of one-hot labels. ``knn``: votes of the nearest by cosine
    (arXiv 1805.01978). ``chance``: the most frequent class of ``y``.
    """
    mean, std = x.double().mean(0), x.double().std(0, correction=0)
    std = torch.where(std > 1e-9, std, torch.inf)  # what never varies says nothing
    x, x_new = ((v.double() - mean) / std for v in (x, x_new))
    classes = int(torch.cat([y, y_new]).max()) + 1
    votes = F.one_hot(y, classes).double()
    share = votes.mean(0)
    gram = x @ x.T  # dual form: few clips
    eye = torch.eye(len(x), dtype=gram.dtype)
    dual = torch.linalg.solve(gram + PENALTY * len(x) * eye, votes - share)
    linear = x_new @ (x.T @ dual) + share
    cosine = F.normalize(x_new, dim=1) @ F.normalize(x, dim=1).T
    near, which = cosine.topk(min(NEIGHBOURS, len(x)), dim=1)
    weights = ((near - near[:, :1]) / TEMPERATURE).exp()
    nearest = (weights[..., None] * votes[which]).sum(1)
    readouts = {"linear": linear, "knn": nearest, "chance": share.expand(len(y_new), -1)}
    return {k: (v.argmax(1) == y_new).double().mean().item() for k, v in readouts.items()}


@torch.no_grad()
def mean_tokens(encoder: TubeletEncoder, video: Tensor, batch: int) -> Tensor:
    """The mean token float32 ``[M, D]`` of clips uint8 ``[M, T, H, W, 3]``, in eval mode, on the
    encoder's device; the result is on the CPU."""
    training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    parts = [encoder(part.to(device)).float().mean(1).cpu() for part in video.split(batch)]
    encoder.train(training)
    return torch.cat(parts)


def read_probe_clips(config: OnlineProbeConfig, clips: ClipConfig) -> ProbeClips:
    """One clip from the middle of each of at most ``config.limit`` files, with labels.

    Raises:
        DatasetError: fewer than four clips could be read, or no labels. ConfigError: no such
            factor.
    """
    paths, labels = _labelled(config)
    rows = numpy_generator(config.seed, "online-probe", "files").permutation(len(paths))
    video, kept, bad = [], [], {}
    for row in rows[: config.limit].tolist():
        try:
            video.append(_middle_clip(paths[row], clips))
        except VideoDecodeError as error:
            bad[paths[row]] = error.reason
        else:
            kept.append(row)
    if len(kept) < 4:
        why = "; ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:3])
        raise DatasetError(f"{config.data}: {len(kept)} labelled clips, and 4 are needed. {why}")
    return ProbeClips(
        video=torch.from_numpy(np.stack(video)),
        labels={name: torch.from_numpy(values[kept]) for name, values in labels.items()},
        bad=bad,
    )


def _labelled(config: OnlineProbeConfig) -> tuple[tuple[str, ...], Mapping[str, np.ndarray]]:
    if not (Path(config.data) / "factors.parquet").exists():
        data = read_labelled(config.data)
        return data.paths, {"": data.labels}
    factors = load_factors(config.data)
    unknown = [name for name in config.factors if name not in factors.classes]
    if unknown:
        raise ConfigError(
            f"probe.factors: no {', '.join(unknown)} in {config.data}; there are "
            + ", ".join(factors.classes)
        )
    return factors.paths, {name: factors.columns[name].astype(np.int64) for name in config.factors}


def _middle_clip(path: str, clips: ClipConfig) -> np.ndarray:
    """uint8 ``[T, size, size, 3]``. Raises VideoDecodeError, also for videos that are too short."""
    if Path(path).suffix.lower() in IMAGE_EXTENSIONS:
        return np.repeat(read_image(path, clips.size)[None], clips.frames, axis=0)
    with open_video(path, clips.backend) as video:
        starts = num_starts(video.timestamps, clips)
        if not starts:
            raise VideoDecodeError(path, "too short for a clip", video.backend)
        numbers = clip_frames(video.timestamps, (starts - 1) // 2, clips)
        return video.get_frames(numbers, clips.size)
