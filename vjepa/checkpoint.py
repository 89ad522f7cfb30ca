"""Checkpoints: safetensors for every tensor, TOML and JSON for the rest, never a pickle.

    <run>/checkpoints/step-00000400/model.safetensors      weights, by module path
                                    optimizer.safetensors  Adam's moments, by parameter number
                                    state.json             step, config class, sizes of the files
                                    config.toml            the config; rebuilds the modules
    <run>/checkpoints/latest                               name of the newest complete checkpoint

A checkpoint is written to a temporary folder, synced and renamed, and only then named in
``latest``: killed at any moment, the previous one is still whole.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.config import from_toml, to_toml
from ..core.errors import CheckpointError, ConfigError
from ..core.io import atomic_write_text

C = TypeVar("C")
_FILES = ("model.safetensors", "optimizer.safetensors", "config.toml")


def save_checkpoint(
    run: Path,
    step: int,
    *,
    model: nn.Module,
    config: Any,
    optimizer: torch.optim.Optimizer | None = None,
    extra: Any = None,
    keep: int = 2,
) -> Path:
    """Write ``<run>/checkpoints/step-<step>`` atomically and drop all but the newest ``keep``.

    ``extra`` is whatever JSON can hold; :func:`stored_extra` gives it back. Training loops save
    through :class:`tubelet.vjepa.saver.Saver`.

    Raises:
        CheckpointError: the folder cannot be written (disk full, say); older checkpoints survive.
    """
    moments = {} if optimizer is None else moments_of(optimizer)
    weights = model.state_dict()
    return write_checkpoint(run, step, weights, moments, config=config, extra=extra, keep=keep)


def write_checkpoint(
    run: Path,
    step: int,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
    *,
    config: Any,
    extra: Any = None,
    keep: int = 2,
) -> Path:
    """As :func:`save_checkpoint`, for tensors by name: ``model.state_dict()`` and
    :func:`moments_of` the optimiser."""
    folder = run / "checkpoints"
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    try:
        for left_over in folder.glob(".step-*.tmp"):  # of a killed save
            shutil.rmtree(left_over, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_plain(weights), temporary / "model.safetensors")
        save_file(_plain(moments), temporary / "optimizer.safetensors")
        (temporary / "config.toml").write_text(to_toml(config))
        sizes = {name: (temporary / name).stat().st_size for name in _FILES}
        state = {"step": step, "config": type(config).__name__, "bytes": sizes, "extra": extra}
        (temporary / "state.json").write_text(json.dumps(state, indent=2))
        for path in [*temporary.iterdir(), temporary]:
            _fsync(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _fsync(folder)
        atomic_write_text(folder / "latest", final.name + "\n")
        # A later step may lie here that was never named latest (killed in between): not counted.
        for old in [p for p in sorted(folder.glob("step-*")) if p.name <= final.name][:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise cannot_save(run, step, error) from error
    return final


def cannot_save(run: Path, step: int, why: object) -> CheckpointError:
    """The error of a save that failed."""
    return CheckpointError(
        f"cannot save the checkpoint {run / 'checkpoints' / f'step-{step:08d}'}: {why}; free some "
        "space or fix the folder's permissions, then resume from the last checkpoint, which is "
        "intact"
    )


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run folder, or None if it has none."""
    pointer = run / "checkpoints" / "latest"
    if not pointer.exists():
        return None
    path = pointer.parent / pointer.read_text().strip()
    if not (path / "state.json").exists():
        raise CheckpointError(f"{pointer} names {path.name}, which is not there; remove {pointer}")
    return path


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The checkpoint meant by ``path``: a checkpoint folder, or a run folder's newest one."""
    path = Path(path)
    if (path / "state.json").exists():
        return path
    found = latest_checkpoint(path)
    if found is None:
        raise CheckpointError(
            f"no checkpoint at {path}: name a run folder or one of its checkpoints/step-* folders"
        )
    return found


_KINDS = {
    "PretrainConfig": "an encoder of videos or images",
    "DynamicsConfig": "a world model",
    "TokenTrainConfig": "an encoder of points or skeletons",
}
_TOKEN_PROBE = "tubelet evaluate --preset tokens"


