"""Pretraining on point clouds or skeletons: data in, a run folder with an encoder out."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.errors import ConfigError, DatasetError
from ...core.io import atomic_write_json, atomic_write_text
from ...core.pace import Pace
from ...core.run import RunDir, read_metrics
from ...datasets.labelled import LabelledSet, shuffled
from ...datasets.points import PrimitivesConfig, generate_points, read_points
from ...datasets.skeletons import read_skeletons
from ...datasets.stick_figures import JOINTS, StickFigureConfig, generate_skeletons
from .. import parallel
from ..checkpoint import find_checkpoint, load_checkpoint, stored_config
from ..device import MAY_DIFFER, prepare
from ..diagnostics import verdict
from ..engine import fit
from .model import TokenModel, TokenTrainConfig, build
from .presets import preset
from .tokens import TokenEncoder
from .views import TokenViewsModel

_LOOP = ("log_every", "save_every", "keep", "background", "shard", "checkpoint_blocks", "compile")
_MAY_DIFFER = (*MAY_DIFFER, *(f"train.loop.{name}" for name in _LOOP))


@dataclass(frozen=True, kw_only=True)
class TokenRunConfig:
    """Train an encoder of point clouds (Point-JEPA, LeJEPA) or skeletons (S-JEPA, LeJEPA), without
    labels."""

    data: str = ""
    """Folder of a public data set (ModelNet40, ShapeNet55; NTU RGB+D's .skeleton files); empty
    generates solids, or stick figures."""
    split: str = "train"
    """Which part of it: train or test for clouds; all, xsub-train, xview-train, … for skeletons."""
    solids: PrimitivesConfig = field(default_factory=PrimitivesConfig)
    """Generated clouds, where no data are named."""
    figures: StickFigureConfig = field(default_factory=StickFigureConfig)
    """Generated skeletons, likewise."""
    out: str = "runs/tokens"
    """Run folder."""
    resume: bool = False
    """Go on with the run in that folder, exactly."""
    train: TokenTrainConfig = field(default_factory=TokenTrainConfig)
    """Model, masks, optimiser and schedules."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""

    def __post_init__(self) -> None:
        if self.train.loop.accumulate > 1:
            raise ConfigError(
                f"train.loop.accumulate = {self.train.loop.accumulate}: tokens are normalised over "
                "the batch, so that its parts do not add up to it; set it to 1"
            )
        if self.data:
            return
        points, skeletons = self.train.points, self.train.skeletons
        if points and self.solids.points < points.points:
            raise ConfigError(
                f"train.points.points = {points.points} of clouds with solids.points = "
                f"{self.solids.points}: a cloud cannot have more points than it was made with"
            )
        if skeletons and self.figures.frames < skeletons.frames:
            raise ConfigError(
                f"train.skeletons.frames = {skeletons.frames} of sequences with figures.frames = "
                f"{self.figures.frames}: make longer ones"
            )


class TokenBatch(NamedTuple):
    """Stored samples of one step and process."""

    samples: Tensor
    """float32 ``[B, ...]``."""
    rows: Any
    """Their numbers in the data set."""
    first_sample: int
    """Number of the first in the run."""


def load_data(config: TokenRunConfig) -> LabelledSet:
    """The data that ``config`` names or describes. Raises DatasetError as the readers do."""
    points, skeletons = config.train.points, config.train.skeletons
    if not config.data and points:
        return generate_points(config.solids)
    if not config.data and skeletons:
        if skeletons.joints != len(JOINTS):
            raise ConfigError(
                f"train.skeletons.joints = {skeletons.joints}, and generated figures have "
                f"{len(JOINTS)}: name data with that many, or set it to {len(JOINTS)}"
            )
        return generate_skeletons(config.figures)
    if points:
        if config.split not in ("train", "test"):
            raise ConfigError(f"split = {config.split!r}: point clouds have train and test")
        return read_points(
            config.data,
            split="train" if config.split == "train" else "test",
            points=points.points,
            seed=config.train.seed,
        )
    assert skeletons is not None
    split: Any = "xsub-train" if config.split == "train" else config.split
    return read_skeletons(config.data, split=split, frames=skeletons.frames)


def pretrain_tokens(
    config: TokenRunConfig,
    *,
    data: LabelledSet | None = None,
    probe: Callable[[TokenEncoder], dict[str, float]] | None = None,
) -> TokenModel | TokenViewsModel:
    """Train (or go on training); the run folder also gets ``data.txt``, ``data.json`` and
    ``verdict.txt`` (is the encoder healthy or collapsed, and why).

    Args:
        data: in place of what ``config`` names. probe: of the encoder, run at every report.

    Raises:
        DatasetError: nothing usable, too much that is bad, or a resumed run's data have changed.
        ConfigError, TubeletError, CheckpointError: see :class:`RunDir` and :func:`engine.fit`.
    """
    with parallel.process_group(prepare(config.device, config.threads)) as device:
        data = load_data(config) if data is None else data

        def create() -> RunDir:
            return RunDir.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)

        with parallel.open_run(create, config.out) as run:
            parallel.lead(lambda: _write_data(run.path, data))
            model = _fit(config.train, data, run, probe, device)
            parallel.lead(lambda: _write_verdict(run.path, config.train.encoder.width))
    return model


