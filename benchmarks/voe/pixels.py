"""Surprise without a model: what pixels alone give away. And any model that predicts pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .surprise import Pixels

CELL = 8
"""Pixels along a cell of the maps of pixel surprise, where that divides the frame."""


class PixelBaselines(Pixels):
    """Absolute errors of pixels in [0, 1].

    persistence: the context's last frame stays. linear: ``x_t + h (x_t - x_(t - 1))``. difference:
    each future frame against the one before it, so that nothing is predicted ahead.
    """

    names: tuple[str, ...] = ("pixel persistence", "pixel linear", "frame difference")
    step = 1

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        x = torch.from_numpy(windows).float().div_(255)
        steps = _cells((x[:, 1:] - x[:, :-1]).abs())
        out = []
        for c in contexts:
            last, before = x[:, c - 1 : c], x[:, c - 2 : c - 1]
            ahead = torch.arange(1, x.shape[1] - c + 1).view(1, -1, 1, 1, 1)
            line = last + ahead * (last - before) if c > 1 else last * float("nan")
            errors = [_cells((x[:, c:] - guess).abs()) for guess in (last, line)]
            out.append(torch.stack([_placed(e, c) for e in (*errors, steps[:, c - 1 :])]))
        return torch.stack(out, dim=2)


class PixelModel(Pixels):
    """A model that predicts frames.

    Args:
        predict: ``(context uint8 [B, C, H, W, 3], n) -> float [B, n, H, W, 3]`` in [0, 1].
        name: of the model.
    """

    step = 1

    def __init__(self, predict: Callable[[Tensor, int], Tensor], name: str = "model"):
        self.names, self._predict = (name,), predict

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        x = torch.from_numpy(windows)
        out = []
        for c in contexts:
            guess = self._predict(x[:, :c], x.shape[1] - c)
            out.append(_placed(_cells((x[:, c:].to(guess) / 255 - guess).abs()), c))
        return torch.stack(out, dim=1)[None]


def _cells(error: Tensor) -> Tensor:
    """Mean over colours and cells of ``[B, T, H, W, 3]``: ``[B, T, h, w]``."""
    height, width = error.shape[2:4]
    error = error.mean(-1)
    if height % CELL or width % CELL:
        return error.mean((2, 3), keepdim=True)
    return error.unflatten(3, (-1, CELL)).unflatten(2, (-1, CELL)).mean((3, 5))


def _placed(error: Tensor, context: int) -> Tensor:
    """``[B, T - C, h, w]`` with NaN in front for the context."""
    front = error.new_full((len(error), context, *error.shape[2:]), float("nan"))
    return torch.cat([front, error], dim=1)
