"""How good is a trained encoder of point clouds or skeletons? A frozen linear probe of its run.

    tubelet evaluate --preset tokens --encoder runs/clouds
    tubelet evaluate --preset tokens --encoder runs/shapenet --data modelnet40_ply_hdf5_2048/

Logistic regression on the mean and the largest of the tokens, beside the same of the encoder before
training and of hand-made features, on the same samples. Without ``--data``, solids or figures are
generated from a seed that the run did not train on. Point-JEPA's published numbers are of a linear
SVM with one fixed penalty; here the penalty is chosen on validation samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..core.errors import ConfigError
from ..core.rng import numpy_generator
from ..datasets.labelled import LabelledSet
from ..datasets.points import PrimitivesConfig, generate_points, read_points
from ..datasets.skeletons import read_skeletons
from ..datasets.stick_figures import StickFigureConfig, generate_skeletons
from ..vjepa.checkpoint import find_checkpoint, stored_config
from ..vjepa.modalities.model import TokenTrainConfig
from ..vjepa.modalities.recipe import load_token_encoder
from .frozen.readouts import logistic
from .frozen.selection import judge
from .modality_features import cloud_features, motion_features
from .modality_readout import features, untrained
from .results import Table
from .stats import mcnemar_exact, wilson_interval
from .video_probes import ProbeConfig

_HELD_OUT = 2_000_000


@dataclass(frozen=True, kw_only=True)
class ModalityProbeConfig:
    """Judge a frozen encoder of point clouds or skeletons by a linear probe, beside its untrained
    self and hand-made features. On the CPU."""

    encoder: str = ""
    """Run folder of ``tubelet pretrain`` on points or skeletons, or one of its checkpoints."""
    data: str = ""
    """A public data set (see ``tubelet pretrain``): its training part is fitted on, its test part
    reported. Empty generates samples."""
    protocol: str = "xsub"
    """Of NTU RGB+D: xsub or xview."""
    count: int = 1000
    """Generated samples: seven tenths to fit and choose on, the rest to report."""
    seed: int = 0
    """Of the generated samples and the validation split."""
    out: str = "runs/evaluate"
    """Run folder."""
    resume: bool = False
    """Do it again in that folder, with the same settings."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        if self.count < 50:
            raise ConfigError(f"count = {self.count}: must be at least 50")
        if self.protocol not in ("xsub", "xview"):
            raise ConfigError(f"protocol = {self.protocol!r}: choose xsub or xview")


def run_modality_probe(config: ModalityProbeConfig) -> Table:
    """A row per source of features. Raises ConfigError, CheckpointError, DatasetError."""
    if not config.encoder:
        raise ConfigError('encoder = "": name a run of tubelet pretrain on points or skeletons')
    folder = find_checkpoint(config.encoder)
    train = stored_config(folder, TokenTrainConfig, "an encoder of points or skeletons")
    fitted, reported = _parts(config, train)
    samples = np.concatenate([fitted.samples, reported.samples])
    labels = np.concatenate([fitted.labels, reported.labels])
    order = numpy_generator(config.seed, "modality-probe").permutation(len(fitted))
    cut = round(0.8 * len(fitted))
    test = np.arange(len(fitted), len(samples))
    still = train.modality.still(torch.from_numpy(samples))
    handmade = cloud_features if train.points is not None else motion_features
    sources = {
        "trained": features(load_token_encoder(config.encoder), still),
        "untrained": features(untrained(train, fitted.samples), still),
        "hand-made features": handmade(samples),
    }
    classes, right = int(labels.max()) + 1, {}
    for name, x in sources.items():
        found = logistic(x, labels, order[:cut], classes, penalties=ProbeConfig().penalties)
        right[name] = judge(found, labels, order[cut:], test).right
    return Table(
        title=f"Frozen linear probe of {config.encoder}",
        columns=["features", "accuracy", "only trained right", "only this right", "p"],
        rows=[_row(name, hits, right["trained"]) for name, hits in right.items()],
        note=f"{len(test)} samples of {classes} classes, {cut} to fit and {len(fitted) - cut} to "
        "choose the penalty; Wilson's 95 % interval, McNemar's exact test against the trained.",
    )


def _row(name: str, right: np.ndarray, trained: np.ndarray) -> list[str]:
    share = wilson_interval(int(right.sum()), len(right))
    text = f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
    if name == "trained":
        return [name, text, "–", "–", "–"]
    pair = mcnemar_exact(trained, right)
    return [name, text, str(pair.only_first), str(pair.only_second), f"{pair.p:.3g}"]


def _parts(config: ModalityProbeConfig, train: TokenTrainConfig) -> tuple[LabelledSet, LabelledSet]:
    """Samples to fit (and choose) on, and to report on."""
    points, skeletons = train.points, train.skeletons
    if config.data and points:
        return (
            read_points(config.data, split="train", points=points.points),
            read_points(config.data, split="test", points=points.points),
        )
    if config.data:
        assert skeletons is not None
        splits: Any = (f"{config.protocol}-train", f"{config.protocol}-test")
        first, second = (
            read_skeletons(config.data, split=split, frames=skeletons.frames) for split in splits
        )
        return first, second
    seed = config.seed + _HELD_OUT
    if points:
        made = generate_points(
            PrimitivesConfig(count=config.count, points=points.points, seed=seed)
        )
    else:
        assert skeletons is not None
        frames = skeletons.frames
        made = generate_skeletons(StickFigureConfig(count=config.count, frames=frames, seed=seed))
    cut = round(0.7 * config.count)
    return _some(made, slice(0, cut)), _some(made, slice(cut, None))


def _some(data: LabelledSet, rows: slice) -> LabelledSet:
    return replace(
        data, samples=data.samples[rows], labels=data.labels[rows], names=data.names[rows]
    )
