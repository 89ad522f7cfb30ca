"""Meta's training YAMLs (V-JEPA 1 and 2 pretraining, V-JEPA 2 cool-down, I-JEPA) as our config.

Every key of the file ends up in one of three places: in the config, in ``notes`` (it has no
counterpart here, or means something unexpected), or in ``unknown``. Nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from .meta_data import mixture
from .meta_sections import ijepa_config, video_config
from .meta_table import Table
from .pretrain_recipe import PretrainRunConfig


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A config made of a YAML, and what became of the keys that are not in it."""

    config: PretrainRunConfig
    """Ready to train but for the paths that the YAML leaves open."""
    notes: tuple[str, ...]
    """One line per key without a counterpart, with the reason, and per quirk of the file."""
    unknown: tuple[str, ...]
    """Keys that no published training reads, with the nearest known one."""
    mixture: str = ""
    """The datasets and weights of the file as a mixture in TOML, with its paths; "" for none."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The table in the YAML file ``path``.

    Raises:
        ConfigError: PyYAML is not installed; the file cannot be read, is no YAML, or no table.
    """
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(
            "reading YAML needs PyYAML, which is not installed: pip install 'tubelet[yaml]'"
        ) from error
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path} holds a {type(table).__name__}: a training YAML is a table")
    return table


def import_meta(
    table: Mapping[str, Any], *, steps_per_epoch: int = 0, allow_unknown: bool = False
) -> Imported:
    """Meta's training table as a config of ours.

    Args:
        table: the YAML's content.
        steps_per_epoch: in place of the file's ``ipe``, which I-JEPA's do not have.
        allow_unknown: report unknown keys rather than refuse them.

    Raises:
        ConfigError: unknown keys, an ill-typed value, a method that is not trained here (V-JEPA
            2-AC), or a setting that our training does not have and cannot leave out.
    """
    keys = Table(table)
    app = keys.text("app", "ijepa" if keys.has("mask.enc_mask_scale") else "vjepa")
    if app == "vjepa":
        config = video_config(keys, steps_per_epoch)
    elif app == "ijepa":
        config = ijepa_config(keys, steps_per_epoch)
    else:
        raise ConfigError(
            f"app: {app} cannot be imported: only vjepa (V-JEPA 1 and 2) and I-JEPA's files are; "
            "train world models with `tubelet train`"
        )
    unknown = [f"{key}{did_you_mean(key, keys.known())}" for key in keys.unread()]
    if unknown and not allow_unknown:
        raise ConfigError(
            "unknown keys, which the published training would ignore: "
            + "; ".join(unknown)
            + ". Correct them, or go on without them with --allow-unknown"
        )
    return Imported(
        config=config,
        notes=tuple(keys.notes),
        unknown=tuple(unknown),
        mixture=mixture(keys) if app == "vjepa" else "",
    )
