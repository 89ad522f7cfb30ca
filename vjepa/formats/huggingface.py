"""Hugging Face folders of V-JEPA 2 and I-JEPA: read, and written so that transformers loads them.

``VJEPA2Model`` is V-JEPA 2's encoder and predictor, ``IJepaModel`` I-JEPA's encoder. Where
transformers computes another function than the published model, the report says so.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor, nn

from ...core.errors import CheckpointError
from ...core.io import atomic_path, atomic_write_json
from ..attentive import AttentiveProbe
from ..encoder import TubeletEncoder
from ..family import FAMILY, member
from ..predictor import MaskedPredictor
from .checkpoint import CONFIG, MANIFEST, Checkpoint, Provenance
from .files import SINGLE, read_json, read_safetensors
from .hf_config import (
    ijepa_config,
    ijepa_json,
    vjepa2_configs,
    vjepa2_json,
    vjepa2_probe,
    vjepa2_probe_json,
)
from .hf_names import (
    TABLE,
    ijepa_rule,
    vjepa2_encoder_rule,
    vjepa2_predictor_rule,
    vjepa2_probe_rule,
)
from .keys import Entry, Report, check_fit, shapes_of, table, write
from .parts import blank, load_part, position_table, table_name


def read_hf(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    probe_as: Literal["transformers", "published"] = "transformers",
) -> tuple[Checkpoint, Report]:
    """Read a folder that transformers wrote: config.json and safetensors, in one file or shards.

    Args:
        folder: of a ``VJEPA2Model``, ``VJEPA2ForVideoClassification`` or ``IJepaModel``.
        name: the family member that it must be; None: whatever its config says.
        probe_as: transformers runs classifiers with eps 1e-6 and the encoder's heads, Meta trained
            them with 1e-5 and 16 heads: which of the two functions the probe is to be.

    Raises:
        CheckpointError: files that are missing, damaged or of another model; a config that
            disagrees with the weights, naming keys and shapes.
        ConfigError: no such member.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    report = Report()
    if kind == "vjepa2":
        checkpoint = _read_vjepa2(folder, config, report, probe_as == "published")
    elif kind == "ijepa":
        checkpoint = _read_ijepa(folder, config, report)
    else:
        raise CheckpointError(
            f"{folder / CONFIG} has model_type = {kind!r}: only 'vjepa2' and 'ijepa' are read"
        )
    return _named(checkpoint, name, folder), report


def write_hf(
    checkpoint: Checkpoint,
    folder: str | os.PathLike[str],
    *,
    crop: int = 0,
    frames: int = 0,
    accept_heads: bool = False,
) -> Report:
    """Write a folder that ``VJEPA2Model`` or ``IJepaModel`` loads with no key missing or left over.

    Args:
        checkpoint: a V-JEPA 2 with its predictor, or an I-JEPA.
        folder: made if need be.
        crop, frames: side and length of clips that the config names; 0: as in the checkpoint.
            transformers' V-JEPA 2 is right for clips of that side only.
        accept_heads: write a probe whose heads are not as many as the encoder's, although
            transformers then computes another function.

    Raises:
        CheckpointError: something that these models do not have.
        OSError: it cannot be written.
    """
    encoder, predictor = checkpoint.encoder, checkpoint.predictor
    crop, frames = crop or checkpoint.provenance.crop, frames or checkpoint.provenance.frames
    report = Report()
    tensors: dict[str, Tensor]
    if encoder.config.position.kind == "sincos":
        config = ijepa_json(encoder.config)
        tensors = write(table(encoder, ijepa_rule), encoder.state_dict())
        positions = position_table(encoder)
        assert positions is not None
        tensors[TABLE] = positions.unsqueeze(0)
        report.regenerated[TABLE] = table_name(encoder)
        for part in checkpoint.parts().keys() - {"encoder"}:
            report.dropped[part] = "transformers' I-JEPA has none"
    else:
        if checkpoint.actions is not None or predictor is None:
            raise CheckpointError(
                "transformers' VJEPA2Model is an encoder and a masked predictor: this checkpoint "
                f"has {', '.join(checkpoint.parts())}"
            )
        config = vjepa2_json(encoder.config, predictor.config, crop, frames)
        tensors = write(table(encoder, vjepa2_encoder_rule), encoder.state_dict())
        tensors |= write(table(predictor, vjepa2_predictor_rule), predictor.state_dict())
        if checkpoint.probe is not None:
            config |= _probe_json(checkpoint, accept_heads, report)
            tensors = {f"vjepa2.{key}": value for key, value in tensors.items()}
            tensors |= write(
                table(checkpoint.probe, vjepa2_probe_rule), checkpoint.probe.state_dict()
            )
        report.notes.append(f"transformers' positions are right for clips of {crop} x {crop} only")
    report.mapped += [key for key in tensors if key not in report.regenerated]
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # of our own format, if that was here
    with atomic_path(folder / SINGLE) as path:
        save_file(tensors, path, metadata={"format": "pt"})
    atomic_write_json(folder / CONFIG, config)
    return report


