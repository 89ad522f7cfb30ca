"""Does discriminative feedback make better features? The study that docs/family/jedi.md fixed.

    python -m tubelet.benchmarks.jedi_study --preset small --out runs/jedi_study
    python -m tubelet.benchmarks.jedi_study --preset debug --out runs/jedi_debug
    python -m tubelet.benchmarks.jedi_study --preset base --device cuda --out runs/jedi_base

Eight arms (:mod:`.jedi_arms`) train the same encoder on generated videos whose ground has a colour,
whose camera moves and in whose corner is noise that nobody can predict. On the frozen target
encoder, and clips that no encoder saw: linear probes of direction, speed, shape and count; ridge
probes of the nuisances; and prediction error as surprise at shapes that vanish, change colour or
jump. A seed names weights, clips, masks and the probes' split alike, so that differences are
paired; the verdict follows the rule that the page fixed before any run.

Resumable: finished arms and seeds are kept below ``--out``, training goes on from its last
checkpoint. ``--arms base both --seeds-from 1 --seeds 1`` runs just that part, so that parts can run
side by side; tables are made of all scores that are there.

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

from ..core.rng import torch_generator
from ..datasets.corpus import CorpusIndex
from ..datasets.synthetic.make import (
    Look,
    MovingShapesConfig,
    Nuisances,
)
from ..datasets.synthetic.nuisances import noise_level
from ..vjepa.device import prepare
from ..vjepa.diagnostics import covariance_ratio, rankme
from ..vjepa.encoder import EncoderConfig
from ..vjepa.masked import MaskedModel
from ..vjepa.objectives.two_sample import classifier_two_sample
from ..vjepa.predictor import PredictorConfig
from .jedi_arms import FEEDBACK, load_arm, train_jedi
from .jedi_events import event_clips
from .jedi_tables import by_arm, jedi_tables, verdict
from .objective_study import encode
from .objective_tables import to_markdown
from .probes import ridge_probe
from .results import Table
from .shape_films import shape_films
from .study import check_parts, plain, run_parts, slug, write_tables
from .video_arms import ArmConfig
from .video_probes import ProbeConfig, linear_probe, split_clips
from .voe.masked import MaskedParts, MaskedScorer
from .voe.metrics import auroc

SEMANTIC = ("direction", "speed", "shape", "count")
"""Factors of the first end point."""
NUISANCE = ("tint_cos", "tint_sin", "camera_y", "camera_x", "noise_mean")
"""Targets of the second."""
HELD = ("occlusion",)
"""Factors of the scenes that do not vary."""


@dataclass(frozen=True, kw_only=True)
class JediStudyConfig:
    """Train every arm with every seed, judge, and print the tables."""

    preset: Literal["small", "base", "debug"] = "small"
    """small: the study. base: the same with a ViT-S and ten times the data, for a GPU; not run yet.
    debug: all of it runs, nothing is learnt."""
    out: str = "runs/jedi_study"
    """Folder of everything."""
    arms: tuple[str, ...] = tuple(FEEDBACK)
    """Which arms."""
    seeds: int = 5
    """How many seeds."""
    seeds_from: int = 0
    """The first of them."""
    threads: int = 1
    """Torch threads; 0 leaves them alone."""
    device: str = "cpu"
    """Where models train and are judged, as torch names it."""

    def __post_init__(self) -> None:
        check_parts(self.preset, SIZES, self.arms, FEEDBACK, self.seeds, self.seeds_from)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is."""

    videos: int
    """Generated videos to train on."""
    probes: int
    """Further ones to probe."""
    events: int
    """Pairs of a possible and an impossible clip."""
    length: int = 20
    """Frames of a video."""
    look: Look = field(default_factory=lambda: Look(radius=(0.09, 0.12), pace=2.0, texture=0.5))
    """Larger and faster shapes than the generator's own."""
    nuisances: Nuisances = field(default_factory=lambda: Nuisances(tint=40, noise=0.25))
    """The colour of the ground, and the patch of noise."""
    training: ArmConfig = field(default_factory=lambda: ArmConfig(steps=800))
    """The encoder and its training."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """The penalties of the probes."""


SIZES = {
    "small": Size(videos=1500, probes=800, events=300),
    "base": Size(
        videos=15_000,
        probes=2000,
        events=600,
        training=ArmConfig(
            encoder=EncoderConfig(width=384, depth=12, heads=6, patch=16),
            predictor=PredictorConfig(width=192, depth=6, heads=6),
            size=112,
            batch=64,
            steps=8000,
        ),
    ),
    "debug": Size(
        videos=12, probes=200, events=12, training=ArmConfig(steps=8, batch=4, precision="fp32")
    ),
}
"""By preset."""

Train = Callable[[str, ArmConfig, CorpusIndex, Path, Path, int, str], None]
"""``train(arm, config, videos, cache, run folder, seed, device)``, as ``train_jedi``."""


def run_jedi_study(config: JediStudyConfig, train: Train = train_jedi) -> list[Table]:
    """Do all of ``config`` that is not done yet; the tables of everything in the folder.

    Raises:
        ConfigError, DatasetError: ``out`` holds scores or data of other settings.
    """
    out, size = Path(config.out), SIZES[config.preset]
    device = prepare(config.device, config.threads)
    study = cache(lambda: _Study(out, size, train, device))
    seeds = range(config.seeds_from, config.seeds_from + config.seeds)
    settings = {"preset": config.preset} | plain(size)
    scores = run_parts(
        out, config.arms, seeds, settings, lambda name, seed: {"values": study().judge(name, seed)}
    )
    tables = jedi_tables(scores)
    write_tables(out, "jedi-study", tables, f"\nVerdict: {verdict(by_arm(scores))}\n")
    return tables


class _Study:
    """The videos, and everything that is done with one arm and one seed."""

    def __init__(self, out: Path, size: Size, train: Train, device: str):
        self.out, self.size, self.train, self.device = out, size, train, device
        wanted = MovingShapesConfig(
            size=size.training.size,
            frames=size.length,
            hold=HELD,
            look=size.look,
            nuisances=size.nuisances,
            gop=20,
        )
        made = shape_films(
            out / "data",
            replace(wanted, count=size.videos, seed=0),
            replace(wanted, count=size.probes, seed=1),
            size.training,
        )
        self.films, self.cache, self.arm, self.clips = made.films, made.cache, made.arm, made.clips
        frames, columns = made.frames, dict(made.columns)
        columns["noise_mean"] = np.array(  # of the frames that the clip shows
            [np.mean([noise_level(1, int(row), int(t)) for t in frames]) for row in made.rows]
        )
        self.labels = {name: columns[name].astype(np.int64) for name in SEMANTIC}
        self.nuisances = np.stack([columns[name] for name in NUISANCE], axis=1)
        self.context = self.arm.frames // 2
        self.events = event_clips(
            size.events,
            frames=frames.tolist(),
            at=self.context,
            size=self.arm.size,
            look=size.look,
            nuisances=size.nuisances,
            hold=HELD,
            seed=2,
        )

    def judge(self, name: str, seed: int) -> dict[str, Any]:
        """Every end point of one arm and seed, and seconds of processor time."""
        started = time.process_time()
        folder = self.out / "runs" / f"{slug(name)}-{seed}"
        self.train(name, self.arm, self.films, self.cache, folder, seed, self.device)
        trained = time.process_time()
        model = load_arm(name, self.arm, folder, seed, self.device)
        pooled = encode(model.output, self.clips).mean(1)
        split = split_clips(len(self.clips), seed)
        accuracy = linear_probe(pooled[:, None], self.labels, split, self.size.probe)
        found = ridge_probe(
            pooled,
            self.nuisances,
            np.arange(len(pooled)),
            name="nuisances",
            target_names=NUISANCE,
            seed=seed,
        )
        return {
            "probe": float(np.mean([accuracy[factor] for factor in SEMANTIC])),
            "nuisance": found.mean.value,
            "surprise": self._surprise(model),
            "rank": rankme(torch.from_numpy(pooled)),
            **self._predictions(model, seed),
            "by_factor": accuracy,
            "by_nuisance": {target: r2.value for target, r2 in found.targets.items()},
            "train_seconds": trained - started,
            "judge_seconds": time.process_time() - trained,
        }

    @torch.inference_mode()
    def _surprise(self, model: MaskedModel) -> float:
        """AUROC of mean prediction error over the future tokens."""
        teacher = model.output
        parts = MaskedParts(model.encoder, teacher, model.predictor, model.target.config)
        scorer = MaskedScorer(parts, baselines=False)
        found = []
        for clips in self.events:
            losses = [
                scorer(clips[i : i + 50], (self.context,))[0, :, 0]
                for i in range(0, len(clips), 50)
            ]
            found.append(torch.cat(losses).flatten(1).nanmean(1).cpu().numpy())
        return auroc(found[1], found[0])

    @torch.no_grad()
    def _predictions(self, model: MaskedModel, seed: int) -> dict[str, float]:
        """Secondary end points, of predictions and targets of held-out clips (the masks are equal
        in all arms of a seed)."""
        pred, target, losses = [], [], []
        for step, rows in enumerate(np.array_split(np.arange(min(256, len(self.clips))), 8)):
            video = torch.from_numpy(self.clips[rows]).to(self.device)
            latents = model.latents(video, step)
            assert latents.pred is not None
            assert latents.target is not None
            losses.append(float(model.objective(latents)["regress"]))
            pred += [p[:, ::4].flatten(0, 1) for p in latents.pred]
            target += [z[:, ::4].flatten(0, 1) for z in latents.target]
        x, y = torch.cat(pred).float().cpu(), torch.cat(target).float().cpu()
        generator = torch_generator(seed, "jedi-study", "two samples")
        return {
            "spread": covariance_ratio(x, y),
            "apart": classifier_two_sample(x[:4000], y[:4000], generator=generator),
            "loss": float(np.mean(losses)),
        }


if __name__ == "__main__":
    import tyro

    for table in run_jedi_study(tyro.cli(JediStudyConfig, description=__doc__)):
        print(to_markdown(table))
