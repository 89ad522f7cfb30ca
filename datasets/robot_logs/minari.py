"""Minari's HDF5 layout: ``data/main_data.hdf5`` with ``episode_<i>`` of ``observations`` (T + 1 of
them, an array or a group of arrays) and ``actions`` (T). Its package is not needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError
from .hdf5 import arrays_in, camera_key, numbered, open_h5, read, vector_keys
from .log import LogEpisode, follow


class MinariLog:
    """A Minari data set as a :class:`.log.RobotLog`.

    Args:
        path: the set's folder, its ``data`` folder, or the ``main_data.hdf5`` in it.
        fps: steps per second: Minari does not record them. camera, proprio: keys of the
            observations as in :class:`.robomimic.RobomimicLog`; where observations are one array of
            images there is nothing to choose and no proprioception but zeros.

    Raises:
        DatasetError: not such a set, no images, an unknown key, or no rate.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        camera: str | None = None,
        proprio: tuple[str, ...] | None = None,
        fps: int | None = None,
    ):
        self.path = minari_file(Path(path))
        if fps is None:
            raise DatasetError(f"{path}: Minari sets do not say their rate: give fps")
        with open_h5(self.path) as file:
            self._episodes = numbered(file, "episode_", str(self.path))
            name = f"{self.path}: {self._episodes[0]}"
            arrays = _observations(file[self._episodes[0]], name)
            self.camera = camera_key(arrays, camera, name)
            self.proprio = vector_keys(arrays, proprio, name)
        self.fps, self.num_episodes = fps, len(self._episodes)
        self.facts: dict[str, Any] = {
            "format": "minari",
            "source": self.path.parent.parent.name,
            "camera": self.camera,
            "proprio": list(self.proprio),
        }

    def episode(self, number: int) -> LogEpisode:
        """Episode ``number`` in the order of the file's numbers."""
        name = f"{self.path}: {self._episodes[number]}"
        with open_h5(self.path) as file:
            group = file[self._episodes[number]]
            arrays = _observations(group, name)
            pixels = read(arrays, self.camera, name)
            vectors = {key: read(arrays, key, name) for key in self.proprio}
            joined, action = follow(name, pixels, vectors, _column(read(group, "actions", name)))
        return LogEpisode(
            name=name, pixels=pixels, proprio=joined.astype(np.float32), action=action, state=joined
        )


def minari_file(path: Path) -> Path:
    """The ``main_data.hdf5`` of a set, given it or one of the folders it is in."""
    for candidate in (path, path / "main_data.hdf5", path / "data/main_data.hdf5"):
        if candidate.is_file():
            return candidate
    raise DatasetError(f"{path} is no Minari set: it has no data/main_data.hdf5")


def _observations(group: Any, name: str) -> dict[str, Any]:
    if "observations" not in group:
        raise DatasetError(f"{name} has no 'observations': it has {', '.join(sorted(group))}")
    found = group["observations"]
    return {"observations": found} if hasattr(found, "shape") else arrays_in(found)


def _column(actions: np.ndarray) -> np.ndarray:
    """Actions ``[T, A]``, also of spaces with one number per action."""
    return actions[:, None] if actions.ndim == 1 else actions
