"""ViT-L and the V-JEPA 2-AC predictor on an accelerator: precision, speed, attention backends.

    python -m tubelet.benchmarks.gpu_family --out benchmarks/results         # one GPU
    python -m tubelet.benchmarks.gpu_family --out /tmp/try --device cpu --tiny   # does it run?

Weights are random: what is measured is arithmetic. Each precision is a cast of the whole module;
its output is compared with that of the same module in float32 on the same device, and the float32
output with float32 on the CPU. Writes ``<out>/gpu_family.json`` with the hardware named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.io import atomic_write_json
from ..core.machine import facts
from ..core.rng import torch_generator
from ..vjepa.action_predictor import ActionPredictor, ActionPredictorConfig, vjepa2_ac
from ..vjepa.compiled import compile_rollouts
from ..vjepa.encoder import EncoderConfig, TubeletEncoder
from ..vjepa.positions import PositionConfig
from .timing import device_seconds

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
LATENT = 1408
"""Width of the latents that the AC predictor was published for (ViT-g)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure precision and speed of the family's larger members."""

    out: str = "runs/gpu_family"
    """Folder of the result."""
    device: str = "cuda"
    """Where to measure."""
    tiny: bool = False
    """Small models and inputs, to see that it runs."""
    repeats: int = 10
    """Timed calls of each kind, after two more."""
    candidates: int = 64
    """Imagined action sequences of a rollout."""
    horizon: int = 2
    """Steps of a rollout."""


Call = Callable[[nn.Module, torch.dtype], Tensor]


def run(config: Config) -> dict[str, Any]:
    """Measure everything; returns (and writes) the report."""
    encoder, clip = _encoder(config)
    predictor, inputs = _predictor(config)

    def encode(module: nn.Module, dtype: torch.dtype) -> Tensor:
        return module(clip.to(_device(module)))

    def forward(module: nn.Module, dtype: torch.dtype) -> Tensor:
        latents, actions, states = (x.to(_device(module), dtype) for x in inputs)
        return module(latents, actions, states)

    def imagine(module: nn.Module, dtype: torch.dtype) -> Tensor:
        assert isinstance(module, ActionPredictor)
        latents, actions, states = (x.to(_device(module), dtype) for x in inputs)
        plan = actions[:, None, :1].expand(-1, config.candidates, config.horizon, -1)
        past = actions[:, : latents.shape[1] - 1]
        return module.rollout_candidates(latents, past, plan, state=states, advance=_still)

    report: dict[str, Any] = {"machine": facts(), "tiny": config.tiny}
    jobs: dict[str, tuple[nn.Module, Call]] = {
        "encoder ViT-L": (encoder, encode),
        "AC predictor, forward": (predictor, forward),
        f"AC predictor, rollout of {config.candidates} x {config.horizon}": (predictor, imagine),
    }
    for name, (module, call) in jobs.items():
        report[name] = _precisions(module, call, config) | {
            "parameters": sum(p.numel() for p in module.parameters()),
            "backends": _backends(module, call, config),
        }
    report["AC predictor, rollout compiled"] = _compiled(predictor, imagine, config)
    atomic_write_json(Path(config.out) / "gpu_family.json", report)
    return report


def _encoder(config: Config) -> tuple[nn.Module, Tensor]:
    sizes = (48, 2, 3) if config.tiny else (1024, 24, 16)
    width, depth, heads = sizes
    torch.manual_seed(0)
    position = PositionConfig(pairs="tiled")
    module = TubeletEncoder(EncoderConfig(width=width, depth=depth, heads=heads, position=position))
    frames, side = (4, 32) if config.tiny else (16, 256)
    generator = torch_generator(0, "clip")
    shape = (1, frames, side, side, 3)
    return module.eval(), torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _predictor(config: Config) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
    architecture, latent, side, steps = vjepa2_ac(), LATENT, 16, 4
    if config.tiny:
        architecture = ActionPredictorConfig(
            width=48, depth=2, heads=2, conditioning="tokens", state_dim=7, residual=False
        )
        latent, side, steps = 24, 2, 2
    torch.manual_seed(0)
    module = ActionPredictor(architecture, latent_dim=latent, action_dim=7, grid=(side, side))
    generator = torch_generator(0, "latents")
    latents = torch.randn(1, steps, side * side, latent, generator=generator)
    actions = 0.05 * torch.randn(1, steps, 7, generator=generator)
    states = torch.randn(1, steps, 7, generator=generator)
    return module.eval(), (latents, actions, states)


def _still(state: Tensor, action: Tensor) -> Tensor:
    return state


@torch.inference_mode()
def _precisions(module: nn.Module, call: Call, config: Config) -> dict[str, Any]:
    """Per precision: difference from float32 on the device, seconds per call; and CPU parity."""
    reference = call(module.cpu(), torch.float32)
    out: dict[str, Any] = {}
    full: Tensor | None = None
    for name, dtype in PRECISIONS.items():
        cast = copy.deepcopy(module).to(config.device, dtype)
        got = call(cast, dtype).float()
        full = got if full is None else full
        other = reference.to(got.device) if name == "fp32" else full
        gap = (got - other).abs()
        seconds = device_seconds(lambda m=cast, d=dtype: call(m, d), config.device, config.repeats)
        out[name] = {
            "against": "fp32 on the CPU" if name == "fp32" else "fp32 on the device",
            "largest_difference": gap.max().item(),
            "mean_difference": gap.mean().item(),
            "mean_magnitude": other.abs().mean().item(),
            "seconds": seconds,
        }
    return out


@torch.inference_mode()
def _backends(module: nn.Module, call: Call, config: Config) -> dict[str, Any]:
    """Seconds per call in half precision with each attention backend, or why it cannot."""
    dtype = torch.float32 if config.device == "cpu" else torch.bfloat16
    cast = copy.deepcopy(module).to(config.device, dtype)
    out: dict[str, Any] = {"precision": str(dtype).removeprefix("torch.")}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                out[name] = device_seconds(lambda: call(cast, dtype), config.device, config.repeats)
        except RuntimeError as error:  # torch's way to say that the kernel does not apply
            out[name] = str(error).splitlines()[0]
    return out


@torch.inference_mode()
def _compiled(module: nn.Module, call: Call, config: Config) -> dict[str, Any]:
    """Seconds per rollout as it is and compiled (on CUDA, as CUDA graphs), in each precision."""
    out: dict[str, Any] = {}
    for name, dtype in PRECISIONS.items():
        cast = copy.deepcopy(module).to(config.device, dtype)
        expected = call(cast, dtype).float()
        eager = device_seconds(lambda m=cast, d=dtype: call(m, d), config.device, config.repeats)
        compile_rollouts(cast, backend="aot_eager" if config.tiny else "inductor")
        gap = (call(cast, dtype).float() - expected).abs()
        seconds = device_seconds(lambda m=cast, d=dtype: call(m, d), config.device, config.repeats)
        out[name] = {
            "seconds": {"eager": eager, "compiled": seconds},
            "ratio": eager / seconds,
            "largest_difference": gap.max().item(),
            "mean_magnitude": expected.abs().mean().item(),
        }
    return out


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


if __name__ == "__main__":
    import json

    import tyro

    print(json.dumps(run(tyro.cli(Config)), indent=2))
