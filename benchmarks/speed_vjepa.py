"""Speed of the V-JEPA core: the encoder against ``transformers``, the training step against the
plain one of :mod:`.plain_vjepa`. Run through :mod:`.speed`.

Outputs and losses are compared before anything is timed; a difference is an error, not a footnote.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ..core.errors import TubeletError
from ..core.rng import torch_generator
from ..vjepa.encoder import EncoderConfig, TubeletEncoder
from ..vjepa.lean import keep_freed_memory
from ..vjepa.masked import MaskedModel, MaskingConfig, draw
from ..vjepa.objectives import preset
from ..vjepa.optim import OptimConfig, make_optimizer
from ..vjepa.positions import PositionConfig
from ..vjepa.predictor import PredictorConfig
from .plain_vjepa import MaskIds, PlainVJEPA, plain_loss, plain_optimizer, plain_step
from .timing import interleaved, ratio_of_medians


@dataclass(frozen=True)
class Size:
    """A model and the clips that it sees."""

    name: str
    width: int
    heads: int
    frames: int
    side: int
    batch: int
    depth: int = 12
    predictor: tuple[int, int, int] = (384, 12, 12)
    """Width, depth and heads: as published for every encoder."""

    def __str__(self) -> str:
        return f"{self.name}, {self.frames} frames of {self.side} px, batch {self.batch}"

    def video(self) -> Tensor:
        """uint8 noise ``[B, T, H, W, 3]``."""
        shape = (self.batch, self.frames, self.side, self.side, 3)
        generator = torch_generator(0, "speed", "video")
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


ENCODER_SIZES = (
    Size("ViT-S/16", 384, 6, 16, 224, 1),
    Size("ViT-S/16", 384, 6, 16, 224, 4),
)
TRAIN_SIZES = (
    Size("ViT-Ti/16", 192, 3, 8, 112, 1),
    Size("ViT-Ti/16", 192, 3, 8, 112, 4),
    Size("ViT-S/16", 384, 6, 16, 112, 2),
    Size("ViT-S/16", 384, 6, 16, 224, 1),
)


def encoder(
    repeats: int = 10, sizes: Sequence[Size] = ENCODER_SIZES, threads: Sequence[int] = (1, 2)
) -> dict[str, Any]:
    """Our encoder against ``transformers``' VJEPA2 with the same weights, on normalised clips.

    Raises TubeletError if outputs are not the same bits, or ``transformers`` is missing.
    """
    rows = []
    for size in sizes:
        theirs, ours = _encoders(size)
        pixels = torch.randn(
            size.batch, size.frames, 3, size.side, size.side, generator=torch_generator(0, "speed")
        )
        video = pixels.movedim(2, -1).contiguous()

        def reference(model: Any = theirs, x: Tensor = pixels) -> Tensor:
            with torch.inference_mode():
                return model(x, skip_predictor=True).last_hidden_state

        def tubelet(model: TubeletEncoder = ours, x: Tensor = video) -> Tensor:
            with torch.inference_mode():
                return model(x, normalised=True)

        for count in threads:
            with thread_count(count):
                if not torch.equal(reference(), tubelet()):
                    raise TubeletError(f"{size}: outputs differ from transformers'")
                timed = interleaved({"transformers": reference, "tubelet": tubelet}, repeats)
            rows.append(row(f"{size}, {_plural(count)}; outputs identical", timed, "s/forward"))
    return {"benchmark": "encoder", "rows": rows}


def _encoders(size: Size) -> tuple[Any, TubeletEncoder]:
    """The two encoders with the same random weights, far enough from zero to matter."""
    try:
        from transformers import VJEPA2Config, VJEPA2Model
    except ImportError as error:
        raise TubeletError(
            "the encoder benchmark compares with transformers, which is not installed: "
            "pip install 'transformers>=5'"
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        position = PositionConfig(pairs="tiled")
        ours = TubeletEncoder(
            EncoderConfig(width=size.width, depth=size.depth, heads=size.heads, position=position)
        ).eval()
        for p in ours.parameters():
            torch.nn.init.normal_(p, std=0.05)
        settings: dict[str, Any] = {
            "patch_size": 16,
            "crop_size": size.side,
            "frames_per_clip": size.frames,
            "tubelet_size": 2,
            "hidden_size": size.width,
            "num_attention_heads": size.heads,
            "num_hidden_layers": size.depth,
            "pred_hidden_size": 24,  # not run
            "pred_num_attention_heads": 1,
            "pred_num_hidden_layers": 1,
            "attn_implementation": "sdpa",
        }
        theirs = VJEPA2Model(VJEPA2Config(**settings)).eval()
    theirs.encoder.load_state_dict(_their_names(ours.state_dict()))
    return theirs, ours


def _their_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        key = key.replace("blocks.", "layer.").replace(".attn.", ".attention.")
        key = key.replace("patch_embed.", "embeddings.patch_embeddings.proj.")
        key = "layernorm." + key.removeprefix("norm.") if key.startswith("norm.") else key
        if ".qkv." in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[key.replace("qkv", name)] = part
        else:
            renamed[key] = value
    return renamed


def train_step(
    repeats: int = 5,
    sizes: Sequence[Size] = TRAIN_SIZES,
    threads: Sequence[int] = (1, 2),
    precisions: Sequence[str] = ("fp32", "bf16"),
    profiled: bool = True,
) -> dict[str, Any]:
    """One step of V-JEPA 2's training: losses, gradients, AdamW, moving average.

    Three take turns from equal weights, on the same clips and masks: the plain step with the
    activations recomputed in the backward pass, as in every published pretraining run; the plain
    step; ours. All three in float32, then all three in bfloat16 autocast (the published precision).
    Masks are drawn beforehand. Every case has a process of its own, as a training run has. Raises
    TubeletError unless first losses agree, to 1e-5 (fp32) or 2e-3 (bf16).
    """
    cases = list(itertools.product(sizes, precisions, threads))
    fresh = multiprocessing.get_context("spawn")
    rows, profiles = [], {}
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as pool:
        for size, precision, count in cases:
            last = profiled and size is sizes[-1] and count == threads[-1]
            case = pool.submit(train_case, size, precision, count, repeats, last)
            found, times = case.result()
            rows.append(found)
            profiles |= times
    return {"benchmark": "train_step", "rows": rows, "profile": profiles}


def train_case(
    size: Size, precision: str, threads: int, repeats: int, profiled: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One row of :func:`train_step`, and the profiles of the plain step and ours. In this process,
    whose allocator it changes."""
    keep_freed_memory()  # as in training, for all alternatives
    steps, losses = training_steps(size, precision)
    spread = max(losses) - min(losses)
    if not spread < {"fp32": 1e-5, "bf16": 2e-3}[precision]:
        raise TubeletError(f"{size}, {precision}: losses differ by {spread:.1e}: {losses}")
    with thread_count(threads):
        timed = interleaved(steps, repeats)
    found = row(f"{size}, {precision}, {_plural(threads)}", timed, "s/step")
    found |= {"first_losses": losses, "largest_difference": spread}
    with thread_count(1):
        names = ("plain", "tubelet") if profiled else ()
        return found, {f"{name}, {precision}": _profile(steps[name]) for name in names}


