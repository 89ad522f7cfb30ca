"""Meta's attentive probes: files with one or many trained classifiers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...core.errors import CheckpointError, ConfigError
from ...core.io import atomic_path
from ..attentive import AnticipationProbe, AttentiveConfig, AttentiveProbe
from .checkpoint import make_probe
from .files import read_torch
from .keys import Report, table, write
from .meta import stripped
from .meta_names import plain_rule
from .parts import blank, load_part

HEADS = 16
"""Attention heads of every published probe; weights do not say."""


def read_meta_probe(
    path: str | os.PathLike[str], *, head: int | None = None, heads: int = HEADS
) -> tuple[AttentiveProbe | AnticipationProbe, Report]:
    """Read one classifier of an evaluation's file.

    Args:
        path: the file: a dict with ``classifiers``, a list (V-JEPA 2: one for each learning rate
            and weight decay that was tried), or ``classifier`` (V-JEPA 1).
        head: which of several.
        heads: attention heads.

    Raises:
        CheckpointError: a file that cannot be read safely, no classifiers (naming what is there),
            several and none chosen, any missing, unexpected or mis-shaped key.
    """
    path = Path(path)
    content = read_torch(path)
    found = content.get("classifiers", content.get("classifier"))
    found = [found] if isinstance(found, Mapping) else found
    if not isinstance(found, list) or not found:
        raise CheckpointError(
            f"{path} has no 'classifiers'; it has {', '.join(map(str, content)) or 'nothing'}"
        )
    if head is None and len(found) > 1:
        raise CheckpointError(f"{path} has {len(found)} classifiers: choose head = 0 and so on")
    if not 0 <= (head or 0) < len(found):
        raise CheckpointError(f"{path} has {len(found)} classifiers, and no head = {head}")
    source = f"{path}: classifier {head or 0}"
    tensors, _ = stripped(found[head or 0], source)
    report = Report()
    for key in content.keys() - {"classifiers", "classifier"}:
        report.dropped[str(key)] = "no weights of the probe"
    if len(found) > 1:
        report.dropped["classifiers"] = f"{len(found) - 1} others were not chosen"
    config = _config(tensors, heads, source)
    module = blank(lambda: make_probe(config))
    load_part(module, table(module, plain_rule), tensors, source=source, report=report)
    report.notes.append(f"{heads} attention heads, which the weights do not say")
    return module, report


def write_meta_probe(
    probe: AttentiveProbe | AnticipationProbe, path: str | os.PathLike[str]
) -> Report:
    """Write a file of one classifier under Meta's names. Raises OSError if it cannot be."""
    tensors = write(table(probe, plain_rule), probe.state_dict())
    with atomic_path(path) as temporary:
        torch.save({"classifiers": [{f"module.{k}": v for k, v in tensors.items()}]}, temporary)
    return Report(mapped=list(tensors))


def _config(tensors: Mapping[str, Any], heads: int, source: str) -> AttentiveConfig:
    """What the shapes say."""
    try:
        width = tensors["pooler.query_tokens"].shape[-1]
        hidden = tensors["pooler.cross_attention_block.mlp.fc1.weight"].shape[0]
        last = "linear" if "linear.weight" in tensors else ""
        names = [last] if last else [f"{k}_classifier" for k in ("verb", "noun", "action")]
        classes = tuple(int(tensors[f"{name}.weight"].shape[0]) for name in names)
    except (KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{source} is no attentive probe: {error}") from error
    blocks = {key.split(".")[2] for key in tensors if key.startswith("pooler.blocks.")}
    first = "pooler.cross_attention_block.xattn.proj.weight" in tensors
    try:
        return AttentiveConfig(
            width=width,
            classes=classes,
            depth=len(blocks) + 1,
            heads=heads,
            mlp_ratio=hidden / width,
            version="v1" if first else "v2",
        )
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
