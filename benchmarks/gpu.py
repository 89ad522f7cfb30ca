"""The main job at ``small`` size on an accelerator: throughput, FLOP utilisation and success.

    python -m tubelet.benchmarks.gpu --out runs/gpu                     # one GPU, bf16, 128 px
    python -m tubelet.benchmarks.gpu --out runs/try --preset debug --device cpu --episodes 50 \\
        --pretrain-steps 4 --train-steps 4 --problems 4                 # to see that it runs

Writes ``<out>/gpu.json`` with the hardware named; copy it to ``benchmarks/results/`` to publish.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..core.io import atomic_write_json
from ..core.machine import facts
from ..envs.collect import CollectConfig, collect
from ..vjepa import presets, pretrain, recipes, world_presets
from ..vjepa.engine import LoopConfig
from . import suite
from .timing import device_seconds

ENV = "tubelet/Reacher-v0"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Run collect, pretrain, train and plan on one device, and measure."""

    out: str = "runs/gpu"
    """Folder of everything."""
    preset: str = "small"
    """Pretraining preset."""
    device: str = "cuda"
    """Where to train."""
    image_size: int = 128
    """Height and width of the frames."""
    episodes: int = 1000
    """Episodes collected."""
    pretrain_steps: int = 3000
    """V-JEPA steps."""
    train_steps: int = 5000
    """Dynamics steps on the frozen encoder."""
    batch_size: int = 64
    """Clips per V-JEPA step."""
    problems: int = 200
    """Goals."""


def run(config: Config) -> dict[str, Any]:
    """Do it all; returns (and writes) the measurements."""
    out = Path(config.out)
    data = collect(
        CollectConfig(
            env=ENV, out=str(out / "data"), episodes=config.episodes, image_size=config.image_size
        )
    )
    train = _pretraining(config)
    clips = replace(presets.clips("nano"), size=config.image_size, frames=8)
    started = time.perf_counter()
    recipes.pretrain_encoder(
        recipes.PretrainRunConfig(
            videos=str(out / "data" / "videos"),
            out=str(out / "pretrain"),
            resume=True,
            clips=clips,
            train=train,
            augment=False,
            pixel_stats="corpus",
            cache=True,
            device=config.device,
        )
    )
    seconds = {"pretrain": time.perf_counter() - started}
    encoder = recipes.load_encoder(out / "pretrain", device=config.device)
    world = world_presets.vjepa_vector(encoder.config)
    world = replace(
        world,
        model=replace(world.model, image_size=config.image_size),
        loop=replace(world.loop, steps=config.train_steps),
    )
    started = time.perf_counter()
    recipes.train_on_trajectories(
        recipes.TrainConfig(
            data=str(out / "data"),
            out=str(out / "vjepa"),
            resume=True,
            encoder=str(out / "pretrain"),
            train=world,
            device=config.device,
        )
    )
    seconds["train"] = time.perf_counter() - started
    model = recipes.load_world_model(out / "vjepa", device=config.device)
    methods = [
        suite.model_method("V-JEPA frozen + predictor", model),
        suite.oracle_method(ENV, action_block=model.config.action_block),
        *suite.standard_floors(
            budget=50, action_dim=2, trajectories=data, image_size=config.image_size
        ),
    ]
    episodes = suite.episode_set(out / "far.npz", ENV, "far", config.problems, seed=1000, budget=50)
    results = suite.run_goal_reaching(out, methods, episodes, image_size=config.image_size)
    report = {
        "machine": facts(),
        "preset": config.preset,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "seconds": seconds,
        "throughput": throughput(train, clips.frames, config),
        "success_at_end": {r.name: float(r.at_end.mean()) for r in results},
        "problems": config.problems,
    }
    atomic_write_json(out / "gpu.json", report)
    return report


def throughput(train: pretrain.PretrainConfig, frames: int, config: Config) -> dict[str, float]:
    """Clips per second and model-FLOP utilisation of V-JEPA steps, data loading left out.

    FLOPs are counted by torch on one step's forward and backward; the peak is that of a large
    matrix product in the training precision, measured here.
    """
    size = config.image_size
    video = torch.randint(0, 256, (train.batch_size, frames, size, size, 3), dtype=torch.uint8)
    video = video.to(config.device)
    model = pretrain.build(train, device=config.device)

    def step(number: int) -> None:
        kind = torch.device(config.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=train.loop.precision == "bf16"):
            loss = model.losses(video, number)["loss"]
        loss.backward()
        model.zero_grad(set_to_none=True)

    counter = FlopCounterMode(display=False)
    with counter:
        step(0)
    flops = counter.get_total_flops()
    seconds = device_seconds(lambda: step(1), config.device, repeats=5)
    dtype = torch.bfloat16 if train.loop.precision == "bf16" else torch.float32
    width = 8192 if config.device.startswith("cuda") else 1024
    a = torch.randn(width, width, device=config.device, dtype=dtype)
    peak = 2 * width**3 / device_seconds(lambda: a @ a, config.device, repeats=10)
    return {
        "clips_per_second": train.batch_size / seconds,
        "tflops": flops / seconds / 1e12,
        "peak_tflops": peak / 1e12,
        "utilisation": flops / seconds / peak,
    }


def _pretraining(config: Config) -> pretrain.PretrainConfig:
    base = presets.preset(config.preset)
    on_gpu = config.device.startswith("cuda")
    steps = config.pretrain_steps
    return replace(
        base,
        encoder=replace(base.encoder, patch=8),  # 16 x 16 tokens a frame at 128 px
        optim=replace(presets.nano().optim, lr=5e-4, start_lr=5e-5, final_lr=5e-5),
        loop=LoopConfig(
            steps=steps,
            report_every=max(1, steps // 5),
            save_every=max(1, steps // 2),
            precision="bf16" if on_gpu else "fp32",
        ),
        batch_size=config.batch_size,
        objective=presets.nano().objective,
    )


if __name__ == "__main__":
    import tyro

    print(run(tyro.cli(Config)))