PLAIN = {"plain, activations recomputed": True, "plain": False}
"""The plain steps by name, and whether they recompute activations."""


def training_steps(
    size: Size,
    precision: str = "fp32",
    video: Tensor | None = None,
    *,
    device: str = "cpu",
    names: Sequence[str] = (*PLAIN, "tubelet"),
    change: Callable[[MaskedModel], None] | None = None,
) -> tuple[dict[str, Callable[[], object]], list[float]]:
    """The alternatives ``names`` as functions of nothing, and the loss of each at the common start.

    ``video``: the clips that every call reads, uint8 ``[B, T, H, W, 3]``; noise by default.
    ``change``: what is done to our model beforehand.
    """
    config = EncoderConfig(width=size.width, depth=size.depth, heads=size.heads)
    width, depth, heads = size.predictor
    predictor = PredictorConfig(width=width, depth=depth, heads=heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MaskedModel(config, predictor, MaskingConfig(), preset("vjepa2")).to(device)
    video = (size.video() if video is None else video).to(device)
    grid = model.encoder.grid(video)
    selections = draw(MaskingConfig(), grid, size.batch, seed=0, first_sample=0)
    kinds = [MaskIds(s.context.to(device), s.targets[0].to(device)) for s in selections]
    optim = OptimConfig()
    steps: dict[str, Callable[[], object]] = {}
    losses: list[float] = []

    def autocast() -> torch.autocast:
        kind = torch.device(device).type
        return torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16")

    def loss() -> Tensor:
        with autocast():
            return model.objective(model.predict(video, grid, selections))["loss"]

    def ours(optimizer: torch.optim.Optimizer) -> float:
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        model.after_step(0, 1)
        return value.item()

    momentum = model.target.config.momentum[0]
    for name in (name for name in PLAIN if name in names):
        plain = PlainVJEPA(model.encoder, model.predictor, PLAIN[name])
        with torch.no_grad(), autocast():
            losses.append(plain_loss(plain, video, kinds).item())
        steps[name] = _plain(plain, optim, video, kinds, momentum, autocast)
    if "tubelet" in names:
        if change is not None:
            change(model)
        with torch.no_grad():
            losses.append(loss().item())
        steps["tubelet"] = partial(ours, make_optimizer(model, optim))
    return steps, losses


def _plain(
    model: PlainVJEPA,
    optim: OptimConfig,
    video: Tensor,
    kinds: list[MaskIds],
    momentum: float,
    autocast: Callable[[], torch.autocast],
) -> Callable[[], float]:
    optimizer = plain_optimizer(model, optim)
    return lambda: plain_step(model, optimizer, video, kinds, momentum, autocast)


def _profile(step: Callable[[], object], top: int = 15) -> list[dict[str, Any]]:
    """The operations that take most of a step's time by themselves."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    events = sorted(recorded.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    return [
        {
            "operation": e.key,
            "calls": e.count,
            "milliseconds": e.self_cpu_time_total / 1e3,
            "share": e.self_cpu_time_total / total,
        }
        for e in events[:top]
    ]


def row(setting: str, timed: dict[str, Any], unit: str) -> dict[str, Any]:
    """One setting's medians, and how many times the last alternative's time the others take."""
    rounds = timed["rounds"]
    *others, last = rounds
    return {
        "setting": setting,
        "unit": unit,
        "values": {clock: timed[clock] for clock in ("cpu", "wall")},
        "ratios": {
            f"{name} / {last}": asdict(ratio_of_medians(rounds[name], rounds[last]))
            for name in others
        },
        "repeats": timed["repeats"],
    }


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plural(threads: int) -> str:
    return f"{threads} thread" + "s" * (threads > 1)
