"""One way to open any violation-of-expectation set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ...core.config import did_you_mean
from ...core.errors import ConfigError, DatasetError
from .grasp import read_grasp
from .inflevel import read_inflevel
from .intphys import BLOCKS, read_intphys
from .intphys2 import read_intphys2
from .physical_concepts import read_physical_concepts
from .record import VoeSet
from .tubelet_set import read_tubelet

FORMATS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], VoeSet]]] = {
    "tubelet": (lambda root: (root / "dataset.json").exists(), read_tubelet),
    "intphys": (lambda root: any((root / b).is_dir() for b in BLOCKS), read_intphys),
    "grasp": (lambda root: any(root.glob("IP_*")), read_grasp),
    "inflevel": (lambda root: (root / "gravity").is_dir(), read_inflevel),
    "intphys2": (
        lambda root: (root / "metadata.csv").exists() or (root / "labels.csv").exists(),
        read_intphys2,
    ),
    "physical-concepts": (lambda root: any(root.glob("**/*tfrecord-*")), read_physical_concepts),
}
"""Layout -> (does a folder look like it?, reader)."""


def open_voe(root: str | os.PathLike[str], layout: str = "auto") -> VoeSet:
    """Read the set in the folder ``root``.

    Args:
        layout: one of :data:`FORMATS`; auto: the one that the folder looks like.

    Raises:
        ConfigError: an unknown layout.
        DatasetError: no such folder, no layout fits or several do, or nothing usable in it.
    """
    root = Path(root)
    if layout not in ("auto", *FORMATS):
        raise ConfigError(f"layout = {layout!r}{did_you_mean(layout, FORMATS)}: {_known()}")
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    if layout == "auto":
        fitting = [name for name, (fits, _) in FORMATS.items() if fits(root)]
        if len(fitting) != 1:
            found = f"looks like {' and '.join(fitting)}" if fitting else "has no known layout"
            raise DatasetError(f"{root} {found}: name its layout, {_known()}")
        layout = fitting[0]
    return FORMATS[layout][1](root)


def _known() -> str:
    return f"one of {', '.join(FORMATS)}"
