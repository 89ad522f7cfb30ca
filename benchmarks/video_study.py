"""What does a tiny V-JEPA learn from moving shapes, and is predicting latents worth it?

    python -m tubelet.benchmarks.video_study --preset small --out runs/video_study
    python -m tubelet.benchmarks.video_study --preset debug --out runs/video_debug

An encoder is pretrained on generated videos without labels, in two arms that differ only in what
they predict of hidden tubelets: latents of the encoder's moving average, or pixels
(:mod:`.video_arms`). Frozen linear and attentive probes (:mod:`.video_probes`) then read direction,
speed, shape and count off clips that no encoder has seen: of both arms at several moments of
training, of the same encoder before training, of principal components of the pixels, and of motion
computed by hand, which shows that direction can be read (:mod:`.video_floors`). The same once more
with few labels. A seed names weights, clips and the probes' split alike, so that differences are
paired.

Resumable: finished arms and seeds are kept below ``--out``, and the command goes on where it
stopped. ``--arms latent --seeds-from 1 --seeds 1`` runs just that part, so that parts can run side
by side; tables are made of all scores that are there.

Writes ``scores/*.json``, ``results/*.json`` (tables, for reports) and ``tables.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..datasets.corpus import CorpusIndex
from ..datasets.synthetic.make import Look, MovingShapesConfig
from ..vjepa.encoder import TubeletEncoder
from .objective_study import encode, untrained
from .objective_tables import to_markdown
from .results import Table
from .shape_films import shape_films
from .study import check_parts, plain, run_parts, write_tables
from .video_arms import (
    ARMS,
    ArmConfig,
    arm_config,
    load_snapshot,
    snapshots,
    step_cost,
    train_arm,
)
from .video_floors import motion_by_hand, pixel_components
from .video_probes import ProbeConfig, Split, attentive_probe, few_labels, linear_probe, split_clips
from .video_tables import study_tables

FACTORS = ("direction", "speed", "shape", "count")
"""What the probes read."""
FLOORS = ("untrained", "pixel PCA", "motion by hand")
"""What a trained encoder has to beat: itself before training, and components of the pixels; and
what knows of nothing but motion (:func:`.video_floors.motion_by_hand`)."""
SEEDS = {"train": 2, "probe": 3}
"""Of the scenes. Sizes, speeds and learning rates were chosen on scenes of the seeds 0 and 1."""
HELD = ("occlusion", "camera")
"""Factors of the scenes that do not vary: no bars, a camera that stands still."""


@dataclass(frozen=True, kw_only=True)
class VideoStudyConfig:
    """Train every arm with every seed, probe, and print the tables."""

    preset: Literal["small", "long", "textured", "debug"] = "small"
    """small: the study, seven minutes of one core for each trained arm and seed. long: three times
    the steps. textured: small on a textured ground, where it fails. debug: all of it runs, nothing
    is learnt."""
    out: str = "runs/video_study"
    """Folder of everything."""
    arms: tuple[str, ...] = (*ARMS, *FLOORS)
    """What to train and probe: latent, pixels, untrained, "pixel PCA", "motion by hand"."""
    seeds: int = 3
    """How many seeds."""
    seeds_from: int = 0
    """The first of them."""
    threads: int = 1
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        check_parts(self.preset, SIZES, self.arms, (*ARMS, *FLOORS), self.seeds, self.seeds_from)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is."""

    videos: int
    """Generated videos to train on."""
    probes: int
    """Further ones to probe."""
    labels: int
    """Clips of each class in the probes with few labels."""
    length: int = 20
    """Frames of a video."""
    look: Look = field(default_factory=lambda: Look(radius=(0.09, 0.12), pace=2.0, texture=0.0))
    """Larger and faster shapes than the generator's own, on a plain ground: what a tubelet shows of
    their movement is then most of what there is to predict."""
    training: ArmConfig = field(default_factory=ArmConfig)
    """The encoder and its training."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """The training of attentive probes."""


SIZES = {
    "small": Size(videos=2000, probes=1200, labels=12),
    "long": Size(videos=2000, probes=1200, labels=12, training=ArmConfig(steps=6000)),
    "textured": Size(
        videos=2000,
        probes=1200,
        labels=12,
        look=Look(radius=(0.09, 0.12), pace=2.0, texture=0.5),
    ),
    "debug": Size(
        videos=24,
        probes=200,
        labels=2,
        training=ArmConfig(steps=8, batch=4),
        probe=ProbeConfig(epochs=1, few_epochs=1, lrs=(1e-3,), penalties=(0.1,)),
    ),
}
"""By preset."""

Train = Callable[[str, ArmConfig, CorpusIndex, Path, Path, int], None]
"""``train(arm, config, videos, cache, run folder, seed)``, as :func:`.video_arms.train_arm`."""


def run_video_study(config: VideoStudyConfig, train: Train = train_arm) -> list[Table]:
    """Do all of ``config`` that is not done yet; the tables of everything in the folder.

    Raises:
        ConfigError, DatasetError: ``out`` holds scores or data of other settings.
    """
    out, size = Path(config.out), SIZES[config.preset]
    if config.threads:
        torch.set_num_threads(config.threads)
    study = cache(lambda: _Study(out, size, train))
    seeds = range(config.seeds_from, config.seeds_from + config.seeds)
    settings = {"preset": config.preset} | plain(size)
    scores = run_parts(
        out, config.arms, seeds, settings, lambda name, seed: study().judge(name, seed)
    )
    tables = study_tables(scores, FACTORS)
    write_tables(out, "video-study", tables)
    return tables


class _Study:
    """The videos, and everything that is done with one arm and one seed."""

    def __init__(self, out: Path, size: Size, train: Train):
        self.out, self.size, self.train = out, size, train
        wanted = MovingShapesConfig(
            size=size.training.size, frames=size.length, hold=HELD, look=size.look, gop=20
        )
        made = shape_films(
            out / "data",
            replace(wanted, count=size.videos, seed=SEEDS["train"]),
            replace(wanted, count=size.probes, seed=SEEDS["probe"]),
            size.training,
        )
        self.films, self.cache, self.arm, self.clips = made.films, made.cache, made.arm, made.clips
        self.labels = {name: made.columns[name].astype(np.int64) for name in FACTORS}

    def judge(self, name: str, seed: int) -> dict[str, Any]:
        """Checkpoints with their probes, the probes with few labels, and seconds of processor time
        (of this process)."""
        started = time.process_time()
        if name in ARMS:
            folder = self.out / "runs" / f"{name}-{seed}"
            self.train(name, self.arm, self.films, self.cache, folder, seed)
            trained = time.process_time()
            config = arm_config(name, self.arm, seed)
            steps, cost = snapshots(config), step_cost(config, self.arm)
            parts = ((n, self._encoded(load_snapshot(self.arm, folder, n))) for n in steps)
        else:
            trained, cost = started, 0.0
            parts = iter([(0, self._floor(name, seed))])
        split, checkpoints = split_clips(len(self.clips), seed), []
        views: dict[str, np.ndarray] = {}
        for step, views in parts:
            probes = self._probes(views, self.labels, split, seed, self.size.probe.epochs)
            checkpoints.append({"steps": step, "flops": step * cost, "probes": probes})
        return {
            "checkpoints": checkpoints,
            "few": self._few(views, split, seed),
            "train_seconds": trained - started,
            "probe_seconds": time.process_time() - trained,
        }

    def _probes(
        self,
        views: dict[str, np.ndarray],
        labels: dict[str, np.ndarray],
        split: Split,
        seed: int,
        epochs: int,
    ) -> dict[str, dict[str, float]]:
        """Test accuracy by readout and factor."""
        attentive = attentive_probe(
            views["attentive"], labels, split, self.size.probe, epochs=epochs, seed=seed
        )
        linear = linear_probe(views["linear"], labels, split, self.size.probe)
        return {"linear": linear, "attentive": attentive}

    def _few(
        self, views: dict[str, np.ndarray], split: Split, seed: int
    ) -> dict[str, dict[str, float]]:
        """The same with few labels, factor by factor: each has its own balanced clips."""
        found: dict[str, dict[str, float]] = {"linear": {}, "attentive": {}}
        for factor, labels in self.labels.items():
            some = few_labels(split, labels, self.size.labels, seed)
            epochs = self.size.probe.few_epochs
            for readout, values in self._probes(
                views, {factor: labels}, some, seed, epochs
            ).items():
                found[readout] |= values
        return found

    def _encoded(self, encoder: TubeletEncoder) -> dict[str, np.ndarray]:
        tokens = encode(encoder, self.clips).astype(np.float16)
        return {"linear": tokens, "attentive": tokens}

    def _floor(self, name: str, seed: int) -> dict[str, np.ndarray]:
        """What each readout reads, float16 ``[M, N, D]``."""
        if name == "untrained":
            return self._encoded(untrained(TubeletEncoder(self.arm.encoder), seed))
        if name == "motion by hand":
            return motion_by_hand(self.clips, self.arm.encoder.width)
        return pixel_components(self.clips, self.arm, split_clips(len(self.clips), seed).train)


if __name__ == "__main__":
    import tyro

    for table in run_video_study(tyro.cli(VideoStudyConfig, description=__doc__)):
        print(to_markdown(table))