def _probe_json(checkpoint: Checkpoint, accept_heads: bool, report: Report) -> dict[str, Any]:
    assert checkpoint.probe is not None
    probe, heads = checkpoint.probe.config, checkpoint.encoder.config.heads
    if probe.heads != heads:
        said = f"the probe has {probe.heads} heads; transformers runs it with the encoder's {heads}"
        if not accept_heads:
            raise CheckpointError(f"{said}, another function: accept_heads writes it nevertheless")
        report.notes.append(f"{said}: another function")
    if probe.eps != 1e-6:
        report.notes.append(
            f"the probe normalises with eps {probe.eps}, transformers with 1e-6: logits differ by "
            "about 1e-4"
        )
    return vjepa2_probe_json(probe, checkpoint.provenance.labels)


def _read_vjepa2(
    folder: Path, config: Mapping[str, Any], report: Report, published: bool
) -> Checkpoint:
    encoder_config, predictor_config = vjepa2_configs(config, str(folder / CONFIG))
    tensors = read_safetensors(folder)
    encoder = blank(lambda: TubeletEncoder(encoder_config))
    predictor = blank(lambda: MaskedPredictor(predictor_config, latent_dim=encoder_config.width))
    modules: dict[str, tuple[nn.Module, list[Entry]]] = {
        "encoder": (encoder, table(encoder, vjepa2_encoder_rule)),
        "predictor": (predictor, table(predictor, vjepa2_predictor_rule)),
    }
    origin = _origin(folder, config, "crop_size", 256)
    if "classifier.weight" in tensors:
        tensors = {key.removeprefix("vjepa2."): value for key, value in tensors.items()}
        probe_config = vjepa2_probe(
            config, encoder_config, len(tensors["classifier.weight"]), published
        )
        probe = blank(lambda: AttentiveProbe(probe_config))
        modules["probe"] = (probe, table(probe, vjepa2_probe_rule))
        origin = dataclasses.replace(origin, labels=_labels(config))
        report.notes.append(
            f"the probe is the function that {'Meta trained' if published else 'transformers runs'}"
            f": eps {probe_config.eps}, {probe_config.heads} heads"
        )
    every = [entry for _, entries in modules.values() for entry in entries]
    check_fit(every, shapes_of(tensors), source=str(folder), of=f"its {CONFIG}")
    for module, entries in modules.values():
        own = {key: tensors[key] for entry in entries for key in entry.theirs}
        load_part(module, entries, own, source=str(folder), report=report)
    parts: dict[str, Any] = {name: module for name, (module, _) in modules.items()}
    return Checkpoint(**parts, provenance=origin)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes in order, where the config has them."""
    names = config.get("id2label")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        return ()
    return tuple(names[key] for key in sorted(names, key=int))


def _read_ijepa(folder: Path, config: Mapping[str, Any], report: Report) -> Checkpoint:
    found = ijepa_config(config, str(folder / CONFIG))
    encoder = blank(lambda: TubeletEncoder(found))
    load_part(
        encoder,
        table(encoder, ijepa_rule),
        read_safetensors(folder),
        source=str(folder),
        report=report,
        table_key=TABLE,
        of=f"its {CONFIG}",
    )
    if config.get("layer_norm_eps") != 1e-6:
        report.notes.append(
            f"{CONFIG} has layer_norm_eps = {config.get('layer_norm_eps', 1e-12)}, with which "
            "transformers runs it; I-JEPA was trained with 1e-6, which is used here"
        )
    return Checkpoint(encoder, provenance=_origin(folder, config, "image_size", 224))


def _origin(folder: Path, config: Mapping[str, Any], crop: str, default: int) -> Provenance:
    frames = config.get("frames_per_clip", 64) if crop == "crop_size" else 1
    return Provenance(
        source=folder.name,
        kind="hf",
        prefix="module.backbone." if crop == "crop_size" else "module.",
        crop=config.get(crop, default),
        frames=frames,
    )


def _named(checkpoint: Checkpoint, name: str | None, folder: Path) -> Checkpoint:
    """``checkpoint`` with the published member of its architecture and crop, which must be
    ``name``."""
    origin, wanted = checkpoint.provenance, member(name).name if name else None
    found = [
        m.name
        for m in FAMILY.values()
        if m.encoder == checkpoint.encoder.config
        and m.crop == origin.crop
        and (checkpoint.predictor is None or m.predictor == checkpoint.predictor.config)
    ]
    if wanted is not None and wanted not in found:
        said = " or ".join(found) or "no published member"
        raise CheckpointError(f"{folder} is not {wanted}: its {CONFIG} is that of {said}")
    name = wanted or (found[0] if len(found) == 1 else "")
    return dataclasses.replace(checkpoint, provenance=dataclasses.replace(origin, name=name))
