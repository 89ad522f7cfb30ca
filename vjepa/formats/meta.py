"""Meta's checkpoints: I-JEPA, V-JEPA 1, 2, 2.1, 2-AC. Read and written under their own key names.

A training file is a dict with sub-dicts ``encoder``, ``target_encoder`` (or ``ema_encoder``) and
``predictor``, whose keys start with ``module.`` and perhaps ``backbone.``; optimiser state and the
like is left behind. Sin-cos tables, which are weights there, are checked against ours and dropped;
with rotary positions they are left-overs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError, ConfigError
from ...core.io import atomic_path
from ..action_predictor import ActionPredictor
from ..encoder import TubeletEncoder
from ..family import FAMILY, Member, member
from ..predictor import MaskedPredictor, PredictorConfig
from .checkpoint import Checkpoint, Provenance, digest
from .files import read_torch
from .keys import Report, misfits, plain, table, write
from .meta_names import rule_of, table_key
from .parts import M, blank, load_part, position_table, table_name

ENCODERS = ("target_encoder", "encoder", "ema_encoder")
PREFIXES = ("module.", "backbone.")


def read_meta(
    path: str | os.PathLike[str], *, name: str | Member | None = None, which: str | None = None
) -> tuple[Checkpoint, Report]:
    """Read one of Meta's checkpoint files.

    Args:
        path: ``.pt``, ``.pth`` or ``.pth.tar``: a training file, or a bare state dict.
        name: the family member that it must be (or one of your own); None finds the one published
            member with these shapes.
        which: sub-dict of the encoder to take; None takes the one that evaluations use.

    Raises:
        CheckpointError: a file that cannot be read safely, no such sub-dict (naming those that
            are there), weights that fit no or several members, any missing, unexpected or
            mis-shaped key, a position table that is not this architecture's.
        ConfigError: no such member or sub-dict name.
    """
    path = Path(path)
    content = read_torch(path)
    known = member(name) if isinstance(name, str) else name
    if which is not None and which not in ENCODERS:
        raise ConfigError(f"which = {which!r}: one of {', '.join(ENCODERS)}")
    which = which or (known.which if known else ENCODERS[0])
    report = Report()
    encoder, prefix = _encoder_dict(content, which, path, report)
    predictor = content.get("predictor")
    if predictor is not None:
        predictor, _ = stripped(predictor, f"{path}: predictor")
    found = known or recognise(encoder, predictor, str(path))
    parts: dict[str, Any] = {
        "encoder": _read_part(
            blank(lambda: TubeletEncoder(found.encoder)), encoder, f"{path}: {which}", report
        )
    }
    if predictor is not None:
        kind, build = predictor_of(found)
        parts[kind] = _read_part(blank(build), predictor, f"{path}: predictor", report)
    elif found.actions is not None:
        raise CheckpointError(f"{path} has no 'predictor'; it has {_listed(content)}")
    elif found.predictor is not None:
        report.notes.append(f"{path.name} has no predictor: only the encoder was read")
    provenance = Provenance(
        name=found.name,
        source=path.name,
        sha256=digest(path)["sha256"],
        kind="meta",
        which=which,
        prefix=prefix,
        crop=found.crop,
        frames=found.frames,
    )
    return Checkpoint(**parts, provenance=provenance), report


def write_meta(
    checkpoint: Checkpoint, path: str | os.PathLike[str], *, which: str | None = None
) -> Report:
    """Write a file that Meta's code reads: the encoder as sub-dict ``which`` (None: the one that
    it was read from), the predictor beside it.

    Raises:
        CheckpointError: something that Meta's models do not have.
        OSError: the file cannot be written.
    """
    origin = checkpoint.provenance
    report = Report()
    predictors = [p for p in (checkpoint.predictor, checkpoint.actions) if p is not None]
    if len(predictors) > 1:
        raise CheckpointError(
            "this checkpoint has a masked and an action-conditioned predictor, and Meta's format "
            "has place for one: leave one out"
        )
    modules: dict[str, nn.Module] = {which or origin.which: checkpoint.encoder}
    if predictors:
        modules["predictor"] = predictors[0]
    content = {}
    for name, module in modules.items():
        tensors = write(table(module, rule_of(module)), module.state_dict())
        report.mapped += [f"{name}: {key}" for key in tensors]
        positions = position_table(module)
        if positions is not None:
            tensors[table_key(module)] = positions.unsqueeze(0)
            report.regenerated[f"{name}: {table_key(module)}"] = table_name(module)
        content[name] = {origin.prefix + key: tensor for key, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
    return report


def predictor_of(found: Member) -> tuple[str, Callable[[], nn.Module]]:
    """Which part of a checkpoint a member's predictor is, and what makes it."""
    width = found.encoder.width
    if found.actions is not None:
        actions, side = found.actions, found.crop // found.encoder.patch
        return "actions", lambda: ActionPredictor(
            actions, latent_dim=width, action_dim=found.action_dim, grid=(side, side)
        )
    config = found.predictor or PredictorConfig()
    return "predictor", lambda: MaskedPredictor(config, latent_dim=width)


