"""Surprise of the videos of one group: every distinct window scored once.

What a scorer says of a window depends on the window alone. Windows that occur in several videos of
a group (all that do not reach the swap, in a recombined quadruplet) are therefore scored once, and
have the same loss to the bit wherever they occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ...core.errors import DatasetError
from ...datasets.voe.record import VoeVideo
from .windows import WindowConfig, digests, sampled, starts, window_id

if TYPE_CHECKING:
    from torch import Tensor


class Scorer(Protocol):
    """Measures surprise in windows.

    Attributes:
        names: what it measures: a model, and baselines that come for free with it.
        step: sampled frames per time step of its losses.
    """

    names: tuple[str, ...]
    step: int

    def observe(self, video: VoeVideo, numbers: np.ndarray) -> np.ndarray:
        """What it sees of the sampled frames: ``[n, ...]``, pixels for most."""
        ...

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None
    ) -> Tensor:
        """Losses of windows.

        Args:
            windows: ``[B, W, ...]`` of :meth:`observe`. contexts: C, in frames.
            actions: float32 ``[B, W, skip * a]``, logged between sampled frames, or None.

        Returns:
            float32 ``[names, B, contexts, W / step, h, w]``: mean over channels, NaN where nothing
            is predicted (the context). h, w: the grid of tokens, or 1, 1.
        """
        ...


class Pixels:
    """A scorer that sees pixels."""

    def observe(self, video: VoeVideo, numbers: np.ndarray) -> np.ndarray:
        return video.frames.read(numbers.tolist())


class GroupLosses(NamedTuple):
    """Losses of the videos of a group."""

    losses: np.ndarray
    """float32 ``[names, videos, contexts, windows, W / step]``, mean over the grid."""
    ids: np.ndarray
    """int64 ``[videos, windows]``: equal numbers, equal windows."""
    tokens: np.ndarray | None
    """float16 ``[videos, windows, W / step, h, w]`` of the first name in one context, if asked."""
    scored: int
    """Distinct windows."""


def group_losses(
    videos: Sequence[VoeVideo],
    scorer: Scorer,
    config: WindowConfig,
    *,
    batch: int = 8,
    tokens_of: int | None = None,
) -> GroupLosses:
    """Score the videos of one group.

    Args:
        batch: windows per call of the scorer.
        tokens_of: number of the context whose token losses are kept.

    Raises:
        DatasetError: frames that cannot be read, too few, or of unequal size.
    """
    seen = [_windows(video, scorer, config) for video in videos]
    shapes = {rows.shape[1:] for rows, *_ in seen}
    if len(shapes) > 1:
        raise DatasetError(f"frames of different shapes: {sorted(shapes)}")
    count = max(len(ids) for _, _, ids in seen)
    ids = np.zeros((len(videos), count), np.int64)
    place: dict[int, tuple[int, int]] = {}
    for v, (_, _, own) in enumerate(seen):
        ids[v, : len(own)] = own
        for w, number in enumerate(own):
            place.setdefault(number, (v, w))
    # those that start together, in one batch: they often have their contexts in common
    order = sorted(place, key=lambda number: place[number][::-1])
    results = _score([place[number] for number in order], seen, scorer, config, batch)
    index = {number: i for i, number in enumerate(order)}
    steps = results.mean(axis=(-1, -2), dtype=np.float64)
    losses = np.full(
        (len(scorer.names), len(videos), steps.shape[2], count, steps.shape[3]), np.nan
    )
    losses = losses.astype(np.float32)
    tokens = None
    if tokens_of is not None:
        tokens = np.full((len(videos), count, *results.shape[3:]), np.nan, np.float16)
    for v in range(len(videos)):
        own = [index[int(number)] for number in ids[v] if number]
        losses[:, v, :, : len(own)] = steps[:, own].transpose(0, 2, 1, 3)
        if tokens is not None:
            tokens[v, : len(own)] = results[0, own, tokens_of]
    return GroupLosses(losses, ids, tokens, len(place))


Seen = tuple[np.ndarray, "np.ndarray | None", list[int]]


def _windows(video: VoeVideo, scorer: Scorer, config: WindowConfig) -> Seen:
    """What the scorer sees of sampled frames, the actions between them, the windows' numbers."""
    numbers = sampled(video, config)
    rows = scorer.observe(video, numbers)
    actions = None
    parts = digests(rows)
    if video.actions is not None:
        padded = np.zeros((video.frames.count + config.skip, video.actions.shape[1]), np.float32)
        padded[: len(video.actions)] = video.actions
        actions = np.stack([padded[n : n + config.skip].reshape(-1) for n in numbers])
        parts = [a + b for a, b in zip(parts, digests(actions), strict=True)]
    first = starts(len(numbers), config)
    return rows, actions, [window_id(parts[s : s + config.window]) for s in first]


def _score(
    places: Sequence[tuple[int, int]],
    seen: Sequence[Seen],
    scorer: Scorer,
    config: WindowConfig,
    batch: int,
) -> np.ndarray:
    """Losses ``[names, distinct windows, contexts, steps, h, w]``."""
    import torch

    def cut(kind: int, chunk: Sequence[tuple[int, int]]) -> np.ndarray | None:
        if seen[0][kind] is None:
            return None
        spans = ((v, w * config.stride) for v, w in chunk)
        return np.stack([seen[v][kind][s : s + config.window] for v, s in spans])  # type: ignore[index]

    parts = []
    with torch.inference_mode():
        for start in range(0, len(places), batch):
            chunk = places[start : start + batch]
            windows = cut(0, chunk)
            assert windows is not None
            parts.append(scorer(windows, config.contexts, cut(1, chunk)).float().cpu().numpy())
    return np.concatenate(parts, axis=1)
