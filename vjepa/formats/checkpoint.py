"""What a checkpoint holds, and our own format for it.

<folder>/config.json         every architecture, and where the weights come from
         model.safetensors   encoder.*, predictor.*, actions.*, probe.*
         manifest.json       sha256 and size of both, verified on load
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import nn

from ...core.config import from_toml
from ...core.errors import CheckpointError, ConfigError
from ...core.io import atomic_path, atomic_write_json
from ..action_predictor import ActionPredictor, ActionPredictorConfig
from ..attentive import AnticipationProbe, AttentiveConfig, AttentiveProbe
from ..encoder import EncoderConfig, TubeletEncoder
from ..predictor import MaskedPredictor, PredictorConfig
from .files import SINGLE, check_tensors, read_json, read_safetensors
from .keys import plain, read
from .parts import blank, complete

C = TypeVar("C")

FORMAT, VERSION = "tubelet-checkpoint", 1
CONFIG = "config.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the weights come from."""

    name: str = ""
    """Family member, where known."""
    source: str = ""
    """Name of the file or folder."""
    sha256: str = ""
    """Of that file."""
    kind: str = ""
    """meta, hf or run."""
    which: str = "target_encoder"
    """The encoder that was taken, of the several in a training checkpoint."""
    prefix: str = "module.backbone."
    """What the source's keys started with."""
    crop: int = 0
    """Side of the evaluation crop in pixels; 0: not known."""
    frames: int = 0
    """Frames per clip; 0: not known."""
    labels: tuple[str, ...] = ()
    """Names of the probe's classes, where known."""