def _encoder_dict(
    content: dict[str, Any], which: str, path: Path, report: Report
) -> tuple[dict[str, Tensor], str]:
    """The sub-dict ``which`` without its prefix, and that."""
    if which in content:
        for key in content.keys() - {which, "predictor"}:
            other = key in ENCODERS
            report.dropped[key] = f"{which} was asked for" if other else "no weights of the model"
        return stripped(content[which], f"{path}: {which}")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return stripped(content, str(path))
    there = [key for key in ENCODERS if key in content]
    hint = f": choose which = {' or '.join(there)}" if there else ""
    raise CheckpointError(f"{path} has no {which!r}; it has {_listed(content)}{hint}")


def stripped(tensors: Any, source: str) -> tuple[dict[str, Tensor], str]:
    """``tensors`` by their keys without the wrappers' prefixes, and the prefix.

    Raises CheckpointError for something else than a dict, or a key that is there twice.
    """
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"{source} is a {type(tensors).__name__}, not a dict of weights")
    out: dict[str, Tensor] = {}
    prefix = ""
    for key, value in tensors.items():
        short = str(key)
        for start in PREFIXES:
            short = short.removeprefix(start)
        if short in out:
            raise CheckpointError(f"{source} has {short} twice, with different prefixes")
        prefix = prefix or str(key).removesuffix(short)
        out[short] = value
    return out, prefix


def _read_part(module: M, tensors: Mapping[str, Tensor], source: str, report: Report) -> M:
    entries, key = table(module, rule_of(module)), table_key(module)
    return load_part(module, entries, tensors, source=source, report=report, table_key=key)


def recognise(
    encoder: Mapping[str, Any], predictor: Mapping[str, Any] | None, source: str
) -> Member:
    """The one published member whose weights have these names and shapes.

    Args:
        encoder, predictor: tensors under Meta's names, without prefix; None: not known.
        source: names them in errors.

    Raises:
        CheckpointError: none, or several, which are listed.
    """
    fitting = [m for m in FAMILY.values() if _fits(m, encoder, predictor)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(m.name for m in fitting)
        raise CheckpointError(f"{source} fits several family members; give one as name: {names}")
    raise CheckpointError(
        f"{source} fits no published family member: {describe(encoder)}. Give the name of the one "
        f"that it should be to see the keys that differ ({', '.join(FAMILY)}), or, in Python, a "
        "Member of your own; the number of heads cannot be told from weights"
    )


def _fits(found: Member, encoder: Mapping[str, Any], predictor: Mapping[str, Any] | None) -> bool:
    weight = encoder.get("patch_embed.proj.weight")
    blocks = {key.split(".")[1] for key in encoder if key.startswith("blocks.")}
    c = found.encoder
    patch = (c.patch, c.patch) if c.tubelet == 1 else (c.tubelet, c.patch, c.patch)
    if getattr(weight, "shape", None) != (c.width, 3, *patch) or len(blocks) != c.depth:
        return False
    sides: list[tuple[Callable[[], nn.Module], Mapping[str, Any]]] = [
        (lambda: TubeletEncoder(c), encoder)
    ]
    if predictor is not None:
        sides.append((predictor_of(found)[1], predictor))
    return all(_matches(blank(build), tensors) for build, tensors in sides)


def _matches(module: nn.Module, tensors: Mapping[str, Any]) -> bool:
    shapes = {key: tuple(getattr(value, "shape", ())) for key, value in tensors.items()}
    entries, positions, key = (
        table(module, rule_of(module)),
        position_table(module),
        table_key(module),
    )
    if positions is None:
        shapes.pop(key, None)
    else:
        entries.append(plain("", key, (1, *positions.shape)))
    return not misfits(entries, shapes)


def describe(encoder: Mapping[str, Any]) -> str:
    """What can be seen of an encoder's architecture in its weights."""
    weight = encoder.get("patch_embed.proj.weight")
    blocks = {key.split(".")[1] for key in encoder if key.startswith("blocks.")}
    if not isinstance(weight, Tensor) or not blocks:
        keys = ", ".join(list(encoder)[:4]) or "none"
        return f"no patch_embed.proj.weight or no blocks among its {len(encoder)} keys ({keys}, …)"
    patch = " x ".join(map(str, weight.shape[2:]))
    return f"width {weight.shape[0]}, {len(blocks)} blocks, patches {patch}"


def _listed(content: Mapping[str, Any]) -> str:
    kinds = (f"{key} ({type(value).__name__})" for key, value in content.items())
    return ", ".join(list(kinds)[:12]) or "nothing"
