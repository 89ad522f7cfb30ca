"""``tubelet convert-config``: Meta's training YAML as a config of ``tubelet pretrain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Turn a training YAML of V-JEPA 1, V-JEPA 2 or I-JEPA into a config of `tubelet pretrain`.

    Prints every key that has no counterpart, with the reason. Keys that the published training does
    not know are an error.
    """

    src: Positional[Path]
    """The YAML file."""
    dst: Positional[Path]
    """The TOML file to write, for `tubelet pretrain --config`; DST.mixture.toml beside it holds the
    datasets and weights that the YAML names."""
    steps_per_epoch: int = 0
    """Steps of an epoch, where the file does not say (I-JEPA); 0 takes the file's ipe."""
    allow_unknown: bool = False
    """Go on without unknown keys."""
    overwrite: bool = False
    """Replace DST."""


def run(config: Config) -> int:
    """Convert, and print what is not in the result. Raises ConfigError if DST is taken."""
    from ..core.config import save_config
    from ..core.io import atomic_write_text
    from ..vjepa.meta_yaml import import_meta, read_yaml

    if config.dst.exists() and not config.overwrite:
        raise ConfigError(f"{config.dst} is there already: name another, or give --overwrite")
    imported = import_meta(
        read_yaml(config.src),
        steps_per_epoch=config.steps_per_epoch,
        allow_unknown=config.allow_unknown,
    )
    save_config(imported.config, config.dst)
    mixture = config.dst.with_suffix(".mixture.toml")
    if imported.mixture:
        atomic_write_text(mixture, imported.mixture)
    for note in imported.notes:
        print(note)
    for key in imported.unknown:
        print(f"unknown: {key}")
    train = imported.config.train
    print(f"wrote {config.dst}: {train.loop.steps} steps of {train.batch_size} samples")
    if imported.mixture:
        print(f"wrote {mixture}: put your paths into it, and train with --videos {mixture}")
    return 0
