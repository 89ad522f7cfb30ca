"""Frozen probes of several factors at once: what do the tokens of a clip know of its scene?

*linear*: logistic regression on the mean token. *attentive*: one query for each factor reads all
tokens by cross-attention, and a linear layer classifies it (V-JEPA, arXiv 2404.08471); the queries
of all factors share the projections of the tokens, so that one training serves them all.

Penalties and learning rates are chosen on validation clips, for each factor by itself, and what is
reported are test clips (:mod:`.frozen.selection`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.rng import numpy_generator, stream_seed
from ..vjepa.attentive import AttentiveConfig, AttentivePooler
from .frozen.readouts import logistic
from .frozen.selection import Candidates, judge

READOUTS = {
    "linear": "logistic regression on the mean token",
    "attentive": "cross-attention over all tokens, one query for each factor",
}


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How probes are trained."""

    epochs: int = 15
    """Passes over the training clips."""
    few_epochs: int = 60
    """The same with few labels."""
    batch: int = 32
    """Clips of a batch."""
    lrs: tuple[float, ...] = (3e-3, 1e-3)
    """Learning rates tried."""
    decay: float = 0.05
    """Weight decay."""
    penalties: tuple[float, ...] = (1e-3, 1e-2, 0.1, 1.0, 10.0)
    """Penalties of the linear probes that are tried."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Rows of the clips to train, to choose and to report on; int64, they share none."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_clips(count: int, seed: int, shares: tuple[float, float] = (0.5, 0.2)) -> Split:
    """``count`` clips cut at random: shares for training and validation, the rest for testing."""
    order = numpy_generator(seed, "video-study", "split").permutation(count)
    first, second = round(shares[0] * count), round(sum(shares) * count)
    return Split(train=order[:first], valid=order[first:second], test=order[second:])


def few_labels(split: Split, labels: np.ndarray, each: int, seed: int) -> Split:
    """``each`` training and as many validation clips of every class; the test clips stay.

    Raises ConfigError where a class has too few.
    """
    parts = []
    for name in ("train", "valid"):
        rows = getattr(split, name)
        order = numpy_generator(seed, "video-study", "few", name).permutation(rows)
        chosen = []
        for label in np.unique(labels):
            some = order[labels[order] == label][:each]
            if len(some) < each:
                raise ConfigError(
                    f"{each} labels of each class: class {label} has {len(some)} {name} clips; "
                    "probe more videos"
                )
            chosen.append(some)
        parts.append(np.concatenate(chosen))
    return Split(train=parts[0], valid=parts[1], test=split.test)


def linear_probe(
    tokens: np.ndarray, labels: Mapping[str, np.ndarray], split: Split, config: ProbeConfig
) -> dict[str, float]:
    """Test accuracy by factor of logistic regression on the mean token.

    Args:
        tokens: float ``[M, N, D]``. labels: int64 ``[M]`` by factor.
    """
    x = tokens.astype(np.float32).mean(1)
    found = {}
    for name, y in labels.items():
        candidates = logistic(x, y, split.train, int(y.max()) + 1, penalties=config.penalties)
        found[name] = judge(candidates, y, split.valid, split.test).accuracy
    return found


def attentive_probe(
    tokens: np.ndarray,
    labels: Mapping[str, np.ndarray],
    split: Split,
    config: ProbeConfig,
    *,
    epochs: int,
    seed: int,
) -> dict[str, float]:
    """Test accuracy by factor of attentive probes, one for each learning rate.

    Args:
        tokens: float16 ``[M, N, D]``. labels: int64 ``[M]`` by factor.
    """
    values = torch.from_numpy(tokens)
    target = torch.from_numpy(np.stack(list(labels.values()), axis=1))
    classes = tuple(int(y.max()) + 1 for y in labels.values())
    probes = [
        _trained(_FactorProbe, values, target, classes, split.train, lr, config, epochs, seed)
        for lr in config.lrs
    ]
    names = [f"lr {lr:g}" for lr in config.lrs]
    found = {}
    for number, (name, y) in enumerate(labels.items()):

        def predict(rows: np.ndarray, number: int = number) -> np.ndarray:
            return np.stack([_predict(probe, values, rows)[number] for probe in probes])

        candidates = Candidates(settings=names, predict=predict)
        found[name] = judge(candidates, y, split.valid, split.test).accuracy
    return found


class _FactorProbe(nn.Module):
    """One query and one linear layer for each factor."""

    def __init__(self, width: int, classes: tuple[int, ...]):
        super().__init__()
        heads = max(n for n in range(1, 5) if width % n == 0)
        self.pooler = AttentivePooler(
            AttentiveConfig(width=width, classes=classes, depth=1, heads=heads)
        )
        self.linear = nn.ModuleList(nn.Linear(width, count) for count in classes)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Logits ``[B, C_f]`` of each factor, of tokens ``[B, N, D]``."""
        read = self.pooler(tokens).unbind(1)
        return [linear(x) for linear, x in zip(self.linear, read, strict=True)]


def _trained(
    make: type[_FactorProbe],
    values: Tensor,
    target: Tensor,
    classes: tuple[int, ...],
    rows: np.ndarray,
    lr: float,
    config: ProbeConfig,
    epochs: int,
    seed: int,
) -> _FactorProbe:
    """AdamW, a cosine to 0, the sum of the factors' losses; equal seeds, equal batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "video-study", "probe"))
        probe = make(values.shape[-1], classes).train()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=config.decay)
    per_epoch = math.ceil(len(rows) / config.batch)
    for step in range(epochs * per_epoch):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = numpy_generator(seed, "video-study", "epoch", epoch).permutation(rows)
        some = torch.from_numpy(order[place * config.batch : (place + 1) * config.batch])
        share = 0.5 * (1 + math.cos(math.pi * step / (epochs * per_epoch)))
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        logits = probe(values[some].float())
        losses = [F.cross_entropy(x, y) for x, y in zip(logits, target[some].T, strict=True)]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        optimizer.step()
    return probe.eval()


@torch.inference_mode()
def _predict(probe: _FactorProbe, values: Tensor, rows: np.ndarray) -> list[np.ndarray]:
    """Probabilities ``[R, C_f]`` of each factor."""
    parts = [probe(values[some].float()) for some in torch.from_numpy(rows).split(64)]
    return [torch.cat(logits).softmax(-1).numpy() for logits in zip(*parts, strict=True)]