@dataclass
class Checkpoint:
    """The modules of a pretrained model, on the CPU in eval mode, and where they come from."""

    encoder: TubeletEncoder
    """Its encoder."""
    predictor: MaskedPredictor | None = None
    """Its masked predictor."""
    actions: ActionPredictor | None = None
    """Its action-conditioned predictor (V-JEPA 2-AC)."""
    probe: AttentiveProbe | AnticipationProbe | None = None
    """A classifier on its tokens."""
    provenance: Provenance = field(default_factory=Provenance)
    """Where it comes from."""

    def parts(self) -> dict[str, Any]:
        """Name -> module, of those that are there."""
        names = (f.name for f in dataclasses.fields(self) if f.name != "provenance")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write our format into ``folder``, which is made; the manifest last.

        Raises:
            OSError: it cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            f"{name}.{key}": value.detach().cpu().contiguous()
            for name, part in self.parts().items()
            for key, value in part.state_dict().items()
        }
        with atomic_path(folder / SINGLE) as path:
            save_file(weights, path, metadata={"format": "pt"})
        atomic_write_json(folder / CONFIG, self._config())
        files = {name: digest(folder / name) for name in (CONFIG, SINGLE)}
        atomic_write_json(folder / MANIFEST, {"format": FORMAT, "version": VERSION, "files": files})

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **download: Any) -> Checkpoint:
        """Read our format from a folder, or else from the Hugging Face repository ``path``.

        Args:
            path: a folder, or ``"organisation/name"``.
            download: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and
                ``force_download`` of ``huggingface_hub``, for a repository.

        Raises:
            CheckpointError: no such folder, a file that is missing, damaged or not of this format,
                or weights that do not fit their config, naming the keys; no ``huggingface_hub``.
        """
        if Path(path).is_dir():
            return _load(Path(path))
        from .hub import download_and_load

        return download_and_load(cls, str(path), **download)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload to a Hugging Face repository, which is made, and return the commit's address.

        ``options`` are those of ``huggingface_hub``'s ``push_to_hub``: ``private``, ``token``,
        ``commit_message`` and so on. Raises CheckpointError without ``huggingface_hub``.
        """
        from .hub import push

        return push(self, repo_id, **options)

    def _config(self) -> dict[str, Any]:
        configs = {name: dataclasses.asdict(part.config) for name, part in self.parts().items()}
        arguments = {name: _arguments(part) for name, part in self.parts().items()}
        return {
            "format": FORMAT,
            "version": VERSION,
            "provenance": dataclasses.asdict(self.provenance),
            "parts": configs,
            "arguments": {name: found for name, found in arguments.items() if found},
        }


def from_json(cls: type[C], data: Any, source: str) -> C:
    """A config from its JSON. Raises CheckpointError naming all unknown keys and wrong values."""
    if not isinstance(data, dict):
        raise CheckpointError(f"{source} is not an object but {json.dumps(data)[:60]}")
    try:
        return from_toml(cls, "\n".join(_toml(data, "")), source=source)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def digest(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": found}


def _load(folder: Path) -> Checkpoint:
    _verify(folder)
    config, where = read_json(folder / CONFIG), str(folder / CONFIG)
    provenance = from_json(Provenance, config.get("provenance"), f"{where}: provenance")
    parts = _blank_parts(config.get("parts"), config.get("arguments"), where)
    entries = [
        plain(f"{name}.{key}", f"{name}.{key}", tuple(value.shape))
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    ]
    tensors = read_safetensors(folder / SINGLE)
    check_tensors(tensors, str(folder))
    weights = read(entries, tensors, source=str(folder))
    for name, part in parts.items():
        start = f"{name}."
        own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        complete(part, own)
    return Checkpoint(**parts, provenance=provenance)


def _blank_parts(configs: Any, arguments: Any, where: str) -> dict[str, Any]:
    """Name -> blank module, from their JSON."""
    kinds = {
        "encoder": (EncoderConfig, TubeletEncoder),
        "predictor": (PredictorConfig, MaskedPredictor),
        "actions": (ActionPredictorConfig, ActionPredictor),
        "probe": (AttentiveConfig, make_probe),
    }
    if not isinstance(configs, dict) or "encoder" not in configs or configs.keys() - kinds:
        raise CheckpointError(f"{where}: parts must be an encoder and some of {', '.join(kinds)}")
    made: dict[str, Any] = {}
    for name, (cls, build) in kinds.items():
        if name not in configs:
            continue
        config = from_json(cls, configs[name], f"{where}: {name}")
        more = arguments.get(name, {}) if isinstance(arguments, dict) else {}
        if name in ("predictor", "actions"):
            more = {"latent_dim": made["encoder"].config.width, **more}
        try:
            made[name] = blank(lambda f=build, c=config, more=more: f(c, **more))
        except (TypeError, ConfigError) as error:
            raise CheckpointError(f"{where}: {name}: {error}") from error
    return made


def make_probe(config: AttentiveConfig) -> AttentiveProbe | AnticipationProbe:
    """The probe of a config: with one number of classes, or three."""
    return (AttentiveProbe if len(config.classes) == 1 else AnticipationProbe)(config)


def _arguments(part: nn.Module) -> dict[str, Any]:
    """What a module is made with, beside its config and the encoder's width."""
    if isinstance(part, ActionPredictor):
        return {"action_dim": part.action_dim, "grid": list(part.grid)}
    return {}


def _verify(folder: Path) -> None:
    """Raise CheckpointError unless every file is as its manifest says."""
    if not (folder / MANIFEST).exists():
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise CheckpointError(
            f"{folder} is no tubelet checkpoint: it has no {MANIFEST} but {there}; tubelet convert "
            "makes one from other formats"
        )
    manifest = read_json(folder / MANIFEST)
    if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        raise CheckpointError(
            f"{folder} is of format {manifest.get('format')!r}, version "
            f"{manifest.get('version')!r}; this tubelet reads {FORMAT!r}, version {VERSION}"
        )
    files = manifest.get("files")
    for name in (CONFIG, SINGLE):
        wanted = files.get(name) if isinstance(files, dict) else None
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} lacks {name}")
        found = digest(folder / name)
        if found != wanted:
            raise CheckpointError(
                f"{folder / name} is damaged or was changed: {found}, but {MANIFEST} says {wanted}"
            )


def _toml(data: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """``data`` as TOML, of which configs know how to check every key and value."""
    tables = {key: value for key, value in data.items() if isinstance(value, dict)}
    for key, value in data.items():
        if key not in tables:
            yield f"{json.dumps(key)} = {json.dumps('none' if value is None else value)}"
    for key, value in tables.items():
        yield f"[{prefix}{json.dumps(key)}]"
        yield from _toml(value, f"{prefix}{json.dumps(key)}.")
