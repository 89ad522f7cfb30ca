"""Named random streams: one seed, one independent stream per purpose, worker and rank.

>>> stream_seed(0, "masks", 3) == stream_seed(0, "masks", 3)
True
>>> stream_seed(0, "masks", 3) == stream_seed(0, "clips", 3)
False
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` (purpose, worker, rank, step…) under ``seed``."""
    text = "/".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream ``names`` under ``seed``."""
    return np.random.default_rng(stream_seed(seed, *names))


def torch_generator(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """A torch generator for the stream ``names`` under ``seed``."""
    import torch

    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))
