"""D4RL's HDF5: all steps of all episodes in flat arrays, ``observations``, ``actions``,
``terminals`` and ``timeouts``. The original sets hold no images; those rendered beside them do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError
from .hdf5 import arrays_in, camera_key, open_h5, read, vector_keys
from .log import LogEpisode, follow


class D4RLLog:
    """A D4RL file with images as a :class:`.log.RobotLog`.

    An episode ends with the step at which ``terminals`` or ``timeouts`` is true. The outcome of its
    last action is not recorded, so that action is dropped. Episodes of one step, and steps after
    the last end, are left out.

    Args:
        path: the file. fps: steps per second: D4RL does not record them. camera: key of the images;
            may be left out where there is one. proprio: ("observations",) if None.

    Raises:
        DatasetError: not such a file, no images, arrays of different lengths, no end of any
            episode, or no rate.
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
        if fps is None:
            raise DatasetError(f"{path}: D4RL files do not say their rate: give fps")
        with open_h5(self.path) as file:
            arrays, name = arrays_in(file), str(path)
            self.camera = camera_key(arrays, camera, name)
            self.proprio = vector_keys(arrays, proprio or ("observations",), name)
            steps = len(read(file, "actions", name))
            for key in (self.camera, *self.proprio):
                if len(arrays[key]) != steps:
                    raise DatasetError(f"{path}: {len(arrays[key])} {key} for {steps} actions")
            ended = np.zeros(steps, bool)
            for key in ("terminals", "timeouts"):
                if key in file:
                    ended |= np.asarray(file[key]).astype(bool).reshape(-1)
        ends = np.flatnonzero(ended) + 1
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        self._spans = [
            (int(start), int(stop))
            for start, stop in zip(starts, ends, strict=True)
            if stop - start >= 2
        ]
        if not self._spans:
            raise DatasetError(f"{path}: no terminals or timeouts end an episode of two steps")
        self.fps, self.num_episodes = fps, len(self._spans)
        self.facts: dict[str, Any] = {
            "format": "d4rl",
            "source": self.path.name,
            "camera": self.camera,
            "proprio": list(self.proprio),
        }

    def episode(self, number: int) -> LogEpisode:
        """Episode ``number`` of those of two steps at least."""
        start, stop = self._spans[number]
        name = f"{self.path}: steps {start} to {stop - 1}"
        with open_h5(self.path) as file:
            pixels = file[self.camera][start:stop]
            vectors = {key: file[key][start:stop] for key in self.proprio}
            joined, action = follow(name, pixels, vectors, file["actions"][start:stop])
        return LogEpisode(
            name=name, pixels=pixels, proprio=joined.astype(np.float32), action=action, state=joined
        )
