"""Samples of one shape in memory, with classes: what point clouds and skeletons are read into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..core.errors import ConfigError, DatasetError
from ..core.rng import numpy_generator


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSet:
    """A data set.

    Attributes:
        samples: float32 ``[M, ...]``, finite. labels: int64 ``[M]``. classes: names by label.
        names: of the samples. refused: (name, reason) of what was left out.
        groups: what else is known of each sample (subject, camera, …), int64 ``[M]`` by name.
    """

    samples: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    groups: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples.dtype != np.float32:
            raise ConfigError(f"samples of {self.samples.dtype}: must be float32")
        if not len(self.samples) == len(self.labels) == len(self.names):
            raise ConfigError(
                f"{len(self.samples)} samples, {len(self.labels)} labels, {len(self.names)} names"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DatasetError(
                f"labels from {self.labels.min()} to {self.labels.max()}, for "
                f"{len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def fingerprint(self) -> str:
        """Of the samples and labels: equal data, equal text."""
        digest = hashlib.sha256(np.ascontiguousarray(self.samples).tobytes())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()[:16]

    def report(self) -> str:
        """How many samples are used, of which classes, and each that is not with its reason."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        each = ", ".join(f"{n} {name}" for name, n in zip(self.classes, counts, strict=True) if n)
        lines = [f"{len(self)} samples used ({each}), {len(self.refused)} refused"]
        lines += [f"  {name}: {reason}" for name, reason in self.refused]
        return "\n".join(lines)


def collect(
    found: Iterator[tuple[str, np.ndarray | str, int]],
    *,
    classes: tuple[str, ...],
    source: str,
    max_bad_share: float,
    groups: dict[str, list[int]] | None = None,
) -> LabelledSet:
    """A set of (name, sample or the reason against it, label).

    Args:
        groups: numbers by name, one for each that is found, in order.

    Raises:
        DatasetError: nothing usable, or more than ``max_bad_share`` is bad; says what and why.
    """
    samples, labels, names, refused, kept = [], [], [], [], []
    for number, (name, sample, label) in enumerate(found):
        if isinstance(sample, str):
            refused.append((name, sample))
            continue
        samples.append(np.asarray(sample, np.float32))
        labels.append(label)
        names.append(name)
        kept.append(number)
    total = len(samples) + len(refused)
    if not samples or len(refused) > max_bad_share * total:
        shown = "; ".join(f"{name}: {reason}" for name, reason in refused[:5])
        raise DatasetError(
            f"{source}: {len(refused)} of {total} samples are bad (at most "
            f"{max_bad_share:.0%} may be): {shown or 'there are none'}"
        )
    return LabelledSet(
        samples=np.stack(samples),
        labels=np.array(labels, np.int64),
        classes=classes,
        names=tuple(names),
        refused=tuple(refused),
        groups={key: np.array(v, np.int64)[kept] for key, v in (groups or {}).items()},
    )


def shuffled(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Rows int64 ``[batch]`` of the samples of step ``step``: each epoch is a new order of all
    ``count`` samples, and batches run on from one epoch into the next. A function of its arguments.
    """
    if count < 1:
        raise DatasetError("no samples to train on")
    numbers = np.arange(step * batch, (step + 1) * batch)
    rows = np.empty(batch, np.int64)
    for epoch in np.unique(numbers // count):
        some = numbers // count == epoch
        order = numpy_generator(seed, "order", int(epoch)).permutation(count)
        rows[some] = order[numbers[some] % count]
    return rows
