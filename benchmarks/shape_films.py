"""Generated videos of moving shapes as studies need them: some to train on, others as clips with
their factors, and the encoder's settings for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..datasets.corpus import CorpusIndex, index_corpus
from ..datasets.synthetic.make import Factors, MovingShapesConfig, make_moving_shapes
from ..vjepa.corpus_facts import pixel_stats
from .video_arms import ArmConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapeFilms:
    """What one study trains on and probes.

    Attributes:
        films, cache: the videos to train on, and the folder of their decoded frames. arm: the arm's
        settings with the pixel statistics of these videos. clips: uint8 ``[M, T, H, W, 3]``, one of
        each other video. rows: int64 ``[M]``, the clips' scene numbers. columns: factors and
        measured numbers, ``[M]`` by name. frames: int64 ``[T]``, the clips' frames in their videos.
    """

    films: CorpusIndex
    cache: Path
    arm: ArmConfig
    clips: np.ndarray
    rows: np.ndarray
    columns: dict[str, np.ndarray]
    frames: np.ndarray


def shape_films(
    folder: Path, train: MovingShapesConfig, probe: MovingShapesConfig, arm: ArmConfig
) -> ShapeFilms:
    """Make, index and decode what is not there yet below ``folder``.

    Raises:
        DatasetError: the folder holds videos of other settings.
    """
    films, cache, _ = _made(folder / "train", train)
    probed, probe_cache, factors = _made(folder / "probe", probe)
    mean, std = pixel_stats(films, seed=0)
    frames = np.arange(arm.frames) * arm.frame_step
    shown = probed.decode_to_cache(probe_cache, arm.size)
    place = {path: number for number, path in enumerate(factors.paths)}
    rows = np.array([place[str(Path(entry.path).absolute())] for entry in probed.entries])
    return ShapeFilms(
        films=films,
        cache=cache,
        arm=replace(arm, encoder=replace(arm.encoder, pixel_mean=mean, pixel_std=std)),
        clips=np.stack([shown.read(number, frames) for number in range(len(probed))]),
        rows=rows,
        columns={name: values[rows] for name, values in factors.columns.items()},
        frames=frames,
    )


def _made(folder: Path, wanted: MovingShapesConfig) -> tuple[CorpusIndex, Path, Factors]:
    """The index of generated videos, the folder of their decoded frames, their factors."""
    factors = make_moving_shapes(folder, wanted)
    films = index_corpus(folder / "videos", cache_path=folder / "index.jsonl", max_bad_share=0)
    cache = folder / "frames"
    films.decode_to_cache(cache, wanted.size)
    return films, cache, factors
