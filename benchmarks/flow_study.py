"""Does learning content and motion together (MC-JEPA) make either better?

    OMP_NUM_THREADS=1 python -m tubelet.benchmarks.flow_study --preset small --out runs/flow
    python -m tubelet.benchmarks.flow_study --preset debug --out runs/flow-debug

Arms: both losses; flow alone; content alone; each with as many batches of its kind as the first
takes of that kind. Floors: no flow at all; the untrained encoder; principal components of the
pixels. A seed names weights, batches and the probes' split alike, so that differences are paired.
Test pairs and pictures are of scenes that nothing was trained on. Finished arms below ``--out`` are
kept, so that the command goes on where it stopped.

Writes ``scores/*.json``, ``results/*.json``, ``tables.md`` and ``pictures/*.png``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.io import atomic_path
from ..datasets.synthetic.flow_pairs import FlowSet
from ..datasets.views import ViewConfig
from ..vjepa.motion import MotionConfig, MotionModel, PyramidConfig
from ..vjepa.motion.colour import flow_picture
from ..vjepa.motion.flow_head import FlowHeadConfig
from ..vjepa.motion.flow_metrics import consistent, end_point_error, inconsistency
from .flow_arms import KINDS, TRAINED, FlowData, FlowSize, make_data, train_arm, untrained
from .flow_tables import study_tables
from .objective_tables import to_markdown
from .probes import pca_features
from .results import Table
from .study import check_parts, plain, run_parts, write_tables
from .video_probes import ProbeConfig, linear_probe, split_clips

ARMS = (*TRAINED, "untrained", "pixel PCA")


SIZES = {
    "small": FlowSize(),
    "long": FlowSize(pairs=2000, steps=3000),
    "debug": FlowSize(
        pairs=12,
        tests=4,
        probes=100,
        side=32,
        steps=8,
        flow_batch=2,
        content_batch=4,
        motion=MotionConfig(
            encoder=PyramidConfig(widths=(8, 12, 16), depths=(1, 1, 1), kernel=3),
            head=FlowHeadConfig(width=8, depth=1, radius=2),
            views=ViewConfig(global_views=2, local_views=0, global_size=32),
            expander=32,
        ),
    ),
}
"""By preset."""
SHOWN = 3
"""Pairs of each kind in a picture."""


@dataclass(frozen=True, kw_only=True)
class FlowStudyConfig:
    """Train every arm with every seed, judge, and print the tables."""

    preset: str = "small"
    """How much: debug (seconds), small (minutes) or long (an hour and a half)."""
    out: str = "runs/flow"
    """Folder of everything."""
    arms: tuple[str, ...] = (
        "both",
        "both, flow heavier",
        "flow",
        "content",
        "untrained",
        "pixel PCA",
    )
    """Which; "flow longer", with as many steps as both losses together, is left out by default."""
    seeds: int = 3
    """Runs of each arm."""
    seeds_from: int = 0
    """The first seed."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        check_parts(self.preset, SIZES, self.arms, ARMS, self.seeds, self.seeds_from)


def run_flow_study(config: FlowStudyConfig) -> list[Table]:
    """Do all of ``config`` that is not done yet; the tables of everything in the folder.

    Raises:
        ConfigError: ``out`` holds scores of other settings.
    """
    out, size = Path(config.out), SIZES[config.preset]
    if config.threads:
        torch.set_num_threads(config.threads)
    data = cache(lambda: make_data(out / "data", size))
    seeds = range(config.seeds_from, config.seeds_from + config.seeds)
    scores = run_parts(
        out,
        config.arms,
        seeds,
        plain(size),
        lambda name, seed: _judge(name, size, data(), out, seed),
    )
    tables = study_tables(scores)
    write_tables(out, "flow-study", tables)
    return tables


