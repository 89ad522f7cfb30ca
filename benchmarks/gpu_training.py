"""V-JEPA training steps of ViT-B and ViT-L on a GPU: throughput, utilisation, memory, what helps.

    python -m tubelet.benchmarks.gpu_training --out benchmarks/results            # one GPU
    python -m tubelet.benchmarks.gpu_training --out runs/try --device cpu --tiny  # does it run?

Each alternative is built alone, from the same weights, on the same clips and masks: the plain step
of :mod:`.plain_vjepa` (with activations kept, and recomputed as in the published runs), ours, ours
with compiled MLPs, ours with recomputed activations, and ours with the two mask kinds' contexts in
attention calls of their own instead of one call of variable lengths. bfloat16 autocast. The data
path is left out. Utilisation is model operations (:mod:`..vjepa.flops`) over seconds, as a share of
the device's published peak where :mod:`..core.pace` knows it, and of a large matrix product's rate
measured here. What does not fit the memory is reported as such. Writes ``<out>/gpu_training.json``.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from ..core.io import atomic_write_json
from ..core.machine import facts
from ..core.pace import peak_flops
from ..vjepa import blocks
from ..vjepa.encoder import EncoderConfig
from ..vjepa.flops import step_flops
from ..vjepa.lean import thrift
from ..vjepa.predictor import PredictorConfig
from ..vjepa.pretrain import PretrainConfig
from .speed_vjepa import Size, training_steps
from .timing import device_seconds

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure V-JEPA training steps of ViT-B and ViT-L."""

    out: str = "runs/gpu_training"
    """Folder of the result."""
    device: str = "cuda"
    """Where to train."""
    batch: int = 24
    """Clips per step (published: 24 per device)."""
    repeats: int = 5
    """Timed steps of each alternative, after two more."""
    tiny: bool = False
    """Small models and clips, to see that it runs."""


VARIANTS: dict[str, dict[str, Any]] = {
    "plain, activations recomputed": {"names": ("plain, activations recomputed",)},
    "plain": {"names": ("plain",)},
    "tubelet": {"names": ("tubelet",)},
    "tubelet, MLPs compiled": {
        "names": ("tubelet",),
        "change": partial(thrift, compile_mlps=True),
    },
    "tubelet, activations recomputed": {
        "names": ("tubelet",),
        "change": partial(thrift, checkpoint_blocks=True),
    },
    "tubelet, a call per mask kind": {"names": ("tubelet",)},
}
"""Arguments of :func:`.speed_vjepa.training_steps` for each alternative."""


def run(config: Config) -> dict[str, Any]:
    """Measure everything; returns (and writes) the report."""
    report: dict[str, Any] = {"machine": facts(), "precision": "bf16", "tiny": config.tiny}
    product = _product_rate(config)
    report["matrix_product_flops"] = product
    for size in _sizes(config):
        flops = step_flops(_pretraining(size), size.frames, size.side, size.side).total
        rows: dict[str, Any] = {}
        for name in VARIANTS:
            rows[name] = _measure(name, size, flops, product, config)
            gc.collect()
        slow = rows["plain, activations recomputed"].get("seconds")
        for row in rows.values():
            if slow and "seconds" in row:
                row["times_as_fast_as_plain_recomputed"] = slow / row["seconds"]
        report[str(size)] = {"step_flops": flops, "alternatives": rows}
    atomic_write_json(Path(config.out) / "gpu_training.json", report)
    return report


def _sizes(config: Config) -> tuple[Size, ...]:
    if config.tiny:
        return (Size("tiny", 48, 2, 4, 64, 2, depth=2, predictor=(48, 1, 2)),)
    return (
        Size("ViT-B/16", 768, 12, 16, 224, config.batch),
        Size("ViT-L/16", 1024, 16, 16, 224, config.batch, depth=24),
    )


def _pretraining(size: Size) -> PretrainConfig:
    width, depth, heads = size.predictor
    return PretrainConfig(
        encoder=EncoderConfig(width=size.width, depth=size.depth, heads=size.heads),
        predictor=PredictorConfig(width=width, depth=depth, heads=heads),
        batch_size=size.batch,
    )


def _measure(name: str, size: Size, flops: float, product: float, config: Config) -> dict[str, Any]:
    """Seconds, clips per second, utilisation and peak memory of one alternative."""
    cuda = config.device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(config.device)
    separate = name.endswith("a call per mask kind")
    try:
        with _calls_per_set() if separate else nullcontext():
            steps, losses = training_steps(size, "bf16", device=config.device, **VARIANTS[name])
            seconds = device_seconds(next(iter(steps.values())), config.device, config.repeats)
    except torch.cuda.OutOfMemoryError as error:
        return {"out_of_memory": str(error).splitlines()[0]}
    peak = peak_flops(torch.cuda.get_device_name(config.device), "bf16") if cuda else None
    return {
        "first_loss": losses[0],
        "seconds": seconds,
        "clips_per_second": size.batch / seconds,
        "mfu": flops / seconds / peak if peak else None,
        "share_of_matrix_product": flops / seconds / product,
        "peak_memory_gib": torch.cuda.max_memory_allocated(config.device) / GIB if cuda else None,
    }


@contextmanager
def _calls_per_set() -> Iterator[None]:
    """Attention within sets without the kernel of variable lengths."""
    with patch.object(blocks, "_varlen", lambda qkv: False):
        yield


def _product_rate(config: Config) -> float:
    """Operations per second of a large bfloat16 matrix product."""
    width = 256 if config.tiny else 8192
    a = torch.randn(width, width, device=config.device, dtype=torch.bfloat16)
    return 2 * width**3 / device_seconds(lambda: a @ a, config.device, config.repeats)


if __name__ == "__main__":
    import json

    import tyro

    print(json.dumps(run(tyro.cli(Config, description=__doc__)), indent=2))
