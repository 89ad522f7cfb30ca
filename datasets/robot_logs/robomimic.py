"""robomimic's HDF5: ``data/demo_<i>`` with ``actions``, ``obs/<key>``, and maybe ``states`` and
``next_obs/<key>``. The file says its control rate in ``data``'s ``env_args``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError
from .hdf5 import arrays_in, camera_key, numbered, open_h5, read, vector_keys
from .log import LogEpisode, follow


class RobomimicLog:
    """A robomimic file as a :class:`.log.RobotLog`.

    With ``next_obs`` an episode of T actions has T + 1 frames; without, the outcome of the last
    action was not recorded and the action is dropped.

    Args:
        path: the file. camera: key of the images in ``obs``; may be left out where there is one.
        proprio: keys of ``obs``, joined in this order; all vectors if None. fps: control rate,
            where the file does not say it.

    Raises:
        DatasetError: not such a file, no images, an unknown key, or no rate.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        camera: str | None = None,
        proprio: tuple[str, ...] | None = None,
        fps: int | None = None,
    ):
        self.path = Path(path)
        with open_h5(self.path) as file:
            if "data" not in file:
                raise DatasetError(f"{path} has no group 'data': not a robomimic file")
            self._demos = numbered(file["data"], "demo_", f"{path}: data")
            first = file["data"][self._demos[0]]
            if "obs" not in first:
                raise DatasetError(
                    f"{path}: {self._demos[0]} has no 'obs': extract observations with images first"
                )
            arrays, name = arrays_in(first["obs"]), f"{path}: {self._demos[0]}/obs"
            self.camera = camera_key(arrays, camera, name)
            self.proprio = vector_keys(arrays, proprio, name)
            self.fps = _rate(file["data"].attrs, path) if fps is None else fps
        self.num_episodes = len(self._demos)
        self.facts: dict[str, Any] = {
            "format": "robomimic",
            "source": self.path.name,
            "camera": self.camera,
            "proprio": list(self.proprio),
        }

    def episode(self, number: int) -> LogEpisode:
        """Demonstration ``number`` in the order of the file's numbers."""
        demo = self._demos[number]
        name = f"{self.path}: {demo}"
        with open_h5(self.path) as file:
            group = file["data"][demo]
            parts = [group["obs"], *([group["next_obs"]] if "next_obs" in group else [])]
            pixels = _joined([read(part, self.camera, name) for part in parts])
            vectors = {
                key: _joined([read(part, key, name) for part in parts]) for key in self.proprio
            }
            joined, action = follow(name, pixels, vectors, read(group, "actions", name))
            states = read(group, "states", name) if "states" in group else None
        if states is None or len(parts) == 2:  # a state after the last action is not recorded
            states = joined
        return LogEpisode(
            name=name,
            pixels=pixels,
            proprio=joined.astype(np.float32),
            action=action,
            state=np.asarray(states, np.float64),
        )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Observations before each action and, if recorded, the one after the last."""
    return parts[0] if len(parts) == 1 else np.concatenate([parts[0], parts[1][-1:]])


def _rate(attributes: Any, path: str | os.PathLike[str]) -> int:
    try:
        return round(json.loads(attributes["env_args"])["env_kwargs"]["control_freq"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} does not say its control rate (env_args: control_freq): give fps"
        ) from error
