"""What all of Meta's training YAMLs say alike: sizes, batch, length and schedules."""

from __future__ import annotations

from ..core.errors import ConfigError
from .engine import LoopConfig
from .meta_table import Table
from .optim import OptimConfig

# Name -> (width, depth, heads, mlp_ratio).
_SIZES = {
    "vit_tiny": (192, 12, 3, 4.0),
    "vit_small": (384, 12, 6, 4.0),
    "vit_base": (768, 12, 12, 4.0),
    "vit_large": (1024, 24, 16, 4.0),
    "vit_huge": (1280, 32, 16, 4.0),
    "vit_giant": (1408, 40, 16, 48 / 11),
    "vit_giant_xformers": (1408, 40, 22, 48 / 11),
    "vit_gigantic_xformers": (1664, 48, 26, 4.0),
}


def size_of(keys: Table, key: str) -> tuple[int, int, int, float]:
    """Width, depth, heads and MLP ratio of the model that ``key`` names. Raises ConfigError."""
    name = keys.text(key)
    known = name.removesuffix("_rope")
    if known not in _SIZES:
        raise ConfigError(f"{key}: {name!r} is not one of {', '.join(_SIZES)}")
    if known == "vit_gigantic_xformers":
        keys.note(
            f"{key}: {name} has an MLP of 4 times its width: the 64/13 that its definition asks "
            "for is misspelt there (mpl_ratio) and has no effect"
        )
    return _SIZES[known]


def batch_size(keys: Table) -> int:
    """Samples per step of all devices."""
    local = keys.whole("data.batch_size")
    devices = keys.whole("nodes", 1) * keys.whole("tasks_per_node", 1)
    keys.note(
        f"data.batch_size: {local} is per device and there are {devices}; train.batch_size = "
        f"{local * devices} is of all devices together"
    )
    return local * devices


def loop_config(keys: Table, steps_per_epoch: int, dtype: str) -> tuple[int, LoopConfig]:
    """The number of steps, and the loop. Raises ConfigError if an epoch has no known length."""
    per_epoch = steps_per_epoch or keys.whole("optimization.ipe", 0)
    keys.get("optimization.ipe", None)
    if per_epoch < 1:
        raise ConfigError(
            "the file does not say how many steps an epoch has (optimization.ipe): give "
            "--steps-per-epoch, the number of samples over the batch of all devices"
        )
    epochs = keys.whole("optimization.epochs")
    warmup = keys.number("optimization.warmup")
    if warmup > epochs:
        keys.note(
            f"optimization.epochs: {epochs} are fewer than warmup: {warmup:g}, so the rate never "
            "reaches lr; so it is in the file"
        )
    if dtype == "float16":
        keys.note("meta.dtype: float16 is trained as bfloat16")
    return epochs * per_epoch, LoopConfig(
        steps=epochs * per_epoch,
        log_every=10,
        report_every=per_epoch,
        save_every=per_epoch,
        precision="bf16" if dtype.lower() in ("bfloat16", "float16") else "fp32",
        checkpoint_blocks=keys.flag("model.use_activation_checkpointing", False),
        compile=keys.flag("model.compile_model", False),
    )


def optim_config(keys: Table, steps: int) -> OptimConfig:
    """Rates, decay and clipping of a run of ``steps``."""
    epochs = keys.whole("optimization.epochs")
    warmup = keys.number("optimization.warmup")
    stretch = keys.number("optimization.ipe_scale", 1.0)
    lr, final = keys.number("optimization.lr"), keys.number("optimization.final_lr")
    start = keys.number("optimization.start_lr")
    clip = keys.get("optimization.clip_grad", None)
    keys.require("optimization.eps", 1e-8, 1e-8, "AdamW's eps is 1e-8 here")
    if stretch != 1:
        keys.note(
            f"optimization.ipe_scale: {stretch:g}: schedules are laid out over {stretch:g} times "
            "the steps, so the run ends before they do and final values are not reached"
        )
    if keys.flag("optimization.is_anneal", False):
        schedule = "linear"
    else:
        schedule = "constant" if lr == final else "cosine"
    return OptimConfig(
        lr=lr,
        start_lr=start,
        final_lr=final,
        warmup=0.0,
        warmup_steps=round(warmup * steps / epochs),
        schedule=schedule,
        weight_decay=keys.number("optimization.weight_decay"),
        final_weight_decay=keys.number("optimization.final_weight_decay"),
        betas=keys.pair("optimization.betas", (0.9, 0.999)),
        clip=0.0 if clip is None else keys.number("optimization.clip_grad"),
        stretch=stretch,
    )
