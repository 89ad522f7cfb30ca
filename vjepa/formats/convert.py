"""From any format that is read to any that is written."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal, cast

from ...core.errors import CheckpointError, ConfigError
from .. import pretrain
from ..checkpoint import find_checkpoint, load_checkpoint, load_config
from ..encoder import TubeletEncoder
from .checkpoint import CONFIG, MANIFEST, Checkpoint, Provenance
from .huggingface import read_hf, write_hf
from .keys import Report
from .meta import read_meta, write_meta
from .meta_probes import read_meta_probe

Target = Literal["tubelet", "meta", "hf"]


def load(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    which: str | None = None,
    probe_as: Literal["transformers", "published"] = "transformers",
) -> tuple[Checkpoint, Report]:
    """Read a checkpoint of whatever format ``path`` is of.

    Args:
        path: Meta's file; a folder of transformers, of ours, or of a pretraining run.
        name: the family member that it must be (Meta, transformers).
        which: the encoder to take (Meta, runs): target_encoder, encoder or ema_encoder.
        probe_as: see :func:`.huggingface.read_hf`.

    Raises:
        CheckpointError: nothing there, or whatever the format's reader says.
        ConfigError: an option that does not apply.
    """
    path = Path(path)
    if path.is_file():
        return read_meta(path, name=name, which=which)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    if (path / MANIFEST).exists():
        return _own(path, name, which)
    if (path / CONFIG).exists():
        _only(which is None, f"which = {which!r}", "a Hugging Face folder has one encoder")
        return read_hf(path, name=name, probe_as=probe_as)
    if (path / "checkpoints").is_dir() or (path / "state.json").exists():
        _only(name is None, f"name = {name!r}", "a pretraining run is no published model")
        return from_run(path, which=which)
    there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"{path} is no checkpoint folder: it has neither {MANIFEST} (tubelet), {CONFIG} "
        f"(transformers) nor checkpoints (a run), but {there}"
    )


def from_run(
    path: str | os.PathLike[str], *, which: str | None = None
) -> tuple[Checkpoint, Report]:
    """The encoder and the masked predictor of a pretraining run, or of one of its checkpoints.

    Args:
        path: run folder, or one of its ``checkpoints/step-*`` folders.
        which: ``target_encoder`` (None), what the run is judged by, or ``encoder``.

    Raises:
        CheckpointError: no checkpoint there, a damaged one, or one of another kind.
        ConfigError: another ``which``.
    """
    if which not in (None, "target_encoder", "encoder"):
        raise ConfigError(f"which = {which!r}: a run has target_encoder and encoder")
    folder = find_checkpoint(path)
    model = pretrain.build(load_config(folder, pretrain.PretrainConfig))
    step = load_checkpoint(folder, model=model)
    encoder = model.encoder if which == "encoder" else model.output
    predictor = getattr(model, "predictor", None)  # methods with views have none
    for part in (encoder, predictor):
        if part is not None:
            part.requires_grad_(True).eval()
    origin = Provenance(
        source=f"{Path(path).name} at step {step}", kind="run", which=which or "target_encoder"
    )
    # The type says transformer; a pyramid (MC-JEPA) maps clips to tokens too, and can be probed.
    checkpoint = Checkpoint(cast(TubeletEncoder, encoder), predictor, provenance=origin)
    return checkpoint, Report(mapped=_names(checkpoint))


def save(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    to: Target,
    *,
    which: str | None = None,
    crop: int = 0,
    frames: int = 0,
    accept_heads: bool = False,
) -> Report:
    """Write ``checkpoint``; see ``Checkpoint.save_pretrained``, ``write_meta`` and ``write_hf``.

    Raises:
        CheckpointError: an encoder that no format holds (MC-JEPA's pyramid lives in its run).
    """
    if not isinstance(checkpoint.encoder, TubeletEncoder):
        raise CheckpointError(
            f"{checkpoint.provenance.source} holds a convolutional pyramid (MC-JEPA), for which "
            "none of the formats has a place: keep its run folder, which probes read"
        )
    if to == "tubelet":
        checkpoint.save_pretrained(path)
        return Report(mapped=_names(checkpoint))
    if to == "meta":
        return write_meta(checkpoint, path, which=which)
    return write_hf(checkpoint, path, crop=crop, frames=frames, accept_heads=accept_heads)


def add_probe(
    checkpoint: Checkpoint, path: str | os.PathLike[str], head: int | None = None
) -> tuple[Checkpoint, Report]:
    """``checkpoint`` with one of the classifiers of Meta's probe file ``path``.

    Raises:
        CheckpointError: as :func:`.meta_probes.read_meta_probe`; a probe of tokens of another
            width.
    """
    probe, report = read_meta_probe(path, head=head)
    width = checkpoint.encoder.config.width
    if probe.config.width != width:
        raise CheckpointError(
            f"{path} is a probe of tokens of width {probe.config.width}; the encoder's are {width}"
        )
    return dataclasses.replace(checkpoint, probe=probe), report


def _own(path: Path, name: str | None, which: str | None) -> tuple[Checkpoint, Report]:
    checkpoint = Checkpoint.from_pretrained(path)
    origin = checkpoint.provenance
    _only(which in (None, origin.which), f"which = {which!r}", f"{path} holds {origin.which}")
    _only(name in (None, origin.name), f"name = {name!r}", f"{path} is {origin.name or 'unnamed'}")
    return checkpoint, Report(mapped=_names(checkpoint))


def _only(fine: bool, what: str, why: str) -> None:
    if not fine:
        raise ConfigError(f"{what} does not apply: {why}")


def _names(checkpoint: Checkpoint) -> list[str]:
    return [
        f"{name}.{key}" for name, part in checkpoint.parts().items() for key in part.state_dict()
    ]
