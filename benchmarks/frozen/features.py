"""Features of frozen encoders: computed once, kept on disk as float16, read as a memory map.

    <cache>/<key>/features.npy    float16 [M, views, tokens, D]
                  state.json      rows done, bad files, and what the key stands for

The key names the encoder's weights, the files (path, size and time of change), the protocol and
whether tokens are averaged; so nothing stale is ever read, and a killed extraction goes on with the
row it had reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import ConfigError, DatasetError, VideoDecodeError
from ...core.io import atomic_path, atomic_write_json, reserve
from ...core.progress import progress
from ...core.rng import stream_seed
from ...datasets.corpus import check_bad_share
from ...vjepa.encoder import TubeletEncoder
from .protocol import FrozenProtocol, layer_numbers, read_views

SAVE_SECONDS = 30.0
"""At most so much of an extraction is done again after a kill."""

Encode = Callable[[Tensor], Tensor]
"""``encode(video uint8 [B, T, H, W, 3]) -> tokens [B, N, D]``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of M files.

    Attributes:
        values: float16 [M, V, N, D], a memory map: V views of N tokens (of all clips, side by
        side), or of their mean (N = 1). bad: path -> reason of each file that could not be read;
        its row is NaN.
    """

    values: np.ndarray
    bad: dict[str, str]

    def pooled(self) -> np.ndarray:
        """The mean over tokens and views, float32 ``[M, D]``."""
        rows = range(0, len(self.values), 64)
        parts = [self.values[i : i + 64].astype(np.float32).mean((1, 2)) for i in rows]
        return np.concatenate(parts)


@torch.inference_mode()
def encode_views(encode: Encode, clips: Tensor, device: str = "cpu") -> Tensor:
    """Tokens float32 ``[B, V, S * N, D]`` of clips uint8 ``[B, V, S, T, H, W, 3]``: every clip on
    its own, the tokens of a view's S clips side by side in time."""
    views, segments = clips.shape[1:3]
    tokens = encode(clips.flatten(0, 2).to(device)).float().cpu()
    return tokens.unflatten(0, (-1, views, segments)).flatten(2, 3)


def average_views(logits: Tensor) -> Tensor:
    """Probabilities ``[..., C]`` of logits ``[..., V, C]``: the mean of the views' softmax."""
    return logits.float().softmax(-1).mean(-2)


def reader(encoder: TubeletEncoder, layers: int = 1) -> Encode:
    """What gives out the tokens that a probe reads: of the last block, or of several, all of them
    normed as the last one's are, layer after layer (``[B, layers * N, D]``).

    Which: :func:`.protocol.layer_numbers`. A level with a norm of its own (V-JEPA 2.1) goes through
    that. Raises ConfigError for more layers than the encoder has, or for more than one of a
    convolutional pyramid (MC-JEPA), whose levels are of several widths.
    """
    if layers > 1 and not isinstance(encoder, TubeletEncoder):
        raise ConfigError(f"protocol.layers = {layers}: of a pyramid only the last level is read")
    numbers = layer_numbers(encoder.config.depth, layers)
    if layers == 1:
        return encoder
    return partial(_layer_tokens, encoder, numbers)


def _layer_tokens(encoder: TubeletEncoder, numbers: Sequence[int], video: Tensor) -> Tensor:
    found: dict[int, list[Tensor]] = {number: [] for number in numbers}

    def keep(number: int) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda block, inputs, tokens: found[number].append(tokens)

    hooks = [encoder.blocks[n - 1].register_forward_hook(keep(n)) for n in numbers]
    try:
        encoder(video)  # which may take long clips one by one
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([_norm(encoder, n)(torch.cat(found[n])) for n in numbers], dim=1)


def _norm(encoder: TubeletEncoder, number: int) -> nn.Module:
    levels = encoder.config.levels
    if not levels:
        return encoder.norm
    return encoder.norms[levels.index(number) if number in levels else -1]


@torch.inference_mode()
def probe_logits(
    encoder: TubeletEncoder, probe: nn.Module, clips: Tensor, layers: int = 1
) -> Tensor:
    """Logits float32 ``[V, C]`` that a trained probe gives one file's views, in full precision.

    Args:
        probe: maps tokens ``[B, N, D]`` to logits ``[B, C]``, on the encoder's device.
        clips: uint8 ``[V, S, T, H, W, 3]``, what :func:`.protocol.read_views` gives.
        layers: blocks that it reads, see :func:`reader`.
    """
    device = next(encoder.parameters()).device
    tokens = encode_views(reader(encoder, layers), clips[None], str(device))[0]
    return torch.cat([probe(view[None].to(device)).float().cpu() for view in tokens])


