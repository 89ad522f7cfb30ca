"""Does discriminative feedback make better features? The study that docs/family/jedi.md fixed.

    python -m tubelet.benchmarks.jedi_study --preset small --out runs/jedi_study
    python -m tubelet.benchmarks.jedi_study --preset debug --out runs/jedi_debug

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

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from ..core.io import atomic_write_json, atomic_write_text
from ..core.rng import torch_generator
from ..datasets.corpus import CorpusIndex, index_corpus
from ..datasets.synthetic.make import (
    Factors,
    Look,
    MovingShapesConfig,
    Nuisances,
    make_moving_shapes,
)
from ..datasets.synthetic.nuisances import noise_level
from ..vjepa.corpus_facts import pixel_stats
from ..vjepa.diagnostics import covariance_ratio, rankme
from ..vjepa.masked import MaskedModel
from ..vjepa.objectives.two_sample import classifier_two_sample
from .jedi_arms import FEEDBACK, load_arm, train_jedi
from .jedi_events import event_clips
from .jedi_tables import by_arm, jedi_tables, verdict
from .objective_study import encode
from .objective_tables import to_markdown
from .probes import ridge_probe
from .results import Table, save_result
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

    preset: Literal["small", "debug"] = "small"
    """small: the study. debug: all of it runs, nothing is learnt."""
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

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.seeds_from < 0:
            raise ConfigError(
                f"seeds = {self.seeds} must be at least 1 and seeds_from = {self.seeds_from} at "
                "least 0"
            )
        if self.preset not in SIZES:
            raise ConfigError(f"preset = {self.preset!r}: choose one of {', '.join(SIZES)}")
        for name in self.arms:
            if name not in FEEDBACK:
                hint = did_you_mean(name, FEEDBACK)
                raise ConfigError(f"arms: no {name!r}{hint}; choose of {', '.join(FEEDBACK)}")
        if not self.arms:
            raise ConfigError(f"arms = (): name some of {', '.join(FEEDBACK)}")


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
    "debug": Size(
        videos=12, probes=200, events=12, training=ArmConfig(steps=8, batch=4, precision="fp32")
    ),
}
"""By preset."""

Train = Callable[[str, ArmConfig, CorpusIndex, Path, Path, int], None]
"""``train(arm, config, videos, cache, run folder, seed)``, as :func:`.jedi_arms.train_jedi`."""


def run_jedi_study(config: JediStudyConfig, train: Train = train_jedi) -> list[Table]:
    """Do all of ``config`` that is not done yet; the tables of everything in the folder.

    Raises:
        ConfigError, DatasetError: ``out`` holds scores or data of other settings.
    """
    out, size = Path(config.out), SIZES[config.preset]
    if config.threads:
        torch.set_num_threads(config.threads)
    study: _Study | None = None
    for seed in range(config.seeds_from, config.seeds_from + config.seeds):
        for name in config.arms:
            slug = name.replace(",", "").replace(" ", "-")
            path = out / "scores" / f"{slug}-{seed}.json"
            settings = {"arm": name, "seed": seed, "preset": config.preset} | _plain(size)
            if not path.exists():
                study = study or _Study(out, size, train)
                values = study.judge(name, slug, seed)
                atomic_write_json(path, {"settings": settings, "values": values})
            _check(path, settings)
    scores = [json.loads(p.read_text("utf-8")) for p in sorted((out / "scores").glob("*.json"))]
    tables = jedi_tables(scores)
    for number, table in enumerate(tables):
        save_result(out, table, name=f"jedi-study-{number}")
    text = "\n".join(map(to_markdown, tables))
    atomic_write_text(out / "tables.md", f"{text}\nVerdict: {verdict(by_arm(scores))}\n")
    return tables


class _Study:
    """The videos, and everything that is done with one arm and one seed."""

    def __init__(self, out: Path, size: Size, train: Train):
        self.out, self.size, self.train = out, size, train
        self.films, self.cache, _ = self._videos("train", size.videos, seed=0)
        probed, cache, factors = self._videos("probe", size.probes, seed=1)
        mean, std = pixel_stats(self.films, seed=0)
        encoder = replace(size.training.encoder, pixel_mean=mean, pixel_std=std)
        self.arm = replace(size.training, encoder=encoder)
        frames = np.arange(self.arm.frames) * self.arm.frame_step
        shown = probed.decode_to_cache(cache, self.arm.size)
        self.clips = np.stack([shown.read(number, frames) for number in range(len(probed))])
        place = {path: number for number, path in enumerate(factors.paths)}
        rows = [place[str(Path(entry.path).absolute())] for entry in probed.entries]
        columns = {name: values[rows] for name, values in factors.columns.items()}
        columns["noise_mean"] = np.array(  # of the frames that the clip shows
            [np.mean([noise_level(1, row, int(t)) for t in frames]) for row in rows]
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

    def judge(self, name: str, slug: str, seed: int) -> dict[str, Any]:
        """Every end point of one arm and seed, and seconds of processor time."""
        started = time.process_time()
        folder = self.out / "runs" / f"{slug}-{seed}"
        self.train(name, self.arm, self.films, self.cache, folder, seed)
        trained = time.process_time()
        model = load_arm(name, self.arm, folder, seed)
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
            found.append(torch.cat(losses).flatten(1).nanmean(1).numpy())
        return auroc(found[1], found[0])

    @torch.no_grad()
    def _predictions(self, model: MaskedModel, seed: int) -> dict[str, float]:
        """Secondary end points, of predictions and targets of held-out clips (the masks are equal
        in all arms of a seed)."""
        pred, target, losses = [], [], []
        for step, rows in enumerate(np.array_split(np.arange(min(256, len(self.clips))), 8)):
            video = torch.from_numpy(self.clips[rows])
            latents = model.latents(video, step)
            assert latents.pred is not None
            assert latents.target is not None
            losses.append(float(model.objective(latents)["regress"]))
            pred += [p[:, ::4].flatten(0, 1) for p in latents.pred]
            target += [z[:, ::4].flatten(0, 1) for z in latents.target]
        x, y = torch.cat(pred).float(), torch.cat(target).float()
        generator = torch_generator(seed, "jedi-study", "two samples")
        return {
            "spread": covariance_ratio(x, y),
            "apart": classifier_two_sample(x[:4000], y[:4000], generator=generator),
            "loss": float(np.mean(losses)),
        }

    def _videos(self, kind: str, count: int, seed: int) -> tuple[CorpusIndex, Path, Factors]:
        """The index of generated videos, the folder of their decoded frames, their factors."""
        folder, side = self.out / "data" / kind, self.size.training.size
        wanted = MovingShapesConfig(
            count=count,
            size=side,
            frames=self.size.length,
            hold=HELD,
            look=self.size.look,
            nuisances=self.size.nuisances,
            gop=20,
            seed=seed,
        )
        factors = make_moving_shapes(folder, wanted)
        films = index_corpus(folder / "videos", cache_path=folder / "index.jsonl", max_bad_share=0)
        cache = folder / "frames"
        films.decode_to_cache(cache, side)
        return films, cache, factors


def _plain(size: Size) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(size)))


def _check(path: Path, settings: dict[str, Any]) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))["settings"]
    changed = [
        f"{key} = {stored.get(key)}, not {value}"
        for key, value in settings.items()
        if stored.get(key) != value
    ]
    if changed:
        raise ConfigError(f"{path} was made with {'; '.join(changed)}: name another --out")


if __name__ == "__main__":
    import tyro

    for table in run_jedi_study(tyro.cli(JediStudyConfig, description=__doc__)):
        print(to_markdown(table))
