"""Training the levels above a trained world model, on its latents, which stay as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, DatasetError
from ..core.rng import numpy_generator
from ..core.run import RunDir
from ..datasets.windows import WindowBatch
from . import dynamics
from .checkpoint import find_checkpoint, load_checkpoint, stored_config
from .dynamics import DynamicsConfig, latent_report
from .engine import fit
from .hierarchy import hierarchy_of
from .world_model import WorldModel


class LatentReader(nn.Module):
    """A world model's frames to latents ``[B, n, d]``, without proprioception, as something to
    cache."""

    def __init__(self, model: WorldModel):
        super().__init__()
        self.config = model.config
        parts = ("encoder", "head")
        self.parts = nn.ModuleDict({name: getattr(model, name) for name in parts})
        self.register_buffer("token_mean", model.token_mean)
        self.register_buffer("token_std", model.token_std)
        self._read = lambda frames: model.project(model.tokens(frames))

    def forward(self, frames: Tensor) -> Tensor:
        return self._read(frames)


def first_level(
    path: str | os.PathLike[str], train: DynamicsConfig, *, device: str = "cpu"
) -> tuple[DynamicsConfig, WorldModel]:
    """The config and the model of a run that puts levels above a trained world model.

    Args:
        path: the world model's run folder. train: hierarchy, horizon, batch size, cache stride,
            optimiser, steps and seed; all else is the world model's own.

    Returns:
        a model with its weights, frozen, and levels with fresh ones.

    Raises:
        CheckpointError: no, a damaged, or another kind of checkpoint.
        ConfigError: what is asked for does not fit the world model.
    """
    folder = find_checkpoint(path)
    stored = stored_config(folder, DynamicsConfig, "a world model")
    if stored.hierarchy.strides:
        raise ConfigError(
            f"level1 = {os.fspath(path)!r} has levels already (strides "
            f"{stored.hierarchy.strides}): name the world model below them"
        )
    below = dynamics.build(stored)
    load_checkpoint(folder, model=below)
    config = replace(
        stored,
        hierarchy=train.hierarchy,
        horizon=train.horizon,
        batch_size=train.batch_size,
        cache_stride=train.cache_stride,
        optim=train.optim,
        loop=train.loop,
        seed=train.seed,
    )
    return config, above(config, below).to(device)


def above(config: DynamicsConfig, below: WorldModel) -> WorldModel:
    """The model of ``config`` with the weights of ``below``, frozen, and fresh levels.

    Raises ConfigError for a config without levels, or of another world model.
    """
    model = dynamics.build(config)
    higher = hierarchy_of(model)
    if higher is None:
        raise ConfigError("hierarchy.strides = (): there are no levels to train")
    found = model.load_state_dict(below.state_dict(), strict=False)
    others = [key for key in found.missing_keys if not key.startswith("hierarchy.")]
    if found.unexpected_keys or others:
        raise ConfigError(
            f"the world model below differs from the config: {[*others, *found.unexpected_keys]}"
        )
    model.requires_grad_(False)
    higher.requires_grad_(True)
    return model


def train_levels(
    config: DynamicsConfig,
    batches: Callable[[int], Iterable[WindowBatch]],
    run: RunDir,
    *,
    model: WorldModel,
    chunks: Sequence[Tensor],
    held_out: Callable[[], Iterable[WindowBatch]] | None = None,
    device: str = "cpu",
) -> WorldModel:
    """Train (or go on training) the levels of ``model`` by prediction alone.

    Args:
        config: the run. batches: ``batches(first_step)`` iterates over windows of *latents*, as
            :class:`LatentReader` gives them. run: an open run folder; its newest checkpoint is
            resumed.
        model: of :func:`above`. chunks: training chunks ``[M, h, A]`` for each level.
        held_out: windows of latents for :func:`tubelet.vjepa.dynamics.latent_report`.
    """
    higher = hierarchy_of(model)
    if higher is None:
        raise ConfigError("the model has no levels to train: make it with `above`")
    higher.fill(chunks)

    def report(batch: WindowBatch, step: int) -> dict[str, float]:
        if held_out is None:
            return {}
        values = latent_report(model, known(model, held_out()))
        return {f"val/{name}": value for name, value in values.items()}

    def losses(batch: WindowBatch, step: int) -> dict[str, Tensor]:
        ((z, actions),) = known(model, [batch])
        return higher.losses(z, actions, step)

    fit(
        model,
        run,
        config,
        loop=config.loop,
        optim=config.optim,
        batches=batches,
        losses=losses,
        report=report,
        device=device,
        description="levels",
    )
    return model.eval()


def known(model: WorldModel, batches: Iterable[WindowBatch]) -> list[tuple[Tensor, Tensor]]:
    """Latents ``[B, H + 1, n, d + P]`` as predictors read them, and the actions between them, of
    windows of cached latents."""
    place = model.token_mean.device
    return [
        (model.join(b.observations.to(place).float(), b.proprio), b.actions.to(place))
        for b in batches
    ]


def sample_chunks(
    actions: np.ndarray,
    offsets: np.ndarray,
    episodes: Sequence[int],
    *,
    length: int,
    block: int,
    count: int,
    seed: int,
) -> Tensor:
    """Up to ``count`` chunks float32 ``[M, length, block * a]`` from random places of episodes.

    Args:
        actions: float ``[total, a]``. offsets: int ``[E + 1]``. length: h, model steps per chunk.
        block: environment steps per model step.

    Raises DatasetError where no episode is that long.
    """
    numbers = np.asarray(episodes, dtype=np.int64)
    starts = np.diff(offsets)[numbers] - length * block  # the last frame's action leads nowhere
    places = [offsets[e] + np.arange(max(0, n)) for e, n in zip(numbers, starts, strict=True)]
    every = np.concatenate([*places, np.zeros(0, np.int64)]).astype(np.int64)
    if not len(every):
        raise DatasetError(
            f"no episode has the {length * block + 1} frames of a chunk ({length} model steps of "
            f"{block}); the longest has {int(np.diff(offsets)[numbers].max(initial=0))}"
        )
    rng = numpy_generator(seed, "chunks", length)
    chosen = np.sort(rng.choice(every, min(count, len(every)), replace=False))
    rows = actions[chosen[:, None] + np.arange(length * block)]
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32)).reshape(len(rows), length, -1)