def load_config(path: Path, cls: type[C]) -> C:
    """The config stored in the checkpoint ``path``. Raises CheckpointError for another class."""
    stored = _state(path)["config"]
    if stored != cls.__name__:
        held, wanted = (_KINDS.get(name, f"a {name}") for name in (stored, cls.__name__))
        hint = f": `{_TOKEN_PROBE}` judges it" if stored == "TokenTrainConfig" else ""
        raise CheckpointError(f"{path} holds {held}, not {wanted}{hint}")
    file = path / "config.toml"
    try:
        text = file.read_text()
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    return from_toml(cls, text, source=str(file))


def stored_config(folder: Path, cls: type[C], wanted: str) -> C:
    """The config in a checkpoint. Raises CheckpointError where it is of another kind."""
    try:
        return load_config(folder, cls)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder} is no checkpoint of {wanted} known here: {error}"
        ) from error


def load_checkpoint(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> int:
    """Load weights (and Adam's moments) from ``path`` in place; returns the step.

    Raises:
        CheckpointError: a damaged file, or any missing, unexpected or mis-shaped key, all named.
    """
    state = _state(path)
    load_weights(model, _read(path / "model.safetensors", state), source=str(path))
    if optimizer is not None:
        moments = _read(path / "optimizer.safetensors", state)
        _load_moments(optimizer, moments, path)
    return int(state["step"])


def stored_extra(path: Path) -> Any:
    """What was saved as ``extra`` in the checkpoint ``path``; None if nothing was."""
    return _state(path).get("extra")


def load_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Copy ``weights`` into ``model``; every key must be there, once, in the right shape."""
    own = model.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    shapes = [
        f"{k}: {list(weights[k].shape)} in the file, {list(own[k].shape)} in the model"
        for k in own.keys() & weights.keys()
        if own[k].shape != weights[k].shape
    ]
    if missing or unexpected or shapes:
        parts = [("missing", missing), ("unexpected", unexpected), ("mis-shaped", sorted(shapes))]
        text = "; ".join(f"{len(k)} {name}: {', '.join(k[:8])}" for name, k in parts if k)
        raise CheckpointError(f"{source} does not fit this architecture. {text}")
    model.load_state_dict({k: _cut_like(weights[k], v) for k, v in own.items()})


def _state(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "state.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read {path / 'state.json'}: {error}") from error


def _read(path: Path, state: dict[str, Any]) -> dict[str, Tensor]:
    expected = state["bytes"][path.name]
    size = path.stat().st_size if path.exists() else 0
    if size != expected:
        raise CheckpointError(f"{path} is damaged: {size} bytes, {expected} were written")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state: ``"<parameter's number>.<name>"`` -> tensor."""
    return {
        f"{i}.{name}": value
        for i, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _load_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], path: Path) -> None:
    parameters = _parameters(optimizer)
    fused = [g.get("fused") for g in optimizer.param_groups for _ in g["params"]]
    loaded: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():  # parameters that never had a gradient have no moments
        number, name = key.split(".", 1)
        i = int(number)
        own = parameters[i] if i < len(parameters) else None
        if own is None or (value.ndim and value.shape != own.shape):
            raise CheckpointError(
                f"{path}: the optimiser's moments {i}, of shape {list(value.shape)}, fit no "
                "parameter; was it saved with other parts frozen, or with another optim.kind?"
            )
        if value.ndim:
            value = _cut_like(value, own).to(own)
        elif fused[i]:  # counts its steps where it works
            value = value.to(own.device)
        loaded.setdefault(i, {})[name] = value
    adam = ["betas" in group for group in optimizer.param_groups for _ in group["params"]]
    if any(adam[i] != ("exp_avg" in moments) for i, moments in loaded.items()):
        raise CheckpointError(
            f"{path}: the optimiser's moments are those of another kind; keep optim.kind as it was"
        )
    for i, moments in loaded.items():
        optimizer.state[parameters[i]] = moments


def _cut_like(full: Tensor, own: Tensor) -> Tensor:
    """``full``, or this process's part of it if ``own`` is split over processes."""
    if not hasattr(own, "to_local"):
        return full
    from .sharding import like

    return like(full, own)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
