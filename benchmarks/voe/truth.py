"""Surprise of an observer who knows the true states: the ceiling, and a test of sets and metrics.

It looks at where everything is in every frame, and at the scene's shapes, and counts what physics
does not allow (:mod:`tubelet.envs.physics.laws`): things that appear or vanish, jump, sink into
each other, stay up without support, or speed up, slow down or turn without being touched. Labels,
cuts and times of events are not read. It sees the whole track, not single windows; only where its
surprise counts follows from the windows, as for every other scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import DatasetError
from ...datasets.voe.record import VoeVideo


class TruthScorer:
    """Breaches of physics on the true tracks (``truth/<video>.npz``, ``scenes/<group>.xml``)."""

    names: tuple[str, ...] = ("ground truth",)
    step = 1

    def observe(self, video: VoeVideo, numbers: np.ndarray) -> np.ndarray:
        """``[n, 1]``: breaches since the sampled frame before.

        Raises:
            DatasetError: states or scene are missing, damaged, or of another video.
        """
        total = np.concatenate([[0.0], np.cumsum(_breaches(video))])
        last = total[np.asarray(numbers) + 1]
        return np.diff(last, prepend=last[:1])[:, None].astype(np.float32)

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        found = torch.from_numpy(windows[..., 0])
        out = torch.full((1, len(found), len(contexts), found.shape[1]), float("nan"))
        for i, context in enumerate(contexts):
            out[0, :, i, context:] = found[:, context:]
        return out[..., None, None]


def _breaches(video: VoeVideo) -> np.ndarray:
    """float64 ``[T]``, one number per frame of the video."""
    from ...envs.physics.laws import violations

    if not video.truth:
        raise DatasetError(f"{video.name} has no true states")
    scene = Path(video.truth).parent.parent / "scenes" / f"{video.group}.xml"
    try:
        with np.load(video.truth, allow_pickle=False) as file:
            pose, present = file["pose"], file["present"]
        xml = scene.read_text(encoding="utf-8")
        things = [(str(thing["name"]), str(thing["kind"])) for thing in video.tags["things"]]
        if pose.shape[:2] != (video.frames.count, len(things)):
            raise ValueError(f"poses {pose.shape} of {len(things)} things")
        return violations(xml, things, pose, present, video.fps)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DatasetError(
            f"true states of {video.name} cannot be read ({video.truth}, {scene}): {error}"
        ) from error
