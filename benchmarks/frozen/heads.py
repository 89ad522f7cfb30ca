"""Many heads trained at once on cached features: one pass over the data feeds all of them.

Heads differ in learning rate and weight decay only: all begin with the same weights and see the
same batches. Each has its own loss and its own parameters, so training them side by side is
training each alone. AdamW, no warm-up, cosine to 0 (V-JEPA 2, arXiv 2506.09985, appendix on
evaluation). In training, one view of each clip is drawn for every epoch; afterwards all views are
averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...core.progress import progress
from ...core.rng import numpy_generator, stream_seed
from ...vjepa.attentive import AttentiveConfig, AttentiveProbe
from .features import average_views
from .selection import Candidates


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """The grid of heads and how they are trained; the defaults are V-JEPA 2's."""

    lrs: tuple[float, ...] = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4)
    """Learning rates."""
    decays: tuple[float, ...] = (0.01, 0.1, 0.4, 0.8)
    """Weight decays, of matrices; biases and norms are not decayed."""
    epochs: int = 20
    """Passes over the training clips."""
    batch: int = 64
    """Clips of a batch."""
    depth: int = 4
    """Blocks of an attentive head."""
    heads: int = 16
    """Attention heads at most: the largest number that divides the width is taken."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)}: must be 1 or more"
            for name in ("epochs", "batch", "depth", "heads")
            if getattr(self, name) < 1
        ]
        if not self.lrs or min(self.lrs) <= 0:
            wrong.append(f"lrs = {self.lrs}: give at least one, all above 0")
        if not self.decays or min(self.decays) < 0:
            wrong.append(f"decays = {self.decays}: give at least one, none below 0")
        if wrong:
            raise ConfigError("heads: " + "; ".join(wrong))

    def grid(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) of every head."""
        return list(product(self.lrs, self.decays))


class LinearHead(nn.Module):
    """A linear layer on the mean token, scaled by the training clips' mean and spread.

    Args:
        mean, std: float ``[D]`` of the training features; a std of 0 counts as 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, classes: int):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(std > 0, std, 1.0))
        self.linear = nn.Linear(len(mean), classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, C]`` of tokens ``[B, N, D]``."""
        return self.linear((tokens.mean(1) - self.mean) / self.std)


def attentive_head(width: int, classes: int, config: HeadsConfig) -> AttentiveProbe:
    """An attentive probe of the published shape for tokens of any width."""
    heads = max(n for n in range(1, min(config.heads, width) + 1) if width % n == 0)
    shape = {"width": width, "classes": (classes,), "depth": config.depth, "heads": heads}
    return AttentiveProbe(AttentiveConfig(**shape))


def linear_head(values: np.ndarray, rows: np.ndarray, classes: int) -> LinearHead:
    """A linear head for features ``[M, V, N, D]`` of which ``rows`` are for training."""
    parts = (values[rows[i : i + 64]].astype(np.float32).mean(2) for i in range(0, len(rows), 64))
    flat = torch.from_numpy(np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts]))
    return LinearHead(flat.mean(0), flat.std(0, correction=0), classes)


def train_heads(
    make: Callable[[], nn.Module],
    values: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    config: HeadsConfig,
    *,
    seed: int,
    device: str = "cpu",
) -> Candidates:
    """Train the whole grid in one loop.

    Args:
        make: builds a head that maps tokens ``[B, N, D]`` to logits ``[B, C]``.
        values: float16 features ``[M, V, N, D]``. labels: int64 ``[M]``. rows: to train on.
        seed: of the first weights, the order of clips and the drawn views.
    """
    if len(rows) == 0:
        raise ConfigError("no clips to train on")
    heads = nn.ModuleList(_seeded(make, seed) for _ in config.grid()).to(device).train()
    optimizer = torch.optim.AdamW(
        [
            group
            for head, grid in zip(heads, config.grid(), strict=True)
            for group in _groups(head, *grid)
        ]
    )
    per_epoch = math.ceil(len(rows) / config.batch)
    steps = config.epochs * per_epoch
    for step in progress(range(steps), f"train {len(heads)} heads", total=steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            generator = numpy_generator(seed, "epoch", epoch)
            order = generator.permutation(rows)
            views = generator.integers(values.shape[1], size=len(rows))
        some = slice(place * config.batch, (place + 1) * config.batch)
        tokens = torch.from_numpy(values[order[some], views[some]]).to(device).float()
        target = torch.from_numpy(labels[order[some]]).to(device)
        share = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        for head in heads:  # one backward pass each: the memory of one head
            F.cross_entropy(head(tokens), target).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    heads.eval()
    return Candidates(
        settings=[f"lr {lr:g}, decay {decay:g}" for lr, decay in config.grid()],
        predict=lambda some: predict(heads, values, some, batch=config.batch, device=device),
    )


@torch.inference_mode()
def predict(
    heads: nn.ModuleList,
    values: np.ndarray,
    rows: np.ndarray,
    *,
    batch: int = 64,
    device: str = "cpu",
) -> np.ndarray:
    """Probabilities float32 ``[H, R, C]``: the mean of the views' softmax."""
    out = []
    for start in range(0, len(rows), batch):
        some = torch.from_numpy(values[rows[start : start + batch]]).to(device).float()
        logits = [head(some.flatten(0, 1)).unflatten(0, some.shape[:2]) for head in heads]
        out.append(average_views(torch.stack(logits)).cpu())
    return torch.cat(out, dim=1).numpy()


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "head"))
        return make()


def _groups(head: nn.Module, lr: float, decay: float) -> list[dict[str, object]]:
    matrices = [p for p in head.parameters() if p.ndim > 1 and p.requires_grad]
    rest = [p for p in head.parameters() if p.ndim <= 1 and p.requires_grad]
    return [
        {"params": params, "lr": lr, "peak": lr, "weight_decay": some}
        for params, some in ((matrices, decay), (rest, 0.0))
        if params
    ]