def _judge(name: str, size: FlowSize, data: FlowData, out: Path, seed: int) -> dict[str, Any]:
    """``flow`` (of arms that have one) by kind, ``probes`` by factor, and seconds of processor
    time of this process."""
    started, flow = time.process_time(), {}
    sprites = data.test["sprites"]
    pictures, split = sprites.first[: size.probes], split_clips(size.probes, seed)
    if name == "pixel PCA":
        width = min(size.motion.encoder.width, len(split.train))
        features = pca_features(pictures, width, fit_rows=split.train)
    elif name == "untrained":
        features = mean_tokens(untrained(size, seed), pictures)
    else:
        folder = out / "runs" / f"{name.replace(' ', '-')}-{seed}"
        model = train_arm(name, size, data, folder, seed)
        features = mean_tokens(model, pictures)
        if model.config.arm != "content":
            flow = {kind: judge_flow(model, data.test[kind], size.tests) for kind in KINDS}
            path = out / "pictures" / f"{name.replace(' ', '-')}-{seed}.png"
            save_pictures(path, model, [data.test[kind] for kind in KINDS])
    labels = {key: values[: size.probes] for key, values in sprites.labels.items()}
    probes = linear_probe(features[:, None], labels, split, ProbeConfig())
    return {"flow": flow, "probes": probes, "seconds": time.process_time() - started}


@torch.no_grad()
def mean_tokens(model: MotionModel, pictures: np.ndarray) -> np.ndarray:
    """float32 ``[M, D]``: the mean token of pictures uint8 ``[M, H, W, 3]``."""
    parts = torch.from_numpy(pictures).unsqueeze(1).split(64)
    return torch.cat([model.encoder(part).mean(1) for part in parts]).numpy()


def both_flows(model: MotionModel, pairs: FlowSet, count: int) -> tuple[Tensor, Tensor]:
    """Flow ``[count, 2, H, W]`` of the first pairs, forward and backward."""
    first, second = (torch.from_numpy(x[:count]).split(32) for x in (pairs.first, pairs.second))
    there = [model.flow(a, b) for a, b in zip(first, second, strict=True)]
    back = [model.flow(b, a) for a, b in zip(first, second, strict=True)]
    return torch.cat(there), torch.cat(back)


def judge_flow(model: MotionModel, pairs: FlowSet, count: int) -> dict[str, float]:
    """Mean end-point errors in pixels: of all pixels, of those that stay visible, and the same of
    no flow at all; and how well forward and backward flow agree."""
    forward, backward = both_flows(model, pairs, count)
    truth = torch.from_numpy(pairs.flow[:count]).movedim(-1, 1)
    visible = torch.from_numpy(pairs.visible[:count])
    errors = {"": end_point_error(forward, truth), "zero_": truth.norm(dim=1)}
    agrees = consistent(forward, backward)
    found = {f"{key}epe": error.mean().item() for key, error in errors.items()}
    found |= {f"{key}epe_visible": e[visible].mean().item() for key, e in errors.items()}
    return found | {
        "inconsistency": inconsistency(forward, backward).mean().item(),
        "consistent_visible": agrees[visible].float().mean().item(),
        "consistent_hidden": agrees[~visible].float().mean().item(),
    }


def save_pictures(path: Path, model: MotionModel, sets: list[FlowSet]) -> None:
    """A row for each of the first pairs: both frames, true flow, its estimate, and where forward
    and backward disagree (dark: by two pixels or more)."""
    from PIL import Image

    rows = []
    for pairs in sets:
        count = min(SHOWN, len(pairs.first))
        forward, backward = both_flows(model, pairs, count)
        gap = inconsistency(forward, backward).numpy()
        for i in range(count):
            scale = float(np.linalg.norm(pairs.flow[i], axis=-1).max())
            guess = flow_picture(forward[i].movedim(0, -1).numpy(), scale=scale)
            agree = np.rint(255 * (1 - gap[i] / 2).clip(0, 1)).astype(np.uint8)
            shown = [pairs.first[i], pairs.second[i], flow_picture(pairs.flow[i], scale=scale)]
            rows.append(np.hstack([*shown, guess, agree[..., None].repeat(3, -1)]))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        image = Image.fromarray(np.concatenate(rows))
        image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(
            file, "PNG"
        )


if __name__ == "__main__":
    import tyro

    for table in run_flow_study(tyro.cli(FlowStudyConfig, description=__doc__)):
        print(to_markdown(table))
