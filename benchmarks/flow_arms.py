"""The data and the arms of :mod:`.flow_study`: one pyramid, three things to learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.io import atomic_path
from ..core.rng import numpy_generator
from ..core.run import RunDir
from ..datasets.synthetic.flow_pairs import FlowPairConfig, FlowSet, draw_flow_set
from ..datasets.views import ViewConfig
from ..vjepa.engine import LoopConfig
from ..vjepa.motion import MotionConfig, MotionModel
from ..vjepa.motion.model import Arm
from ..vjepa.optim import OptimConfig
from ..vjepa.pretrain import PretrainConfig, build, pretrain

KINDS = ("textures", "sprites")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What an arm learns."""

    arm: Arm
    longer: bool = False
    """As many steps as both losses together take."""
    flow_weight: float | None = None
    """Of the flow's loss beside that of content; None: the model's own."""


TRAINED = {
    "both": Trained(arm="both"),
    "both, flow heavier": Trained(arm="both", flow_weight=10.0),
    "flow": Trained(arm="flow"),
    "content": Trained(arm="content"),
    "flow longer": Trained(arm="flow", longer=True),
}
"""By name. Flow's loss begins near 0.2, content's near 20: with a weight of 10 content's is
still ten times as large, with the published 0.1 a thousand times."""
TRAIN_SEED, TEST_SEED = 0, 1
"""Of the generated pairs."""


def _views() -> ViewConfig:
    """Views that differ by less than VICReg's own: what small encoders learn from in few steps."""
    return ViewConfig(
        global_views=2,
        local_views=0,
        global_size=64,
        global_scale=(0.5, 1.0),
        brightness=0.2,
        contrast=0.2,
        saturation=0.1,
        hue=0.02,
        grey=0.0,
        blur=0.0,
        solarize=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class FlowSize:
    """How much of everything."""

    pairs: int = 600
    """Textures to train on, and as many pairs of sprites."""
    tests: int = 200
    """Pairs of each kind that end-point errors are of."""
    probes: int = 900
    """Pictures of sprites that probes are fitted, chosen and scored on."""
    side: int = 64
    """Height and width in pixels."""
    steps: int = 400
    """Steps of the arm with both losses; the others take as many as it takes on theirs."""
    flow_batch: int = 8
    """Pairs of a flow step."""
    content_batch: int = 32
    """Pictures of a content step."""
    lr: float = 3e-3
    """Peak learning rate."""
    motion: MotionConfig = field(default_factory=lambda: MotionConfig(views=_views()))
    """The model."""


@dataclass(kw_only=True, eq=False)
class Batch:
    """uint8 ``[B, T, H, W, 3]``."""

    video: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowData:
    """Generated pairs: to train on and to judge on, by kind."""

    train: dict[str, FlowSet]
    test: dict[str, FlowSet]


def make_data(folder: Path, size: FlowSize) -> FlowData:
    """The pairs of ``size``, drawn once and kept in ``folder``."""
    tests = {"textures": size.tests, "sprites": max(size.tests, size.probes)}
    return FlowData(
        train={kind: _stored(folder, kind, size.side, size.pairs, TRAIN_SEED) for kind in KINDS},
        test={kind: _stored(folder, kind, size.side, tests[kind], TEST_SEED) for kind in KINDS},
    )


def run_config(name: str, size: FlowSize, seed: int) -> PretrainConfig:
    """The run of one trained arm."""
    wanted = TRAINED[name]
    both = replace(size.motion, arm="both")
    steps = size.steps
    if wanted.arm != "both" and not wanted.longer:
        steps = both.before(size.steps, size.steps)[wanted.arm]
    every = max(1, steps // 8) | 1
    weight = size.motion.flow_weight if wanted.flow_weight is None else wanted.flow_weight
    return PretrainConfig(
        motion=replace(size.motion, arm=wanted.arm, flow_weight=weight),
        optim=OptimConfig(
            lr=size.lr, start_lr=size.lr / 10, final_lr=size.lr / 100, clip=1.0, warmup=0.05
        ),
        loop=LoopConfig(steps=steps, log_every=every, report_every=steps, save_every=steps),
        batch_size=size.content_batch,
        seed=seed,
    )


def train_arm(name: str, size: FlowSize, data: FlowData, out: Path, seed: int) -> MotionModel:
    """Train one arm with one seed, or go on with the run in ``out``; in eval mode."""
    config = run_config(name, size, seed)

    def batches(first: int) -> Iterator[Batch]:
        return _batches(config, size, data, first)

    with RunDir.create(out, config, resume=True) as run:
        model = pretrain(config, batches, run)
    assert isinstance(model, MotionModel)
    return model.eval()


def untrained(size: FlowSize, seed: int) -> MotionModel:
    """The model that training with this seed begins with; its encoder is that of every arm."""
    model = build(run_config("both", size, seed))
    assert isinstance(model, MotionModel)
    return model.eval()


def _batches(config: PretrainConfig, size: FlowSize, data: FlowData, first: int) -> Iterator[Batch]:
    """Pairs of both kinds, half and half, at flow steps; pictures of sprites at content steps. The
    n-th batch of its kind is the same in every arm of a seed."""
    motion, steps = config.motion, config.loop.steps
    assert motion is not None
    pairs = {kind: np.stack([s.first, s.second], axis=1) for kind, s in data.train.items()}
    for step in range(first, steps):
        kind = motion.kind(step, steps)
        number = motion.before(step, steps)[kind]
        rng = numpy_generator(config.seed, "flow-study", kind, number)
        if kind == "content":
            rows = rng.integers(size.pairs, size=size.content_batch)
            video = pairs["sprites"][rows, :1]
        else:
            half = size.flow_batch // 2
            counts = {"textures": half, "sprites": size.flow_batch - half}
            parts = [pairs[k][rng.integers(size.pairs, size=n)] for k, n in counts.items() if n]
            video = np.concatenate(parts)
        yield Batch(video=torch.from_numpy(video))


def _stored(folder: Path, kind: str, side: int, count: int, seed: int) -> FlowSet:
    path = folder / f"{kind}-{side}-{seed}-{count}.npz"
    if not path.exists():
        config = FlowPairConfig(kind=kind, size=side, seed=seed)  # pyright: ignore[reportArgumentType]
        made = draw_flow_set(config, count)
        named = {f"label_{name}": values for name, values in made.labels.items()}
        arrays: dict[str, Any] = {**dict(zip(FlowSet._fields[:4], made[:4], strict=True)), **named}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    with np.load(path, allow_pickle=False) as stored:
        labels = {k.removeprefix("label_"): stored[k] for k in stored if k.startswith("label_")}
        return FlowSet(*(stored[name] for name in FlowSet._fields[:4]), labels=labels)
