"""A scorer that sees resized frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...datasets.voe.record import VoeVideo
from ...vjepa.preprocess import PreprocessConfig, preprocess
from .surprise import Scorer


class Resized:
    """``scorer`` on frames squashed to ``size`` × ``size`` pixels (antialiased); 0: as they are.

    Only what a scorer observes as frames, uint8 ``[n, H, W, 3]``, is resized.
    """

    def __init__(self, scorer: Scorer, size: int):
        self.names, self.step = scorer.names, scorer.step
        self._scorer = scorer
        self._config = None
        if size:
            squash = {"kind": "squash", "aspect": (1e-9, 1e9), "like": "torchvision"}
            self._config = PreprocessConfig(crop=size, **squash)  # type: ignore[arg-type]

    def observe(self, video: VoeVideo, numbers: np.ndarray) -> np.ndarray:
        seen = self._scorer.observe(video, numbers)
        if self._config is None or seen.shape[1:3] == (self._config.crop, self._config.crop):
            return seen
        return preprocess(torch.from_numpy(np.ascontiguousarray(seen)), self._config).numpy()

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        return self._scorer(windows, contexts, actions)
