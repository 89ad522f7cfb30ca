"""A folder of generated videos with a table of their factors: claimed, resumable, in parallel.

    videos/000000.mp4 …   H.264, one per scene
    factors.parquet       a row per video: path, class numbers, measured numbers
    dataset.json          what was asked for, and the names of the classes

Video i is a function of the settings and of i alone. So several processes write the same files as
one, a run that was killed goes on where it stopped, and a larger ``count`` adds to what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError
from ...core.io import atomic_path, atomic_write_json
from ..parallel import parallel_map

Classes = Mapping[str, tuple[str, ...]]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """The table beside a generated corpus.

    Attributes:
        paths: the videos, in order. columns: name -> ``[V]``; int64 class numbers of the factors
        in ``classes``, and float64 measured values. classes: factor -> names of its classes.
    """

    paths: tuple[str, ...]
    columns: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]


def make_corpus(
    folder: str | Path,
    kind: str,
    make_one: Callable[[int, Path], Row],
    *,
    count: int,
    settings: Mapping[str, Any],
    classes: Classes,
    processes: int | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Factors:
    """Write what is not there yet, and return the table of all of it.

    Args:
        kind: what the videos are (``moving-shapes``). make_one: a picklable function that writes
            video ``number`` to a path unless that exists (atomically), and returns its row.
        settings: what determines the videos. processes, fresh: see
            :func:`..parallel.parallel_map`.

    Raises:
        DatasetError: the folder holds videos of other settings.
    """
    folder = Path(folder)
    claim_folder(folder, kind, settings, classes)
    work = partial(_make_one, folder=str(folder), make_one=make_one)
    label = "draw videos" if progress else ""
    rows = parallel_map(work, range(count), processes=processes, description=label, fresh=fresh)
    rows = list(rows)
    _write_table(folder / "factors.parquet", rows)
    return load_factors(folder)


def load_factors(folder: str | Path) -> Factors:
    """The table of the corpus in ``folder``.

    Raises:
        DatasetError: there is none, or it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    folder = Path(folder)
    try:
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        table = pyarrow.parquet.read_table(folder / "factors.parquet")
        classes = {name: tuple(values) for name, values in about["classes"].items()}
    except (OSError, ValueError, KeyError, AttributeError, pyarrow.ArrowException) as error:
        raise DatasetError(
            f"{folder}: no readable table of factors ({error}); run tubelet data make again"
        ) from error
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "path"}
    paths = tuple(str(folder.absolute() / path) for path in table["path"].to_pylist())
    return Factors(paths=paths, columns=columns, classes=classes)


def claim_folder(folder: Path, kind: str, settings: Mapping[str, Any], classes: Classes) -> None:
    """Say in ``dataset.json`` what the folder holds; refuse one that holds something else."""
    path = folder / "dataset.json"
    settings = json.loads(json.dumps(dict(settings)))
    about = {"format": f"tubelet-{kind}", "settings": settings, "classes": dict(classes)}
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            found = there["settings"] if there["format"] == about["format"] else {}
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path}: not readable ({error!r}); use another folder") from error
        differ = [
            f"{key} is {found.get(key)!r} there and {value!r} here"
            for key, value in settings.items()
            if found.get(key) != value
        ]
        if differ:
            raise DatasetError(f"{folder} holds others: {'; '.join(differ)}. Use another one")
    elif folder.exists() and any(folder.iterdir()):
        raise DatasetError(f"{folder} is not empty and nothing in it was generated: use another")
    atomic_write_json(path, about)


def _make_one(number: int, *, folder: str, make_one: Callable[[int, Path], Row]) -> Row:
    name = f"videos/{number:06d}.mp4"
    return {"path": name, **make_one(number, Path(folder) / name)}


def _write_table(path: Path, rows: list[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
