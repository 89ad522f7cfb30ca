"""Reading weight files of others, safely: nothing in them runs, and whatever is wrong is named.

``.pt``, ``.pth``, ``.pth.tar``: torch's restricted unpickler only, memory-mapped where the file
allows. safetensors: single files, and folders with or without shards.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...core.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_torch(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The dict in a file of ``torch.save``, tensors on the CPU.

    Raises:
        CheckpointError: no, an empty, truncated or foreign file; one that would run code (which is
            not run); something else than a dict in it.
    """
    path = Path(path)
    _check_start(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unpickling(path, str(error))) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as a torch checkpoint; it is "
            f"truncated or damaged: download it again. torch says: {_first_line(error)}"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not a dict of weights")
    return found


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of a folder with ``model.safetensors`` or shards.

    Raises:
        CheckpointError: no, an empty, truncated or foreign file; a missing shard; an index that
            does not say what the shards hold.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_one(path)
    if (path / SINGLE).exists():
        return _read_one(path / SINGLE)
    if not (path / INDEX).exists():
        there = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
        raise CheckpointError(f"{path} has neither {SINGLE} nor {INDEX}; it has {there}")
    return _read_shards(path)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError where there is none."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a JSON {type(found).__name__}, not an object")
    return found


def check_tensors(tensors: dict[str, Any], source: str) -> torch.dtype:
    """The one floating type of ``tensors``.

    Raises:
        CheckpointError: none at all, something that is no dense tensor, integers, or a mixture.
    """
    if not tensors:
        raise CheckpointError(f"{source} holds no weights")
    kinds: dict[torch.dtype, str] = {}
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            kind = value.layout if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(f"{source}: {key} is a {kind}, not a dense tensor")
        kinds.setdefault(value.dtype, key)
    named = "; ".join(f"{dtype} ({key}, say)" for dtype, key in kinds.items())
    if not all(dtype.is_floating_point for dtype in kinds):
        raise CheckpointError(
            f"{source} has weights of another type than floating: {named}; convert from the "
            "original, not from a quantised copy"
        )
    if len(kinds) > 1:
        raise CheckpointError(f"{source} mixes types of weights: {named}; cast them to one first")
    dtype = next(iter(kinds))
    if dtype == torch.float64 or dtype.itemsize < 2:
        raise CheckpointError(
            f"{source} has weights of {dtype}: cast them to float32, float16 or bfloat16 first"
        )
    return dtype


def _read_one(path: Path) -> dict[str, Tensor]:
    _check_start(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as safetensors; it is truncated "
            f"or damaged: download it again. safetensors says: {_first_line(error)}"
        ) from error


def _read_shards(folder: Path) -> dict[str, Tensor]:
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(v, str) for v in index.values()):
        raise CheckpointError(f"{folder / INDEX} has no weight_map from keys to file names")
    names = sorted(set(index.values()))
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if name not in outside and not (folder / name).exists()]
    if outside:
        raise CheckpointError(f"{folder / INDEX} names files outside its folder: {outside[0]}")
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(names)} shards are missing: {', '.join(missing)}"
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        found = _read_one(folder / name)
        wanted = {key for key, file in index.items() if file == name}
        if wanted != found.keys():
            odd = sorted(wanted ^ found.keys())
            raise CheckpointError(
                f"{folder / name} and {INDEX} disagree on {len(odd)} keys: {', '.join(odd[:8])}"
            )
        tensors |= found
    return tensors


def _check_start(path: Path) -> None:
    """Refuse what can be told from the first bytes."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    text = start.lstrip().lower()
    if not start:
        raise CheckpointError(f"{path} is empty: the download failed")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        shown = start.decode("utf-8", "replace").strip().splitlines()[0][:60]
        raise CheckpointError(
            f"{path} is a web page, not weights ({shown!r}): the download was answered by an error "
            "or login page"
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not weights: run git lfs pull")


def _is_zip(path: Path) -> bool:
    """Whether torch can map the file: its older formats have no layout for that."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _unpickling(path: Path, said: str) -> str:
    refused = re.search(r"GLOBAL ([\w.]+)", said)
    if refused:
        return (
            f"{path} holds more than tensors: reading it would call {refused[1]}. Nothing was run. "
            "Save its bare state dict where you trust it, or look for a safetensors file"
        )
    reason = re.search(r"Unpickler error:\s*(.+)", said)
    return (
        f"{path} ({path.stat().st_size} bytes) is no torch checkpoint, or a damaged one; nothing "
        f"in it was run. torch says: {reason[1] if reason else said.splitlines()[0]}"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
