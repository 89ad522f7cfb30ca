"""What does each objective teach an encoder? Frozen linear probes of generated scenes' factors.

    python -m tubelet.benchmarks.objective_study --out runs/objectives
    python -m tubelet.benchmarks.objective_study --objectives ijepa lejepa --steps 200 --seeds 5

Each objective trains on generated images or videos (:mod:`.factors`), with several seeds. On scenes
that no encoder has seen, ridge regression reads the factors from its frozen tokens; beside it from
the same encoder before training, and from as many principal components of the pixels. A seed names
weights, batches and the probe's split of scenes alike, so that differences are paired. Finished
runs below ``--out`` are kept, so that the command goes on where it stopped.

Writes ``scores/*.json``, ``results/*.json`` (tables, for reports) and ``tables.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..core.errors import ConfigError
from ..core.io import atomic_write_text
from ..core.rng import stream_seed
from ..vjepa.encoder import TubeletEncoder
from .factors import FactorConfig, FactorData, generate
from .objective_arms import ARMS, train_arm
from .objective_tables import READOUTS, study_table, to_markdown
from .probes import pca_features, ridge_probe, split_episodes
from .results import Table, save_result
from .study import scored

Train = Callable[[str, Path, Path, int, int], TubeletEncoder]
"""``train(objective, data folder, run folder, steps, seed)`` gives the trained encoder."""


SPLIT = (0.6, 0.2)
"""Shares of the probed scenes that the ridge is fitted on and its penalty chosen on."""
FIT_ROWS = 800
"""Scenes that principal components are fitted on, at most."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Train every objective with every seed, probe, and print the tables."""

    out: str = "runs/objectives"
    """Folder of everything."""
    objectives: tuple[str, ...] = tuple(ARMS)
    """Which objectives, by name."""
    steps: int = 300
    """Training steps of each run."""
    seeds: int = 3
    """Runs of each objective."""
    images: int = 3000
    """Generated images to train on."""
    videos: int = 1500
    """Generated videos to train on."""
    probes: int = 1500
    """Further images, and further videos, to probe."""
    data_seed: int = 0
    """Of the generated scenes."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        for key, least in {"steps": 1, "seeds": 1, "images": 1, "videos": 1, "probes": 100}.items():
            if getattr(self, key) < least:
                raise ConfigError(f"{key} = {getattr(self, key)}: must be at least {least}")
        unknown = [name for name in self.objectives if name not in ARMS]
        if unknown or not self.objectives:
            raise ConfigError(f"objectives = {self.objectives}: name some of {', '.join(ARMS)}")


def run_study(config: StudyConfig, train: Train = train_arm) -> dict[str, Table]:
    """Do all that is not done yet; the tables by readout, which are also written.

    Raises:
        ConfigError: ``out`` holds scores or data of other settings.
    """
    out = Path(config.out)
    if config.threads:
        torch.set_num_threads(config.threads)
    probes = cache(lambda kind: _Probes(_data(config, kind)))

    def judge(name: str, seed: int) -> dict[str, Any]:
        judged = probes(ARMS[name].kind)
        started = time.perf_counter()
        data, run = judged.data.folder / "train", out / "runs" / f"{name}-{seed}"
        encoder = train(name, data, run, config.steps, seed)
        return {"train_seconds": time.perf_counter() - started} | judged.judge(encoder, seed)

    scores = []
    for seed in range(config.seeds):
        for name in config.objectives:
            path, settings = out / "scores" / f"{name}-{seed}.json", _settings(config, name, seed)
            scores.append(scored(path, settings, partial(judge, name, seed)))
    tables = {readout: study_table(scores, readout) for readout in READOUTS}
    for readout, table in tables.items():
        save_result(out, table, name=f"objectives-{readout}")
    atomic_write_text(out / "tables.md", "\n".join(map(to_markdown, tables.values())))
    return tables


class _Probes:
    """The scenes to probe, and what has been measured on them without training."""

    def __init__(self, data: FactorData):
        self.data = data
        self._clips = data.clips("test")
        self._measured: dict[Any, dict[str, Any]] = {}

    def judge(self, encoder: TubeletEncoder, seed: int) -> dict[str, Any]:
        """``width`` and the ``scores`` [source][readout][group] of a trained encoder, of itself
        before training and of as wide pixel components."""
        width = encoder.config.width
        before, pixels = ("random", seed, encoder.config), ("pixels", seed, width)
        if before not in self._measured:
            self._measured[before] = self._encoded(untrained(encoder, seed), seed)
        if pixels not in self._measured:
            components = pca_features(
                self._clips, width, fit_rows=self._fitted(seed), fit_limit=FIT_ROWS
            )
            self._measured[pixels] = dict.fromkeys(READOUTS, self._groups(components, seed))
        scores = {
            "trained": self._encoded(encoder, seed),
            "random": self._measured[before],
            "pixels": self._measured[pixels],
        }
        return {"width": width, "scores": scores}

    def _encoded(self, encoder: TubeletEncoder, seed: int) -> dict[str, Any]:
        tokens = encode(encoder, self._clips)
        width = tokens.shape[-1]
        flat = pca_features(tokens, width, fit_rows=self._fitted(seed), fit_limit=FIT_ROWS)
        readouts = {"pooled": tokens.mean(axis=1), "tokens": flat}
        return {name: self._groups(features, seed) for name, features in readouts.items()}

    def _groups(self, features: np.ndarray, seed: int) -> dict[str, Any]:
        """The probe's result by group of factors, as JSON values."""
        return {
            group: self._probe(features, group, seed) for group in dict.fromkeys(self.data.groups)
        }

    def _probe(self, features: np.ndarray, group: str, seed: int) -> dict[str, Any]:
        values, names = self.data.group(group)
        scenes = np.arange(len(values))
        return ridge_probe(
            features, values, scenes, name=group, target_names=names, seed=seed, split=SPLIT
        ).to_json()

    def _fitted(self, seed: int) -> np.ndarray:
        """The rows that the ridge is fitted on."""
        return split_episodes(np.arange(len(self._clips)), SPLIT, seed)[0]


