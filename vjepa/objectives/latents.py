"""What one training step knows: the record that every term of an objective reads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ...core.errors import ConfigError

T = TypeVar("T")

Source = Literal["views", "sequence", "online", "means"]
"""Where a batch statistic looks; see :func:`samples`."""


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Predictions, targets and latents of one step; a field that a method lacks stays ``None``.

    All tensors but ``winner`` are floating point; B is the batch of this process.
    """

    step: int = 0
    """Training step: drives schedules and the directions of SIGReg."""
    pred: tuple[Tensor, ...] | None = None
    """Predictions ``[B, M_k, D]``, one per mask kind k (or one of any shape ``[B, ..., D]``)."""
    target: tuple[Tensor, ...] | None = None
    """What ``pred`` should be, normalised by the target provider; same shapes."""
    context_pred: tuple[Tensor, ...] | None = None
    """Predictions of visible tokens ``[B, C_k, D]`` (V-JEPA 2.1's dense loss)."""
    context_target: tuple[Tensor, ...] | None = None
    """What ``context_pred`` should be; same shapes."""
    context_distance: tuple[Tensor, ...] | None = None
    """``[B, C_k]``, at least 1: grid distance of each visible token to the nearest masked one."""
    context: tuple[Tensor, ...] | None = None
    """Encoded visible tokens ``[B, K_k, D]`` that each of ``pred`` was made from."""
    places: tuple[Tensor, ...] | None = None
    """Where each of ``pred`` is, ``[B, M_k, 3]`` (time, row, column) in [0, 1]."""
    online: Tensor | None = None
    """Tokens of the trained encoder ``[B, N, D]``."""
    views: Tensor | None = None
    """Projected views ``[V, B, D]``, the global ones first."""
    global_views: int = 0
    """How many of the views are global."""
    sequence: Tensor | None = None
    """Latents over time ``[B, T, D]`` or ``[B, T, n, D]``."""
    actions: Tensor | None = None
    """``[B, T - 1, A]``: what led from each latent of ``sequence`` to the next."""
    rollout: Tensor | None = None
    """Predictions ``[B, K, ..., D]`` of 1, 2, … K steps ahead, each from the one before."""
    rollout_target: Tensor | None = None
    """What ``rollout`` should be; same shape."""
    router: Tensor | None = None
    """Logits ``[B, T, K]`` of which code of a latent variable will come nearest."""
    winner: Tensor | None = None
    """The code int64 ``[B, T]`` that did."""
    log_std: tuple[Tensor, ...] | None = None
    """Log deviations of a Gaussian around each of ``pred``; same shapes."""

    @property
    def device_type(self) -> str:
        """Where its tensors are: cpu, cuda, …"""
        values = (getattr(self, name) for name in sorted(FIELDS))
        firsts = (v[0] if isinstance(v, tuple) else v for v in values if v is not None)
        return next((first.device.type for first in firsts), "cpu")

    def full_precision(self) -> Latents:
        """The same with bfloat16 and float16 tensors as float32: losses are means over millions of
        elements, of which bfloat16 keeps two or three digits."""
        return replace(self, **{name: _full(getattr(self, name)) for name in FIELDS})


FIELDS = frozenset(field.name for field in fields(Latents)) - {"step", "global_views"}
"""The fields a driver may provide."""


def _full(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_full(part) for part in value)
    low = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if low else value


def samples(latents: Latents, on: Source, *, flat: bool) -> Tensor:
    """The samples ``[G, N, D]`` of a batch statistic: G groups, each a sample of size N.

    ``views``: a group per view; ``sequence``: per time step (and token); ``online``: per token
    position; ``means``: per mask kind, the mean over its predicted tokens. N is the batch. With
    ``flat`` all groups are one sample of G * N (correlated: views or steps of one clip).
    """
    if on == "views":
        x = given(latents.views)
    elif on == "means":
        x = stack_means(given(latents.pred))
    else:
        z = given(latents.sequence if on == "sequence" else latents.online)
        x = z.movedim(0, -2).flatten(0, -3)
    return x.reshape(1, -1, x.shape[-1]) if flat else x


def stack_means(groups: tuple[Tensor, ...]) -> Tensor:
    """Means over tokens of groups ``[B, M_k, D]``: ``[K, B, D]``."""
    return torch.stack([x.mean(dim=1) for x in groups])


def source_field(on: Source) -> str:
    """The field of :class:`Latents` that :func:`samples` reads."""
    return "pred" if on == "means" else on


def given(value: T | None) -> T:
    """``value``, which the driver promised. Raises ConfigError if it is missing after all."""
    if value is None:
        raise ConfigError(
            "the driver promised a field of Latents when the objective was built, and left it None"
        )
    return value


def check_pairs(pred: tuple[Tensor, ...], target: tuple[Tensor, ...], what: str) -> None:
    """Raise ConfigError unless both hold tensors of the same shapes (nothing is broadcast)."""
    mine, theirs = [list(x.shape) for x in pred], [list(x.shape) for x in target]
    if mine != theirs or not pred:
        raise ConfigError(
            f"{what}: predictions have shapes {mine}, targets {theirs}; they must be equal"
        )
