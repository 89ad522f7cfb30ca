"""Surprise of an observer who knows the true states: the ceiling, and a test of sets and metrics.

It expects things to stay what they are, where they are there, and to go on as they go: surprise in
a frame is the number of things that appeared or vanished, and the change of velocity of the others
(metres per frame, from one step to the next).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...core.errors import DatasetError
from ...datasets.voe.record import VoeVideo


class TruthScorer:
    """Constant velocity on the true tracks (``truth/<video>.npz``)."""

    names: tuple[str, ...] = ("ground truth",)
    step = 1

    def observe(self, video: VoeVideo, numbers: np.ndarray) -> np.ndarray:
        """``[n, N, 4]``: position and presence of every thing."""
        if not video.truth:
            raise DatasetError(f"{video.name} has no true states")
        try:
            with np.load(video.truth, allow_pickle=False) as file:
                pose, present = file["pose"][numbers], file["present"][numbers]
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise DatasetError(f"{video.truth} cannot be read: {error}") from error
        return np.concatenate([pose[..., :3], present[..., None]], axis=-1).astype(np.float32)

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        x = torch.from_numpy(windows).double()
        present = x[..., 3] > 0.5  # [B, W, N]
        place = x[..., :3]
        surprise = torch.zeros(x.shape[:2], dtype=torch.float64)
        surprise[:, 1:] = (present[:, 1:] != present[:, :-1]).sum(-1).double()
        bend = (place[:, 2:] - 2 * place[:, 1:-1] + place[:, :-2]).norm(dim=-1)
        there = present[:, 2:] & present[:, 1:-1] & present[:, :-2]
        surprise[:, 2:] += (bend * there).sum(-1)
        out = torch.full((1, len(x), len(contexts), x.shape[1]), float("nan"), dtype=torch.float64)
        for i, context in enumerate(contexts):
            out[0, :, i, context:] = surprise[:, context:]
        return out[..., None, None]
