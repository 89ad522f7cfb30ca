"""Features taken out: files of them for other tools, and videos that show what tokens encode."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from ...core.errors import ConfigError
from ...core.io import atomic_path
from ...datasets.video_writer import write_video
from ...vjepa.pretrain import PretrainedEncoder
from .labelled import Labelled


def export_features(path: str | os.PathLike[str], values: np.ndarray, data: Labelled) -> None:
    """Write features with the files they are of.

    Args:
        path: ``.npz`` (arrays ``features``, ``labels``, ``paths``, ``classes``) or ``.safetensors``
            (tensors ``features`` and ``labels``; ``paths``, ``classes`` as JSON in its metadata).
        values: any ``[M, ...]``. data: the M files.

    Raises:
        ConfigError: another suffix, or as many features as there are not files.
    """
    suffix = Path(path).suffix
    if suffix not in (".npz", ".safetensors"):
        raise ConfigError(f"{path}: features are written as .npz or .safetensors")
    if len(values) != len(data):
        raise ConfigError(f"{len(values)} features for {len(data)} files")
    arrays: dict[str, Any] = {"features": np.ascontiguousarray(values), "labels": data.labels}
    names = {"paths": list(data.paths), "classes": list(data.classes)}
    with atomic_path(path) as temporary:
        if suffix == ".npz":
            with open(temporary, "wb") as file:
                paths, classes = (np.array(value) for value in names.values())
                np.savez(file, paths=paths, classes=classes, **arrays)
        else:
            metadata = {key: json.dumps(value) for key, value in names.items()}
            save_file(arrays, temporary, metadata)


@torch.inference_mode()
def pca_frames(encoder: PretrainedEncoder, clip: Tensor) -> np.ndarray:
    """The first three principal components of a clip's tokens as red, green and blue.

    Args:
        clip: uint8 ``[T, H, W, 3]``.

    Returns:
        uint8 ``[T, H, W, 3]``: each token's colour over the pixels and frames of its tubelet. Each
        component is scaled so that 1 % of tokens are dark at either end; its sign makes the token
        that is farthest out bright.

    Raises:
        ConfigError: fewer than four tokens, or a size that the encoder does not take.
    """
    grid = encoder.grid(clip[None])
    if grid.size < 4:
        raise ConfigError(
            f"{grid.size} tokens have no three principal components; use longer clips"
        )
    device = next(encoder.parameters()).device
    tokens = encoder(clip[None].to(device))[0].double().cpu()
    colours = _scaled(_components(tokens, 3))
    blocks = colours.reshape(grid.t, grid.h, grid.w, 3).numpy()
    for axis, size in enumerate(clip.shape[:3]):
        blocks = blocks.repeat(size // blocks.shape[axis], axis=axis)
    return blocks


def pca_video(
    path: str | os.PathLike[str], encoder: PretrainedEncoder, clip: Tensor, *, fps: int = 10
) -> None:
    """Write the clip and, to its right, :func:`pca_frames` of it as an mp4.

    Raises:
        DatasetError: an odd height. ConfigError: as :func:`pca_frames`.
    """
    both = np.concatenate([clip.numpy(), pca_frames(encoder, clip)], axis=2)
    write_video(path, both, fps=fps)


def _components(tokens: Tensor, count: int) -> Tensor:
    """Scores ``[N, count]`` on the principal axes of tokens ``[N, D]``; 0 beyond the rank."""
    centred = tokens - tokens.mean(0)
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    scores = left * singular
    scores = torch.nn.functional.pad(scores, (0, max(0, count - scores.shape[1])))[:, :count]
    farthest = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    return scores * torch.where(farthest < 0, -1.0, 1.0)


def _scaled(scores: Tensor) -> Tensor:
    low, high = torch.quantile(scores, torch.tensor([0.01, 0.99], dtype=scores.dtype), dim=0)
    spread = torch.where(high > low, high - low, 1.0)
    return ((scores - low) / spread).clamp(0, 1).mul(255).round().to(torch.uint8)
