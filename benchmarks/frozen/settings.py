"""What an evaluation is of: its settings, and the clips to train, to choose and to report on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ...core.errors import ConfigError, DatasetError
from .heads import HeadsConfig
from .labelled import Labelled, read_labelled, split_rows
from .protocol import FrozenProtocol


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Judge a frozen encoder by what a probe reads off its features, beside floors.

    Probes are chosen on validation clips and reported on test clips."""

    encoder: str = ""
    """A pretraining run, or anything that ``tubelet convert`` reads."""
    data: str = ""
    """A list of ``path label`` lines, or a folder with a folder per class."""
    valid: str = ""
    """A second list, to choose on; by default a part of ``data``."""
    test: str = ""
    """A list to report on; by default a part of ``data``."""
    split: tuple[float, float] = (0.6, 0.2)
    """Shares of ``data`` for training and validation where it is split; the rest is for testing."""
    probe: Literal["attentive", "linear", "knn", "ridge", "logistic", "imported"] = "attentive"
    """attentive and linear: grids of trained heads. knn, ridge, logistic: readouts of the mean
    token. imported: the probe that the checkpoint holds, as it is, on all of ``data``."""
    protocol: FrozenProtocol = field(default_factory=FrozenProtocol)
    """What the encoder is shown of a video."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    """The grid of heads."""
    seeds: int = 3
    """Trainings of every grid, on the same split."""
    seed: int = 0
    """Of the split, the first training and the untrained encoder."""
    floors: bool = True
    """Also judge an untrained encoder, pixel components and the most frequent class."""
    max_bad_share: float = 0.05
    """The largest tolerated share of files that cannot be read."""
    which: Literal["target_encoder", "encoder"] | None = None
    """The encoder of a training checkpoint; by default the one that evaluations use."""
    out: str = "runs/evaluate"
    """Run folder."""
    cache: str = ""
    """Folder of the cached features; cache in the run folder by default."""
    export: str = ""
    """Also write the encoder's features to this .npz or .safetensors file."""
    film: str = ""
    """A video whose features are shown in colour: pca.mp4 in the run folder."""
    batch: int = 8
    """Files encoded at a time."""
    workers: int = 0
    """Processes that read ahead."""
    resume: bool = False
    """Go on with the run in that folder: features that are there are kept."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)}: must be at least {least}"
            for name, least in {"seeds": 1, "batch": 1, "workers": 0}.items()
            if getattr(self, name) < least
        ]
        if not 0 <= self.max_bad_share <= 1:
            wrong.append(f"max_bad_share = {self.max_bad_share}: a share between 0 and 1")
        if min(self.split) <= 0 or sum(self.split) >= 1:
            wrong.append(f"split = {self.split}: two shares above 0 with a sum below 1")
        if self.probe == "imported" and (self.valid or self.test):
            wrong.append("an imported probe chooses and trains nothing: give its clips as data")
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """All clips of an evaluation, and the rows of its three parts, which share none."""

    data: Labelled
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def without(self, bad: Sequence[str]) -> Clips:
        """The same without the rows of files that could not be read."""
        gone = np.flatnonzero(np.isin(np.array(self.data.paths), list(bad)))
        parts = (np.setdiff1d(rows, gone) for rows in (self.train, self.valid, self.test))
        train, valid, test = parts
        if not (len(train) and len(valid) and len(test)):
            raise DatasetError(
                f"{self.data.source}: no readable clips are left in one of the parts"
            )
        return Clips(data=self.data, train=train, valid=valid, test=test)


def read_clips(config: EvaluateConfig) -> Clips:
    """The lists of ``config``, split. Raises DatasetError for files that two of them share."""
    data = read_labelled(config.data)
    more = {
        name: read_labelled(path, data.classes)
        for name, path in (("valid", config.valid), ("test", config.test))
        if path
    }
    every = [data, *more.values()]
    paths = tuple(path for some in every for path in some.paths)
    if len(set(paths)) < len(paths):
        shared = sorted(path for path, count in Counter(paths).items() if count > 1)
        raise DatasetError(f"{len(shared)} files are in two of the lists, such as {shared[0]}")
    labels = np.concatenate([some.labels for some in every])
    whole = Labelled(source=data.source, paths=paths, labels=labels, classes=data.classes)
    bounds = np.cumsum([0, *map(len, every)])
    rows = {"data": np.arange(len(data))}
    rows |= {name: np.arange(*bounds[i : i + 2]) for i, name in enumerate(more, start=1)}
    first, second = config.split
    if not more:
        train, valid, test = split_rows(data.labels, config.split, config.seed)
    elif "valid" not in more:
        train, valid = split_rows(data.labels, (first / (first + second),), config.seed)
        test = rows["test"]
    elif "test" not in more:
        train, test = split_rows(data.labels, (first + second,), config.seed)
        valid = rows["valid"]
    else:
        train, valid, test = rows["data"], rows["valid"], rows["test"]
    return Clips(data=whole, train=train, valid=valid, test=test)
