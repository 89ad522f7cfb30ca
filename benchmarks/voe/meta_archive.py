"""Metrics again from the raw surprises that Meta released with arXiv 2502.11831.

    tar -xzf data_intphys.tar.gz
    python -m tubelet.benchmarks.voe.meta_archive data_intphys

The archive is ``<model>/<dataset>/performance.csv`` (semicolons; a row per block and context) and
``<model>/<dataset>/raw_surprises/*.pth``: ``losses [movies, contexts, windows]``, ``labels
[movies]`` (1 possible, 0 impossible) and ``context_lengths``. The i-th possible movie is compared
with the i-th impossible one and ties count as wrong. Shorter movies of InfLevel are padded with
zeros, which are part of the published numbers; ``drop_padding=True`` leaves them out. The files are
CC-BY-NC and are not shipped here.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import DatasetError, TubeletError
from ...vjepa.formats.files import read_torch
from .metrics import auroc, compare, surprise, window_losses

COLUMNS = (
    *("Relative Accuracy (avg)", "Relative Accuracy (max)", "AUROC (avg)", "AUROC (max)"),
    "Absolute Accuracy (max)",
)
"""Columns of performance.csv that are computed again; not its oracle thresholds, which were chosen
on the test data, nor the areas under precision and recall."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One file of raw surprises."""

    losses: np.ndarray
    """float64 [movies, contexts, windows]"""
    possible: np.ndarray
    """bool [movies]"""
    contexts: tuple[int, ...]


def read_raw(path: Path, *, drop_padding: bool = False) -> Raw:
    """Read one .pth file, with torch's restricted unpickler.

    Args:
        drop_padding: windows that are exactly 0 are padding, and become NaN.

    Raises:
        CheckpointError: no such file, or one that would run code.
        DatasetError: something else in it.
    """
    stored = read_torch(path)
    try:
        losses = np.asarray(stored["losses"], np.float64)
        labels = np.asarray(stored["labels"]).reshape(-1)
        contexts = tuple(int(c) for c in stored["context_lengths"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} has no {error}; it has {', '.join(map(str, stored))}"
        ) from error
    if losses.ndim != 3 or losses.shape[:2] != (len(labels), len(contexts)):
        raise DatasetError(
            f"{path}: losses {losses.shape} are not [movies {len(labels)}, contexts {len(contexts)}"
            ", windows]"
        )
    if not set(labels.tolist()) <= {0, 1}:
        raise DatasetError(f"{path}: labels are {sorted(set(labels.tolist()))}, not 0 and 1")
    if drop_padding:
        losses = np.where(losses == 0, np.nan, losses)
    return Raw(losses=losses, possible=labels == 1, contexts=contexts)


def performance(raw: Raw, context: int | None, *, strict: bool = True) -> dict[str, float]:
    """The columns of one row of performance.csv.

    Args:
        context: number of the context; None: filtered. strict: ties are wrong, as published.

    Raises:
        DatasetError: not as many possible as impossible movies.
    """
    a, b = (raw.losses[raw.possible == role] for role in (True, False))
    if len(a) != len(b) or not len(a):
        raise DatasetError(f"{len(a)} possible and {len(b)} impossible movies are no pairs")
    out: dict[str, float] = {}
    for how in ("avg", "max"):
        p, i = (
            np.array([surprise(w, how) for w in window_losses(x[..., None], context)])
            for x in (a, b)
        )
        wins = [compare(x, y, strict=strict) for x, y in zip(p, i, strict=True)]
        out[f"Relative Accuracy ({how})"] = 100 * float(np.mean(wins))
        out[f"AUROC ({how})"] = auroc(i, p)
        if how == "max":
            rank = int(np.ceil(0.9 * len(p)))
            if rank < len(p):  # the published threshold does not exist for fewer than 10 movies
                threshold = np.sort(p)[rank]
                right = (p < threshold).sum() + (i > threshold).sum()
                out["Absolute Accuracy (max)"] = 100 * float(right) / (len(p) + len(i))
    return out


def check(root: Path) -> Iterator[tuple[str, str, float, float]]:
    """Compare every row of every performance.csv below ``root`` with what its losses give.

    Yields:
        (row, column, published, computed).

    Raises:
        DatasetError: no performance.csv, or a block without a file of surprises.
    """
    tables = sorted(root.rglob("performance.csv"))
    if not tables:
        raise DatasetError(f"no performance.csv below {root}")
    for table in tables:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        for row in rows:
            raw = read_raw(_file_of(table.parent / "raw_surprises", row["Block"]))
            text = row["Context length(s)"]
            number = None if text == "Filtered" else raw.contexts.index(int(text))
            computed = performance(raw, number)
            name = f"{table.parent.relative_to(root)} {row['Block']} {text}"
            for column in COLUMNS:
                if row.get(column) and column in computed:
                    yield name, column, float(row[column]), computed[column]


def _file_of(folder: Path, block: str) -> Path:
    """The file of a block: its name holds the block's as a word."""
    word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(block)}(?![A-Za-z0-9])")
    found = [p for p in sorted(folder.glob("*.pth")) if word.search(p.stem.replace("_", " "))]
    if len(found) != 1:
        raise DatasetError(f"{folder}: {len(found)} files of surprises for block {block!r}")
    return found[0]


def main(root: str) -> int:
    """Print how many numbers agree, and each that does not (by more than 0.01)."""
    count, wrong = 0, []
    for name, column, published, computed in check(Path(root)):
        count += 1
        if not abs(published - computed) <= 0.01:
            wrong.append(f"{name}, {column}: published {published}, computed {computed:.5f}")
    print("\n".join([*wrong, f"{count - len(wrong)} of {count} published numbers computed again"]))
    return int(bool(wrong))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tubelet.benchmarks.voe.meta_archive FOLDER")
    try:
        sys.exit(main(sys.argv[1]))
    except TubeletError as error:
        sys.exit(str(error))
