"""HDF5 files, opened only while they are read, and the choice of their images and vectors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError

H5File = Any  # h5py ships no type stubs


@contextmanager
def open_h5(path: Path) -> Iterator[H5File]:
    """An HDF5 file, open for reading.

    Raises:
        DatasetError: h5py is not installed, or the file is absent, damaged or no HDF5.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise DatasetError(f"{path} needs h5py: pip install 'tubelet[robots]'") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise DatasetError(f"{path} cannot be read as HDF5: {error}") from error


def read(group: Mapping[str, Any], key: str, name: str) -> np.ndarray:
    """The array ``key`` of a group.

    Raises:
        DatasetError: there is none; the message lists what there is.
    """
    if key not in group or not hasattr(group[key], "shape"):
        raise DatasetError(f"{name} has no array {key!r}: it has {', '.join(sorted(group))}")
    return group[key][()]


def camera_key(arrays: Mapping[str, Any], wanted: str | None, name: str) -> str:
    """The key of the images uint8 ``[T, H, W, 3]``: ``wanted``, or the only one.

    Raises:
        DatasetError: no images, no such images, or several and none wanted.
    """
    found = sorted(key for key, array in arrays.items() if _is_image(array))
    if wanted is not None and wanted in found:
        return wanted
    if not found:
        raise DatasetError(
            f"{name} holds no images (uint8 [T, H, W, 3]), only {', '.join(sorted(arrays))}: "
            "record or render them first"
        )
    if wanted is None and len(found) == 1:
        return found[0]
    choice = f"camera = {wanted!r} is not among" if wanted else "choose one as camera from"
    raise DatasetError(f"{name}: {choice} {', '.join(found)}")


def vector_keys(
    arrays: Mapping[str, Any], wanted: tuple[str, ...] | None, name: str
) -> tuple[str, ...]:
    """The keys of the proprioception: ``wanted``, or all numeric ``[T]`` and ``[T, n]``, sorted.

    Raises:
        DatasetError: a wanted key is missing.
    """
    if wanted is None:
        return tuple(sorted(key for key, array in arrays.items() if _is_vector(array)))
    if missing := [key for key in wanted if key not in arrays or not _is_vector(arrays[key])]:
        raise DatasetError(
            f"{name} has no vectors {', '.join(missing)}: choose proprio from "
            f"{', '.join(vector_keys(arrays, None, name))}"
        )
    return wanted


def arrays_in(group: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a group and of the groups in it, unread, by path (``robot/pose``)."""
    found: dict[str, Any] = {}
    for key, value in group.items():
        if hasattr(value, "shape"):
            found[key] = value
        else:
            found |= {f"{key}/{inner}": array for inner, array in arrays_in(value).items()}
    return found


def numbered(group: Mapping[str, Any], prefix: str, name: str) -> list[str]:
    """The members ``<prefix><number>`` of a group in the order of their numbers.

    Raises:
        DatasetError: there are none.
    """
    keys = [key for key in group if key.startswith(prefix) and key[len(prefix) :].isdigit()]
    if not keys:
        raise DatasetError(
            f"{name} has no {prefix}0: it holds {', '.join(sorted(group)) or 'nothing'}"
        )
    return sorted(keys, key=lambda key: int(key[len(prefix) :]))


def _is_image(array: Any) -> bool:
    return len(array.shape) == 4 and array.shape[-1] == 3 and array.dtype == np.uint8


def _is_vector(array: Any) -> bool:
    return len(array.shape) in (1, 2) and array.dtype.kind in "fiu"
