"""Video pairs and images from two corpora, each at the steps that train on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...datasets.clips import ClipBatch, ClipBatches
from .model import Kind, MotionConfig


class Alternating(Iterator[ClipBatch]):
    """The batches of steps ``first_step``, …: the n-th step on flow gets the videos' batch n, the
    n-th on content the images' batch n, so that any step can be made without those before it.

    Args:
        steps: of the whole run. open_: ``open_(kind, n)`` iterates over the batches of one corpus
            from number n on.
    """

    def __init__(
        self,
        config: MotionConfig,
        steps: int,
        first_step: int,
        open_: Callable[[Kind, int], ClipBatches],
    ):
        self._config, self._steps, self._step = config, steps, first_step
        self._sources = {k: open_(k, n) for k, n in config.before(first_step, steps).items()}

    def __next__(self) -> ClipBatch:
        kind = self._config.kind(self._step, self._steps)
        self._step += 1
        return next(self._sources[kind])

    def report(self) -> str:
        """What both say of files that were left out."""
        return "\n".join(source.report() for source in self._sources.values())

    def close(self) -> None:
        """Stop the workers of both."""
        for source in self._sources.values():
            source.close()


def named(batch: Any, videos: Any, images: Any) -> str:
    """The files of a batch from two corpora: of images, if it has one frame."""
    index = images if batch.video.shape[1] == 1 else videos
    return ", ".join(sorted({index.entries[i].path for i in batch.video_ids.tolist()}))