@torch.inference_mode()
def encode(encoder: TubeletEncoder, clips: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Tokens float32 ``[M, N, D]`` of uint8 clips ``[M, T, H, W, 3]``, in eval mode."""
    training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    parts = (torch.from_numpy(clips[i : i + batch]) for i in range(0, len(clips), batch))
    tokens = torch.cat([encoder(part.to(device)).float().cpu() for part in parts])
    encoder.train(training)
    return tokens.numpy()


def untrained(encoder: TubeletEncoder, seed: int) -> TubeletEncoder:
    """The encoder as :func:`tubelet.vjepa.pretrain.build` makes it from ``seed``, which builds it
    before everything else: the very weights that the training of this seed began with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "weights"))
        return TubeletEncoder(encoder.config).to(next(encoder.parameters()).device)


def _data(config: StudyConfig, kind: Literal["images", "videos"]) -> FactorData:
    counts = {"images": config.images, "videos": config.videos}
    wanted = FactorConfig(kind=kind, train=counts[kind], test=config.probes, seed=config.data_seed)
    return generate(Path(config.out) / "data" / kind, wanted)


def _settings(config: StudyConfig, name: str, seed: int) -> dict[str, Any]:
    kind = ARMS[name].kind
    return {
        "objective": name,
        "seed": seed,
        "kind": kind,
        "steps": config.steps,
        "scenes": config.images if kind == "images" else config.videos,
        "probes": config.probes,
        "data_seed": config.data_seed,
    }


if __name__ == "__main__":
    import tyro

    for table in run_study(tyro.cli(StudyConfig, description=__doc__)).values():
        print(to_markdown(table))
