"""Latents of a frozen encoder, computed once and kept on disk as a float16 memory map."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import ConfigError, DatasetError
from ..core.io import atomic_path, atomic_write_json, reserve
from ..core.progress import progress
from ..datasets.windows import FramePairs


class LatentCache:
    """Tokens of every ``stride``-th observation of every episode.

    Called like :class:`~tubelet.datasets.windows.FramePairs`, it observes cached tokens float16
    ``[B, K, N, D]`` in the place of frames.

    Attributes:
        tokens: float16 ``[rows, N, D]``. offsets: int64 ``[E + 1]``, rows per episode. stride.
    """

    def __init__(self, path: Path, offsets: np.ndarray, stride: int):
        self.tokens = np.load(path, mmap_mode="r")
        self.offsets, self.stride = offsets, stride

    def __call__(self, episode: np.ndarray, step: np.ndarray) -> Tensor:
        if (step % self.stride).any():
            raise ConfigError(f"step {step.max()}: only multiples of {self.stride} are cached")
        return torch.from_numpy(self.tokens[self.offsets[episode][:, None] + step // self.stride])


def cache_latents(
    encoder: nn.Module,
    observe: FramePairs,
    folder: Path,
    *,
    stride: int,
    source: str,
    batch_size: int = 256,
) -> LatentCache:
    """Encode every ``stride``-th observation, or open the cache where that was done before.

    Args:
        encoder: frozen, uint8 frames ``[B, k, H, W, 3]`` to tokens ``[B, N, D]``; its ``config``
            and weights are part of the cache's name.
        observe: gives the frames of any step. folder: where caches live.
        stride: environment steps between cached observations. source: names the frames (a changed
            source is another cache).
        batch_size: observations per forward pass.

    Raises:
        DatasetError: the cache cannot be written (disk full, say).
    """
    counts = (np.diff(observe.offsets) - 1) // stride + 1
    offsets = np.concatenate([[0], np.cumsum(counts)])
    device = next(encoder.parameters()).device
    key = {"weights": _digest(encoder), "source": source, "stride": stride}
    key["back"] = observe.back.tolist()
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"latents-{name}.npy"
    if path.exists():
        return LatentCache(path, offsets, stride)
    episode = np.repeat(np.arange(len(counts)), counts)
    step = (np.arange(offsets[-1]) - offsets[:-1][episode]) * stride

    def encode(rows: slice) -> np.ndarray:
        frames = observe(episode[rows], step[rows, None])[:, 0].to(device)
        return encoder(frames).half().cpu().numpy()

    try:
        with atomic_path(path) as temporary, torch.inference_mode():
            shape = (len(episode), *encode(slice(0, 1)).shape[1:])
            out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
            reserve(temporary)
            for first in progress(range(0, len(episode), batch_size), "cache latents"):
                rows = slice(first, first + batch_size)
                out[rows] = encode(rows)
            out.flush()
            del out
        atomic_write_json(path.with_suffix(".json"), key)
    except OSError as error:
        raise DatasetError(
            f"cannot write the latent cache {path}: {error.strerror}; free some space, fix the "
            "folder's permissions or name another"
        ) from error
    return LatentCache(path, offsets, stride)


def _digest(encoder: nn.Module) -> str:
    sha = hashlib.sha256(repr(encoder.config).encode())
    for name, value in sorted(encoder.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
