"""Labelled clips: a list of ``path label`` lines or a folder per class, and their splits.

>>> data = read_labelled("videos.csv")                                       # doctest: +SKIP
>>> train, valid, test = split_rows(data.labels, (0.6, 0.2), seed=0)         # doctest: +SKIP
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...core.rng import numpy_generator
from ...datasets.corpus import EXTENSIONS
from ...datasets.images import IMAGE_EXTENSIONS

_HEADERS = {"path", "file", "filename", "video"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Files with a class each.

    Attributes:
        source: what was read. paths: absolute, each once. labels: int64 [M], positions in
        classes. classes: names, in order (numbers by their value).
    """

    source: str
    paths: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> Labelled:
        """The files of some rows (numbers or a mask), with the same classes."""
        rows = np.arange(len(self))[rows]
        paths = tuple(self.paths[row] for row in rows)
        return Labelled(
            source=self.source, paths=paths, labels=self.labels[rows], classes=self.classes
        )


def read_labelled(
    source: str | os.PathLike[str], classes: tuple[str, ...] | None = None
) -> Labelled:
    """Read a list file or a folder of folders.

    Args:
        source: a text file of ``path label``, ``path::label`` or ``path,label`` lines (the label is
            the last of them; a header, empty lines and ``#`` comments are passed over; relative
            paths start at the file's folder); or a folder with one folder of videos or images for
            each class.
        classes: the classes there must be, of another list; by default those of this one.

    Raises:
        DatasetError: nothing there, a line without a label, a path twice, a class that is not among
            ``classes``, or fewer than two classes.
    """
    root = Path(source).absolute()
    if not root.exists():
        raise DatasetError(f"{root}: no such list file or folder; check the path")
    rows = _folder(root) if root.is_dir() else _list(root)
    if not rows:
        raise DatasetError(
            f"{root}: no labelled files; give 'path label' lines or a folder a class"
        )
    paths = [path for path, _ in rows]
    twice = sorted(path for path, count in Counter(paths).items() if count > 1)
    if twice:
        raise DatasetError(f"{root}: {len(twice)} paths stand there twice, such as {twice[0]}")
    found = {label for _, label in rows}
    if classes is None:
        numbers = all(label.isdigit() for label in found)
        classes = tuple(sorted(found, key=int) if numbers else sorted(found))
    unknown = sorted(found - set(classes))
    if unknown:
        raise DatasetError(
            f"{root}: {len(unknown)} classes are not among those trained on, such as {unknown[0]!r}"
        )
    if len(classes) < 2:
        raise DatasetError(f"{root}: a single class, {min(classes)!r}; a probe needs two or more")
    number = {name: i for i, name in enumerate(classes)}
    return Labelled(
        source=str(root),
        paths=tuple(paths),
        labels=np.array([number[label] for _, label in rows], np.int64),
        classes=classes,
    )


def split_rows(labels: np.ndarray, shares: tuple[float, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Rows cut into ``len(shares) + 1`` parts, class by class: int64 arrays, each sorted.

    Each class gives every part its share, rounded; the last part takes the rest. The draw depends
    on ``labels`` and ``seed`` alone.

    Raises ConfigError for shares that leave the last part nothing, DatasetError if a part is empty.
    """
    if min(shares, default=0) <= 0 or sum(shares) >= 1:
        raise ConfigError(f"split = {shares}: give shares above 0 that leave something over")
    parts: list[list[np.ndarray]] = [[] for _ in [*shares, "rest"]]
    for label in np.unique(labels):
        rows = numpy_generator(seed, "split", int(label)).permutation(
            np.flatnonzero(labels == label)
        )
        cuts = np.round(np.cumsum(shares) * len(rows)).astype(int)
        for part, some in zip(parts, np.split(rows, cuts), strict=True):
            part.append(some)
    out = tuple(np.sort(np.concatenate(part)).astype(np.int64) for part in parts)
    if any(len(part) == 0 for part in out):
        raise DatasetError(
            f"{len(labels)} clips split {shares} leave a part empty: give more clips"
        )
    return out


def _folder(root: Path) -> list[tuple[str, str]]:
    known = {*EXTENSIONS, *IMAGE_EXTENSIONS}
    return [
        (str(path), folder.name)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in known and not path.name.startswith(".")
    ]


def _list(root: Path) -> list[tuple[str, str]]:
    try:
        lines = root.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{root}: not a text file in UTF-8 ({error.reason})") from error
    rows = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        path, label = _columns(line)
        if not rows and path.lower() in _HEADERS:
            continue
        if not path or not label:
            raise DatasetError(f"{root}:{number}: no label in {line!r}; write 'path label'")
        rows.append((os.path.abspath(root.parent / path), label))
    return rows


def _columns(line: str) -> tuple[str, str]:
    """Path and label: behind ``::``, the last comma (where there is one) or the last space."""
    if "::" in line:
        path, _, label = line.rpartition("::")
    elif "," in line and not line.rpartition(" ")[2].isdigit():
        *first, label = next(csv.reader([line]))
        path = ",".join(first)
    else:
        path, _, label = line.rpartition(" ")
    return path.strip(), label.strip()