def untrained(encoder: TubeletEncoder, seed: int) -> TubeletEncoder:
    """A freshly initialised encoder of the same architecture, on the same device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "untrained"))
        fresh = type(encoder)(encoder.config)
    return fresh.requires_grad_(False).eval().to(next(encoder.parameters()).device)


def pixels(video: Tensor, side: int = 16) -> Tensor:
    """Clips averaged down to ``side`` pixels as one token: float32 ``[B, 1, T * side² * 3]`` in
    [0, 1]; not an encoder, but the start of what one has to beat."""
    frames = video.flatten(0, 1).movedim(-1, 1).float() / 255
    small = nn.functional.adaptive_avg_pool2d(frames, side)
    return small.unflatten(0, video.shape[:2]).flatten(1).unsqueeze(1)


def weights_digest(encoder: TubeletEncoder) -> str:
    """sha256 of an encoder's config and weights."""
    digest = hashlib.sha256(repr(encoder.config).encode())
    for key, value in sorted(encoder.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def extract(
    encode: Encode,
    identity: str,
    paths: Sequence[str],
    protocol: FrozenProtocol,
    cache: str | os.PathLike[str],
    *,
    pool: bool,
    batch: int = 8,
    workers: int = 0,
    device: str = "cpu",
    max_bad_share: float = 0.05,
) -> Features:
    """The features of ``paths``, from the cache or computed into it.

    Args:
        encode: the encoder, in eval mode. identity: what it is, :func:`weights_digest` say.
        cache: folder of all cached features.
        pool: keep the mean of each view's tokens instead of all of them.
        batch: files at a time. workers: processes that read ahead. Neither changes the result but
            by rounding.
        max_bad_share: the largest tolerated share of files that cannot be read.

    Raises:
        DatasetError: more files than that are bad, naming the first; or a damaged cache.
        OSError: the cache cannot be written.
    """
    facts = {
        "encoder": identity,
        "protocol": asdict(protocol),
        "pool": pool,
        "files": hashlib.sha256(repr([_stamp(path) for path in paths]).encode()).hexdigest(),
        "count": len(paths),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    folder = Path(cache) / key
    state = _state(folder)
    if state is None or state["done"] < len(paths):
        state = _compute(
            encode, paths, protocol, folder, facts, state, pool, batch, workers, device
        )
    check_bad_share("features", state["bad"].items(), len(paths), max_bad_share, "files")
    return Features(values=_map(folder / "features.npy", len(paths)), bad=state["bad"])


def _compute(
    encode: Encode,
    paths: Sequence[str],
    protocol: FrozenProtocol,
    folder: Path,
    facts: dict[str, Any],
    state: dict[str, Any] | None,
    pool: bool,
    batch: int,
    workers: int,
    device: str,
) -> dict[str, Any]:
    """Fill in the rows that are not done; the state, which is also written now and then."""
    file, bad = folder / "features.npy", dict(state["bad"]) if state else {}
    done = state["done"] if state else 0
    shape = _shape(encode, protocol, pool, device)
    if done == 0 or not file.exists():
        done, bad = 0, {}
        with atomic_path(file) as temporary:
            np.lib.format.open_memmap(temporary, "w+", np.float16, (len(paths), *shape)).flush()
            reserve(temporary)
    values = np.lib.format.open_memmap(file, "r+")
    reader = torch.utils.data.DataLoader(
        _Reader(paths[done:], protocol),  # pyright: ignore[reportArgumentType]
        batch_size=batch,
        num_workers=workers,
        collate_fn=list,
        timeout=600 if workers else 0,
        generator=torch.Generator(),
    )
    saved = time.monotonic()
    for read in progress(reader, "encode", total=len(reader)):
        fine = [i for i, clip in enumerate(read) if isinstance(clip, Tensor)]
        bad |= {paths[done + i]: clip for i, clip in enumerate(read) if isinstance(clip, str)}
        values[done : done + len(read)] = np.nan
        if fine:
            tokens = encode_views(encode, torch.stack([read[i] for i in fine]), device)
            tokens = tokens.mean(2, keepdim=True) if pool else tokens
            values[[done + i for i in fine]] = tokens.numpy().astype(np.float16)
        done += len(read)
        if done == len(paths) or time.monotonic() - saved >= SAVE_SECONDS:
            values.flush()
            atomic_write_json(folder / "state.json", {"done": done, "bad": bad, "facts": facts})
            saved = time.monotonic()
    return {"done": done, "bad": bad}


class _Reader(torch.utils.data.Dataset):
    """Clips by number, or the reason why a file has none."""

    def __init__(self, paths: Sequence[str], protocol: FrozenProtocol):
        self._paths, self._protocol = list(paths), protocol

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Tensor | str:
        try:
            return read_views(self._paths[number], self._protocol)
        except VideoDecodeError as error:
            return error.reason


def _shape(encode: Encode, protocol: FrozenProtocol, pool: bool, device: str) -> tuple[int, ...]:
    """(V, N, D), from a black clip."""
    black = torch.zeros(
        1, 1, 1, protocol.frames, protocol.crop, protocol.crop, 3, dtype=torch.uint8
    )
    tokens, width = encode_views(encode, black, device).shape[2:]
    return protocol.views, 1 if pool else tokens * protocol.segments, width


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return path, -1, -1
    return path, stat.st_size, stat.st_mtime_ns


def _state(folder: Path) -> dict[str, Any] | None:
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return {"done": int(state["done"]), "bad": dict(state["bad"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: damaged ({error!r}); delete {folder}") from error


def _map(path: Path, count: int) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: damaged ({error}); delete {path.parent}") from error
    if values.ndim != 4 or len(values) != count or values.dtype != np.float16:
        raise DatasetError(f"{path}: {values.dtype} {values.shape}; delete {path.parent}")
    return values