def load_token_encoder(path: str | os.PathLike[str], *, device: str = "cpu") -> TokenEncoder:
    """The encoder of a run (or of one of its checkpoints) to freeze, in eval mode.

    Raises CheckpointError: there is none, it is damaged, or it is of another kind.
    """
    folder = find_checkpoint(path)
    model = build(stored_config(folder, TokenTrainConfig, "an encoder of points or skeletons"))
    load_checkpoint(folder, model=model)
    return model.output.requires_grad_(False).eval().to(device)


def _fit(
    config: TokenTrainConfig,
    data: LabelledSet,
    run: RunDir,
    probe: Callable[[TokenEncoder], dict[str, float]] | None,
    device: str,
) -> TokenModel | TokenViewsModel:
    model = build(config, device=device)
    size = parallel.local_batch(config.batch_size)
    laid_out = round(config.optim.stretch * config.loop.steps)

    def batches(first_step: int) -> Iterator[TokenBatch]:
        step = first_step
        while True:
            rows = shuffled(len(data), config.batch_size, step, config.seed)
            first = parallel.rank() * size
            mine = rows[first : first + size]
            number = step * config.batch_size + first
            yield TokenBatch(torch.from_numpy(data.samples[mine]).to(device), mine, number)
            step += 1

    def report(batch: TokenBatch, step: int) -> dict[str, float]:
        values = model.report(batch.samples, step)
        return values | (probe(model.output) if probe else {})

    fit(
        model,
        run,
        config,
        loop=config.loop,
        optim=config.optim,
        batches=batches,
        losses=lambda batch, step: model.losses(batch.samples, step, batch.first_sample),
        after_step=lambda step: model.after_step(step, laid_out),
        report=report,
        describe=lambda batch: ", ".join(data.names[row] for row in batch.rows[:8]),
        device=device,
        description="pretrain",
        pace=Pace(samples=config.batch_size),
    )
    return model


def _write_data(run: Path, data: LabelledSet) -> None:
    path = run / "data.json"
    facts = {"samples": len(data), "shape": list(data.samples.shape[1:])}
    facts |= {"classes": list(data.classes), "fingerprint": data.fingerprint()}
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else facts
    if before["fingerprint"] != facts["fingerprint"]:
        raise DatasetError(
            f"cannot resume {run}: its data have changed (fingerprint {before['fingerprint']}, now "
            f"{facts['fingerprint']}); bring the old ones back or start a new run"
        )
    atomic_write_json(path, facts)
    atomic_write_text(run / "data.txt", data.report() + "\n")


def _write_verdict(run: Path, width: int) -> None:
    last = next(line for line in reversed(read_metrics(run)) if "clip_std" in line)
    text = verdict({k: math.nan if v is None else v for k, v in last.items()}, width=width)
    atomic_write_text(run / "verdict.txt", text + "\n")


def run_preset(name: str) -> TokenRunConfig:
    """The run config of preset ``name``, with generated data of a fitting shape.

    Raises ConfigError with the nearest name.
    """
    train = preset(name)
    count = 40 if name.endswith("debug") else 2000
    points = train.points.points if train.points else PrimitivesConfig().points
    frames = train.skeletons.frames if train.skeletons else StickFigureConfig().frames
    return TokenRunConfig(
        train=train,
        solids=PrimitivesConfig(count=count, points=points),
        figures=StickFigureConfig(count=count, frames=frames),
    )
