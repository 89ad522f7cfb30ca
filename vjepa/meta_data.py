"""The data that Meta's video YAMLs name, as our clips and mixtures."""

from __future__ import annotations

import math
from typing import Any

from ..core.errors import ConfigError
from ..datasets.clips import ClipConfig
from .meta_table import Table

_NOT_KEPT = "; which corpus has which length is not kept: the length of a step's clips is drawn"


def clip_config(keys: Table, size: int) -> ClipConfig:
    """The clips of ``data``; several lengths (``dataset_fpcs``) become buckets.

    There a batch mixes lengths, each dataset having its own; here all clips of a step have one
    length, drawn by the datasets' weights, so that the shares of samples are the same.

    Raises:
        ConfigError: lengths or weights that do not fit the datasets, or several lengths without a
            frame rate.
    """
    weights = dataset_weights(keys)
    lengths = keys.get("data.dataset_fpcs", None)
    if lengths is None:
        lengths = [keys.whole("data.num_frames", 16)]
    elif not isinstance(lengths, list) or not lengths or not all(map(_is_length, lengths)):
        raise ConfigError(f"data.dataset_fpcs: {lengths!r} is not a list of clip lengths")
    weights = weights or [1.0] * len(lengths)
    if len(set(lengths)) > 1 and len(weights) != len(lengths):
        raise ConfigError(
            f"data.dataset_fpcs: {lengths!r} has {len(lengths)} lengths for {len(weights)} "
            "weights in data.datasets_weights"
        )
    fps = keys.number("data.fps") if keys.has("data.fps") else None
    if len(set(lengths)) == 1:
        if fps is not None:
            return ClipConfig(frames=lengths[0], fps=fps, size=size)
        return ClipConfig(
            frames=lengths[0], frame_step=keys.whole("data.sampling_rate", 4), size=size
        )
    if fps is None:
        raise ConfigError(f"data.dataset_fpcs: {lengths!r}: several lengths need data.fps")
    shares = {
        frames: sum(w for n, w in zip(lengths, weights, strict=True) if n == frames)
        for frames in sorted(set(lengths))
    }
    keys.note(f"data.dataset_fpcs: {lengths} became clips.buckets{_NOT_KEPT}")
    return ClipConfig(buckets=tuple((n, fps, share) for n, share in shares.items()), size=size)


def dataset_weights(keys: Table) -> list[float]:
    """``data.datasets_weights``; empty where there are none.

    Raises:
        ConfigError: no list of positive numbers, or another count than ``data.datasets``.
    """
    weights, names = keys.get("data.datasets_weights", None), keys.get("data.datasets", None)
    if weights is None:
        return []
    if not isinstance(weights, list) or not all(map(_is_weight, weights)):
        raise ConfigError(f"data.datasets_weights: {weights!r} is not a list of positive numbers")
    if isinstance(names, list) and len(names) != len(weights):
        raise ConfigError(
            f"data.datasets_weights: {len(weights)} weights for {len(names)} data.datasets"
        )
    return [float(weight) for weight in weights]


def mixture(keys: Table) -> str:
    """The datasets and their weights as a mixture (:mod:`..datasets.mixture`): TOML, or "" where no
    dataset is named."""
    names, weights = keys.get("data.datasets", None), dataset_weights(keys)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return ""
    weights = weights or [1.0] * len(names)
    tables = [
        f"[[corpus]]\nvideos = {_quoted(name)}\nweight = {weight:g}\n"
        for name, weight in zip(names, weights, strict=True)
    ]
    return "\n".join(tables)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_weight(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf
